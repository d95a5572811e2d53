"""Every table's columns: dtype, unit and one line of meaning, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["str", "int", "float", "bool"]

STATES = ("answered", "no_answer", "truncated", "timeout", "invalid", "engine_error")
FAILED = ("timeout", "invalid", "engine_error")
PLANNED = {  # quantities of a plan, with their units
    "chains": "chains",
    "tokens": "tokens",
    "prompt_tokens": "tokens",
    "flops": "FLOP",
    "seconds": "s",
    "hours": "h",
    "memory_bytes": "bytes",
    "usd": "US$",
    "joules": "J",
    "half_width_accuracy": "share",
    "half_width_difference": "share",
    "half_width_kappa": "share per ln P",
}


@dataclass(frozen=True)
class Column:
    """One column: its type, unit ("" for none), meaning, and whether a value may be missing."""

    dtype: Dtype
    unit: str
    meaning: str
    nullable: bool = False
    low: float | None = None
    high: float | None = None


def _share(meaning: str, nullable: bool = False) -> Column:
    return Column("float", "share", meaning, nullable, 0.0, 1.0)


def _count(unit: str, meaning: str, nullable: bool = False) -> Column:
    return Column("int", unit, meaning, nullable, low=0)


def _cost(name: str, unit: str, meaning: str) -> dict[str, Column]:
    return {
        name: Column("float", unit, f"{meaning}, per problem asked; missing where unknown: unknown_costs.csv says why", True, 0.0),
        f"{name}_low": Column("float", unit, f"lower limit of {name}", True, 0.0),
        f"{name}_high": Column("float", unit, f"upper limit of {name}", True, 0.0),
    }


_STUDY = {"study": Column("str", "", "name of the study")}
_CELL_KEYS = {
    "arm": Column("str", "", "model@precision"),
    "model": Column("str", "", "model name"),
    "n_params": _count("parameters", "N, all parameters, each tensor once"),
    "precision": Column("str", "", "how the weights are held"),
    "bits_effective": Column(
        "float", "bits per parameter", "measured: with scales, embeddings and skipped layers; missing if imported", True, 0.0
    ),
    "T": _count("tokens", "budget of one chain"),
    "P": _count("streams", "parallel streams whose answers are voted on"),
    "B": _count("branches", "branches per stream of which the best by score is kept"),
    "strategy": Column("str", "", "how one answer is made of P·B chains"),
}
_NOT_IDENTIFIED = Column("str", "", "not_identified: no resample of the problems moves the value, which so has no limits", True)
_ESTIMAND = {"estimand": Column("str", "", "what the interval is about")}
_STREAMS = {name: _CELL_KEYS[name] for name in ("arm", "model", "n_params", "precision", "T")} | {
    "n_problems": _count("problems", "study problems")
}

TABLES: dict[str, dict[str, Column]] = {
    "problems": {
        "problem_id": Column("str", "", "id in the dataset"),
        "question": Column("str", "", "the problem"),
        "split": Column("str", "", "calibration or study"),
        "gold": Column("str", "", "gold answer, an integer"),
        "difficulty": _count("steps", "annotated calculation steps of the gold answer"),
        "messages": Column("str", "", "rendered chat messages, JSON"),
        "problem_key": Column("str", "", "hash of the messages: the problem's identity in pools"),
    },
    "refusals": {
        "reason": Column("str", "", "why problems were left out; asked and selected close the balance"),
        "n_problems": _count("problems", "how many"),
    },
    "samples": {
        "problem_key": Column("str", "", "hash of the rendered messages"),
        "sample": Column("int", "", "index of the chain; -1 is greedy", low=-1),
        "budget": _count("tokens", "0 for a chain; T for an answer that was forced at T"),
        "variant": _count("", "number of the prompt and temperature it was drawn with; 0 if all are alike"),
        "prompt_tokens": _count("tokens", "length of the prompt; of a forced answer with the chain's first T tokens and the cue"),
        "n_tokens": _count("tokens", "tokens generated, the end-of-sequence token included"),
        "finish_reason": Column("str", "", "eos, length, or engine_error where the model gave no finite logits"),
        "near_ties": _count("tokens", "draws within 1e-4 of a boundary"),
        "inserted": _count("tokens", "tokens that budget forcing put in to make the chain go on"),
    },
    "imported": {
        "problem_id": Column("str", "", "id in the log, or the problem's number in it"),
        "model": Column("str", "", "name in the log, else as declared, else the file's name"),
        "n_params": _count("parameters", "N, as the log or the caller has it", True),
        "precision": Column("str", "", "how the weights were held", True),
        "sample": Column("int", "", "index of the chain; -1 is greedy", low=-1),
        "text": Column("str", "", "what the model wrote"),
        "n_tokens": _count("tokens", "tokens generated", True),
        "prompt_tokens": _count("tokens", "length of the prompt", True),
        "mean_logprob": Column("float", "nats/token", "mean log-probability of the chosen tokens", True),
        "finish_reason": Column("str", "", "eos, length, engine_error, or the log's own word", True),
        "T": _count("tokens", "budget of the chain", True),
    },
    "grades": {
        "problem_id": Column("str", "", "id in the dataset"),
        "model": Column("str", "", "model name"),
        "precision": Column("str", "", "how the weights are held"),
        "split": Column("str", "", "calibration or study"),
        "difficulty": _count("steps", "annotated calculation steps of the gold answer"),
        "sample": Column("int", "", "index of the chain; -1 is greedy", low=-1),
        "variant": _count("", "number of the prompt and temperature it was drawn with; 0 if all are alike"),
        "T": _count("tokens", "budget the chain is cut at"),
        "answer": Column("str", "", "normalised answer; missing unless answered", nullable=True),
        "state": Column("str", "", "one of " + ", ".join(STATES)),
        "correct": Column("bool", "", "answered and equal to the gold answer"),
        "finish_reason": Column("str", "", "eos, length or engine_error, at this T; if imported the log's word, or missing", True),
        "n_tokens": _count("tokens", "tokens used at this T; missing where a log does not hold it", True),
        "answer_tokens": _count("tokens", "cue and answer of a forced answer, as a live cache takes them; 0 if none was forced"),
        "spent_tokens": _count(
            "tokens", "tokens that drawing the forced answer put through the model: prompt, chain and cue once more, and the answer; else 0"
        ),
        "prompt_tokens": _count("tokens", "length of the prompt; missing where a log does not hold it", True),
        "mean_logprob": Column("float", "nats/token", "mean log-probability of the chosen tokens up to T; missing without tokens", True),
        "mean_entropy": Column("float", "nats/token", "mean entropy of the distribution up to T; missing without tokens", True),
        "self_certainty": Column("float", "nats/token", "mean KL divergence from uniform up to T; missing without tokens", True),
        "lowest_window": Column("float", "nats/token", "lowest mean confidence over a sliding window of 16 tokens, up to T", True),
        "tail_confidence": Column("float", "nats/token", "mean confidence of the last 16 tokens, up to T", True),
    },
    "submission_grades": {
        "problem_id": Column("str", "", "id in the problems file, or its 0-based line number"),
        "model": Column("str", "", "model name"),
        "precision": Column("str", "", "how the weights are held"),
        "sample": Column("int", "", "index of the sample; -1 is greedy", low=-1),
        "T": _count("tokens", "the longest sample of this model and precision; 0 if token counts are unknown"),
        "answer": Column("str", "", "canonical answer; missing unless answered", nullable=True),
        "state": Column("str", "", "one of " + ", ".join(STATES)),
        "correct": Column("bool", "", "answered and right"),
        "finish_reason": Column("str", "", "as given; missing where unknown", nullable=True),
        "n_tokens": Column("int", "tokens", "as given; the column is left out where one is unknown", low=0),
        "prompt_tokens": Column("int", "tokens", "as given; the column is left out where one is unknown", low=0),
        "mean_logprob": Column("float", "nats/token", "as given; the column is left out where one is unknown"),
    },
    "verdicts": {
        "problem_id": Column("str", "", "id in the dataset"),
        "model": Column("str", "", "model name"),
        "precision": Column("str", "", "how the weights are held"),
        "split": Column("str", "", "calibration or study"),
        "difficulty": _count("steps", "annotated calculation steps of the gold answer"),
        "sample": Column("int", "", "index of the chain; -1 is greedy", low=-1),
        "T": _count("tokens", "budget the chain is cut at"),
        "gold": Column("str", "", "gold answer"),
        "grader": Column("str", "", "name of the grader"),
        "answer": Column("str", "", "what it read, in its own canonical form; missing unless answered", nullable=True),
        "state": Column("str", "", "one of " + ", ".join(STATES)),
        "correct": Column("bool", "", "its verdict"),
        "excerpt": Column("str", "", "beginning and end of the text, escaped; only where graders disagree", nullable=True),
    },
    "grader_disagreements": {
        "problem_id": Column("str", "", "id in the dataset"),
        "arm": Column("str", "", "model@precision"),
        "sample": Column("int", "", "index of the chain; -1 is greedy", low=-1),
        "T": _count("tokens", "budget the chain is cut at"),
        "gold": Column("str", "", "gold answer"),
        "grader_a": Column("str", "", "name of a grader, the earlier one in the config"),
        "grader_b": Column("str", "", "name of the other grader"),
        "answer_a": Column("str", "", "what grader_a read; missing unless answered", nullable=True),
        "answer_b": Column("str", "", "what grader_b read; missing unless answered", nullable=True),
        "state_a": Column("str", "", "state by grader_a"),
        "state_b": Column("str", "", "state by grader_b"),
        "correct_a": Column("bool", "", "verdict of grader_a"),
        "correct_b": Column("bool", "", "verdict of grader_b"),
        "excerpt": Column("str", "", "beginning and end of the text, escaped"),
    },
    "grader_shift": {
        "arm": Column("str", "", "model@precision"),
        "T": _count("tokens", "budget of one chain; P = B = 1"),
        "grader": Column("str", "", "name of the grader"),
        "reference": Column("str", "", "the grader that decides"),
        "foreign": Column("bool", "", "repeats another tool's verdict, and ignores whether a chain was cut"),
        "n_problems": _count("problems", "study problems"),
        "n_asked": _count("chains", "sampled chains, greedy left out"),
        "n_differ": _count("chains", "chains on which the verdicts differ"),
        "accuracy": _share("of single samples under this grader"),
        "accuracy_low": _share("lower limit"),
        "accuracy_high": _share("upper limit"),
        "difference": Column("float", "share", "accuracy minus that under reference, same chains", low=-1.0, high=1.0),
        "difference_low": Column("float", "share", "lower limit of the difference, paired by problem", low=-1.0, high=1.0),
        "difference_high": Column("float", "share", "upper limit of the difference, paired by problem", low=-1.0, high=1.0),
    }
    | _ESTIMAND,
    "configurations": _STUDY
    | _CELL_KEYS
    | {
        "split": Column("str", "", "calibration or study"),
        "n_problems": _count("problems", "problems of the split"),
        "accuracy": _share("correct / asked"),
        "accuracy_low": _share("lower limit"),
        "accuracy_high": _share("upper limit"),
        "se_sampling": Column(
            "float",
            "share",
            "standard error from the finite pool, these problems held fixed; missing for k = K",
            True,
            0.0,
        ),
        "se_problems": Column(
            "float", "share", "standard error from the choice of problems, without the sampling part; missing where not split", True, 0.0
        ),
        "changed": _share("probability that the answer differs from that of one of its chains, drawn at random; missing for greedy", True),
        "changed_low": _share("lower limit of changed", True),
        "changed_high": _share("upper limit of changed", True),
        "n_asked": _count("chains", "chains the estimate rests on: problems × pool size"),
        "n_answered": _count("chains", "with an answer at T"),
        "n_no_answer": _count("chains", "finished without an answer"),
        "n_truncated": _count("chains", "cut at T without an answer"),
        "n_failed": _count("chains", "timeout, invalid or engine error"),
        "accuracy_bound_low": _share("accuracy if every cell that meets a failed chain were wrong"),
        "accuracy_bound_high": _share("accuracy if every cell that meets a failed chain were right"),
        "mean_tokens": Column(
            "float",
            "tokens",
            "tokens generated per problem asked, all P·B chains, forced answers on a live cache; or missing",
            True,
            0.0,
        ),
        "mean_spent_tokens": Column(
            "float", "tokens", "the same as drawn here, where each forced answer puts prompt and chain through the model again", True, 0.0
        ),
        "estimand": Column("str", "", "what the interval is about"),
        "flags": Column(
            "str",
            "",
            "small_counts: few right or few wrong, Wilson interval on the effective n; recipe_T: a budget of the source recipe; "
            "monte_carlo: the error of the random cuts exceeds a tenth of the standard error; imported: samples of another tool; "
            "declared_tokens, external_samples: flops_nominal stands on tokens per solution, or samples per answer, as declared",
            nullable=True,
        ),
    }
    | _cost("flops_seed", "FLOP", "B·T·N·c_effective as the source recipe writes it")
    | _cost("flops_nominal", "FLOP", "P·B·T·N·c_counted, what to provision; of imported samples 2·N·tokens·P·B·external samples")
    | _cost("flops", "FLOP", "counted: shared prefill, decoding at its context, all chains")
    | _cost("eflops", "FLOP", "flops + bytes read (weights per step, shared prompt, own keys and values) × measured FLOP/byte")
    | _cost("device_s", "s", "share of a batch of the largest calibrated size, not waiting time")
    | _cost("latency_p50_s", "s", "until the vote is in, median: slowest of P·B chains at batch P·B, mixture over problems")
    | _cost("latency_p90_s", "s", "until the vote is in, 90th percentile")
    | _cost("memory_bytes", "byte", "weights at effective bits and the KV cache of P·B chains of prompt + T tokens")
    | _cost("usd", "US$", "device_s at the price table's rate; of imported samples by its price per token")
    | _cost("joules", "J", "device_s × measured watts")
    | _cost("flops_per_correct", "FLOP", "mean flops over accuracy; inf, as the upper limit may be, where nothing is right"),
    "unknown_costs": {
        "arm": Column("str", "", "model@precision"),
        "cost": Column("str", "", "cost column that is missing"),
        "reason": Column("str", "", "why"),
    },
    "evaluation": {
        "model": Column("str", "", "model name"),
        "precision": Column("str", "", "how the weights are held"),
        "T": _count("tokens", "budget the chains are cut at"),
        "strategy": Column("str", "", "how one answer is made of k chains"),
        "k": _count("chains", "chains used"),
        "accuracy": _share("average over all k-subsets of the pool"),
        "low": _share("lower limit"),
        "high": _share("upper limit"),
        "se_sampling": Column(
            "float", "share", "standard error from the finite pool, these problems held fixed; missing for k = K", True, 0.0
        ),
        "se_problems": Column("float", "share", "standard error from the choice of problems, without the sampling part", True, 0.0),
        "changed": _share("probability that the answer differs from that of one of its chains, drawn at random", True),
        "changed_low": _share("lower limit of changed", True),
        "changed_high": _share("upper limit of changed", True),
        "n_problems": _count("problems", "problems of the pool"),
        "n_asked": _count("chains", "chains the estimate rests on"),
        "n_answered": _count("chains", "with an answer at T"),
        "n_no_answer": _count("chains", "finished without an answer"),
        "n_truncated": _count("chains", "cut at T without an answer"),
        "n_failed": _count("chains", "timeout, invalid or engine error"),
        "estimand": Column("str", "", "what the interval is about"),
        "flags": Column(
            "str", "", "small_counts: few right or few wrong; monte_carlo: error of random cuts over a tenth of the error", True
        ),
        "note": Column("str", "", "what the strategy is or needs"),
    },
    "cells": {
        "arm": Column("str", "", "model@precision"),
        "T": _count("tokens", "budget of one chain"),
        "P": _count("streams", "parallel streams"),
        "B": _count("branches", "branches per stream"),
        "strategy": Column("str", "", "how one answer is made of P·B chains"),
        "split": Column("str", "", "calibration or study"),
        "problem_id": Column("str", "", "id in the dataset"),
        "difficulty": _count("steps", "annotated calculation steps"),
        "accuracy": _share("expected accuracy of the cell on this problem"),
        "flops": Column("float", "FLOP", "expected cost of the cell on this problem; missing where unknown", True, 0.0),
    },
    "configurations_skipped": _STUDY | _CELL_KEYS | {"reason": Column("str", "", "why the cell has no estimate")},
    "calibration": {
        "arm": Column("str", "", "model@precision"),
        "phase": Column("str", "", "prefill, decode, chain or device"),
        "batch": _count("rows", "batch size"),
        "context": _count("tokens", "tokens that each row attends to; for a prefill the length of each prompt, for a chain its budget"),
        "metric": Column("str", "", "what was measured: see the report's caption"),
        "value": Column("float", "", "median over rounds, closed form, or the highest rate for peak and bandwidth; in `unit`"),
        "low": Column("float", "", "lowest measurement; lower 95% limit of speed_over_reference"),
        "high": Column("float", "", "highest measurement; upper 95% limit of speed_over_reference"),
        "unit": Column("str", "", "unit of value, low and high; missing for a ratio", True),
        "verdict": Column(
            "str",
            "",
            "of speed_over_reference: faster, slower, the same (1 lies within the limits), or emulated: held and multiplied in the compute "
            "dtype, so its speed says nothing of the precision",
            True,
        ),
        "fingerprint": Column("str", "", "hash of device, threads and library versions; rows of different ones do not compare"),
    },
    "plan": _STUDY
    | {
        "arm": Column("str", "", "model@precision, or total"),
        "quantity": Column("str", "", "what is forecast: " + ", ".join(PLANNED)),
        "unit": Column("str", "", "unit of value, low, high and worst"),
        "basis": Column(
            "str", "", "what it stands on: pilot, assumed or range (lengths), pilot, calibration or roofline (speed), config; several by ;"
        ),
        "value": Column("float", "", "expected; missing where only a range is known", True, 0.0),
        "low": Column("float", "", "lower limit", low=0.0),
        "high": Column("float", "", "upper limit; inf if no interval is possible", low=0.0),
        "worst": Column("float", "", "if every chain ran to the largest T", low=0.0),
    },
    "plan_actual": _STUDY
    | {
        "arm": Column("str", "", "model@precision, or total"),
        "quantity": Column("str", "", "tokens, seconds or memory_bytes"),
        "unit": Column("str", "", "unit of planned, low, high and actual"),
        "planned": Column("float", "", "expected by plan.csv; missing where it had no value", True, 0.0),
        "low": Column("float", "", "its lower limit", True, 0.0),
        "high": Column("float", "", "its upper limit", True, 0.0),
        "actual": Column("float", "", "what the sampling jobs took; missing where that was not measured", True, 0.0),
        "ratio": Column("float", "", "actual over planned", True, 0.0),
        "status": Column(
            "str",
            "",
            "measured: these jobs drew it; drawn earlier: the pool held the chains before; partly drawn earlier: it held some; not planned",
        ),
    },
    "laws": {
        "law": Column("str", "", "id in the catalogue"),
        "arm": Column("str", "", "model@precision; all, *@precision over sizes, or for training laws ladder or a model"),
        "T": _count("tokens", "budget the law is fitted at; missing for laws over all budgets and of training", True),
        "parameter": Column("str", "", "name of the parameter, of a comparison or of an error (errors in points of accuracy)"),
        "estimate": Column("float", "", "value; missing if not identified", nullable=True),
        "low": Column("float", "", "lower limit", nullable=True),
        "high": Column("float", "", "upper limit", nullable=True),
        "certified": Column("bool", "", "the fit passed its own checks"),
        "verdict": Column("str", "", "what the fit says in words"),
    },
    "vote_gains": {
        "arm": Column("str", "", "model@precision"),
        "T": _count("tokens", "budget of one chain"),
        "P": _count("streams", "streams that vote"),
        "gain": Column(
            "float",
            "share",
            "A(P) - A(1) on the calibration problems; 0 by definition at P = 1, and at 2 where all chains answer",
            low=-1.0,
            high=1.0,
        ),
        "low": Column("float", "share", "lower limit at this P alone"),
        "high": Column("float", "share", "upper limit at this P alone"),
        "fitted": Column("float", "share", "κ ln P"),
    },
    "local_kappa": {
        "arm": Column("str", "", "model@precision"),
        "T": _count("tokens", "budget of one chain"),
        "P": _count("streams", "votes before the doubling"),
        "kappa": Column("float", "share per unit of ln P", "(A(2P) - A(P)) / ln 2"),
        "low": Column("float", "share per unit of ln P", "lower limit at this P alone"),
        "high": Column("float", "share per unit of ln P", "upper limit at this P alone"),
        "band_low": Column("float", "share per unit of ln P", "lower limit that holds for all P of the arm and T at once"),
        "band_high": Column("float", "share per unit of ln P", "upper limit that holds for all P of the arm and T at once"),
    },
    "coverage": {
        "arm": Column("str", "", "model@precision"),
        "T": _count("tokens", "budget of one chain"),
        "law": Column("str", "", "id in the catalogue"),
        "k": _count("samples", "samples per problem"),
        "measured": _share("pass@k on the calibration problems"),
        "low": _share("lower limit of measured"),
        "high": _share("upper limit of measured"),
        "fitted": _share("pass@k by the law; missing where the law is not identified", True),
        "seen": Column("bool", "", "k is in the range that the law was fitted to"),
    },
    "weight_bits": {
        "arm": Column("str", "", "model@precision"),
        "model": Column("str", "", "model name"),
        "n_params": _count("parameters", "N, all parameters, each tensor once"),
        "precision": Column("str", "", "how the weights are held"),
        "bits_effective": Column("float", "bits per parameter", "measured: with scales, embeddings and skipped layers", low=0.0),
        "weight_bits": Column("float", "bits", "N times bits_effective", low=0.0),
        "T": _count("tokens", "budget of one chain; P = B = 1"),
        "accuracy": _share("of a single sample on the calibration problems"),
        "accuracy_low": _share("lower limit"),
        "accuracy_high": _share("upper limit"),
        "p_on_frontier": _share("share of replicates in which no arm of as few weight bits is as accurate"),
        "four_bit_effective": Column("bool", "", "bits_effective between 3.5 and 5"),
        "four_bit_nominal": Column("bool", "", "a 4-bit precision by its name"),
    },
    "surface": {
        "type": Column("str", "", "logs, latent, bnsl; or nearest, the nearest measured cell"),
        "held_out": Column("str", "", "cells that the fit had not seen; none for the fit to all cells"),
        "arm": Column("str", "", "model@precision"),
        "T": _count("tokens", "budget of one chain"),
        "P": _count("streams", "parallel streams"),
        "B": _count("branches", "branches per stream"),
        "strategy": Column("str", "", "how one answer is made of P·B chains"),
        "measured": _share("accuracy on the study problems"),
        "predicted": _share("accuracy by the fit to calibration problems"),
        "low": _share("lower limit of predicted; missing if not identified", True),
        "high": _share("upper limit of predicted; missing if not identified", True),
        "flags": _NOT_IDENTIFIED,
    },
    "surface_gradients": {
        "type": Column("str", "", "logs, latent or bnsl"),
        "N": Column("float", "parameters", "size", low=0.0),
        "T": Column("float", "tokens", "budget of one chain", low=0.0),
        "P": _count("streams", "parallel streams"),
        "B": _count("branches", "branches per stream"),
        "q": Column("float", "bits per parameter", "bits_effective; 16 for unquantised weights", low=0.0),
        "axis": Column("str", "", "N, T, q: from half a doubling below to half above; P: from P to 4P; B: from B to 2B"),
        "gradient": Column("float", "share per doubling", "accuracy gained per doubling of the axis"),
        "low": Column("float", "share per doubling", "lower limit; missing if not identified", True),
        "high": Column("float", "share per doubling", "upper limit; missing if not identified", True),
        "inside": Column("bool", "", "both ends lie in the measured range of the axis; else the type extrapolates"),
        "flags": _NOT_IDENTIFIED,
    },
    "exponents": {
        "law": Column("str", "", "id in the catalogue"),
        "exponent": Column("str", "", "name of the parameter in the law"),
        "estimate": Column("float", "", "value"),
        "low": Column("float", "", "lower limit; missing where there is none", True),
        "high": Column("float", "", "upper limit; missing where there is none", True),
        "certified": Column("bool", "", "the fit passed its own checks"),
        "source": Column("str", "", "what it was fitted to, and which response over which axis"),
    },
    "law_sensitivity": {
        "law": Column("str", "", "id in the catalogue"),
        "arm": Column("str", "", "model@precision; all, or for training laws ladder or a model"),
        "T": _count("tokens", "budget the law is fitted at; missing for laws over all budgets and of training", True),
        "parameter": Column("str", "", "what the conclusion is about: a parameter, a comparison or an error as in laws.csv, lack_of_fit_p"),
        "variant": Column("str", "", "how it was fitted or judged; one variant of each is the one in laws.csv"),
        "estimate": Column("float", "", "value; missing if not identified", True),
        "low": Column("float", "", "lower limit", True),
        "high": Column("float", "", "upper limit", True),
        "conclusion": Column("str", "", "what this variant says in words"),
        "fragile": Column("bool", "", "the variants of this law, arm, T and parameter do not all conclude the same"),
    },
    "validation": _STUDY
    | {key: column for key, column in _CELL_KEYS.items() if key != "bits_effective"}
    | {
        "n_problems": _count("problems", "study problems, each with one exhaustive draw"),
        "pool": _share("accuracy as the pool gives it"),
        "exhaustive": _share("accuracy of the cell generated one by one with a seed of its own"),
        "difference": Column("float", "share", "pool - exhaustive", low=-1.0, high=1.0),
        "low": Column("float", "share", "lower limit of the difference"),
        "high": Column("float", "share", "upper limit of the difference"),
        "tested": Column("bool", "", "takes part in chi2: its outcomes are open enough, sum of v (1 - v) over problems at least 1.5"),
        "largest": Column("bool", "", "the cell of the largest absolute difference"),
        "chi2": Column("float", "", "D' S^-1 D over all tested cells jointly, the same in every row", low=0.0),
        "dof": _count("cells", "tested cells, the same in every row"),
        "p": _share("probability of a larger chi2 if pool and exhaustive draws agree; missing without a tested cell", True),
    }
    | _ESTIMAND,
    "frontier": {"cost": Column("str", "", "cost column"), **_CELL_KEYS}
    | {
        "unit": Column("str", "", "unit of value, that of the cost column"),
        "value": Column("float", "", "cost of the cell per problem, in `unit`", low=0),
        "accuracy": _share("correct / asked"),
        "accuracy_low": _share("lower limit, this cell alone"),
        "accuracy_high": _share("upper limit, this cell alone"),
        "p_on_frontier": _share("share of bootstrap replicates in which the cell is on the frontier"),
        "band_low": _share("lower limit of the frontier at this cost, simultaneous over all cells"),
        "band_high": _share("upper limit of the frontier at this cost, simultaneous over all cells"),
        "attainment": _share("share of replicates in which this accuracy is reached at this cost or less"),
        "accuracy_chosen": _share(
            "accuracy, on the other half of the problems, of the cell that one half chooses at this cost; missing for one problem",
            True,
        ),
        "accuracy_chosen_low": _share("lower limit of accuracy_chosen", True),
        "accuracy_chosen_high": _share("upper limit of accuracy_chosen", True),
        "runner_up": Column("str", "", "most accurate cell of another arm at this cost or less", True),
        "lead": Column("float", "share", "accuracy minus that of runner_up, paired by problem", True, -1.0, 1.0),
        "lead_low": Column("float", "share", "lower limit of lead", True, -1.0, 1.0),
        "lead_high": Column("float", "share", "upper limit of lead", True, -1.0, 1.0),
        "more_problems": Column(
            "float", "problems", "further problems that would resolve the lead, 0 if it is; missing if unknown", True, 0.0
        ),
        "more_samples": Column(
            "float", "samples per problem", "further samples that would, with these problems; missing if no number would", True, 0.0
        ),
    }
    | _ESTIMAND,
    "crossovers": {
        "cost": Column("str", "", "cost column"),
        "small": Column("str", "", "smaller model"),
        "large": Column("str", "", "larger model"),
        "kind": Column("str", "", "which cells of the larger model compete: single, greedy or best"),
        "status": Column(
            "str", "", "found, at_entry, none_in_range (behind at every cost, beyond the limits), not_separable, one_model or unknown_cost"
        ),
        "unit": Column("str", "", "unit of at, at_low and at_high, that of the cost column"),
        "at": Column("float", "", "cost at which the larger model overtakes, in `unit`", nullable=True),
        "at_low": Column("float", "", "lower limit; if not_separable: where the larger model becomes affordable", nullable=True),
        "at_high": Column("float", "", "upper limit; if not_separable: from here on the larger model is ahead", nullable=True),
        "n_more": Column("float", "problems", "further problems that would settle the sign that is open", nullable=True),
    },
    "scenarios": {
        "scenario": Column("str", "", "name of the scenario"),
        "cost": Column("str", "", "cost column, one that the scenario moves"),
        **_CELL_KEYS,
        "unit": Column("str", "", "unit of the two values, that of the cost column"),
        "value_as_measured": Column("float", "", "cost of the cell per problem in the study, in `unit`; missing where unknown", True, 0.0),
        "value": Column(
            "float",
            "",
            "the same under the scenario; times of another device are the roofline's, a lower bound; missing where unknown, for imported "
            "arms, and where the cell does not fit the device's memory",
            True,
            0.0,
        ),
        "accuracy": _share("correct / asked, as measured"),
        "accuracy_low": _share("lower limit"),
        "accuracy_high": _share("upper limit"),
        "on_frontier": Column("bool", "", "no other cell beats it under the scenario"),
        "on_frontier_as_measured": Column("bool", "", "no other cell beats it in the study"),
    },
    "cost_per_correct": _STREAMS
    | {
        "n_samples": _count("samples per problem", "K: P runs from 1 to it"),
        "P": _count("streams", "number of streams at which FLOP per right answer is lowest, votes by majority"),
        "P_low": _count("streams", "lower limit of P, each replicate over problems with its own minimum"),
        "P_high": _count("streams", "upper limit of P"),
        "value": Column("float", "FLOP", "mean flops over accuracy at P", low=0.0),
        "low": Column("float", "FLOP", "lower limit of the minimum", low=0.0),
        "high": Column("float", "FLOP", "upper limit of the minimum; inf where replicates have nothing right", low=0.0),
    }
    | _ESTIMAND,
    "latency_by_streams": _STREAMS
    | {
        "metric": Column(
            "str",
            "",
            "latency_p50_s or latency_p90_s, until the slowest of P chains is in; problems_per_s, 1 / device_s, of a batch of the largest "
            "calibrated size",
        ),
        "unit": Column("str", "", "unit of value, low, high, intercept and slopes"),
        "P": _count("streams", "parallel streams"),
        "value": Column("float", "", "in `unit`", low=0.0),
        "low": Column("float", "", "lower limit, over problems; the latency model's own error is not in it", low=0.0),
        "high": Column("float", "", "upper limit", low=0.0),
        "intercept": Column("float", "", "a of the metric as a + b ln P, the same in all rows of a metric"),
        "slope": Column("float", "", "b, per unit of ln P; missing with one point", True),
        "slope_low": Column("float", "", "lower limit of b", True),
        "slope_high": Column("float", "", "upper limit of b", True),
        "p": _share("of the lack of fit, by bootstrap over problems; missing where it can't be tested", True),
        "verdict": Column("str", "", "rejected, not rejected, not tested, or why there is no fit"),
    }
    | _ESTIMAND,
    "frontier_axes": {
        "cost": Column("str", "", "cost column"),
        "axis": Column("str", "", "what varies: N, T, P, B, q alone, or all; the rest stays at one chain, largest T, first precision"),
        "model": Column("str", "", "the model that stays; missing where N varies", True),
        "arm": Column("str", "", "model@precision of the cell"),
        "T": _count("tokens", "budget of one chain"),
        "P": _count("streams", "parallel streams"),
        "B": _count("branches", "branches per stream"),
        "strategy": Column("str", "", "how one answer is made of P·B chains"),
        "value": Column("float", "", "cost of the cell per problem, in the unit of the cost column", low=0),
        "accuracy": _share("correct / asked"),
        "band_low": _share("lower limit of this axis's frontier at this cost, simultaneous over the cells of the axis"),
        "band_high": _share("upper limit of the same"),
    },
    "hypervolume": {
        "cost": Column("str", "", "cost column"),
        "axis": Column("str", "", "what varies, as in frontier_axes; all is the study's frontier"),
        "model": Column("str", "", "the model that stays; missing where N varies", True),
        "n_cells": _count("cells", "cells of the axis"),
        "hypervolume": _share("mean of the best affordable accuracy over log cost, from the study's cheapest to its dearest cell"),
        "low": _share("lower limit"),
        "high": _share("upper limit"),
        "share": Column("float", "share", "hypervolume over that of all axes together", low=0.0),
        "reach": _share("highest accuracy on the axis"),
        "reach_low": _share("lower limit of reach, simultaneous over the cells of the axis"),
        "reach_high": _share("upper limit of reach"),
        "reach_at": Column("float", "", "cost at which it is reached, in the unit of the cost column", low=0.0),
    }
    | _ESTIMAND,
    "dominance": {
        "cost": Column("str", "", "cost column"),
        "at": Column("float", "", "cost of the cell that the step starts from, in the unit of the cost column", low=0.0),
        "N": _count("parameters", "size of the model that the step starts from"),
        "T": _count("tokens", "budget that it starts from"),
        "axis": Column("str", "", "N, T, P, B or q: what the step changes"),
        "gain_per_doubling": Column("float", "share per doubling", "gain in accuracy per doubling of the cost along the axis"),
        "low": Column("float", "share per doubling", "lower limit; missing if unknown", True),
        "high": Column("float", "share per doubling", "upper limit; missing if unknown", True),
        "p_best": _share("share of replicates in which the axis gains most", True),
        "source": Column("str", "", "cells: the paired step to the next measured cell; surface: the fitted surface"),
        "place": Column("str", "", "frontier: from a cell of the frontier; map: from a single chain or a vote, wherever it lies"),
        "P": _count("streams", "parallel streams that it starts from"),
        "B": _count("branches", "branches that it starts from"),
        "arm": Column("str", "", "model@precision that it starts from; missing on the surface", True),
        "strategy": Column("str", "", "strategy that it starts from; missing on the surface", True),
        "doublings": Column(
            "float", "doublings", "log2 of the ratio of the two costs; below 0.01 the gain is taken over 0.01; missing on the surface", True
        ),
    },
    "dominance_passes": {
        "cost": Column("str", "", "cost column"),
        "at": Column(
            "float", "", "cost of the first frontier cell at which the new axis gains most, in the unit of the cost column", low=0.0
        ),
        "before": Column("str", "", "axis that gained most until there"),
        "after": Column("str", "", "axis that gains most from there"),
        "p_before": _share("p_best of before at the last cell before"),
        "p_after": _share("p_best of after at this cell"),
    },
    "recommendations": {
        "cost": Column("str", "", "kind of the budget"),
        "budget": Column("float", "", "per problem, in the unit of the cost column", low=0.0),
        "arm": Column("str", "", "model@precision to run"),
        "T": _count("tokens", "budget of one chain"),
        "P": _count("streams", "parallel streams"),
        "B": _count("branches", "branches per stream"),
        "strategy": Column("str", "", "how one answer is made of P·B chains"),
        "value": Column("float", "", "expected cost, in the unit of the cost column", low=0.0),
        "accuracy": _share("corrected for the choice among the feasible cells; may fall where a larger budget adds cells to choose from"),
        "accuracy_low": _share("lower limit"),
        "accuracy_high": _share("upper limit"),
        "accuracy_measured": _share("of the cell, on the problems it was chosen on"),
        "runner_up": Column("str", "", "most accurate other choice", True),
        "lead": Column("float", "share", "accuracy minus that of runner_up, paired", True, -1.0, 1.0),
        "lead_low": Column("float", "share", "lower limit of lead", True, -1.0, 1.0),
        "lead_high": Column("float", "share", "upper limit of lead", True, -1.0, 1.0),
        "next_at": Column("float", "", "budget at which the answer changes to a more accurate cell; missing if none is", True, 0.0),
        "next_axes": Column("str", "", "what changes there", True),
        "next_gain": Column("float", "share", "what it gains, paired", True, -1.0, 1.0),
        "n_feasible": _count("cells", "cells that the budget affords"),
    }
    | _ESTIMAND,
    "regret": {
        "cost": Column("str", "", "kind of the budget"),
        "budget": Column("float", "", "per problem, in the unit of the cost column", low=0.0),
        "regret": Column("float", "share", "accuracy, on the other half, of that half's own best cell minus the cell chosen on the one"),
        "low": Column("float", "share", "lower limit"),
        "high": Column("float", "share", "upper limit"),
        "floor": Column("float", "share", "the same if all cells near the best were equally good: what noise alone makes of it"),
        "n_feasible": _count("cells", "cells that the budget affords"),
    },
    "pairs": _STUDY
    | {
        "arm_a": Column("str", "", "model@precision"),
        "arm_b": Column("str", "", "model@precision"),
        "T": _count("tokens", "budget of one chain; P = B = 1"),
        "n_problems": _count("problems", "study problems"),
        "accuracy_a": _share("of a single sample of arm_a"),
        "accuracy_b": _share("of a single sample of arm_b"),
        "difference": Column("float", "share", "accuracy_a - accuracy_b, paired by problem", low=-1.0, high=1.0),
        "low": Column("float", "share", "lower limit of difference", low=-1.0, high=1.0),
        "high": Column("float", "share", "upper limit of difference", low=-1.0, high=1.0),
        "cost": Column("str", "", "cost column that both arms have; missing if there is none", True),
        "cost_ratio": Column("float", "", "cost of arm_a over that of arm_b", True, 0.0),
    }
    | _ESTIMAND
    | {"flags": Column("str", "", "flags of the two cells; small_counts: few problems carry the difference", True)},
    "variance_ratio": _STUDY
    | {
        "arm_a": Column("str", "", "model@precision, the earlier one in the config"),
        "arm_b": Column("str", "", "model@precision, of a model with the same tokenizer"),
        "same_model": Column("bool", "", "both arms are the same model"),
        "T": _count("tokens", "budget of one chain; P = B = 1"),
        "n_problems": _count("problems", "study problems"),
        "n_samples": _count("samples per problem", "K, greedy chains left out"),
        "ratio": Column(
            "float",
            "",
            "sampling variance of the difference of the arms' accuracies, over that of independent draws: below 1 the shared uniforms gain",
            True,
            0.0,
            2.0,
        ),
        "low": Column("float", "", "lower limit of ratio", True, 0.0, 2.0),
        "high": Column("float", "", "upper limit of ratio", True, 0.0, 2.0),
        "correlation": Column("float", "", "of the arms' samples within problems; missing if an arm never varies", True, -1.0, 1.0),
    }
    | _ESTIMAND
    | {
        "flags": Column(
            "str",
            "",
            "small_counts: fewer than 5 problems carry the uncertainty, Wilson interval on the effective n; no_overlap: no problem on "
            "which both arms vary, so the ratio is 1 whatever they share; no_noise: neither arm varies, no ratio; "
            "one_sample: K = 1, no ratio",
            nullable=True,
        ),
    },
}
TABLES |= {
    "settings": {
        "key": Column("str", "", "what the paper quotes of config and code"),
        "value": Column("str", "", "as it is printed", True),
    },
    "assumptions": {
        "topic": Column("str", "", "what it is about"),
        "file": Column("str", "", "source file"),
        "line": _count("", "line of the mark `ASSUME`"),
        "text": Column("str", "", "what the code assumes there"),
    },
    "numbers": {
        "number": Column("str", "", "name of a number in macros.tex; a row for each cell that it stands on"),
        "shown": Column("str", "", "LaTeX that is printed", True),
        "operation": Column("str", "", "how it follows from the cells"),
        "file": Column("str", "", "file of the cell, below the study's folder"),
        "row": Column(
            "str",
            "",
            "JSON: values of the columns that name the row; `column ~` asks for a part of the text, `data row` for its number; "
            "of a JSON file, its key",
        ),
        "column": Column("str", "", "column of the cell; missing where rows are counted", True),
        "value": Column("str", "", "what stands in the cell, or how many rows answer", True),
    },
}
TABLES["scenario_crossovers"] = {"scenario": Column("str", "", "name of the scenario")} | TABLES["crossovers"]
OPEN = ("samples", "imported")  # keep columns that their specification does not name: arrays per token


def documentation() -> str:
    """The columns of all tables as Markdown: the body of results/README.md."""
    out = []
    for name, columns in TABLES.items():
        out.append(f"## {name}\n\n| column | type | unit | meaning |\n|---|---|---|---|")
        out += [f"| `{key}` | {c.dtype}{', may be missing' if c.nullable else ''} | {c.unit} | {c.meaning} |" for key, c in columns.items()]
        out.append("")
    return "\n".join(out)
