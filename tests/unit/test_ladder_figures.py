"""Figures of the ladder: points are those of the logs and of the card, curves those of the stored fits."""

import json

import numpy as np
import pandas as pd
import pytest
from test_cell_figures import drawn_twice

from flopstat.columns import TABLES
from flopstat.errors import InputError
from flopstat.ladder_figures import joint_fits, plot_ladder, plot_training_laws, read_quality, training_table
from flopstat.lawbook import catalogue, fitting
from flopstat.lawbook.observations import Observations
from flopstat.models import LADDER
from flopstat.training_laws import branches

LOGS = sorted(LADDER.glob("*/training_log.csv"))


@pytest.fixture(scope="module")
def fit():
    points = branches(LOGS)
    data = Observations({"N": points["n_params"].to_numpy(float), "D": points["tokens"].to_numpy(float)}, points["loss"].to_numpy(float))
    return fitting.fit(catalogue.find("kaplan-nd"), data, settings=fitting.Settings(replicates=60, seed=1, confidence=0.95))


@pytest.fixture(scope="module")
def details(fit, tmp_path_factory):
    """A study's laws/: one joint law is fitted, the other one is not identified."""
    folder = tmp_path_factory.mktemp("laws")
    for law, stored in (("kaplan-nd", {"fit": json.loads(fit.to_json())}), ("hoffmann", {})):
        (folder / f"{law}.json").write_text(json.dumps({"law": law} | stored), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def exponents():
    rows = [
        ("kaplan-nd", "alpha_N", 1.1, 0.5, 2.6, True, "ladder: loss over N"),
        ("kaplan-nd", "alpha_D", 1.0, 0.8, 2.0, True, "ladder: loss over D"),
        ("kaplan-d", "alpha", 0.8, 0.7, 1.1, True, "ladder-160k: loss over D, one size"),
        ("kaplan-n", "alpha", 0.3, np.nan, np.nan, False, "ladder: loss over N, the same tokens"),
        ("kappa-log-p", "kappa", 0.02, 0.01, 0.03, True, "ladder-30k@fp32, T = 64: accuracy over ln P"),
    ]
    return pd.DataFrame(rows, columns=list(TABLES["exponents"]))


def test_points_are_the_logs_and_curves_the_fits(fit, details, exponents):
    fits = joint_fits(details)
    assert list(fits) == ["kaplan-nd"]
    points = branches(LOGS)
    data = training_table(points, fits, exponents)
    shown = data[data["series"] == "branch"]
    assert shown["value"].tolist() == points["loss"].tolist()
    curve = data[(data["series"] == "kaplan-nd") & (data["model"] == "ladder-900k")]
    value, low, high = fit.predict({"N": np.full(len(curve), 895744.0), "D": curve["tokens"].to_numpy()})
    np.testing.assert_allclose(curve[["value", "low", "high"]].to_numpy(float), np.column_stack([value, low, high]), rtol=1e-9)
    assert curve["tokens"].iloc[[0, -1]].tolist() == pytest.approx(
        points.loc[points["model"] == "ladder-900k", "tokens"].agg(["min", "max"]).tolist()
    )
    assert data.loc[data["series"] == "exponent", "law"].tolist() == ["kaplan-nd", "kaplan-nd", "kaplan-d", "kaplan-n"]


def test_training_laws_are_drawn(details, exponents, tmp_path):
    data = drawn_twice(lambda paths: plot_training_laws(LOGS, details, exponents, 0.95, "50% of $5", paths), tmp_path)
    assert set(data["panel"]) == {"loss", "exponents"}
    nothing = plot_training_laws(LOGS, tmp_path, exponents.iloc[:0], 0.95, "", [tmp_path / "a.png"])
    assert set(nothing["series"]) == {"branch"}


def test_quality_is_that_of_the_card(tmp_path):
    quality = read_quality(LADDER / "accuracy.csv")
    data = drawn_twice(lambda paths: plot_ladder(quality, "50% of $5", paths), tmp_path)
    assert len(data) == 3 * 3 * 7  # models, strategies, all problems and six numbers of steps
    assert ((data["T"] == 128) & (data["precision"] == "fp32")).all()
    whole = data[(data["steps"] == 0) & (data["strategy"] == "greedy")].set_index("model")
    parts = data[(data["steps"] > 0) & (data["strategy"] == "greedy")].groupby("model")["accuracy"].mean()
    np.testing.assert_allclose(parts[whole.index], whole["accuracy"], atol=1e-5)  # equal shares of problems
    assert (whole["n_problems"] == 1200).all()


def test_a_card_without_its_columns_is_refused(tmp_path):
    (tmp_path / "accuracy.csv").write_text("model,steps\nm,1\n", encoding="utf-8")
    with pytest.raises(InputError, match="flopstat card"):
        read_quality(tmp_path / "accuracy.csv")
