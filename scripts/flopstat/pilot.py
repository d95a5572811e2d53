"""The pilot: an arm's first chains, drawn before all others, and how fast its sampling job runs.

From a few chains at the largest T a plan learns how long chains are. They are sample 0 of problems chosen evenly over the numbers of steps,
so that hard problems are seen however few there are, and their lengths are weighted by the study's own mix of steps. They are drawn by the
ordinary code into the ordinary pool: nothing is drawn twice.

Beside them the pilot measures the engine in the sampling job's own setting (threads, batch, the draw of tokens and all bookkeeping), which
a calibration of the whole machine does not: a short run at each of two widths of the batch, thrown away, once per machine.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import stdtrit

from flopstat import devices, sampling
from flopstat.batching import simulate
from flopstat.engine import MOST_ROWS, Account, Request
from flopstat.errors import InputError
from flopstat.forcing import answer_key, cuts
from flopstat.problems import messages_of
from flopstat.stored import read_json, write_text

PROBE_S = 2.0  # seconds that the measurement at one width may take, as far as the first steps tell
PROBE_TOKENS = 4  # tokens of a chain in the first, short run, and the least in the second
NARROW = 8  # the narrower of the two widths is 1/NARROW of the batch

Indices = NDArray[np.int64]


def choose(problems: pd.DataFrame, n: int) -> pd.DataFrame:
    """n problems in equal numbers over the numbers of steps, as far as there are any; all if there are no more.

    Within a number of steps the order is that of the hashes of the problems' ids: it depends on nothing else, so a study that grows keeps
    most of its pilot.
    """
    order = [hashlib.sha256(name.encode()).hexdigest() for name in problems["problem_id"].astype(str)]
    ranked = problems.assign(_order=order).sort_values(["difficulty", "_order"])
    ranked["_rank"] = ranked.groupby("difficulty").cumcount()
    return ranked.sort_values(["_rank", "difficulty"]).iloc[:n].drop(columns=["_order", "_rank"])


def shares(difficulty: Indices) -> dict[int, float]:
    """Share of each number of steps."""
    values, counts = np.unique(difficulty, return_counts=True)
    return dict(zip(values.tolist(), (counts / counts.sum()).tolist(), strict=True))


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


def reweighted(values: NDArray[np.float64], difficulty: Indices, mix: dict[int, float], confidence: float) -> Estimate:
    """Stratified mean sum_d w_d m_d over the numbers of steps d, with shares w of the study and means m of the pilot.

    Variance sum_d w_d² s² / n_d with the pooled variance s² within the numbers of steps, t with as many degrees of freedom as it has. A
    number of steps that the pilot lacks takes the mean of the nearest one. The lower limit is not below the smallest value, the upper not
    above the largest: with one chain per number of steps nothing is known of the spread and the interval is that range.

    Worked by hand: values 10 and 14 at 1 step, 30 and 34 at 2, shares 3/4 and 1/4: mean 0.75·12 + 0.25·32 = 17; s² = 16/2 = 8;
    variance 8·(9/16 + 1/16)/2 = 2.5, standard error 1.58.
    """
    steps, which = np.unique(difficulty, return_inverse=True)
    n = np.bincount(which)
    means = np.bincount(which, weights=values) / n
    weights = np.zeros(len(steps))
    for step, share in mix.items():
        weights[np.abs(steps - step).argmin()] += share
    value = float(weights @ means)
    freedom = len(values) - len(steps)
    lowest, highest = float(values.min()), float(values.max())
    if freedom < 1:
        return Estimate(value, lowest, highest)
    spread = float(((values - means[which]) ** 2).sum() / freedom)
    half = float(stdtrit(freedom, 0.5 + confidence / 2) * np.sqrt((weights**2 / n).sum() * spread))
    return Estimate(value, max(lowest, value - half), min(highest, value + half))


@dataclass(frozen=True)
class Pilot:
    """What the pilot of an arm found.

    key : the config's part of the pool's key.
    budget : the T that the chains were drawn at.
    names, difficulty, prompt, length : (chains,) id and steps of the problem, tokens of prompt and chain.
    answers, answer_tokens, answer_prompt : (chains,) forced answers of each chain, their tokens, and the tokens they put through a prefill.
    rate : what `measure` found.
    """

    key: dict[str, Any]
    pool: str
    budget: int
    names: list[str]
    difficulty: Indices
    prompt: Indices
    length: Indices
    answers: Indices
    answer_tokens: Indices
    answer_prompt: Indices
    rate: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Pilot:
        """A pilot/<arm>.json.

        Raises
        ------
        InputError
            If the file is missing, no pilot, or empty.
        """
        again = f"make it again with `snakemake {path}`"
        stored = read_json(path, "pilot")
        try:
            chains = pd.DataFrame(stored["chains"])
            columns = {c: chains[c].to_numpy(np.int64) for c in ("difficulty", "answers", "answer_tokens", "answer_prompt")}
            prompt, length = chains["prompt_tokens"].to_numpy(np.int64), chains["n_tokens"].to_numpy(np.int64)
            names = chains["problem_id"].astype(str).tolist()
            return cls(stored["key"], stored["pool"], int(stored["T"]), names, prompt=prompt, length=length, rate=stored["rate"], **columns)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: not a pilot ({error!r}); {again}") from None


def draw_pilot(problems: pd.DataFrame, arm: sampling.Arm, n: int, begun: float) -> dict[str, Any]:
    """Draw the pilot's chains, as far as the pool lacks them, and measure the engine, unless that was done on this machine.

    Parameters
    ----------
    begun : float
        time.perf_counter() when a job with this arm alone would have begun: what came before is not its start-up.

    Returns
    -------
    What `Pilot.read` reads, and the account of what was drawn now.
    """
    chosen = choose(problems, n)
    account = sampling.draw_samples(chosen, arm, [0])
    chains = _chains(chosen, arm)
    return {
        "arm": f"{arm.card.name}@{arm.precision}",
        "key": sampling.plan_key(arm.precision, arm.plan, arm.sampling["compute_dtype"]),
        "pool": arm.pool.folder.name,
        "T": arm.plan.settings.max_tokens,
        "chains": chains.to_dict("records"),
        "rate": _stored_rate(problems, chosen, arm, chains["n_tokens"].to_numpy(np.int64), begun),
        "account": account,
    }


def _chains(chosen: pd.DataFrame, arm: sampling.Arm) -> pd.DataFrame:
    """Steps, prompt and length of each chain, and its forced answers."""
    longest = arm.plan.settings.max_tokens
    table = arm.pool.rows(chosen["problem_key"], longest)
    table = table.filter(pc.equal(table["sample"], 0))
    rows = table.select(["problem_key", "prompt_tokens", "n_tokens"]).to_pandas().set_index("problem_key")
    rows["n_tokens"] = rows["n_tokens"].clip(upper=longest)
    rows[["answers", "answer_tokens", "answer_prompt"]] = 0
    if arm.answers is not None and arm.plan.forcing is not None:
        for key, sample, _, t, ids in cuts(table, arm.plan.forcing.budgets):
            stored = arm.answers.rows([answer_key(key, ids)], 0, ["sample", "budget", "prompt_tokens", "n_tokens"]).to_pandas()
            answer = stored[(stored["sample"] == sample) & (stored["budget"] == t)].iloc[0]
            rows.loc[key, ["answers", "answer_tokens", "answer_prompt"]] += [1, answer["n_tokens"], answer["prompt_tokens"]]
    found = chosen[["problem_id", "problem_key", "difficulty"]].join(rows, on="problem_key").drop(columns="problem_key")
    return found.astype({c: int for c in found.columns if c != "problem_id"})


def _stored_rate(problems: pd.DataFrame, chosen: pd.DataFrame, arm: sampling.Arm, lengths: Indices, begun: float) -> dict[str, Any]:
    """The engine's rate on this machine, measured once and kept beside the pool."""
    import torch

    wanted = {key: arm.sampling[key] for key in ("device", "offload", "device_memory", "batch_rows")}
    wanted |= {"machine": devices.machine(), "threads": torch.get_num_threads(), "shard_problems": arm.sampling["shard_problems"]}
    path = arm.pool.folder / f"rate-{devices.short_hash(wanted)}.json"
    if not path.is_file():
        found = wanted | measure(chosen, arm, lengths, min(len(problems), arm.sampling["shard_problems"]), begun)
        write_text(path, json.dumps(found))
    return read_json(path, "measured rate")


def measure(chosen: pd.DataFrame, arm: sampling.Arm, lengths: Indices, shard: int, begun: float) -> dict[str, Any]:
    """Seconds of the engine's steps at two widths of the batch, of its prefills, and of all that comes before the first token.

    A small run of the pilot's problems, thrown away: half as many chains again as the batch has rows, so that rows end, leave and are
    refilled as they will be. Each is cut at the length of one of the pilot's chains, all scaled down where PROBE_S would be over.

    Parameters
    ----------
    shard : int
        Problems of a sampling job.

    Returns
    -------
    points : of each width rows and context of a mean step, seconds of one (`step`), seconds of a padded prompt token (`prompt_token`)
    startup_seconds : imports, loading and reading of problems, as a job of its own takes them
    thrown_away_tokens : what the measurement cost
    """
    engine = arm.ready()
    drawn = engine.account
    startup = time.perf_counter() - begun - drawn.seconds
    wide = min(arm.sampling["batch_rows"] or MOST_ROWS, shard * (arm.plan.samples + 1))
    points: list[dict[str, float]] = []
    tokens = 0
    for rows in sorted({max(1, wide // NARROW), wide}):
        requests = _requests(chosen, arm, rows + rows // 2 if rows == wide else rows)
        first = _probe(engine, requests[:rows], np.full(rows, PROBE_TOKENS))
        scale = min(1.0, PROBE_S / (first["step"] * lengths.max()))
        limits = np.maximum(PROBE_TOKENS, np.rint(np.resize(lengths, len(requests)) * scale)).astype(np.int64)
        points.append(_probe(engine, requests, limits))
        tokens += int(first["tokens"] + points[-1]["tokens"])
    engine.account = drawn
    return {
        "points": points,
        "startup_seconds": startup,
        "thrown_away_tokens": tokens,
    }


def _requests(problems: pd.DataFrame, arm: sampling.Arm, n: int) -> list[Request]:
    """n requests of as many problems, in their order, as all their chains fill; if they are too few, with further samples of theirs."""
    out: list[Request] = []
    per_problem = arm.plan.samples + 1
    for more in itertools.count():
        for name, messages in zip(problems["problem_key"], problems["messages"], strict=True):
            prompts = [sampling.prompt_ids(arm.tokenizer, m) for m in messages_of(messages)]
            for i in range(more * per_problem, (more + 1) * per_problem):
                which = arm.plan.pick(name, i)
                out.append(Request(name, prompts[which % len(prompts)], i, 0, which, arm.plan.variants[which].temperature))
            if len(out) >= n:
                return out[:n]
    raise AssertionError("unreachable")


def _probe(engine: Any, requests: list[Request], limits: Indices) -> dict[str, float]:
    """One run of the engine over chains of so many tokens at most: seconds per decoding step and per prompt token."""
    engine.account = Account()
    short = [replace(request, max_tokens=int(limit)) for request, limit in zip(requests, limits, strict=True)]
    lengths: dict[tuple[str, int], int] = {}
    for chains in engine.draw(short):
        lengths |= {(c.problem_key, c.sample): len(c.ids) for c in chains}
    account = engine.account
    prompt = np.array([len(r.prompt_ids) for r in short])
    problem = pd.factorize(pd.Series([r.problem_key for r in short]))[0]
    length = np.array([lengths[r.problem_key, r.sample] for r in short])
    run = simulate(prompt, problem, length, account.batch_rows)
    steps = max(1, int(run.steps.sum()))
    return {
        "rows": run.row_steps / steps,
        "capacity": account.batch_rows,
        "context": float(run.steps @ run.context) / steps,
        "step": (account.seconds - account.prefill_seconds) / steps,
        "prompt_token": account.prefill_seconds / float(run.prompts @ run.longest),
        "tokens": account.new_tokens,
    }
