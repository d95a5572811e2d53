"""The exhaustive check: chosen cells generated one by one as the plain recipe does, against what the pool says of them.

The pool draws K chains per problem once, at the largest T and in batches, and answers every (T, P, B, strategy) from cut chains and subset
averages. Here each cell draws P·B chains of its own on every problem: a plain loop, one row, its own prompt, at most T new tokens, nothing
cut, nothing shared; then best-of and vote are done on those very chains. Two checks:

- with the pool's keys, the plain loop must give the ids that the engine gives in batches (`compare_ids`);
- with an independent seed, accuracies must agree within their sampling error, all cells jointly (`compare`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from tokenizers import Tokenizer
from tqdm import tqdm

from flopstat import strategies
from flopstat.cells import matrices
from flopstat.costs import Flops
from flopstat.engine import GREEDY, NEAR_TIE, Chain, FinishReason, Request, SamplingSettings
from flopstat.errors import InputError
from flopstat.estimators import NO_ANSWER, best_of_k, majority_at_all_k
from flopstat.forcing import Plan
from flopstat.graders import gold_of, grader, names_of
from flopstat.models import ModelCard, checkpoint, load_tokenizer, pick_device
from flopstat.pool import Pool
from flopstat.precisions import load
from flopstat.problems import messages_of
from flopstat.randomness import inverse_cdf, truncated_probabilities, uniforms
from flopstat.sampling import eos_ids, pool_key, prompt_ids
from flopstat.transformers_engine import TransformersEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Floats = NDArray[np.float64]

SCORE = "mean_logprob"
RECIPE = "plain-recipe-1"  # raise the number whenever the chains of the plain loop change
SEED_OFFSET = 1_000_003  # the exhaustive draws use the study's seed plus this
SHAPES = ((1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4), (2, 2), (4, 2))  # (P, B) that are checked, where the config has them
N_ARMS = 2
MIN_CELLS = 24
BLOCK = 64  # chains stored at a time: what a kill can lose
ID_SAMPLES = (GREEDY, 0, 1)  # chains per problem whose ids are compared
VARIANCE_PERMUTATIONS = 256  # cuts of the pool behind the jackknife of a composite
MIN_VARIANCE = 1.5  # expected variance of a cell's count of right answers below which a chi-square does not hold
ESTIMAND = "these problems"


@dataclass(frozen=True)
class Cell:
    """One configuration that is generated exhaustively."""

    arm: str
    t: int
    p: int
    b: int

    @property
    def strategy(self) -> str:
        if self.p == 1:
            return "single" if self.b == 1 else f"best_of_{SCORE}"
        return "majority" if self.b == 1 else "majority_of_best_of"

    def stream(self, problem_key: str) -> str:
        """Name of the cell's own stream of randomness on a problem: no two cells share a chain or a uniform."""
        return f"{problem_key}/{self.arm}/T{self.t}/P{self.p}/B{self.b}"


def choose_cells(arms: Sequence[str], per_problem: pd.DataFrame, samples: int) -> list[Cell]:
    """The cells to check: all of SHAPES that the study has, at T one third and two thirds up its grid, at more T if that is below 24.

    P·B stays at or below K/2: beyond, the jackknife of the pool's estimate is poor.

    Parameters
    ----------
    per_problem : table
        cells.parquet of the study.

    Raises
    ------
    InputError
        If the study has none of them.
    """
    there = set(per_problem[["arm", "T", "P", "B", "strategy"]].itertuples(index=False, name=None))
    grid = sorted(per_problem["T"].unique().tolist())
    cells = [
        cell
        for cell in (Cell(arm, t, p, b) for arm in arms for t in grid for p, b in SHAPES)
        if (cell.arm, cell.t, cell.p, cell.b, cell.strategy) in there and 2 * cell.p * cell.b <= samples
    ]
    if not cells:
        raise InputError(f"the exhaustive check finds no cell with P·B of at most half of sampling.samples = {samples}; raise it")
    preferred = list(dict.fromkeys([grid[len(grid) // 3], grid[2 * len(grid) // 3], *grid]))
    n_budgets = max(2, math.ceil(MIN_CELLS * len(grid) / len(cells)))
    return [cell for cell in cells if cell.t in preferred[:n_budgets]]


# --- the plain recipe -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plain:
    """A chain of the plain loop: per token its id, log-probability, and the margin by which it was drawn."""

    ids: list[int]
    logprob: list[float]
    margin: list[float]
    finish_reason: FinishReason


@torch.inference_mode()
def plain_chain(model: PreTrainedModel, prompt: Sequence[int], u: Floats | None, settings: SamplingSettings, eos: Collection[int]) -> Plain:
    """Generate one chain in one row, at most `settings.max_tokens` tokens.

    Parameters
    ----------
    u : (max_tokens,) float64, or None for the greedy chain
        The greedy chain's margin is the distance in probability of the best two tokens.
    """
    device = next(model.parameters()).device
    inputs, cache = torch.tensor([list(prompt)], device=device), None
    ids: list[int] = []
    logprob: list[float] = []
    margins: list[float] = []
    for t in range(settings.max_tokens):
        out = model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits, cache = out.logits[:, -1], out.past_key_values
        log_p = torch.log_softmax(logits.float(), dim=-1)
        if u is None:
            best = log_p.exp().topk(2).values[0]
            inputs, margin = logits.argmax(-1, keepdim=True), best[0] - best[1]
        else:
            p = truncated_probabilities(logits, settings.temperature, settings.top_p, settings.top_k, settings.min_p)
            drawn, margin = inverse_cdf(p, torch.tensor([u[t]], dtype=torch.float64, device=device))
            inputs = drawn.unsqueeze(-1)
        token = int(inputs)
        ids.append(token)
        logprob.append(float(log_p[0, token]))
        margins.append(float(margin))
        if token in eos:
            return Plain(ids, logprob, margins, "eos")
    return Plain(ids, logprob, margins, "length")


def decide(chains: Sequence[tuple[str | None, float]], p: int, b: int, u: float) -> str | None:
    """The answer of one exhaustive draw: the best by score of each stream's b chains, then a vote over the p streams.

    A chain without an answer wins a stream only if no chain of it has one, and never votes. `u` on [0, 1) picks among tied answers.

    Parameters
    ----------
    chains : p·b pairs (answer, score)
    """
    streams = [chains[s * b : (s + 1) * b] for s in range(p)]
    winners = [max(stream, key=lambda c: c[1] if c[0] is not None else -math.inf)[0] for stream in streams]
    votes = Counter(answer for answer in winners if answer is not None)
    tied = sorted(answer for answer, n in votes.items() if n == max(votes.values()))
    return tied[int(u * len(tied))] if tied else None


# --- (a) the same keys: the same ids ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class IdCounts:
    """Chains of the plain loop against the engine's: equal, first differing at a near-tie, or differing otherwise."""

    chains: int
    equal: int
    near_tie: int
    other: int


def compare_ids(
    model: PreTrainedModel, requests: Sequence[Request], settings: SamplingSettings, eos: Sequence[int], batch_rows: int | None
) -> IdCounts:
    """Draw the same chains by the engine in batches and by the plain loop, and count where the ids agree."""
    engine = TransformersEngine(model, settings, eos, batch_rows)
    batched = {(c.problem_key, c.sample): c.ids.tolist() for batch in engine.draw(requests) for c in batch}
    equal = near_tie = 0
    for request in tqdm(requests, unit="chain", desc="ids", disable=None):
        greedy = request.sample == GREEDY
        u = None if greedy else uniforms(settings.seed, request.problem_key, request.sample, settings.max_tokens)
        plain = plain_chain(model, request.prompt_ids, u, settings, eos)
        other = batched[request.problem_key, request.sample]
        if plain.ids == other:
            equal += 1
            continue
        # Neither can be a prefix of the other: both go on to an end token or to T.
        first = next(i for i, (mine, its) in enumerate(zip(plain.ids, other, strict=False)) if mine != its)
        near_tie += plain.margin[first] < NEAR_TIE
    return IdCounts(len(requests), equal, near_tie, len(requests) - equal - near_tie)


def check_ids(
    problems: pd.DataFrame, card: ModelCard, precision: str, settings: SamplingSettings, batch_rows: int | None
) -> list[dict[str, Any]]:
    """`compare_ids` with the pool's keys on the CPU, in float32 and float64, greedy and sampled chains apart.

    bitsandbytes' layers have no float64.
    """
    tokenizer = load_tokenizer(card)
    prompts = {p: prompt_ids(tokenizer, messages_of(m)[0]) for p, m in zip(problems["problem_key"], problems["messages"], strict=True)}
    model = load(card, precision, "float32", "cpu")
    eos = eos_ids(tokenizer, model.generation_config, card.vocab_size)
    rows: list[dict[str, Any]] = []
    for dtype in ("float32", "float64"):
        if dtype == "float64":
            if precision in ("int8", "nf4"):
                break
            model = model.double()
        for kind in ("greedy", "sampled"):
            requests = [Request(k, ids, i) for k, ids in prompts.items() for i in ID_SAMPLES if (i == GREEDY) == (kind == "greedy")]
            counts = compare_ids(model, requests, settings, eos, batch_rows)
            rows.append({"arm": f"{card.name}@{precision}", "dtype": dtype, "kind": kind} | asdict(counts))
    return rows


def ids_agree(rows: Iterable[dict[str, Any]]) -> bool:
    """Whether every float64 chain is equal and every float32 chain is equal up to a near-tie."""
    return all(row["other"] == 0 and (row["dtype"] == "float32" or row["near_tie"] == 0) for row in rows)


# --- (b) an independent seed: the same accuracy -----------------------------------------------------------------------


def draw_arm(
    cells: Sequence[Cell],
    problems: pd.DataFrame,
    card: ModelCard,
    precision: str,
    sampling: dict[str, Any],
    plan: Plan,
    store: Path,
    grader_name: str = "gsm8k",
) -> Floats:
    """Generate the cells of one arm on all problems, one chain at a time; returns their outcomes (1 is correct), (problems, cells).

    Chains go to a pool of their own whose key names the plain recipe, under their stream's name. A restarted run draws what is missing.
    """
    settings = replace(plan.settings, seed=plan.settings.seed + SEED_OFFSET)
    pool = Pool(store, pool_key(card, precision, replace(plan, settings=settings), sampling["compute_dtype"], RECIPE))
    keys = problems["problem_key"].tolist()
    with pool.writing() as writer:
        todo: list[tuple[Cell, str, int]] = []
        for cell in cells:
            problem_of = {cell.stream(key): key for key in keys}
            wanted = [(stream, i, 0) for stream in problem_of for i in range(cell.p * cell.b)]
            todo += [(cell, problem_of[stream], i) for stream, i, _ in pool.missing(wanted, cell.t)]
        if todo:
            with tqdm(total=len(todo), unit="chain", desc=f"one by one, {card.name}@{precision}", disable=None) as bar:
                for chain_block in _blocks(todo, problems, card, precision, sampling, settings):
                    writer.append(chain_block)
                    bar.update(len(chain_block))
        return np.column_stack([_outcomes(cell, pool, problems, card, settings.seed, grader_name) for cell in cells])


def _blocks(
    todo: Sequence[tuple[Cell, str, int]],
    problems: pd.DataFrame,
    card: ModelCard,
    precision: str,
    sampling: dict[str, Any],
    settings: SamplingSettings,
) -> Iterator[list[Chain]]:
    """Chains of (cell, problem, sample), BLOCK at a time. The recipe keeps no confidence sums: those are missing."""
    tokenizer = load_tokenizer(card)
    messages = dict(zip(problems["problem_key"], problems["messages"], strict=True))
    model = load(card, precision, sampling["compute_dtype"], pick_device(sampling["device"]))
    eos = eos_ids(tokenizer, model.generation_config, card.vocab_size)
    for start in range(0, len(todo), BLOCK):
        block: list[Chain] = []
        for cell, key, sample in todo[start : start + BLOCK]:
            stream, prompt = cell.stream(key), prompt_ids(tokenizer, messages_of(messages[key])[0])
            u = uniforms(settings.seed, stream, sample, cell.t)
            plain = plain_chain(model, prompt, u, replace(settings, max_tokens=cell.t), eos)
            none = np.full(len(plain.ids), np.nan, dtype=np.float32)
            ids, logprob = np.array(plain.ids, dtype=np.int32), np.array(plain.logprob, dtype=np.float32)
            near = sum(m < NEAR_TIE for m in plain.margin)
            block.append(Chain(stream, sample, len(prompt), plain.finish_reason, ids, logprob, none, none, none, near))
        yield block


def _outcomes(cell: Cell, pool: Pool, problems: pd.DataFrame, card: ModelCard, seed: int, name: str) -> Floats:
    """Whether the cell's answer is the gold one, per problem."""
    tokenizer = Tokenizer.from_file(str(checkpoint(card) / "tokenizer.json"))
    streams = [cell.stream(key) for key in problems["problem_key"]]
    golds = [gold_of(name, gold, f"problem {i}") for i, gold in zip(problems["problem_id"], problems["gold"], strict=True)]
    gold_by_stream = dict(zip(streams, golds, strict=True))
    chains: dict[str, list[tuple[str | None, float]]] = {stream: [] for stream in streams}
    for row in pool.rows(streams, cell.t, ["problem_key", "sample", "finish_reason", "n_tokens", "ids", "logprob"]).to_pylist():
        text, gold = tokenizer.decode(row["ids"], skip_special_tokens=True), gold_by_stream[row["problem_key"]]
        verdict = grader(name).grade(text, row["finish_reason"] == "eos", gold)
        chains[row["problem_key"]].append((gold if verdict.correct else verdict.answer, float(np.mean(row["logprob"]))))
    ties = [float(uniforms(seed, f"{stream}/tie", 0, 1)[0]) for stream in streams]
    decided = [decide(chains[stream], cell.p, cell.b, u) for stream, u in zip(streams, ties, strict=True)]
    return np.array([answer == gold for answer, gold in zip(decided, golds, strict=True)], dtype=np.float64)


def left_out_values(pool: strategies.Pool, cells: Sequence[Cell]) -> Floats:
    """Estimates of cells of one (arm, T) without sample i, (problems, K, cells).

    Votes and best-of have closed forms: the same estimator on K-1 samples. A composite's estimate is an average over few random cuts;
    leaving out a sample would change those, and the jackknife would count that noise K-1 times. So its values come from one fixed, larger
    set of draws: the estimate without sample i is the average over the draws that do not hold i.
    """
    n, k = pool.codes.shape
    keep = np.array([[c for c in range(k) if c != out] for out in range(k)])
    codes = pool.codes[:, keep].reshape(n * k, k - 1)
    score = np.where(pool.codes == NO_ANSWER, -np.inf, pool.scores[SCORE])[:, keep].reshape(n * k, k - 1)
    cuts = strategies.permutations_for(k, VARIANCE_PERMUTATIONS, 0)
    out = np.empty((n, k, len(cells)))
    for j, cell in enumerate(cells):
        if cell.p == 1:
            out[:, :, j] = best_of_k(codes == 0, score, cell.b).reshape(n, k)
        elif cell.b == 1:
            out[:, :, j] = majority_at_all_k(codes, np.zeros(len(codes), dtype=np.int64), cell.p)[:, -1].reshape(n, k)
        else:
            out[:, :, j] = _composite_left_out(pool, cell, cuts)
    return out


def _composite_left_out(pool: strategies.Pool, cell: Cell, cuts: NDArray[np.int64]) -> Floats:
    """Mean over the draws of P·B samples that do not hold sample i, (problems, K)."""
    k, used = pool.size, cell.p * cell.b
    index = cuts[:, : k // used * used].reshape(-1, used)
    without = (index[:, :, None] != np.arange(k)).all(axis=1).astype(float)
    choose = strategies.strategy(cell.strategy, cell.b).choose
    out = np.empty(pool.codes.shape)
    for r, (codes, score) in enumerate(zip(pool.codes[:, index], pool.scores[SCORE][:, index], strict=True)):
        right = (choose(codes, {SCORE: score}) * (codes == 0)).sum(axis=1)
        out[r] = right @ without / without.sum(axis=0)
    return out


@dataclass(frozen=True)
class Comparison:
    """Pool against exhaustive, per cell, and the joint test."""

    pool: Floats
    exhaustive: Floats
    low: Floats
    high: Floats
    tested: NDArray[np.bool_]
    chi2: float
    dof: int
    p: float

    @property
    def difference(self) -> Floats:
        return self.pool - self.exhaustive


def compare(value: Floats, left_out: Floats, outcomes: Floats, confidence: float) -> Comparison:
    """Differences pool - exhaustive with intervals, and X² = D' S⁻¹ D over all cells jointly.

    Problems are held fixed, so a cell's difference on a problem has expectation 0 and
    S = n⁻² Σ_problems [diag(v (1 - v)) + Cov_pool]. Each exhaustive outcome is a Bernoulli variable independent of all others;
    v (1 - v) is estimated without bias by w (1 - w) + Var_pool(w), w the pool's estimate. Cov_pool is the delete-one jackknife
    (K-1)/K Σ_i (x_i - mean x)(y_i - mean y) over the sample index, over all cells at once: cells share the pool's chains, and arms share
    their uniforms.

    A cell whose outcomes are nearly certain on every problem (Σ v (1 - v) < 1.5) is far from normal: it stays out of X² and its degrees of
    freedom, and its interval takes v as (K w + 1)/(K + 2), so that it never has zero width. Left out: the Monte Carlo error of a
    composite's cuts, which the study keeps below a tenth of a standard error. In 220 simulated checks of the default study's
    shape the joint test was a little liberal: p < 0.05 in 7.3%, p < 0.01 in 1.8% of them.

    Parameters
    ----------
    value : (problems, cells)
        The pool's estimates.
    left_out : (problems, K, cells)
        The same without sample i.
    outcomes : (problems, cells)
        Exhaustive draws, 0 or 1.
    """
    n, k, _ = left_out.shape
    deviation = left_out - left_out.mean(axis=1, keepdims=True)
    shared = (k - 1) / k * np.einsum("nkc,nkd->cd", deviation, deviation)
    within = (k - 1) / k * (deviation**2).sum(axis=1)
    bernoulli = np.clip(value * (1 - value) + within, 0.0, 0.25).sum(axis=0)
    tested = bernoulli >= MIN_VARIANCE
    shrunk = (k * value + 1) / (k + 2)
    own = np.where(tested, bernoulli, np.maximum(bernoulli, (shrunk * (1 - shrunk)).sum(axis=0)))
    s = (shared + np.diag(own)) / n**2
    d = (value - outcomes).mean(axis=0)
    half = stats.norm.ppf((1 + confidence) / 2) * np.sqrt(np.diag(s))
    dof = int(tested.sum())
    chi2 = float(d[tested] @ np.linalg.solve(s[np.ix_(tested, tested)], d[tested]))
    p = float(stats.chi2.sf(chi2, dof)) if dof else math.nan
    return Comparison(value.mean(axis=0), outcomes.mean(axis=0), d - half, d + half, tested, chi2, dof, p)


def validate_study(
    config: dict[str, Any],
    problems: pd.DataFrame,
    per_problem: pd.DataFrame,
    cards: dict[str, ModelCard],
    grades: dict[str, pd.DataFrame],
    store: Path,
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Both checks on the two smallest models of a study, on its study problems.

    Parameters
    ----------
    config : mapping
        study, seed, budgets, sampling and statistics of the config.
    per_problem : table
        cells.parquet of the study: the pool's estimates.
    cards : mapping
        Card by model name.
    grades : mapping
        Grades by arm, of every model's reference precision.

    Returns
    -------
    table, ids
        The rows of validation.csv and of validation_ids.json.
    """
    sampling = config["sampling"]
    plan = Plan.of(sampling, config["budgets"], config["seed"])
    if plan.forcing or plan.extend or len(plan.variants) > 1:
        raise InputError(
            "validation.csv: the plain loop knows budgets that cut and samples that are drawn alike, no forcing and no variants"
        )
    arms = sorted(grades, key=lambda arm: (cards[arm.split("@")[0]].n_params, arm))[:N_ARMS]
    chosen = problems[problems["split"] == "study"]
    per_problem = per_problem[per_problem["split"] == "study"]
    cells = choose_cells(arms, per_problem, sampling["samples"])
    gold = dict(zip(chosen["problem_id"], chosen["gold"], strict=True))
    accuracy = per_problem.set_index(["arm", "T", "P", "B", "strategy", "problem_id"])["accuracy"]
    value = np.array([[accuracy[c.arm, c.t, c.p, c.b, c.strategy, p] for c in cells] for p in chosen["problem_id"]])
    ids: list[dict[str, Any]] = []
    left_out: list[Floats] = []
    outcomes: list[Floats] = []
    for arm in arms:
        card, precision = cards[arm.split("@")[0]], arm.split("@")[1]
        ids += check_ids(chosen, card, precision, plan.settings, sampling["batch_rows"])
        own = [cell for cell in cells if cell.arm == arm]
        graded = grades[arm][grades[arm]["split"] == "study"]
        for t in dict.fromkeys(cell.t for cell in own):
            pool = matrices(graded[graded["T"] == t], gold, Flops.of(card)).pool
            left_out.append(left_out_values(pool, [cell for cell in own if cell.t == t]))
        outcomes.append(draw_arm(own, chosen, card, precision, sampling, plan, store, names_of(config["grader"])[0]))
    result = compare(value, np.concatenate(left_out, axis=2), np.concatenate(outcomes, axis=1), config["statistics"]["confidence"])
    return _table(config["study"], cells, cards, len(chosen), result), ids


def _table(study: str, cells: Sequence[Cell], cards: dict[str, ModelCard], n: int, result: Comparison) -> pd.DataFrame:
    """The rows of validation.csv."""
    keys = [
        {
            "study": study,
            "arm": cell.arm,
            "model": cell.arm.split("@")[0],
            "n_params": cards[cell.arm.split("@")[0]].n_params,
            "precision": cell.arm.split("@")[1],
            "T": cell.t,
            "P": cell.p,
            "B": cell.b,
            "strategy": cell.strategy,
        }
        for cell in cells
    ]
    size = np.abs(result.difference)
    return pd.DataFrame(keys).assign(
        n_problems=n,
        pool=result.pool,
        exhaustive=result.exhaustive,
        difference=result.difference,
        low=result.low,
        high=result.high,
        tested=result.tested,
        largest=np.arange(len(size)) == size.argmax(),
        chi2=result.chi2,
        dof=result.dof,
        p=result.p,
        estimand=ESTIMAND,
    )


def summary(table: pd.DataFrame, ids: Sequence[dict[str, Any]]) -> str:
    """The two results in plain lines: ids by number format, the joint test, and the largest difference with its interval."""
    lines = [
        f"{r['arm']} {r['dtype']} {r['kind']}: {r['equal']} of {r['chains']} chains equal, {r['near_tie']} differ at a near-tie, "
        f"{r['other']} otherwise"
        for r in ids
    ]
    top = table[table["largest"]].iloc[0]
    difference, low, high = (f"{100 * top[name]:+.1f}" for name in ("difference", "low", "high"))
    where = f"{top['arm']}, T = {top['T']}, P = {top['P']}, B = {top['B']}, {top['strategy']}"
    joint = f"chi2 = {top['chi2']:.1f} on {top['dof']} degrees of freedom, p = {top['p']:.3f}"
    return "\n".join(
        [
            *lines,
            f"{len(table)} cells on {top['n_problems']} problems: {joint}",
            f"largest difference, pool - exhaustive: {difference} points [{low}, {high}] at {where}",
        ]
    )
