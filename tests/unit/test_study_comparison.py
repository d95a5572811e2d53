"""Two studies compared: the same, a worse one, other problems; and the command line over real folders."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from flopstat import cli, tables
from flopstat.bootstrap import weights
from flopstat.errors import InputError
from flopstat.frontier import Judged
from flopstat.study_comparison import Side, compare, failed, in_words, knee_of, plot, shared_weights
from flopstat.synthetic import SyntheticArm, World, strata_of

N = 150


def side(name, skills=(-1.0, 1.0), seed=0, ids=None, world_samples=8):
    world = World(
        tuple(SyntheticArm(f"m{i}", 10 * 8**i, "fp32", 32, s) for i, s in enumerate(skills)), samples=world_samples, streams=(1, 2, 4)
    )
    values = world.draw(strata_of(N, True), N, np.random.default_rng(seed))
    strata = strata_of(N, True)
    cells = world.cells.assign(accuracy=values.mean(axis=0))
    judged = Judged(cells, values, strata, weights(strata, 100, np.random.default_rng(1)), world_samples, 0.95, 3)
    return Side(name, name, judged, tuple(ids or (f"{i}:text" for i in range(N))))


def test_a_study_against_itself_is_not_separable_anywhere():
    found = compare(side("a"), side("a"))
    assert found.verdict == "not separable"
    assert (found.pairing, found.n_common) == ("paired", N)
    assert all(row.difference == 0 for row in found.budgets)
    assert found.knee.ratio == 1
    assert not failed(found, "worse")
    assert failed(found, "not-better")


def test_a_worse_larger_model_is_found_where_it_is_used_and_closes_the_gate():
    found = compare(side("a"), side("b", (-1.0, -0.2), seed=1))
    assert found.verdict == "worse"
    assert {row.verdict for row in found.budgets} <= {"worse", "not separable"}
    assert found.budgets[-1].verdict == "worse"
    for row in found.budgets:
        assert row.low <= row.difference <= row.high
        assert row.difference == pytest.approx(row.b - row.a)
        assert (row.verdict == "worse") == (row.high < 0)
    assert failed(found, "worse")
    assert not failed(found, None)
    back = compare(side("b", (-1.0, -0.2), seed=1), side("a"))
    assert back.verdict == "better"
    assert not failed(back, "not-better")
    assert "better" in in_words(back)


def test_fresh_draws_of_one_world_are_seldom_told_apart():
    """Multiplicity is handled: of 40 pairs of studies of one world few get any verdict (5% are allowed)."""
    other = [f"{i}:other" for i in range(N)]
    verdicts = [compare(side("a", seed=2 * s), side("b", seed=2 * s + 1, ids=other)).verdict for s in range(40)]
    assert verdicts.count("not separable") >= 35


def test_problems_in_common_are_paired_and_others_are_not():
    ids = [f"{i}:text" if i < 60 else f"{i}:other" for i in range(N)]
    a, b = side("a"), side("b", ids=ids)
    w_a, w_b, pairing, common = shared_weights(a, b, 0)
    assert (pairing, common) == ("partly paired", 60)
    np.testing.assert_allclose(w_a.sum(axis=1), 1)
    np.testing.assert_allclose(w_b.sum(axis=1), 1)
    same = [np.corrcoef(w_a[:, i], w_b[:, i])[0, 1] for i in range(N)]
    assert min(same[:60]) > 0.95
    assert abs(np.mean(same[60:])) < 0.05
    disjoint = side("c", ids=[f"{i}:other" for i in range(N)])
    assert shared_weights(a, disjoint, 0)[2:] == ("unpaired", 0)
    # Of equal problems the paired limits are the narrower ones.
    paired, unpaired = compare(a, side("b", (-1.0, 0.8))), compare(a, side("b", (-1.0, 0.8), ids=disjoint.problems))
    assert paired.pairing == "paired"
    width = [np.mean([row.high - row.low for row in found.budgets]) for found in (paired, unpaired)]
    assert width[0] < 0.8 * width[1]


def test_the_same_problem_id_with_another_text_is_another_problem():
    assert compare(side("a"), side("b", ids=[f"{i}:changed" for i in range(N)])).pairing == "unpaired"


def test_knee_by_hand():
    """A staircase that is up at the second of five costs has its knee there; a flat one at the first."""
    x = np.arange(5.0)
    best = np.array([[0.0, 0.8, 0.85, 0.9, 1.0], [0.3] * 5, [0.0, 0.1, 0.2, 0.9, 1.0]])
    assert knee_of(x, best).tolist() == [1.0, 0.0, 3.0]


def test_costs_must_be_shared():
    a = side("a")
    lacking = Side(
        "b", "b", Judged(a.judged.cells.assign(flops=np.nan, memory_bytes=np.nan), *list(vars(a.judged).values())[1:7]), a.problems
    )
    with pytest.raises(InputError, match="they share none"):
        compare(a, lacking)
    with pytest.raises(InputError, match="--cost joules: not known in both studies; choose from flops, memory_bytes"):
        compare(a, a, "joules")
    assert compare(a, a, "memory_bytes").cost == "memory_bytes"


def test_figure_and_json(tmp_path):
    found = compare(side("a"), side("b", (-1.0, -0.2), seed=1))
    for suffix in (".png", ".pdf"):
        plot(found, tmp_path / f"compare{suffix}")
        assert (tmp_path / f"compare{suffix}").stat().st_size > 5000
    values = json.loads(found.to_json())
    assert values["verdict"] == "worse"
    assert len(values["budgets"]) == len(found.budgets)


@pytest.fixture
def folder(tmp_path, study, study_config):
    """Write a results folder; `worse` takes a share off the larger model's accuracies."""

    def make(name, worse=0.0):
        out = tmp_path / name
        cells, configurations = study["tables"]["cells"].copy(), study["tables"]["configurations"].copy()
        large = cells["arm"].str.startswith("ladder-160k")
        cells.loc[large, "accuracy"] *= 1 - worse
        for column in ("accuracy", "accuracy_low"):
            configurations.loc[configurations["model"] == "ladder-160k", column] *= 1 - worse
        tables.write(configurations, "configurations", out / "configurations.csv")
        tables.write(cells, "cells", out / "cells.parquet")
        tables.write(study["tables"]["problems"], "problems", out / "problems.parquet")
        (out / "run.json").write_text(json.dumps({"config": study_config}))
        (out / "models").mkdir()
        for card in study["cards"]:
            (out / "models" / f"{card.name}.json").write_text(card.to_json())
        return out

    return make


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["flopstat", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code, capsys.readouterr()


def test_command_line_of_recommend_and_compare(folder, monkeypatch, capsys, tmp_path):
    a, b = folder("a"), folder("b", worse=0.4)
    table = pd.read_csv(a / "configurations.csv")
    budget = float(table["flops"].median())
    code, out = run(monkeypatch, capsys, "recommend", "--study", a, "--flops", budget, "--json")
    assert code == 0
    found = json.loads(out.out)
    assert found["costs"]["flops"]["value"] <= budget
    assert found["serve"]["request"]["max_tokens"] == found["cell"]["T"]
    code, out = run(monkeypatch, capsys, "recommend", "--study", a, "--flops", budget)
    assert code == 0
    assert out.out.startswith("run ")
    code, out = run(monkeypatch, capsys, "recommend", "--study", a, "--joules", 1)
    assert (code, out.err.count("\n")) == (2, 1)
    assert "--joules: not measured in this study" in out.err
    code, out = run(monkeypatch, capsys, "compare", a, b, "--fail-on", "worse", "--figure", tmp_path / "c.png")
    assert code == 1
    assert "worse (paired, 12 common of 12 and 12 problems" in out.out
    assert (tmp_path / "c.png").is_file()
    code, out = run(monkeypatch, capsys, "compare", a, a, "--fail-on", "worse", "--json")
    assert code == 0
    assert json.loads(out.out)["verdict"] == "not separable"
    with np.errstate(all="raise"):  # no ratio beyond floats
        code, out = run(monkeypatch, capsys, "recommend", "--study", a, "--flops", 1e-300)
    assert (code, out.err.count("\n")) == (2, 1)
    assert "the nearest that can be met is --flops" in out.err
    (b / "run.json").write_text("{}")
    assert run(monkeypatch, capsys, "compare", a, b)[0] == 2


def test_names_in_tables_steer_no_terminal(folder, monkeypatch, capsys):
    """Tables from elsewhere may hold any name."""
    acts, places = "ladder\x1b[2J\x1b]0;pwn\x07\u202e", [folder("a\x1b[2J"), folder("b", worse=0.4)]
    for place in places:
        for table, file in (("configurations", "configurations.csv"), ("cells", "cells.parquet")):
            there = tables.read(table, place / file)
            for column in {"arm", "model"} & set(there):
                there[column] = there[column].str.replace("ladder", acts)
            tables.write(there, table, place / file)
        config = json.loads((place / "run.json").read_text(encoding="utf-8"))
        (place / "run.json").write_text(json.dumps(config | {"config": config["config"] | {"study": acts}}), encoding="utf-8")
    for arguments in (
        ("recommend", "--study", places[0], "--flops", 1e9),
        ("compare", *places),
        ("recommend", "--study", places[0], "--flops", 1),
    ):
        code, out = run(monkeypatch, capsys, *arguments)
        assert code == (2 if arguments[-1] == 1 else 0)
        assert r"\x1b[2J" in out.out + out.err
        assert (out.out + out.err).replace("\n", "").isprintable()
