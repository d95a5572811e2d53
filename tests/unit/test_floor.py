"""Studies at the floor and the ceiling: no interval of width zero claims what no resample could tell, and no model is called behind."""

import numpy as np
import pandas as pd
import pytest

from flopstat import dominance, frontier_axes, law_figures, recommendations, streams
from flopstat.cells import ArmFacts
from flopstat.columns import TABLES
from flopstat.comparison import compare_pairs
from flopstat.frontier import contests
from flopstat.frontier_figures import plot_crossovers
from flopstat.pairing import measure_variance_ratios
from flopstat.study_comparison import Side, compare, in_words
from flopstat.study_laws import fit_laws
from flopstat.tables import validate
from flopstat.thermostat import Thermostat

SMALL, LARGE = "ladder-30k", "ladder-160k"


def wrong(grades, _):
    """Everything that is answered is answered wrong."""
    return {arm: table.assign(answer=table["answer"].where(table["answer"].isna(), "-1"), correct=False) for arm, table in grades.items()}


def silent(grades, _):
    """Every chain is cut before an answer."""
    return {arm: table.assign(answer=None, state="truncated", correct=False) for arm, table in grades.items()}


def right(grades, problems):
    gold = dict(zip(problems["problem_id"], problems["gold"], strict=True))
    told = {"state": "answered", "correct": True}
    return {arm: table.assign(answer=table["problem_id"].map(gold), **told) for arm, table in grades.items()}


def small_wrong(grades, problems):
    """Only the smaller model's arms are at the floor."""
    return grades | {arm: table for arm, table in wrong(grades, problems).items() if arm.startswith(f"{SMALL}@")}


def large_wrong(grades, problems):
    return grades | {arm: table for arm, table in wrong(grades, problems).items() if arm.startswith(f"{LARGE}@")}


def one_right(grades, problems):
    """One sample of one problem of each split is right, of the larger model."""
    out = wrong(grades, problems)
    arm = f"{LARGE}@fp32"
    for split in ("study", "calibration"):
        gold = problems[problems["split"] == split].iloc[0]
        hit = (out[arm]["problem_id"] == gold["problem_id"]) & (out[arm]["sample"] == 0) & (out[arm]["T"] == 64)
        out[arm].loc[hit, ["answer", "state", "correct"]] = [gold["gold"], "answered", True]
    return out


WORLDS = {f.__name__: f for f in (wrong, silent, right, small_wrong, one_right)}
STILL = ("wrong", "silent", "right")


@pytest.fixture(scope="module", params=WORLDS)
def world(request, study_of, study_config, latency_model):
    """All tables of a study at the floor, by name."""
    made = study_of(WORLDS[request.param])
    tables, judged = dict(made["tables"]), made["judged"]
    cards = {card.name: card for card in made["cards"]}
    bits = tables["configurations"]["precision"].map({"fp32": 32.0, "rtn3": 3.5})
    configurations = tables["configurations"].assign(bits_effective=bits)
    references = dict.fromkeys(cards, "fp32")
    wanted = study_config | {"samples": study_config["sampling"]["samples"]}
    laws = fit_laws(made["grades"], cards, references, tables["problems"], configurations, tables["cells"], (), wanted)
    tables |= laws.tables
    tables["dominance"] = dominance.find_dominance(judged, tables["frontier"], tables["surface_gradients"])
    tables["frontier_axes"], tables["hypervolume"] = frontier_axes.find_axes(judged)
    thermostat = Thermostat(judged, "synthetic")
    tables["recommendations"], tables["regret"] = recommendations.recommend_cells(thermostat), recommendations.find_regret(thermostat)
    tables["pairs"] = compare_pairs(judged, [[f"{SMALL}@fp32", f"{LARGE}@fp32"]])
    ratios = measure_variance_ratios(made["grades"], cards, tables["problems"], wanted)
    tables["variance_ratio"] = pd.DataFrame(ratios, columns=list(TABLES["variance_ratio"]))
    facts = ArmFacts(cards[SMALL], "fp32", 16.0, 2.1, (3.0, 2.5, 3.5), latency_model, usd_per_hour=0.36)
    minimum = streams.streams_of(facts, made["grades"][facts.name], tables["problems"], wanted).minimum
    tables["cost_per_correct"] = pd.DataFrame([minimum] if minimum else [], columns=list(TABLES["cost_per_correct"]))
    return request.param, tables, judged


def moving(cells):
    """Whether some calibration problem of an arm is solved at times, at the largest T, and not all are always."""
    top = cells[(cells["split"] == "calibration") & (cells["T"] == cells["T"].max()) & (cells["strategy"] == "single")]
    return top.groupby("arm")["accuracy"].mean().between(0, 1, inclusive="neither")


# Not about accuracy (costs, budgets, what was calibrated), or no interval of an estimate.
OTHER = ("calibration", "problems", "refusals", "configurations_skipped", "crossovers", "cells")
BOUNDS = ("accuracy_bound_low",)


def narrow(name, table):
    """Rows with an interval of width zero about accuracy."""
    costs = {key for key, column in TABLES["configurations"].items() if column.dtype == "float" and column.high != 1.0}
    out = []
    for low in (c for c in table if c == "low" or c.endswith("_low")):
        if low in BOUNDS or low in costs or (name, low) == ("cost_per_correct", "P_low"):
            continue
        high = low.removesuffix("low") + "high"
        part = table[(table[high].astype(float) - table[low].astype(float)).abs() <= 1e-12]
        if name == "vote_gains":
            part = part[part["P"] > 2]  # votes of one and two gain nothing by definition
        if name == "laws":
            part = part[part["parameter"] != "saturation_P"]  # a whole number, whose resamples do differ
        out += [(name, low, *row) for row in part.itertuples(index=False)]
    return out


def test_no_interval_of_width_zero_claims_certainty(world):
    name, tables, _ = world
    for key, table in tables.items():
        if key not in OTHER:
            validate(table, key)
            found = narrow(key, table)
            assert not found, (name, len(found), found[:3])


def test_models_that_answer_alike_are_not_separable(world):
    """Nothing right, or everything: there is no evidence for either model. Elsewhere a status is what the limits say."""
    name, tables, judged = world
    crossovers = tables["crossovers"]
    if name in STILL:
        assert set(crossovers["status"]) == {"not_separable"}
        assert crossovers[["at", "at_low", "at_high", "n_more"]].isna().all(axis=None)
    for cost in crossovers["cost"].unique():
        for contest in contests(judged, cost):
            low, high = contest.limits(judged.confidence)
            assert ((low < contest.difference) | (contest.difference <= -1 + 1e-12)).all()
            assert ((high > contest.difference) | (contest.difference >= 1 - 1e-12)).all()
            row = crossovers[(crossovers["cost"] == cost) & (crossovers["kind"] == contest.kind)].iloc[0]
            assert (row["status"] == "none_in_range") == bool((high < 0).all())
            assert (row["status"] == "at_entry") == bool(low[0] > 0)


def test_a_model_at_the_floor_is_behind_one_at_the_ceiling(study_of):
    """No resample differs here either, and the counts leave no doubt: nothing of 12 right against everything."""
    made = study_of(lambda grades, problems: large_wrong(right(grades, problems), problems))
    assert set(made["tables"]["crossovers"]["status"]) == {"none_in_range"}


def test_what_is_not_identified_says_so(world):
    name, tables, _ = world
    if name not in STILL:
        flags = tables["surface"].loc[tables["surface"]["held_out"] == "none", "flags"]
        assert flags.isna().any()
        assert (tables["coverage"]["fitted"].notna() == tables["coverage"]["arm"].map(moving(tables["cells"]))).all()
        return
    for key in ("surface", "surface_gradients"):
        table = tables[key]
        types = table[table["type"] != "nearest"]
        assert len(types)
        assert (types["flags"] == "not_identified").all()
        assert types[["low", "high"]].isna().all(axis=None)
    nearest = tables["surface"][tables["surface"]["type"] == "nearest"]
    assert nearest["flags"].isna().all()
    coverage = tables["coverage"]
    assert coverage["fitted"].isna().all()
    assert set(coverage["law"]) == {"coverage", "coverage-beta", "ttspm"}
    single = tables["configurations"].query("strategy == 'single' and split == 'calibration' and T == 64").set_index("arm")
    for arm, part in coverage.groupby("arm"):  # pass@1 is the accuracy of a single sample, and has its limits
        first = part[part["k"] == 1].iloc[0]
        assert first[["measured", "low", "high"]].tolist() == single.loc[arm, ["accuracy", "accuracy_low", "accuracy_high"]].tolist()
    laws = tables["laws"].set_index("law")
    rows = laws.loc[["coverage", "coverage-beta", "ttspm", "kappa-log-p", "alpha-q"]]
    assert rows["verdict"].str.startswith("not identified").all()
    assert rows[["estimate", "low", "high"]].isna().all(axis=None)
    assert not rows["certified"].any()


def test_a_study_at_the_floor_against_itself_has_limits(world):
    _, _, judged = world
    ids = tuple(f"{p}:text" for p in judged.problem_ids)
    other = tuple(f"{p}:other" for p in judged.problem_ids)
    for problems in (ids, other):
        found = compare(Side("a", "a", judged, ids), Side("b", "b", judged, problems))
        assert found.verdict == "not separable"
        for row in found.budgets:
            assert -1 <= row.low < 0 < row.high <= 1
        assert found.knee is None or np.isnan(found.knee.low) or found.knee.low < found.knee.high
        assert "nan" not in in_words(found)
        assert "NaN" not in found.to_json()


def test_figures_are_drawn_at_the_floor(world, tmp_path):
    _, tables, judged = world
    paths = [tmp_path / "f.png"]
    plot_crossovers(judged, tables["crossovers"], "t", paths)
    data = law_figures.plot_coverage(tables["coverage"], tables["laws"], "t", paths)
    assert len(data) == len(tables["coverage"])
    law_figures.plot_surface(tables["surface"], tables["laws"], "t", paths)
    law_figures.plot_votes(tables["vote_gains"], tables["laws"], "t", paths)
    assert paths[0].stat().st_size > 1000
