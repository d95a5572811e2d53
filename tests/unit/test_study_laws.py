"""All laws of a study together: every table valid, what a study lacks said, nothing mixed between the splits."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from flopstat import law_figures
from flopstat.columns import TABLES
from flopstat.law_sensitivity import REPORTED
from flopstat.models import LADDER
from flopstat.study_laws import OPTIONAL, fit_laws
from flopstat.tables import validate

REFERENCES = {"ladder-30k": "fp32", "ladder-160k": "fp32"}
TITLE = "The study's title, at $5"


def laws_of(study, study_config, grades=None, problems=None, logs=(), per_problem=None):
    tables = study["tables"]
    bits = tables["configurations"]["precision"].map({"fp32": 32.0, "rtn3": 3.5})
    return fit_laws(
        study["grades"] if grades is None else grades,
        {card.name: card for card in study["cards"]},
        REFERENCES,
        tables["problems"] if problems is None else problems,
        tables["configurations"].assign(bits_effective=bits),
        tables["cells"] if per_problem is None else per_problem,
        logs,
        study_config,
    )


@pytest.fixture(scope="module")
def fitted(study, study_config):
    return laws_of(study, study_config, logs=sorted(LADDER.glob("*/training_log.csv")))


def test_every_table_is_valid(fitted):
    assert set(fitted.tables) == {"laws", "exponents", "law_sensitivity", *OPTIONAL}
    for name, table in fitted.tables.items():
        validate(table, name)
    laws = fitted.tables["laws"]
    assert {"kappa-log-p", "alpha-q", "interaction", "k-bit", "coverage", "surface", "hoffmann"} <= set(laws["law"])
    assert not laws.duplicated(["law", "arm", "T", "parameter"]).any()
    known = laws.dropna(subset=["estimate", "low", "high"])
    assert (known["low"] <= known["high"]).all()


def test_reported_variants_are_those_of_the_laws(fitted):
    keys = ["law", "arm", "T", "parameter"]
    varied = fitted.tables["law_sensitivity"]
    reported = varied[varied["variant"].str.endswith(REPORTED) & (varied["parameter"] != "lack_of_fit_p")]
    both = reported.merge(fitted.tables["laws"], on=keys, how="left", validate="1:1", suffixes=("", "_reported"))
    assert len(both) == len(varied[varied["parameter"] != "lack_of_fit_p"].drop_duplicates(keys))
    np.testing.assert_allclose(both["estimate"], both["estimate_reported"], rtol=1e-9)
    assert {"kappa-log-p", "alpha-q", "coverage", "hoffmann"} <= set(both["law"])


def test_each_law_has_its_json(fitted):
    assert set(fitted.details) == set(fitted.tables["laws"]["law"])
    hoffmann = json.loads(fitted.details["hoffmann"])
    assert hoffmann["definition"]["id"] == "hoffmann"
    assert set(hoffmann["fit"]["parameters"]) == {"E", "A", "B", "alpha", "beta"}
    assert len(hoffmann["rows"]) == 5
    assert set(json.loads(fitted.details["surface"])["definition"]) == {"logs", "latent", "bnsl"}


def test_laws_do_not_look_at_study_problems(study, study_config, fitted):
    """Study grades turned into nonsense change no law but those that are judged on them."""
    grades = {}
    for arm, table in study["grades"].items():
        wrong = (table["split"] == "study") & (table["state"] == "answered")
        grades[arm] = table.assign(answer=table["answer"].where(~wrong, "-1"), correct=table["correct"] & ~wrong)
    again = laws_of(study, study_config, grades=grades).tables["laws"]
    before = fitted.tables["laws"].iloc[: len(again)]  # training laws come last
    judged = again["parameter"].str.contains("heldout_rmse|rmse_study|best_type")
    pd.testing.assert_frame_equal(again[~judged], before[~judged])


def test_without_calibration_problems_every_table_is_empty_and_valid(study, study_config):
    problems = study["tables"]["problems"].assign(split="study")
    grades = {arm: table.assign(split="study") for arm, table in study["grades"].items()}
    nothing = laws_of(study, study_config, grades=grades, problems=problems)
    assert all(table.empty for table in nothing.tables.values())
    for name, table in nothing.tables.items():
        validate(table, name)
    assert not nothing.details


def test_one_arm_with_one_budget_and_a_small_pool_does_not_fail(study, study_config):
    arm = "ladder-160k@fp32"
    table = study["grades"][arm]
    few = table[(table["T"] == 64) & (table["sample"] < 3)]
    cells = study["tables"]["cells"]
    part = cells[(cells["arm"] == arm) & (cells["T"] == 64) & (cells["P"] * cells["B"] <= 2)]
    found = laws_of(study, study_config | {"budgets": study_config["budgets"] | {"T": [64]}}, grades={arm: few}, per_problem=part)
    laws = found.tables["laws"]
    assert not laws.empty
    assert laws["verdict"].str.startswith("not identified").any()
    for name, one in found.tables.items():
        validate(one, name)


def test_figures_are_drawn_from_full_and_from_empty_tables(fitted, tmp_path):
    bits = {"ladder-160k@rtn3": 3.5, "ladder-30k@rtn3": 3.5}
    for source in (fitted.tables, {name: pd.DataFrame(columns=list(TABLES[name])) for name in fitted.tables}):
        for name, draw in (
            ("votes", lambda paths, s=source: law_figures.plot_votes(s["vote_gains"], s["laws"], TITLE, paths)),
            ("coverage", lambda paths, s=source: law_figures.plot_coverage(s["coverage"], s["laws"], TITLE, paths)),
            ("alpha", lambda paths, s=source: law_figures.plot_alpha(s["laws"], bits, TITLE, paths)),
            ("surface", lambda paths, s=source: law_figures.plot_surface(s["surface"], s["laws"], TITLE, paths)),
        ):
            paths = [tmp_path / f"{name}.pdf", tmp_path / f"{name}.png"]
            data = draw(paths)
            assert all(path.stat().st_size > 1000 for path in paths)
            assert isinstance(data, pd.DataFrame)


def test_residuals_of_votes_are_gain_less_line(fitted, tmp_path):
    data = law_figures.plot_votes(fitted.tables["vote_gains"], fitted.tables["laws"], TITLE, [tmp_path / "v.png"])
    assert np.allclose(data["residual"], data["gain"] - data["fitted"])
    assert data["T"].nunique() == 1


def test_figures_of_a_study_that_answers_nothing_right_say_so(fitted, tmp_path, monkeypatch):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda fig, *a, **k: (figures.append((_words(fig), [ax.get_ylim() for ax in fig.axes])), save(fig, *a, **k)),
    )
    laws = fitted.tables["laws"]
    kappa = laws["parameter"] == "kappa"
    never = laws.assign(verdict=laws["verdict"].where(~kappa, "not identified: no vote changes any answer"))
    never.loc[kappa, ["estimate", "low", "high"]] = np.nan
    gains = fitted.tables["vote_gains"]
    law_figures.plot_votes(gains.iloc[:0], never, TITLE, [tmp_path / "v.png"])
    assert "no vote changes any answer" in figures[-1][0]
    assert "four samples" not in figures[-1][0]
    law_figures.plot_votes(gains.iloc[:0], laws.iloc[:0], TITLE, [tmp_path / "v.png"])
    assert "no pool of four samples or more" in figures[-1][0]
    one = laws.loc[kappa, "arm"].iloc[0]
    law_figures.plot_votes(gains[gains["arm"] != one], never[~kappa | (never["arm"] == one)], TITLE, [tmp_path / "v.png"])
    assert f"Not drawn, as no vote changes any answer: {one}." in figures[-1][0].replace("\n", " ")

    curves = fitted.tables["coverage"].assign(measured=0.0, low=0.0, high=0.0, fitted=1e-6)
    law_figures.plot_coverage(curves, laws, TITLE, [tmp_path / "c.png"])
    assert all(low < 0 and high >= 1 for low, high in figures[-1][1])
    assert TITLE.replace("$", r"\$") in figures[-1][0]
    assert "No law is identified" not in figures[-1][0]
    law_figures.plot_coverage(curves.assign(fitted=curves["fitted"].where(curves["arm"] != one)), laws, TITLE, [tmp_path / "c.png"])
    assert f"No law is identified, as no resample of the problems differs: {one}." in figures[-1][0].replace("\n", " ")

    alike = fitted.tables["surface"].assign(measured=0.0)
    row = {"parameter": f"heldout_rmse.{alike['type'].iloc[0]}", "estimate": 3.6, "low": np.nan, "high": np.nan}
    law_figures.plot_surface(alike, pd.DataFrame([row]), TITLE, [tmp_path / "s.png"])
    assert "points, no limits" in figures[-1][0]
    assert "All cells are measured alike: 0%." in figures[-1][0]
    assert "nan" not in figures[-1][0]


def _words(fig):
    return "\n".join(t.get_text() for t in fig.findobj(Text))
