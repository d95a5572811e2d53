"""Graders: cases with a reason each, lm-evaluation-harness's golden verdicts, OpenAI's released solutions, hostile texts, math workers."""

import csv
import importlib.util
import json
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopstat import config, graders_math, harness
from flopstat.columns import STATES
from flopstat.errors import InputError
from flopstat.graders import GRADERS, gold_of, grader, names_of

TESTS = Path(__file__).parents[1]
CASES = json.loads((TESTS / "cases" / "graders.json").read_text(encoding="utf-8"))
DATA = TESTS.parents[1] / "shared" / "data" / "gsm8k"
SYSTEMS = {"6b_finetuning": 286, "6b_verification": 515, "175b_finetuning": 458, "175b_verification": 742}
HARNESS = {"strict": ("gsm8k-strict", harness.extract_strict), "flexible": ("gsm8k-flexible", harness.extract_flexible)}


def _golden():
    spec = importlib.util.spec_from_file_location("make_lm_eval_golden", TESTS / "golden" / "make_lm_eval_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = _golden()


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['grader']}: {c['why'][:60]}")
def test_case(case):
    one = grader(case["grader"])
    verdict = one.grade(case["text"], case["finished"], one.gold(case["gold"]))
    assert verdict.state == case["state"], case["why"]
    if "correct" in case:
        assert verdict.correct == case["correct"], case["why"]
    else:
        assert verdict.answer == case["answer"], case["why"]
        assert verdict.correct == (case["answer"] is not None and case["answer"] == one.gold(case["gold"]))


def test_there_are_enough_cases_each_with_a_reason():
    assert len(CASES) >= 300
    assert all(len(c["why"]) > 3 for c in CASES)
    assert len({(c["grader"], c["text"], c["finished"], c["gold"]) for c in CASES}) == len(CASES)
    assert {c["grader"] for c in CASES} == set(GRADERS)
    assert all(f"Math-Verify#{n}" in " ".join(c["why"] for c in CASES) for n in (14, 26, 37, 41, 60))


def test_the_list_of_graders_says_what_each_is():
    for name, one in GRADERS.items():
        assert one.name == name
        assert one.version >= 1
        assert one.meaning
        assert "\n" not in one.meaning
        assert (one.judge is None) == (one.kind == "reading")
        assert one.foreign == (name in ("gsm8k-strict", "gsm8k-flexible"))
    one_name, several = config.schema()["properties"]["grader"]["oneOf"]
    assert one_name["enum"] == several["items"]["enum"] == list(GRADERS)
    assert names_of("math") == ["math"]
    assert names_of(["gsm8k", "math"]) == ["gsm8k", "math"]
    with pytest.raises(InputError, match=r"'gsm9k'.*gsm8k-strict"):
        grader("gsm9k")
    with pytest.raises(InputError, match=r"problem 7: the gold answer 'many' is no number"):
        gold_of("gsm8k", "#### many", "problem 7")


# --- lm-evaluation-harness ---------------------------------------------------------------------------------------------


def _as_lm_eval(answers: list[str], path: Path) -> dict[str, list[int]]:
    """Rows on which extracted answer or verdict differ from the stored ones, by filter; texts are made again and their hashes compared."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    made = list(golden.texts_of(answers, golden.SEED))
    assert len(made) == len(rows)
    differ: dict[str, list[int]] = {key: [] for key in HARNESS}
    for row, (line, mutation, gold, text) in zip(rows, made, strict=True):
        assert (int(row["line"]), row["mutation"], row["sha256_12"]) == (line, mutation, golden.hashed(text))
        for key, (name, extract) in HARNESS.items():
            verdict = GRADERS[name].grade(text, line % 2 == 0, GRADERS[name].gold(gold))
            if extract(text) != row[key] or verdict.correct != (row[f"{key}_correct"] == "1"):
                differ[key].append(line)
    return differ


def test_verdicts_are_lm_evals_on_generated_texts():
    assert _as_lm_eval(golden.generated_answers(golden.GENERATED), TESTS / "golden" / "lm_eval_generated.csv") == {
        "strict": [],
        "flexible": [],
    }


def test_verdicts_are_lm_evals_on_the_training_file():
    if not (DATA / "train.jsonl").is_file():
        pytest.skip("GSM8K's training file is not here; the stored verdicts refer to its lines")
    answers = [json.loads(line)["answer"] for line in (DATA / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert _as_lm_eval(answers, TESTS / "golden" / "lm_eval_train.csv") == {"strict": [], "flexible": []}


def test_the_golden_rows_hold_enough_of_each_verdict():
    with (TESTS / "golden" / "lm_eval_train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 5000
    for key in HARNESS:
        right = sum(row[f"{key}_correct"] == "1" for row in rows)
        assert min(right, len(rows) - right) >= 1000


def test_verdicts_are_lm_evals_on_the_ladders_samples():
    rows = [json.loads(line) for line in (TESTS / "golden" / "lm_eval_ladder.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sum(not row["finished"] for row in rows) >= 100
    for row in rows:
        for (name, extract), (extracted, correct) in zip(HARNESS.values(), row["lm_eval"], strict=True):
            verdict = GRADERS[name].grade(row["text"], row["finished"], row["gold"])
            assert extract(row["text"]) == extracted
            assert verdict.correct == bool(correct)
        own = GRADERS["gsm8k"].grade(row["text"], row["finished"], row["gold"])
        # A number at the very cut may go on: the harness grades it, we do not.
        assert own.correct == bool(row["lm_eval"][0][1]) or (not row["finished"] and own.state == "truncated")


@given(st.text(alphabet="#0123456789.,-$ \na%", max_size=300))
def test_flexible_is_the_last_match_of_its_pattern(text):
    import re

    found = re.findall(harness.FLEXIBLE, text)
    assert harness.extract_flexible(text) == (next(part for part in found[-1] if part) if found else harness.NOTHING)


@given(st.text(alphabet="#0. ,$\nA-", max_size=60))
def test_exact_match_form_is_the_four_patterns(text):
    import re

    wanted = text
    for pattern in harness.IGNORED:
        wanted = re.sub(pattern, "", wanted)
    assert harness.exact_match_form(text) == wanted.lower()


# --- OpenAI's released solutions ---------------------------------------------------------------------------------------


def test_the_released_solutions_are_graded_as_released():
    path = DATA / "example_model_solutions.jsonl"
    if not path.is_file():
        pytest.skip("example_model_solutions.jsonl is not here")
    one = GRADERS["gsm8k"]
    correct, differ = dict.fromkeys(SYSTEMS, 0), []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        gold = one.gold(row["ground_truth"].rpartition("A:")[2])
        for system in SYSTEMS:
            verdict = one.grade(row[system]["solution"], True, gold)
            correct[system] += verdict.correct
            if verdict.correct != row[system]["is_correct"]:
                differ.append((number, system))
    assert correct == SYSTEMS
    assert differ == []


# --- hostile texts -----------------------------------------------------------------------------------------------------

HOSTILE = {
    "10^6 digits": "#### " + "1" * 10**6,
    "10^6 digits without a marker": "7" * 10**6,
    "10^6 digits in a box": "\\boxed{" + "1" * 10**6 + "}",
    "5 MB of words": "5 MB 1 " * 700_000,
    "5 MB, marker in front": "#### 18\n" + "x" * 5_000_000,
    "5 MB of dashes": "-" * 5_000_000,
    "5 MB of dollars": "$" * 5_000_000,
    "5 MB of NUL bytes": "\0" * 5_000_000,
    "5 MB of lone surrogates": "\ud800" * 5_000_000,
    "5 MB of full-width digits": "\uff11" * 5_000_000,
    "5 MB of accents": "é" * 5_000_000,
    "5 MB of line breaks": "\n" * 5_000_000 + "A:",
    "5 MB of spaces": "####" + " " * 5_000_000 + "18",
    "brackets 10^5 deep": "(" * 10**5 + "18" + ")" * 10**5,
    "braces 10^5 deep": "\\boxed{" + "{" * 10**5 + "18" + "}" * 10**5 + "}",
    "boxes 10^5 deep": "\\boxed{" * 10**5,
    "10^6 markers": "#### " * 10**6,
    "10^6 lines": "\nA:" * 10**6,
    "350,000 sentences": "the answer is " * 350_000,
    "a list of 10^6": "1," * 2_500_000,
    "a fraction of 10^6": "1/" * 2_500_000,
    "10^6 mixed fractions": "1 " * 2_500_000,
    "10^6 names": "x1y" * 1_600_000,
    "10^6 products": "#### 1" + " * 1" * 10**6,
    "10^6 equations": "#### 1" + " = 1" * 10**6,
    "10^6 points": "." * 5_000_000,
    "10^6 signs": "####" + "-+" * 10**6 + "18",
}


@pytest.mark.parametrize("name", GRADERS)
def test_hostile_texts_are_graded_or_refused(name):
    """Each within a second on an idle machine; the bound here leaves room for a busy one, and no quadratic pattern would keep it."""
    one = GRADERS[name]
    one.grade("#### 18", True, "18")  # a child of `math` starts once
    slow: dict[str, float] = {}

    def grade_all() -> None:
        for label, text in HOSTILE.items():
            for finished in (True, False):
                begun = time.monotonic()
                verdict = one.grade(text, finished, "18")
                slow[label] = max(slow.get(label, 0.0), time.monotonic() - begun)
                assert verdict.state in STATES
                assert (verdict.answer is not None) == (verdict.state == "answered")

    thread = threading.Thread(target=grade_all, daemon=True)
    thread.start()
    thread.join(300)
    assert not thread.is_alive(), f"{name} does not come back from {list(HOSTILE)[max(len(slow) - 1, 0)]!r}"
    assert set(slow) == set(HOSTILE)
    assert max(slow.values()) < 20, max(slow.items(), key=lambda item: item[1])


# --- math --------------------------------------------------------------------------------------------------------------


def test_a_text_that_takes_too_long_is_a_timeout_and_the_next_one_is_graded():
    tower = "\\boxed{" + "9^{" * 20 + "9" + "}" * 20 + "}"
    state, answer, correct = graders_math.judge(tower, True, "1", 0.5)
    assert (state, answer, correct) in (("timeout", None, False), ("invalid", None, False))
    assert graders_math.judge("\\boxed{7}", True, "7") == ("answered", "7", True)


def test_a_child_that_dies_makes_its_chain_invalid(monkeypatch):
    child = graders_math._Child()
    assert child.ask("7", "\\boxed{7}", 60.0) == ("answered", "7", True)
    child.process.kill()
    child.process.wait()
    monkeypatch.setattr(child, "_started", lambda: child.process)  # as if it died once the question was put
    assert child.ask("7", "\\boxed{7}", 60.0) == ("invalid", None, False)
    monkeypatch.undo()
    assert child.ask("7", "\\boxed{8}", 60.0) == ("answered", "8", False)
    child.stop()
    child.stop()


def test_gold_expressions_are_found():
    assert graders_math.gold_expression("5+5=10\n#### 1,000") == "1000"
    assert graders_math.gold_expression("so \\boxed{\\frac{1}{2}}.") == "\\frac{1}{2}"
    assert graders_math.gold_expression("x^2") == "x^2"
