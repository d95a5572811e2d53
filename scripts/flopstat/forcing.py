"""What is drawn for every problem, and how budgets are obeyed: cut, forced to answer, or made to go on.

Budgets are checked from the ids that came back (`verify_budgets`), not from what was asked for.

Source: Muennighoff et al. 2025 (s1), section 3, budget forcing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flopstat.engine import GREEDY, Extension, SamplingSettings
from flopstat.errors import InputError
from flopstat.randomness import variant

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Variant:
    """One way of asking: its share of the samples and its temperature."""

    weight: float
    temperature: float


@dataclass(frozen=True)
class Forcing:
    """Forced answers: what a chain that is cut at T is given, and A, the tokens that it may answer in."""

    budgets: tuple[int, ...]
    cue: str
    tokens: int


@dataclass(frozen=True)
class Plan:
    """What is drawn for every problem."""

    settings: SamplingSettings
    samples: int
    variants: tuple[Variant, ...]
    forcing: Forcing | None
    extend: tuple[str, int, int] | None  # text, times, minimum; its ids depend on the model

    @classmethod
    def of(cls, sampling: dict[str, Any], budgets: dict[str, Any], seed: int) -> Plan:
        """The plan of a study's config."""
        longest = max(budgets["T"])
        variants = tuple(
            Variant(v["weight"], sampling["temperature"] if v["temperature"] is None else v["temperature"]) for v in sampling["variants"]
        )
        forced = budgets["forcing"] == "force_answer"
        extended = budgets["forcing"] == "extend"
        return cls(
            settings=SamplingSettings(seed, sampling["temperature"], sampling["top_p"], sampling["top_k"], longest, sampling["min_p"]),
            samples=sampling["samples"],
            variants=variants or (Variant(1.0, sampling["temperature"]),),
            forcing=Forcing(tuple(sorted(budgets["T"])), budgets["answer_prompt"], budgets["answer_tokens"]) if forced else None,
            extend=(budgets["extend_text"], budgets["extend_times"], budgets["extend_minimum"] or longest) if extended else None,
        )

    def for_model(self, tokenizer: PreTrainedTokenizerFast, ends: Sequence[int]) -> SamplingSettings:
        """The settings with the ids of the extension.

        Raises
        ------
        InputError
            If the extension's text has no tokens or holds one that ends a chain.
        """
        if self.extend is None:
            return self.settings
        text, times, minimum = self.extend
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        if not ids or set(ids) & set(ends):
            raise InputError(f"budgets.extend_text {text!r}: is no text to go on with for this tokenizer; choose other words")
        return replace(self.settings, extension=Extension(ids, times, minimum))

    def pick(self, problem_key: str, sample: int) -> int:
        """The variant of a sample."""
        if sample == GREEDY or len(self.variants) == 1:
            return 0
        return variant(self.settings.seed, problem_key, sample, [v.weight for v in self.variants])


class BudgetViolation(RuntimeError):
    """A stored chain breaks the budget it was drawn under: a defect of the engine, never of the input."""


def answer_key(problem_key: str, ids: np.ndarray) -> str:
    """The key that an answer is stored under: it belongs to these very ids, not to whatever a redrawn chain may hold."""
    return hashlib.sha256(problem_key.encode() + ids.astype("<i4").tobytes()).hexdigest()[:16]


def unfinished(n_tokens: int, finish_reason: str, budget: int) -> bool:
    """Whether a chain has not ended by itself within a budget. A chain that broke is not forced."""
    return n_tokens > budget or (n_tokens == budget and finish_reason == "length")


def cuts(chains: pa.Table, budgets: Sequence[int]) -> Iterator[tuple[str, int, int, int, np.ndarray]]:
    """(problem, sample, variant, T, ids[:T]) of all chains that a budget cuts."""
    ids = chains["ids"].combine_chunks()
    flat, at = ids.flatten().to_numpy(), ids.offsets.to_numpy() - ids.offsets[0].as_py()
    columns = (chains[c].to_pylist() for c in ("problem_key", "sample", "variant", "n_tokens", "finish_reason"))
    for r, (key, sample, which, n, finish) in enumerate(zip(*columns, strict=True)):
        for t in budgets:
            if unfinished(n, finish, t):
                yield key, sample, which, t, flat[at[r] : at[r] + t]


def verify_budgets(rows: pa.Table, plan: Plan, ends: Iterable[int], extension_ids: int) -> None:
    """Check every budget from the ids themselves.

    A chain ends at its first end token or is at least as long as the largest T; an extended chain that ends before the minimum was made to
    go on as often as allowed; a forced answer has at most A tokens and belongs to a chain that had not ended at T.

    Parameters
    ----------
    extension_ids : int
        Tokens of the extension's text.

    Raises
    ------
    BudgetViolation
        With the first row that breaks a rule.
    """
    last = set(ends)
    reasons = {(k, s): (n, f) for k, s, b, n, f in _named(rows) if b == 0}
    longest = plan.settings.max_tokens
    for row in rows.select(["problem_key", "sample", "budget", "n_tokens", "finish_reason", "inserted", "ids"]).to_pylist():
        ids, n, reason, t = row["ids"], row["n_tokens"], row["finish_reason"], row["budget"]
        limit = longest if t == 0 else plan.forcing.tokens if plan.forcing else 0
        inner, end = ids[:-1], ids[-1] if ids else None
        wrong = ""
        if len(ids) != n:
            wrong = f"holds {len(ids)} ids and counts {n}"
        elif any(i in last for i in inner) or (end in last) != (reason == "eos"):
            wrong = "goes on behind an end token, or ends without one"
        elif reason == "length" and (n < limit or (t and n > limit)):
            wrong = f"is cut at {n} tokens, budget {limit}"
        elif t and n > limit:
            wrong = f"answers in {n} tokens, budget {limit}"
        elif t and not unfinished(*reasons[row["problem_key"], row["sample"]], t):
            wrong = "was forced to answer though it had ended"
        elif plan.extend and t == 0 and reason == "eos" and n - 1 < plan.extend[2] and row["inserted"] != plan.extend[1] * extension_ids:
            wrong = f"ends after {n} tokens with {row['inserted']} inserted"
        if wrong:
            raise BudgetViolation(f"problem {row['problem_key']}, sample {row['sample']}, T {t or longest}: the chain {wrong}")


def _named(rows: pa.Table) -> Iterator[tuple[str, int, int, int, str]]:
    return zip(*(rows[c].to_pylist() for c in ("problem_key", "sample", "budget", "n_tokens", "finish_reason")), strict=True)
