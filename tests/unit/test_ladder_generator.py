"""Generated problems: right by an independent solver that reads only the question, disjoint, deterministic, short enough."""

import itertools
import re
from typing import get_args

import numpy as np
import pytest

from flopstat.errors import InputError
from flopstat.ladder.generator import Split, generate, split_of
from flopstat.ladder.tokenizer import encode_fast
from flopstat.problems import judge

_SHARE = {"half": 2, "a third": 3}


def draw(split, n, seed=0, **kwargs):
    return list(itertools.islice(generate(np.random.default_rng(seed), split, **kwargs), n))


def solve(question):
    """Counts of all persons and the count asked for, from the text alone."""
    *facts, asked = re.split(r"(?<=[.?]) ", question)
    counts, relations, things = {}, [], set()
    for fact in facts:
        base = re.fullmatch(r"(\w+) has (\d+) (\w+)\.", fact)
        more = re.fullmatch(r"(\w+) has (\d+) (more|fewer) (\w+) than (\w+)\.", fact)
        times = re.fullmatch(r"(\w+) has (\d+) times as many (\w+) as (\w+)\.", fact)
        part = re.fullmatch(r"(\w+) has (half|a third) as many (\w+) as (\w+)\.", fact)
        assert base or more or times or part, fact
        if base:
            counts[base[1]] = int(base[2])
            things.add(base[3])
        elif more:
            sign = 1 if more[3] == "more" else -1
            relations.append((more[1], more[5], lambda v, k=sign * int(more[2]): v + k))
            things.add(more[4])
        elif times:
            relations.append((times[1], times[4], lambda v, k=int(times[2]): v * k))
            things.add(times[3])
        else:
            relations.append((part[1], part[4], lambda v, k=_SHARE[part[2]]: v / k))
            things.add(part[3])
    while len(counts) < len(facts):
        before = len(counts)
        counts |= {who: rule(counts[other]) for who, other, rule in relations if other in counts}
        assert len(counts) > before, "facts do not hang together"
    question_parts = re.fullmatch(r"How many (\w+) does (\w+) have\?", asked)
    assert things == {question_parts[1]}
    return counts, counts[question_parts[2]]


@pytest.mark.parametrize(("max_steps", "distractors"), [(6, 0), (8, 0), (6, 2), (3, 4)])
def test_gold_answer_is_what_the_text_says(max_steps, distractors):
    problems = draw("study", 200, max_steps=max_steps, distractors=distractors)
    for problem in problems:
        counts, answer = solve(problem.question)
        assert answer == problem.gold
        assert all(1 <= v <= 99 and v == int(v) for v in counts.values())
        assert len(counts) == problem.difficulty + 1 + distractors
        assert judge(problem.answer) == (None, problem.gold, problem.difficulty)
        assert problem.solution == re.sub(r"<<.*?>>", "", problem.answer)
    assert {p.difficulty for p in problems} == set(range(1, max_steps + 1))


def test_splits_share_no_chain():
    forms = {split: {p.canonical for p in draw(split, 800)} for split in get_args(Split)}
    for split, mine in forms.items():
        assert {split_of(c) for c in mine} == {split}
    for a, b in itertools.combinations(forms, 2):
        assert not forms[a] & forms[b]


def test_stream_is_a_function_of_the_seed():
    assert draw("study", 50, seed=1) == draw("study", 50, seed=1)
    assert draw("study", 50, seed=1) == draw("study", 50, seed=1, block=7)  # block is speed only
    assert draw("study", 50, seed=1) != draw("study", 50, seed=2)


def test_longest_solution_has_64_tokens_with_its_end():
    lengths = [len(encode_fast(p.solution)) + 1 for p in draw("training", 1500, steps=6)]
    assert 56 <= max(lengths) <= 64
    # The bound itself: a line is a name, two numbers of two digits, sign, result, "=", newline.
    assert 6 * (1 + 2 + 1 + 2 + 1 + 2 + 1) + 1 + 2 + 1 == 64


@pytest.mark.parametrize(
    "kwargs", [{"max_steps": 0}, {"max_steps": 9}, {"steps": 9}, {"steps": 0}, {"distractors": 5}, {"distractors": -1}]
)
def test_out_of_range_is_refused(kwargs):
    with pytest.raises(InputError):
        draw("study", 1, **kwargs)
    with pytest.raises(InputError, match="choose one of"):
        draw("test", 1)
