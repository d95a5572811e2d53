"""Problems: judgement with reasons, conservation, stratified selection, readable errors."""

import json
from collections import Counter

import numpy as np
import pytest

from flopstat.errors import InputError
from flopstat.problems import REASONS, filter_problems, judge, read_jsonl, select_problems, stratified

PROMPT = {"system": "", "instruction": "{question}", "answer_cue": ""}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("7+3=<<7+3=10>>10\n#### 10", (None, 10, 1)),
        ("<<7+3=10>> <<10*100=1,000>>\n#### 1,000", (None, 1000, 2)),
        ("<<3-5=-2>>\n#### -2", (None, -2, 1)),
        ("<<50%*4=2>>#### 2", (None, 2, 1)),
        ("<<1/3*3=1.0>>\n#### 1", (None, 1, 1)),
        ("<<7+3=10>>10", ("no_gold_answer", 0, 0)),
        ("", ("no_gold_answer", 0, 0)),
        ("<<1/2=.5>>\n#### 0.5", ("gold_not_one_integer", 0, 0)),
        ("<<1+1=2>>\n#### 2 or 3", ("gold_not_one_integer", 0, 0)),
        ("<<1+1=2>>\n#### 2\n#### 2", ("gold_not_one_integer", 0, 0)),
        ("#### ten", ("gold_not_one_integer", 0, 0)),
        ("ten\n#### 10", ("no_annotation", 10, 0)),
        ("<<7+3=10\n#### 10", ("annotation_unreadable", 10, 0)),
        ("<<seven=10>>\n#### 10", ("annotation_unreadable", 10, 0)),
        ("<<10/0=10>>\n#### 10", ("annotation_unreadable", 10, 0)),
        ("<<5+5=10>><<10>>\n#### 10", ("annotation_unreadable", 10, 0)),
        ("<<7+3=11>><<11-1=10>>\n#### 10", ("annotation_wrong", 10, 0)),
        ("<<10/3=3.33>>\n#### 3", ("annotation_wrong", 3, 0)),
        ("<<7+3=10>>\n#### 11", ("last_annotation_differs", 11, 0)),
    ],
)
def test_judge(answer, expected):
    assert judge(answer) == expected


def test_refusals_are_conserved_and_duplicates_counted():
    good = {"question": "q", "answer": "<<1+1=2>>\n#### 2"}
    rows = [good, good, good | {"question": "r"}, {"question": "s", "answer": "#### x"}, {"question": "t", "answer": "none"}]
    kept, refusals = filter_problems(rows)
    assert list(kept["question"]) == ["q", "r"]
    assert refusals == Counter(duplicate_question=1, gold_not_one_integer=1, no_gold_answer=1)
    assert len(kept) + sum(refusals.values()) == len(rows)
    assert set(refusals) <= set(REASONS)


@pytest.mark.parametrize("n", [0, 1, 7, 50, 99, 100])
def test_stratified_takes_n_in_proportion(n):
    strata = np.repeat([1, 2, 3, 9], [50, 30, 19, 1])
    chosen = stratified(strata, n, np.random.default_rng(0))
    assert len(chosen) == len(set(chosen.tolist())) == n
    assert (np.diff(chosen) > 0).all()
    for value, count in zip(*np.unique(strata, return_counts=True), strict=True):
        assert abs((strata[chosen] == value).sum() - n * count / 100) < 1


def _local(path, n=120):
    lines = [{"question": f"q{i}", "answer": "".join(f"<<{i}+0={i}>>" for _ in range(1 + i % 3)) + f"\n#### {i}"} for i in range(n)]
    path.write_text("\n".join(json.dumps(x) for x in lines), encoding="utf-8")
    return {"source": "local", "path": str(path), "max_steps": 6, "distractors": 0}


@pytest.mark.parametrize("source", ["local", "ladder"])
def test_study_does_not_depend_on_the_number_of_calibration_problems(tmp_path, source):
    dataset = _local(tmp_path / "p.jsonl") if source == "local" else {"source": "ladder", "max_steps": 6, "distractors": 0}
    chosen = {}
    for n in (0, 10, 40):
        table = select_problems(dataset | {"n_study": 20, "n_calibration": n}, [PROMPT], 7).problems
        assert (table["split"] == "calibration").sum() == n
        assert not table["question"].duplicated().any()
        chosen[n] = table.loc[table["split"] == "study", "problem_key"].tolist()
    assert chosen[0] == chosen[10] == chosen[40]
    other = select_problems(dataset | {"n_study": 20, "n_calibration": 0}, [PROMPT], 8).problems
    assert set(other["problem_key"]) != set(chosen[0])


def test_account_balances_and_too_many_are_refused(tmp_path):
    dataset = _local(tmp_path / "p.jsonl")
    account = select_problems(dataset | {"n_study": 20, "n_calibration": 30}, [PROMPT], 7).refusals.set_index("reason")["n_problems"]
    assert account["asked"] == 120 == account.drop("asked").sum()
    assert account["selected"] == 50
    with pytest.raises(InputError, match=r"120 of 120 .* 121 are asked for"):
        select_problems(dataset | {"n_study": 120, "n_calibration": 1}, [PROMPT], 7)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"question": "a", "answer": "b"}\n{"question": ', ":2: not JSON"),
        (b'\n\n{"question": "a"}', ":3: needs the text fields"),
        (b'{"question": "a", "answer": 3}', ":1: needs the text fields"),
        (b"[1]", ":1: needs the text fields"),
        (b"[" * 100_000, ":1: not JSON"),
        (
            b'{"question":"a","answer":"b","problem_id":"x"}\n{"question":"a","answer":"b","problem_id":"x"}',
            ":2: problem_id 'x' stands twice",
        ),
        (b'{"question": "a", "answer": "b"}\n\xff\xfe', ":2: "),
    ],
)
def test_read_jsonl_names_file_and_line(tmp_path, content, message):
    path = tmp_path / "broken.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_jsonl(path)
    assert f"{path}{message}" in str(caught.value)
    with pytest.raises(InputError, match=r"absent\.jsonl: no such file"):
        read_jsonl(tmp_path / "absent.jsonl")


# Found by fuzzing: pandas ended with UnicodeEncodeError.
SURROGATES = [
    b'{"question": "\\ud800", "answer": "2+3=<<2+3=5>>5\\n#### 5"}',
    b'{"question": "q", "answer": "\\udfff #### 5"}',
    b'{"question": "q", "answer": "#### 5", "problem_id": "\\ud800"}',
]


@pytest.mark.parametrize("line", SURROGATES)
def test_half_of_a_surrogate_pair_is_refused(tmp_path, line):
    (tmp_path / "p.jsonl").write_bytes(line)
    with pytest.raises(InputError, match=r"p\.jsonl:1: holds half of a surrogate pair"):
        select_problems({"source": "local", "path": str(tmp_path / "p.jsonl"), "n_study": 1, "n_calibration": 0}, [PROMPT], 3)


def test_gsm8k_has_1208_deterministic_problems(root):
    path = root.parent / "shared" / "data" / "gsm8k" / "test.jsonl"
    if not path.is_file():
        pytest.skip("no copy of GSM8K beside the repository")
    rows = read_jsonl(path)
    kept, refusals = filter_problems(rows)
    assert (len(rows), len(kept), sum(refusals.values())) == (1319, 1208, 111)
