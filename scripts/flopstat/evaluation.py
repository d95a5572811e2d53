"""`flopstat evaluate`: exact estimators over the grades of any pool, streamed from parquet or CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray
from pyarrow import csv
from tqdm import tqdm

from flopstat import bootstrap
from flopstat.columns import FAILED, STATES
from flopstat.errors import InputError
from flopstat.estimators import NO_ANSWER, check_exchangeable
from flopstat.strategies import (
    CALIBRATED,
    GREEDY,
    SCORES,
    Outcome,
    Pool,
    Strategy,
    calibrated_scores,
    check,
    evaluate,
    permutations_for,
    strategy,
)

KEYS = ("model", "precision", "T")
TEXTS = ("problem_id", "answer", "state", "split")
NEEDED = ("problem_id", *KEYS, "sample", "answer", "state", "correct")
NUMBERS = {"T": "whole numbers", "sample": "whole numbers", "variant": "whole numbers", "correct": "true or false"} | dict.fromkeys(
    SCORES, "numbers"
)
FITS = {
    "whole numbers": (pa.types.is_integer,),
    "true or false": (pa.types.is_boolean,),
    "numbers": (pa.types.is_floating, pa.types.is_integer, pa.types.is_null),
}
SEED = 20261121
REPLICATES = 1000
FIRST_REPEATS, MOST_REPEATS = 8, 256  # permutations of each problem's samples
MONTE_CARLO_SHARE = 0.1
NO_SPLIT = ""


@dataclass
class _Names:
    """Numbers for strings, in order of appearance."""

    of: dict[str, int] = field(default_factory=dict)

    def encode(self, column: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
        """Codes of a string column, -1 for missing values."""
        encoded = pc.dictionary_encode(column)
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks() if encoded.num_chunks != 1 else encoded.chunk(0)
        lookup = np.array([self.of.setdefault(v, len(self.of)) for v in encoded.dictionary.to_pylist()], dtype=np.int64)
        indices = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return np.append(lookup, -1)[indices]


@dataclass
class _Group:
    """The chains of one (model, precision, T, split), kept as compact columns."""

    problem: list[NDArray[np.int32]] = field(default_factory=list)
    sample: list[NDArray[np.int32]] = field(default_factory=list)
    answer: list[NDArray[np.int32]] = field(default_factory=list)
    correct: list[NDArray[np.bool_]] = field(default_factory=list)
    stratum: list[NDArray[np.int32]] = field(default_factory=list)
    scores: list[NDArray[np.float32]] = field(default_factory=list)
    variant: list[NDArray[np.int32]] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    greedy_states: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))


@dataclass(frozen=True)
class Graded:
    """One (model, precision, T) of a grades file, ready for the estimators."""

    model: str
    precision: str
    t: int
    pool: Pool
    strata: NDArray[np.int64]
    states: dict[str, int]
    greedy_states: dict[str, int]


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Batches of the file with texts as strings whatever they look like."""
    try:
        if path.suffix == ".parquet":
            data = ds.dataset(path, format="parquet")
        elif path.suffix == ".csv":
            as_text = {name: pa.string() for name in ("model", "precision", *TEXTS)}
            options = csv.ConvertOptions(column_types=as_text, strings_can_be_null=True, null_values=[""])
            data = ds.dataset(path, format=ds.CsvFileFormat(convert_options=options))
        else:
            raise InputError(f"{path}: not .parquet or .csv; give grades as `flopstat grade` writes them")
        there = data.schema.names
        missing = [name for name in columns if name not in there]
        if missing:
            raise InputError(f"{path}: lacks the column {missing[0]}; grades need {', '.join(NEEDED)}")
        for name, wanted in NUMBERS.items():
            if name in there and not any(fits(data.schema.field(name).type) for fits in FITS[wanted]):
                raise InputError(f"{path}: column {name} is of type {data.schema.field(name).type}, {wanted} are wanted")
        optional = [name for name in (*SCORES, "split", "variant") if name in there]
        for batch in data.to_batches(columns=list(dict.fromkeys([*columns, *optional]))):
            batch.validate(full=True)  # texts are UTF-8
            yield batch
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last of names of columns
        raise InputError(f"{path}: not readable as grades ({' '.join(str(error).split())[:100]}); grade the samples again") from None


def read_grades(path: Path, strata: str | None = None) -> tuple[list[Graded], dict[tuple[str, str, int], Pool]]:
    """Read a grades file once, a batch at a time.

    Returns
    -------
    graded, training
        Study chains (all, where there is no `split` column) by first appearance; pools of the calibration split by (model, precision, T).

    Raises
    ------
    InputError
        For a missing column, an unknown state, or problems whose pools differ in size.
    """
    problems, answers, kinds = _Names(), _Names(), _Names()
    groups: dict[tuple[str, str, int, str], _Group] = {}
    names: list[str] = []
    for batch in _batches(path, [*NEEDED, *([strata] if strata else [])]):
        if not batch.num_rows:
            continue
        names = [name for name in SCORES if name in batch.schema.names]
        column = {name: batch.column(name) for name in batch.schema.names}
        column |= {name: column[name].cast(pa.string()) for name in (*KEYS, *TEXTS) if name in column}
        split = column.get("split", pa.array([NO_SPLIT] * batch.num_rows))
        for name in (*KEYS, "problem_id", "sample", "state", "correct"):
            if column[name].null_count:
                raise InputError(f"{path}: {column[name].null_count} rows lack {name}; only answer may be missing")
        key_names = _Names()
        text = pc.binary_join_element_wise(*(column[name] for name in KEYS), split, "\x1f")
        key = key_names.encode(text)
        problem, answer = problems.encode(column["problem_id"]), answers.encode(column["answer"])
        state = pc.dictionary_encode(column["state"])
        state_names = state.dictionary.to_pylist()
        unknown = [s for s in state_names if s not in STATES]
        if unknown:
            raise InputError(f"{path}: state {unknown[0]!r} is unknown; states are {', '.join(STATES)}")
        state_code = state.indices.to_numpy(zero_copy_only=False)
        sample = column["sample"].to_numpy(zero_copy_only=False)
        correct = column["correct"].to_numpy(zero_copy_only=False)
        stratum = kinds.encode(column[strata].cast(pa.string())) if strata else np.zeros(batch.num_rows, dtype=np.int64)
        scores = np.column_stack([column[n].to_numpy(zero_copy_only=False) for n in names]) if names else np.empty((batch.num_rows, 0))
        variant = column["variant"].to_numpy(zero_copy_only=False) if "variant" in column else np.zeros(batch.num_rows, dtype=np.int32)
        answered = np.array([s == "answered" for s in state_names])[state_code]
        for name, code in key_names.of.items():
            model, precision, budget, part = name.split("\x1f")
            group = groups.setdefault((model, precision, int(budget), part), _Group())
            rows = key == code
            group.problem.append(problem[rows].astype(np.int32))
            group.sample.append(sample[rows].astype(np.int32))
            group.answer.append(np.where(answered[rows], answer[rows], -1).astype(np.int32))
            group.correct.append(correct[rows].astype(bool) & answered[rows])
            group.stratum.append(stratum[rows].astype(np.int32))
            group.scores.append(scores[rows].astype(np.float32))
            group.variant.append(variant[rows].astype(np.int32))
            for states, chosen in ((group.states, rows & (sample >= 0)), (group.greedy_states, rows & (sample < 0))):
                for s, count in enumerate(np.bincount(state_code[chosen], minlength=len(state_names))):
                    states[state_names[s]] += int(count)
    if not groups:
        raise InputError(f"{path}: holds no chains")
    graded, training = [], {}
    while groups:
        (model, precision, t, part), group = groups.popitem()
        made = _graded(group, names, f"{path}: {model}@{precision}, T = {t}")
        if part == "calibration":
            training[model, precision, t] = made[0]
        else:
            graded.append(Graded(model, precision, t, *made, group.states, group.greedy_states))
    return graded[::-1], training


def _graded(group: _Group, names: list[str], where: str) -> tuple[Pool, NDArray[np.int64]]:
    """Matrices of one group, and the stratum of each problem."""
    problem, sample = np.concatenate(group.problem), np.concatenate(group.sample)
    answer, correct = np.concatenate(group.answer), np.concatenate(group.correct)
    scores = np.concatenate(group.scores)
    ids, row = np.unique(problem, return_inverse=True)
    n, k = len(ids), int(sample.max()) + 1
    drawn = sample >= 0
    cell = row[drawn].astype(np.int64) * k + sample[drawn]
    if drawn.sum() != n * k or len(np.unique(cell)) != n * k:
        found = f"{int(drawn.sum())} chains of {n} problems with samples up to {k - 1}"
        raise InputError(f"{where}: {found}; every problem needs each sample 0 to {k - 1} once")
    if k < 1:
        raise InputError(f"{where}: holds greedy chains only; estimators need samples 0, 1, ...")
    # Right answers share code 0, whatever their spelling; other answers are numbered from 1.
    code = np.where(correct, 0, np.where(answer < 0, NO_ANSWER, answer.astype(np.int64) + 1))
    codes = np.empty(n * k, dtype=np.int64)
    codes[cell] = code[drawn]
    variants = np.empty(n * k, dtype=np.int64)
    variants[cell] = np.concatenate(group.variant)[drawn]
    check_exchangeable(variants.reshape(n, k), where)
    columns: dict[str, NDArray[np.float64]] = {}
    for c, name in enumerate(names):
        column = np.empty(n * k)
        column[cell] = scores[drawn, c]
        columns[name] = column.reshape(n, k)
    greedy = None
    if (~drawn).any():
        if not np.array_equal(np.sort(row[~drawn]), np.arange(n)):
            raise InputError(
                f"{where}: {int((~drawn).sum())} greedy chains (sample -1) of {n} problems; every problem needs one, or none has"
            )
        greedy = np.empty(n)
        greedy[row[~drawn]] = correct[~drawn]
    strata = np.empty(n, dtype=np.int64)
    strata[row] = np.concatenate(group.stratum)
    return Pool(codes.reshape(n, k), columns, greedy), strata


def _outcomes(pool: Pool, rules: list[tuple[Strategy, list[int]]], w: NDArray[np.float64], seed: int) -> list[Outcome]:
    """All outcomes with one set of permutations: as many as keep every Monte Carlo error below a tenth of the standard error."""
    repeats = FIRST_REPEATS
    first = permutations_for(pool.size, 1, seed)
    closed = {rule.name: evaluate(rule, pool, ks, first) for rule, ks in rules if rule.closed is not None}
    while True:
        permutations = permutations_for(pool.size, repeats, seed)
        cut = {rule.name: evaluate(rule, pool, ks, permutations) for rule, ks in rules if rule.closed is None}
        worst = max((_noise(o, w) for outcomes in cut.values() for o in outcomes), default=0.0)
        if worst <= MONTE_CARLO_SHARE or repeats >= MOST_REPEATS:
            return [outcome for rule, _ in rules for outcome in (closed | cut)[rule.name]]
        repeats = min(MOST_REPEATS, int(2 ** np.ceil(np.log2(repeats * (worst / MONTE_CARLO_SHARE) ** 2))))


def _noise(outcome: Outcome, w: NDArray[np.float64]) -> float:
    """Monte Carlo error over the standard error."""
    assert outcome.monte_carlo is not None
    total = float((w @ outcome.accuracy).std(ddof=1))
    noise = float(np.sqrt((outcome.monte_carlo**2).sum()) / len(outcome.accuracy))
    return noise / total if total > 0 else 0.0


def evaluate_grades(
    path: Path,
    ks: Sequence[int],
    names: Sequence[str],
    branches: int = 2,
    strata: str | None = None,
    confidence: float = 0.95,
    seed: int = SEED,
) -> pd.DataFrame:
    """Accuracy of every (model, precision, T, strategy, k) of a grades file, with intervals over problems.

    Parameters
    ----------
    ks : list of int
        Chains used. Strategies of one chain ignore it; majority_of_best_of uses those that `branches` divides.
    strata : str, optional
        Column that the selection of problems was stratified by.

    Raises
    ------
    InputError
        For a pool smaller than k, an unknown strategy or a missing column.
    """
    for name in names:
        if name != GREEDY:
            strategy(name, branches)
    graded, training = read_grades(path, strata)
    rows: list[dict[str, Any]] = []
    strata_of_w, w = np.empty(0, dtype=np.int64), np.empty((0, 0))
    for one in tqdm(graded, desc="pools", disable=None):
        where = f"{one.model}@{one.precision}, T = {one.t}"
        pool = one.pool
        if max(ks) > pool.size:
            raise InputError(f"{where}: k = {max(ks)} exceeds its {pool.size} samples; draw more or lower --ks")
        if "calibrated_best_of" in names and (one.model, one.precision, one.t) in training:
            scores = calibrated_scores(training[one.model, one.precision, one.t], pool)
            pool = Pool(pool.codes, {**pool.scores, CALIBRATED: scores}, pool.greedy)
        rules: list[tuple[Strategy, list[int]]] = []
        for name in names:
            if name == GREEDY:
                if pool.greedy is None:
                    raise InputError(f"{where}: greedy needs a chain with sample -1 for every problem; leave the strategy out")
                continue
            rule = strategy(name, branches)
            check(rule, pool, where)
            wanted = [1] if rule.axis == "none" else [k for k in ks if name != "majority_of_best_of" or k % branches == 0]
            rules.append((rule, sorted(set(wanted))))
        if not np.array_equal(one.strata, strata_of_w):  # one matrix for all pools of the same problems: it is large
            strata_of_w, w = one.strata, bootstrap.weights(one.strata, REPLICATES, np.random.default_rng([seed, 3]))
        outcomes = _outcomes(pool, rules, w, seed)
        asked = [(rule, k) for rule, wanted in rules for k in wanted]
        labelled = [(rule.name, k, rule.note, outcome) for (rule, k), outcome in zip(asked, outcomes, strict=True)]
        if GREEDY in names and pool.greedy is not None:
            labelled.append((GREEDY, 1, "the chain without randomness", Outcome(pool.greedy, np.zeros(len(pool.greedy)), None, None)))
        for name, k, note, outcome in labelled:
            states = one.greedy_states if name == GREEDY else one.states
            rows.append(
                {"model": one.model, "precision": one.precision, "T": one.t, "strategy": name, "k": k}
                | _row(outcome, states, w, confidence)
                | {"note": note}
            )
    return pd.DataFrame(rows)


def _row(outcome: Outcome, states: dict[str, int], w: NDArray[np.float64], confidence: float) -> dict[str, Any]:
    """Columns of one outcome."""
    limits = bootstrap.proportion_interval(outcome.accuracy[:, None], w, confidence)
    within, between = bootstrap.split_variance(float(limits.se[0]), outcome.sampling_variance)
    flags = ["small_counts"] * bool(limits.wilson[0])
    if outcome.monte_carlo is not None and _noise(outcome, w) > MONTE_CARLO_SHARE:
        flags.append("monte_carlo")
    changed = [np.nan] * 3
    if outcome.changed is not None:
        around = bootstrap.proportion_interval(outcome.changed[:, None], w, confidence)
        changed = [float(outcome.changed.mean()), float(around.low[0]), float(around.high[0])]
    failed = sum(states[s] for s in FAILED)
    asked = sum(states.values())
    assert asked == states["answered"] + states["no_answer"] + states["truncated"] + failed
    return {
        "accuracy": float(np.clip(outcome.accuracy.mean(), 0.0, 1.0)),
        "low": float(limits.low[0]),
        "high": float(limits.high[0]),
        "se_sampling": within,
        "se_problems": between,
        "changed": changed[0],
        "changed_low": changed[1],
        "changed_high": changed[2],
        "n_problems": len(outcome.accuracy),
        "n_asked": asked,
        "n_answered": states["answered"],
        "n_no_answer": states["no_answer"],
        "n_truncated": states["truncated"],
        "n_failed": failed,
        "estimand": bootstrap.ESTIMAND,
        "flags": ";".join(flags) or None,
    }
