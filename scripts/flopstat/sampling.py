"""The sampling stage: draw what a shard of an arm still lacks, store it, check its budgets, and write the shard's view."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from flopstat import stored, tables
from flopstat.columns import TABLES
from flopstat.engine import GREEDY, SAMPLER_VERSION, Engine, Request
from flopstat.errors import InputError
from flopstat.forcing import Plan, answer_key, cuts, verify_budgets
from flopstat.models import ModelCard, checkpoint, likely_device, load_tokenizer, loading, pick_device, verify_weights
from flopstat.pool import SCHEMA, Pool, Writer, explained
from flopstat.precisions import check_support, load, support
from flopstat.problems import digest, messages_of
from flopstat.templates import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ACTIVATION_PROMPTS = 32  # prompts of the calibration split that static activation scales are taken from
VIEW_PROBLEMS = 64  # problems held in memory while a view is written
JOBS = "jobs.jsonl"  # beside the logs of a pool: what each job that drew into it took
JOB_KEYS = ("new_tokens", "seconds", "prefill_seconds", "model_seconds", "batch_rows", "peak_memory_bytes", "problems", "job_seconds")


def library_versions(precision: str = "fp32") -> dict[str, str]:
    """Versions of the libraries that the tokens of a precision depend on."""
    names = dict.fromkeys(["torch", "transformers", support(precision).library])
    return {name: importlib.metadata.version(name).split("+")[0] for name in names}


def pool_key(
    card: ModelCard, precision: str, plan: Plan, compute_dtype: str, engine: str, activation_ids: Sequence[Sequence[int]] | None = None
) -> dict[str, Any]:
    """All that changes the tokens of a chain, but for the problem and the sample that name its row.

    `max_tokens` is left out: a chain cut at T is the chain that a budget of T would have given. An extension is not, since it makes
    chains longer.
    """
    key = plan_key(precision, plan, compute_dtype) | {
        "weights": card.weights_sha256,
        "tokenizer": card.tokenizer_sha256,
        "engine": engine,
        "libraries": library_versions(precision),
    }
    if card.config_sha256:
        key["config"] = card.config_sha256
    if activation_ids is not None:
        key["activation_prompts"] = hashlib.sha256(json.dumps([list(ids) for ids in activation_ids]).encode()).hexdigest()[:16]
    return key


def plan_key(precision: str, plan: Plan, compute_dtype: str) -> dict[str, Any]:
    """The part of a pool's key that the config alone fixes."""
    shape = asdict(plan.settings)
    del shape["max_tokens"], shape["extension"]
    key: dict[str, Any] = {
        "precision": precision,
        "compute_dtype": compute_dtype,
        "sampling": shape,
        "sampler_version": SAMPLER_VERSION,
    }
    if len(plan.variants) > 1 or plan.variants[0].temperature != plan.settings.temperature:
        key["variants"] = [asdict(v) for v in plan.variants]
    if plan.extend is not None:
        key["extend"] = list(plan.extend)
    return key


def prompt_ids(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]]) -> tuple[int, ...]:
    """Token ids of rendered messages with the generation prompt.

    Raises
    ------
    InputError
        If the chat template makes nothing of them.
    """
    ids = tuple(tokenizer(render(tokenizer, messages), add_special_tokens=False)["input_ids"])
    if not ids:
        raise InputError(f"the chat template of {tokenizer.name_or_path} renders an empty prompt; check its chat_template")
    return ids


def eos_ids(tokenizer: PreTrainedTokenizerFast, generation: Any, vocab_size: int) -> list[int]:
    """Every token that ends a chain.

    Raises
    ------
    InputError
        If one is no id of the model's vocabulary.
    """
    named = generation.eos_token_id if generation is not None else None
    ids = [*(named if isinstance(named, list) else [named] if named is not None else []), tokenizer.eos_token_id]
    if wrong := [i for i in ids if type(i) is not int or not 0 <= i < vocab_size]:
        found = f"eos_token_id {str(wrong[0])[:60]!r}, not an id from 0 to {vocab_size - 1}"
        raise InputError(f"{tokenizer.name_or_path}: {found}; mend its generation_config.json or tokenizer_config.json")
    return ids


@dataclass
class Arm:
    """One arm ready to draw: pools, tokenizer, and, once something is missing, the engine."""

    card: ModelCard
    precision: str
    plan: Plan
    sampling: dict[str, Any]
    pool: Pool
    answers: Pool | None
    tokenizer: PreTrainedTokenizerFast
    ends: list[int]
    activation_ids: list[tuple[int, ...]] | None
    engine: Engine | None = None

    def ready(self) -> Engine:
        """The engine, with the model loaded at the first call."""
        if self.engine is None:
            from flopstat.transformers_engine import TransformersEngine

            verify_weights(self.card)
            device = pick_device(self.sampling["device"])
            model = load(
                self.card,
                self.precision,
                self.sampling["compute_dtype"],
                device,
                calibration_ids=self.activation_ids,
                offload=self.sampling["offload"],
                device_memory=self.sampling["device_memory"],
                offload_folder=self.pool.folder.parents[1] / "checkpoints",
            )
            settings = self.plan.for_model(self.tokenizer, self.ends)
            self.engine = TransformersEngine(model, settings, self.ends, self.sampling["batch_rows"], device)
        return self.engine


def open_arm(
    card: ModelCard,
    precision: str,
    sampling: dict[str, Any],
    plan: Plan,
    store: Path,
    calibration_messages: Sequence[str] = (),
) -> Arm:
    """Find the pools of an arm; no weights are read.

    Parameters
    ----------
    calibration_messages : sequence of str
        Rendered messages of the calibration split, JSON, for precisions with static activation scales.

    Raises
    ------
    InputError
        For a precision that can't be drawn at here, and a model folder that changed or makes no tokenizer.
    """
    from transformers import GenerationConfig

    from flopstat.transformers_engine import TransformersEngine

    check_support(card.name, precision, likely_device(sampling["device"]), sampling["compute_dtype"], sampling["offload"])
    tokenizer = load_tokenizer(card)
    activation_ids = None
    if precision.startswith("quanto"):
        activation_ids = [prompt_ids(tokenizer, messages_of(m)[0]) for m in calibration_messages[:ACTIVATION_PROMPTS]]
        if not activation_ids:
            raise InputError(f"{card.name}@{precision}: takes its activation scales from calibration problems; set dataset.n_calibration")
    key = pool_key(card, precision, plan, sampling["compute_dtype"], TransformersEngine.name, activation_ids)
    answers = None
    if plan.forcing is not None:
        answers = Pool(store, key | {"answer_prompt": plan.forcing.cue, "answer_tokens": plan.forcing.tokens})
    folder = checkpoint(card)
    generation = None
    if (folder / "generation_config.json").is_file():
        with loading(str(folder / "generation_config.json")):
            generation = GenerationConfig.from_pretrained(folder)
    ends = eos_ids(tokenizer, generation, card.vocab_size)
    return Arm(card, precision, plan, sampling, Pool(store, key), answers, tokenizer, ends, activation_ids)


def draw_samples(problems: pd.DataFrame, arm: Arm, samples: Sequence[int] | None = None) -> dict[str, Any]:
    """Draw every chain, and every forced answer, that the pools lack for these problems.

    Parameters
    ----------
    samples : sequence of int, optional
        Indices of the chains of each problem; all of the plan's and the greedy one if left out.

    Returns
    -------
    summary
        How many chains were asked for, stored and drawn now, tokens, tokens per second, share of the prefill, peak memory, near-ties.

    Raises
    ------
    InputError
        If a prompt with the largest T, or a forced answer behind it, does not fit the model's context.
    """
    import torch

    from flopstat.memory import peak_bytes

    keys = problems["problem_key"].tolist()
    messages = dict(zip(problems["problem_key"], problems["messages"], strict=True))
    prompts = {key: [prompt_ids(arm.tokenizer, m) for m in messages_of(messages[key])] for key in keys}
    _check_context(arm, prompts)
    plan, longest = arm.plan, arm.plan.settings.max_tokens
    indices = (*range(plan.samples), GREEDY) if samples is None else tuple(samples)
    wanted = [(key, i, 0) for key in keys for i in indices]
    summary: dict[str, Any] = {"pool": arm.pool.folder.name, "chains_asked": len(wanted), "torn_records": 0}

    with _writing(arm.pool, summary) as writer:
        missing = arm.pool.missing(wanted, longest)
        summary["chains_stored"] = len(wanted) - len(missing)
        requests = []
        for key, i, _ in missing:
            which = plan.pick(key, i)
            requests.append(Request(key, prompts[key][which % len(prompts[key])], i, 0, which, plan.variants[which].temperature))
        _draw(arm, requests, writer, "chains")
    if arm.answers is not None:
        with _writing(arm.answers, summary) as writer:
            asked, requests_of = _answers_wanted(arm, keys, prompts, indices)
            lacking = arm.answers.missing(asked, 0)
            summary |= {"answers_asked": len(asked), "answers_stored": len(asked) - len(lacking)}
            _draw(arm, [requests_of[name] for name in lacking], writer, "answers", {requests_of[n]: n[0] for n in lacking})
    account = arm.engine.account if arm.engine is not None else None
    summary["chains_drawn"] = len(missing)
    if account is not None:
        summary |= {name: value for name, value in asdict(account).items() if name != "chains"}
        summary["tokens_per_s"] = round(account.new_tokens / account.seconds, 1)
        summary["prefill_share"] = round(account.prefill_seconds / account.seconds, 4)
        summary["own_share"] = round(1 - (account.prefill_seconds + account.model_seconds) / account.seconds, 4)
    summary["peak_memory_bytes"] = peak_bytes(torch.device(pick_device(arm.sampling["device"])))
    return summary


def record_job(arm: Arm, problems: pd.DataFrame, account: dict[str, Any]) -> dict[str, float]:
    """Note beside the pool what a job took, and add up what all jobs so far took for these problems.

    A job that draws nothing leaves no line: a rerun never puts a time of zero in the place of a measured one. A job that was killed
    leaves none either.

    Returns
    -------
    jobs : how many, 0 if all was drawn for others; their `new_tokens`, `seconds` of the engine, `job_seconds` from the start of the process
        to now, and the largest `peak_memory_bytes`.
    """
    name = digest(sorted(problems["problem_key"]))
    pools = [arm.pool, *([arm.answers] if arm.answers is not None else [])]
    if "seconds" in account:
        line = {key: account[key] for key in JOB_KEYS[:-2]}
        line |= {"problems": name, "job_seconds": job_seconds()}
        folder = pools[0 if account["chains_drawn"] else -1].folder
        with explained(folder), (folder / JOBS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line | {"crc": _crc(line)}) + "\n")
    own = [job for pool in pools for job in _jobs(pool.folder / JOBS) if job["problems"] == name]
    total: dict[str, float] = {key: sum(job[key] for job in own) for key in ("new_tokens", "seconds", "job_seconds")}
    return {"jobs": len(own)} | total | {"peak_memory_bytes": max((job["peak_memory_bytes"] for job in own), default=0)}


def _jobs(path: Path) -> Iterator[dict[str, Any]]:
    """The jobs noted beside a pool; a line that a kill broke off, or whose bytes changed, is left out."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with suppress(ValueError, AttributeError):
            job = json.loads(line)
            # Lines of older versions have no checksum; one whose name was damaged leaves a key that is none of a job's.
            crc = job.pop("crc", None)
            if crc == _crc(job) or (crc is None and job.keys() == {*JOB_KEYS}):
                yield job


def _crc(job: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(job, sort_keys=True).encode())


def job_seconds() -> float:
    """Seconds since this process began: imports and loading count."""
    return time.time() - psutil.Process().create_time()


def described(arm: Arm, account: dict[str, Any]) -> str:
    """One line about a shard: what was drawn, how fast, and what it took."""
    stored = f"{account['chains_stored']} of {account['chains_asked']} were stored"
    line = f"{arm.card.name}@{arm.precision}: {account['chains_drawn']} chains drawn, {stored}"
    if "new_tokens" in account:
        line += (
            f"; {account['new_tokens']} tokens at {account['tokens_per_s']:,.0f} tokens/s, {account['prefill_share']:.0%} of the time for "
            f"prefill, {account['near_ties']} near-ties, {account['failed']} failed"
        )
    return f"{line}; peak memory {account['peak_memory_bytes'] / 2**30:.1f} GiB"


@contextmanager
def _writing(pool: Pool, summary: dict[str, Any]) -> Iterator[Writer]:
    """The pool's writer; waiting for another one is said, and so is what recovery found."""

    def waiting() -> None:
        print(f"flopstat: {pool.folder} is being written by another process; waiting for it", file=sys.stderr, flush=True)

    with pool.writing(waiting=waiting) as writer:
        if writer.recovered.n_torn:
            print(f"flopstat: {writer.recovered.line}", file=sys.stderr, flush=True)
            summary["torn_records"] += writer.recovered.n_torn
        yield writer


def _check_context(arm: Arm, prompts: dict[str, list[tuple[int, ...]]]) -> None:
    longest = max(len(p) for several in prompts.values() for p in several)
    most = arm.plan.settings.max_tokens
    if arm.plan.forcing is not None:
        most += arm.plan.forcing.tokens + len(_cue_ids(arm))
    if longest + most > arm.card.context:
        raise InputError(
            f"{arm.card.name}: a prompt of {longest} tokens and {most} tokens of T and answer exceed its context of {arm.card.context}; "
            "lower budgets.T"
        )


def _cue_ids(arm: Arm) -> tuple[int, ...]:
    assert arm.plan.forcing is not None
    return tuple(arm.tokenizer(arm.plan.forcing.cue, add_special_tokens=False)["input_ids"])


def _draw(arm: Arm, requests: list[Request], writer: Writer, what: str, names: dict[Request, str] | None = None) -> None:
    """Draw requests and store the chains as they finish; `names` gives forced answers the key that they are stored under."""
    if not requests:
        return
    engine = arm.ready()
    before = engine.account.new_tokens, engine.account.seconds
    stored = {(r.problem_key, r.sample, r.budget): name for r, name in names.items()} if names else {}
    with tqdm(total=len(requests), unit=what[:-1], desc=f"{arm.card.name}@{arm.precision} {what}", disable=None) as bar:
        for chains in engine.draw(requests):
            writer.append([replace(c, problem_key=stored[c.problem_key, c.sample, c.budget]) for c in chains] if names else chains)
            bar.update(len(chains))
            tokens, seconds = engine.account.new_tokens - before[0], engine.account.seconds - before[1]
            bar.set_postfix_str(f"{tokens / seconds:,.0f} tokens/s")


def _answers_wanted(
    arm: Arm, keys: Sequence[str], prompts: dict[str, list[tuple[int, ...]]], samples: Sequence[int]
) -> tuple[list[tuple[str, int, int]], dict[tuple[str, int, int], Request]]:
    """Names (answer key, sample, T) of the forced answers, and how each is drawn: ids[:T] and the cue's ids behind the prompt's."""
    forcing, plan = arm.plan.forcing, arm.plan
    assert forcing is not None
    cue = _cue_ids(arm)
    requests: dict[tuple[str, int, int], Request] = {}
    for table in arm.pool.blocks(keys, plan.settings.max_tokens):
        table = table.filter(pc.is_in(table["sample"], pa.array(samples, pa.int32())))
        for key, sample, which, t, ids in cuts(table, forcing.budgets):
            prompt = (*prompts[key][which % len(prompts[key])], *ids.tolist(), *cue)
            request = Request(key, prompt, sample, t, which, plan.variants[which].temperature, forcing.tokens)
            requests[answer_key(key, ids), sample, t] = request
    return list(requests), requests


def write_view(arm: Arm, problems: pd.DataFrame, path: Path) -> None:
    """Write one shard's chains, samples -1..K-1 of its problems, and their forced answers, as a parquet file, in bounded memory."""
    plan = arm.plan
    extension = plan.for_model(arm.tokenizer, arm.ends).extension
    temporary = path.with_name(f".{path.name}.tmp")
    n_chains = 0
    with explained(path.parent), pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        for block in arm.pool.blocks(problems["problem_key"].tolist(), plan.settings.max_tokens, VIEW_PROBLEMS):
            chains = block.filter(pc.less(block["sample"], plan.samples))
            n_chains += chains.num_rows
            rows = pa.concat_tables([chains, *_answers_of(arm, chains)])
            verify_budgets(rows, plan, arm.ends, len(extension.ids) if extension else 0)
            tables.validate(rows.select(list(TABLES["samples"])).to_pandas(), "samples")
            writer.write_table(rows)
    if n_chains != len(problems) * (plan.samples + 1):
        raise AssertionError(f"{path}: {n_chains} chains for {len(problems)} problems × {plan.samples + 1}")
    with explained(path.parent):
        stored.place(temporary, path)


def _answers_of(arm: Arm, chains: pa.Table) -> list[pa.Table]:
    """The stored forced answers of some chains, under their problems' own keys."""
    if arm.answers is None or arm.plan.forcing is None:
        return []
    of = {(answer_key(key, ids), sample, t): key for key, sample, _, t, ids in cuts(chains, arm.plan.forcing.budgets)}
    stored = arm.answers.rows({name for name, _, _ in of}, 0)
    names = list(zip(*(stored[c].to_pylist() for c in ("problem_key", "sample", "budget")), strict=True))
    keep = [r for r, name in enumerate(names) if name in of]
    if len(keep) != len(of):
        raise AssertionError(f"{arm.answers.folder}: {len(keep)} forced answers stored, {len(of)} wanted")
    stored = stored.take(pa.array(keep, pa.int64()))
    return [stored.set_column(0, SCHEMA.field(0), pa.array([of[names[r]] for r in keep], pa.string()))]


def shard_of(problems: pd.DataFrame, shard: int, size: int) -> pd.DataFrame:
    """The problems of one shard.

    Raises
    ------
    InputError
        If there is no such shard.
    """
    if not 0 <= shard * size < len(problems):
        raise InputError(f"--shard {shard}: {len(problems)} problems make shards 0 to {(len(problems) - 1) // size}")
    return problems.iloc[shard * size : (shard + 1) * size]
