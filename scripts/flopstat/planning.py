"""What a study will take before it runs: chains, tokens, FLOP, hours, memory, money, energy, per arm and in total.

    tokens  = chains · mean length, by a pilot (its upper limit with greedy chains at T), or between one token and T each
    FLOP    = prefill once per problem, each chain at its context, forced answers with their own prefills
    seconds = start-up of each job + the engine's schedule (batching.py) at the arm's rate (rates.py)
    hours   = seconds of all jobs, those that run side by side at the same time
    memory  = libraries + weights + keys and values of a full batch at T + logits + one prefill

Nothing is loaded and no weights are read: no torch here.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flopstat.batching import simulate
from flopstat.costs import DTYPE_BITS, Flops, kv_bytes_per_token, weight_bytes
from flopstat.engine import LOGIT_BYTES, MEMORY_SHARE, MOST_ROWS, PREFILL_TOKENS
from flopstat.latency import Device
from flopstat.pilot import Pilot, reweighted, shares
from flopstat.rates import PILOT, ROOFLINE, UNCERTAIN, Rate
from flopstat.shape import Shape

Indices = NDArray[np.int64]

# ASSUME libraries, or a GPU's context, take 640 MiB
LIBRARY_BYTES = 5 * 2**27
# ASSUME activations and what an allocator keeps in reserve take up to 30% more memory; the ladder's jobs took 2 to 19%
ALLOCATOR_SHARE = 0.3
PLAIN_BITS = {"fp32": 32.0, "bf16": 16.0, "fp16": 16.0}
# Bits per quantised weight with their scales: float32 scales of 64 weights, twice quantised ones, one scale per row.
QUANTISED_BITS = {"nf4": 4.5, "fp4": 4.5, "nf4-dq": 4.127, "fp4-dq": 4.127}


@dataclass(frozen=True)
class Expectation:
    """A quantity with its interval, and the worst case: every chain at T. NaN where nothing says how much to expect."""

    value: float
    low: float
    high: float
    worst: float

    @classmethod
    def known(cls, value: float) -> Expectation:
        return cls(value, value, value, value)

    def times(self, factor: float) -> Expectation:
        return Expectation(self.value * factor, self.low * factor, self.high * factor, self.worst * factor)


@dataclass(frozen=True)
class Work:
    """What is drawn of one job: prompt, problem and length of each chain, and of each forced answer. `left` are not the pilot's."""

    left: NDArray[np.bool_]
    prompt: Indices
    problem: Indices
    length: Indices
    answer_prompt: Indices
    answer_length: Indices


@dataclass(frozen=True)
class Study:
    """What a plan needs of a config: sizes, and the problems if they are chosen already."""

    config: dict[str, Any]
    names: list[str]  # problem ids, in order; empty before problems.parquet is there
    difficulty: Indices  # (problems,) zeros before it is

    @property
    def budget(self) -> int:
        return int(self.config["budgets"]["T"][-1])

    @property
    def per_problem(self) -> int:
        """Chains of a problem: K and a greedy one."""
        return int(self.config["sampling"]["samples"]) + 1

    @property
    def chains(self) -> int:
        return len(self.difficulty) * self.per_problem

    @property
    def jobs(self) -> list[int]:
        """Problems of each sampling job."""
        size, n = self.config["sampling"]["shard_problems"], len(self.difficulty)
        return [min(size, n - begin) for begin in range(0, n, size)]

    @property
    def confidence(self) -> float:
        return float(self.config["statistics"]["confidence"])


@dataclass(frozen=True)
class Known:
    """What is known of an arm: its shape, and what was measured of it."""

    shape: Shape
    bits: float  # per weight, as stored
    pilot: Pilot | None
    rate: Rate | None


@dataclass(frozen=True)
class ArmPlan:
    """The forecast of one arm."""

    arm: str
    basis: str  # pilot, assumed or range
    speed: str  # pilot, calibration, roofline or unknown
    rows: int  # chains decoded together
    quantities: dict[str, Expectation]
    jobs: dict[str, list[float]]  # seconds of each sampling job: value, low, high, worst; empty if nothing is known of the speed
    fits: bool | None
    change: str  # what to change if it does not fit
    stored: int | None = None  # chains that the pool holds already; None if there is no pool


def stored_bits(shape: Shape, precision: str, compute_dtype: str) -> float:
    """Bits per weight before a model is loaded: layers at the precision, embeddings and head as they are computed with.

    # ASSUME bitsandbytes, quanto and torchao leave embeddings and head in the compute dtype and quantise all matrices of the layers
    """
    other = float(DTYPE_BITS[compute_dtype])
    if precision in PLAIN_BITS:
        return PLAIN_BITS[precision]
    if precision.startswith(("rtn", "gguf")):  # held as floats, whatever their values are rounded to
        return other
    outside = shape.vocab_size * shape.hidden_size * (1 if shape.tied else 2) / shape.n_params
    return QUANTISED_BITS.get(precision, 8.0 + 32 / shape.hidden_size) * (1 - outside) + other * outside


def mean_length(study: Study, pilot: Pilot | None) -> tuple[Expectation, str]:
    """Tokens of a chain, and what that stands on: the pilot, the config's own guess, or the bare range of 1 to T."""
    budget = study.budget
    if pilot is not None:
        length = np.minimum(pilot.length, budget).astype(np.float64)
        mean = reweighted(length, pilot.difficulty, mix_of(study, pilot), study.confidence)
        return Expectation(mean.value, mean.low, mean.high, budget), "pilot"
    guess = study.config["plan"]["tokens_per_chain"]
    if guess is not None:
        return Expectation(min(guess, budget), 1, budget, budget), "assumed"
    return Expectation(float("nan"), 1, budget, budget), "range"


def mix_of(study: Study, pilot: Pilot) -> dict[int, float]:
    """Shares of the numbers of steps: of the study's problems, else as in the pilot."""
    return shares(study.difficulty if study.names else pilot.difficulty)


def work_of(study: Study, pilot: Pilot | None, job: int, length: float | None, rng: np.random.Generator) -> Work:
    """Chains of one job: as long as the pilot's chains of as many steps, drawn at random, or all of one length."""
    begin, size = sum(study.jobs[:job]), study.jobs[job]
    problem = np.repeat(np.arange(size), study.per_problem)
    left = np.ones(len(problem), dtype=bool)
    if pilot is None:
        prompt = np.full(len(problem), study.config["calibration"]["prompt_tokens"])
        lengths = prompt
    else:
        seen = np.unique(pilot.difficulty)
        wanted = study.difficulty[begin : begin + size] if study.names else rng.choice(pilot.difficulty, size)
        nearest = seen[np.abs(seen - wanted[:, None]).argmin(axis=1)]
        alike = {step: np.flatnonzero(pilot.difficulty == step) for step in seen.tolist()}
        prompt = pilot.prompt[[rng.choice(alike[step]) for step in nearest.tolist()]][problem]
        lengths = pilot.length[np.concatenate([rng.choice(alike[step], study.per_problem) for step in nearest.tolist()])]
        lengths = np.minimum(lengths, study.budget)
        left[:: study.per_problem] = ~np.isin(study.names[begin : begin + size] or [""] * size, pilot.names)
    if length is not None:
        lengths = np.full(len(problem), max(1, round(length)))
    cut, behind = _cuts(study, lengths)
    answer_prompt = np.repeat(prompt, len(cut) // len(prompt))[cut] + behind
    return Work(left, prompt, problem, lengths, answer_prompt, np.full(len(answer_prompt), _answer_length(study, pilot)))


def _cuts(study: Study, lengths: Indices) -> tuple[NDArray[np.bool_], Indices]:
    """(chains · T,) which of them are cut and forced to answer, and the tokens of the chain that such an answer has before it.

    # ASSUME a chain as long as the largest T is cut there, though it may have ended with its last token; the cue's tokens are left out
    """
    forced = study.config["budgets"]["forcing"] == "force_answer"
    budgets = np.array(study.config["budgets"]["T"] if forced else [], dtype=np.int64)
    cut = (lengths[:, None] > budgets) | ((lengths[:, None] == budgets) & (budgets == study.budget))
    return cut.reshape(-1), np.tile(budgets, len(lengths))[cut.reshape(-1)]


def _answer_length(study: Study, pilot: Pilot | None) -> int:
    """Tokens of a forced answer: their mean in the pilot, else as many as it may have."""
    if pilot is not None and pilot.answers.sum():
        return max(1, round(pilot.answer_tokens.sum() / pilot.answers.sum()))
    return int(study.config["budgets"]["answer_tokens"])


def rows_of(study: Study, known: Known, device: Device | None) -> int:
    """Rows that the engine will take: the config's, those of the pilot's job, or what MEMORY_SHARE of the memory left by weights holds."""
    rows = study.config["sampling"]["batch_rows"]
    if rows is not None:
        return int(rows)
    if known.pilot is not None and known.rate is not None and known.rate.source == PILOT:
        return int(max(p["capacity"] for p in known.pilot.rate["points"]))
    if device is None or device.memory_bytes is None:
        return MOST_ROWS
    prompt = study.config["calibration"]["prompt_tokens"] / study.per_problem
    per_row = _kv(study, known.shape) * (study.budget + prompt) + LOGIT_BYTES * known.shape.vocab_size
    free = device.memory_bytes - LIBRARY_BYTES - weight_bytes(known.shape, known.bits)
    return int(np.clip(MEMORY_SHARE * max(0.0, free) // per_row, 1, MOST_ROWS))


def _kv(study: Study, shape: Shape) -> float:
    return float(kv_bytes_per_token(shape, DTYPE_BITS[study.config["sampling"]["compute_dtype"]]))


def memory_of(study: Study, shape: Shape, weights: float, rows: int, prompt: float, longest: float) -> float:
    """Peak of a sampling job in bytes: libraries, weights, cache of all rows at the longest chain, prompts once each, logits, one prefill.

    Worked by hand: weights 1000, 10 rows, 4 bytes of keys and values per token, 9 tokens, no vocabulary to speak of:
    1000 + 10·9·4 and the libraries.
    """
    kv = _kv(study, shape)
    prompts = 1 + rows / study.per_problem
    cache = kv * (rows * longest + prompts * prompt)
    prefill = min(PREFILL_TOKENS, prompts * prompt) * kv
    return LIBRARY_BYTES + weights + cache + prefill + LOGIT_BYTES * shape.vocab_size * rows


def plan_arm(study: Study, arm: str, known: Known, device: Device | None, price: float | None) -> ArmPlan:
    """The forecast of one arm.

    Parameters
    ----------
    device : Device or None
        What it is planned for; None if nothing is known of it.
    price : float or None
        US$ per hour of the device.
    """
    shape, pilot, budget = known.shape, known.pilot, study.budget
    mean, basis = mean_length(study, pilot)
    weights = weight_bytes(shape, known.bits)
    rows = rows_of(study, known, device)
    worst = _case(study, known, rows, float(budget))
    if pilot is not None:
        middle = _case(study, known, rows, None)
        middle = middle.stretched(mean.value * study.chains / middle.chain_tokens)
        # The pilot has no greedy chains, and those of weak models loop: in the upper limit they run to T.
        high = ((study.per_problem - 1) * mean.high + budget) / study.per_problem
        cases = {"value": middle, "low": middle.stretched(mean.low / mean.value), "high": middle.stretched(high / mean.value)}
    else:
        cases = {name: _case(study, known, rows, getattr(mean, name)) for name in ("value", "low", "high")}
    cases["worst"] = worst
    longest = int(np.minimum(pilot.length, budget).max()) if pilot is not None else budget
    prompt = float(pilot.prompt.mean()) if pilot is not None else study.config["calibration"]["prompt_tokens"]
    memory = [memory_of(study, shape, weights, rows, prompt, n) for n in (longest, budget)]
    quantities = {
        "chains": Expectation.known(study.chains),
        "tokens": _expect({k: c.chain_tokens + c.answer_tokens for k, c in cases.items()}),
        "prompt_tokens": _expect({k: c.prompt_tokens for k, c in cases.items()}),
        "flops": _expect({k: c.flops for k, c in cases.items()}),
        "memory_bytes": Expectation(memory[0], memory[0], *[memory[1] * (1 + ALLOCATOR_SHARE)] * 2),
    }
    if known.rate is not None:
        seconds = _expect({k: sum(c.seconds) for k, c in cases.items()})
        slack = UNCERTAIN if known.rate.source != ROOFLINE else 0.0
        seconds = Expectation(seconds.value, seconds.low * (1 - slack), seconds.high * (1 + slack), seconds.worst * (1 + slack))
        quantities["seconds"] = seconds
        if price is not None:
            quantities["usd"] = seconds.times(price / 3600)
        if device is not None and device.watts is not None:
            quantities["joules"] = seconds.times(device.watts)
    fits, change = fit_memory(study, arm, known, quantities["memory_bytes"].worst, rows, prompt, device)
    speed = known.rate.source if known.rate is not None else "unknown"
    return ArmPlan(arm, basis, speed, rows, quantities, {k: c.seconds for k, c in cases.items()}, fits, change)


@dataclass(frozen=True)
class _Case:
    """Totals of all jobs if chains are as long as a case has them; seconds of each job, empty if nothing is known of the speed."""

    chain_tokens: float
    answer_tokens: float
    prompt_tokens: float
    flops: float
    seconds: list[float]
    startup: float

    def stretched(self, factor: float) -> _Case:
        """The same run with all chains longer or shorter by a factor."""
        seconds = [self.startup + (s - self.startup) * factor for s in self.seconds]
        return _Case(
            self.chain_tokens * factor, self.answer_tokens * factor, self.prompt_tokens, self.flops * factor, seconds, self.startup
        )


def _expect(values: dict[str, float]) -> Expectation:
    return Expectation(values["value"], values["low"], values["high"], values["worst"])


def _case(study: Study, known: Known, rows: int, length: float | None) -> _Case:
    """One case: chains as the pilot has them (None), all of one length, or nothing known (NaN)."""
    nothing = float("nan")
    startup = known.rate.startup if known.rate is not None else 0.0
    if length is not None and np.isnan(length):
        return _Case(nothing, nothing, nothing, nothing, [nothing] * len(study.jobs), startup)
    rng = np.random.default_rng(study.config["seed"])
    flops = Flops.of(known.shape)
    out = _Case(0.0, 0.0, 0.0, 0.0, [], startup)
    for job in range(len(study.jobs)):
        work = work_of(study, known.pilot, job, length, rng)
        asked = np.concatenate([work.prompt[:: study.per_problem], work.answer_prompt])
        spent = flops.prefill(asked).sum() + flops.decode(work.prompt, work.length).sum()
        spent += flops.decode(work.answer_prompt, work.answer_length).sum()
        out = _Case(
            out.chain_tokens + float(work.length.sum()),
            out.answer_tokens + float(work.answer_length.sum()),
            out.prompt_tokens + float(asked.sum()),
            out.flops + float(spent),
            out.seconds + ([startup + _seconds(known.rate, work, rows)] if known.rate is not None else []),
            startup,
        )
    return out


def _seconds(rate: Rate, work: Work, rows: int) -> float:
    """Seconds of the engine for what the pilot has left of a job, and then for its forced answers, each behind a prompt of its own."""
    left = work.left
    seconds = rate.seconds(simulate(work.prompt[left], work.problem[left], work.length[left], rows))
    if len(work.answer_prompt):
        seconds += rate.seconds(simulate(work.answer_prompt, np.arange(len(work.answer_prompt)), work.answer_length, rows))
    return seconds


def fit_memory(
    study: Study, arm: str, known: Known, worst: float, rows: int, prompt: float, device: Device | None
) -> tuple[bool | None, str]:
    """Whether an arm's worst case fits the device, and what to change if not: fewer rows, fewer bits, or weights elsewhere."""
    if device is None or device.memory_bytes is None:
        return None, ""
    if worst <= device.memory_bytes:
        return True, ""
    shape, most = known.shape, device.memory_bytes

    def needed(bits: float, rows: int) -> float:
        return memory_of(study, shape, weight_bytes(shape, bits), rows, prompt, study.budget) * (1 + ALLOCATOR_SHARE)

    fewer = next((r for r in (256, 128, 64, 32, 16, 8, 4, 2, 1) if r < rows and needed(known.bits, r) <= most), None)
    if fewer is not None:
        return False, f"set sampling.batch_rows to {fewer}"
    for precision in ("int8", "nf4"):
        less = stored_bits(shape, precision, study.config["sampling"]["compute_dtype"])
        if less < known.bits and needed(less, 1) <= most:
            return False, f"take {arm.split('@')[0]} at {precision}"
    return False, "set sampling.offload to cpu or disk, or take a device with more memory"


def makespan(seconds: list[float], side_by_side: int) -> float:
    """Seconds until all jobs are done, the longest first, `side_by_side` at a time. Worked by hand: 5, 4, 3 on two: 7."""
    ends = [0.0] * max(1, side_by_side)
    for one in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)
