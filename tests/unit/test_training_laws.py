"""Training-time laws from decay branches: planted exponents come back, and what three sizes can't say is not said."""

import numpy as np
import pandas as pd
import pytest

from flopstat.columns import TABLES
from flopstat.errors import InputError
from flopstat.models import LADDER
from flopstat.study_pools import law_row
from flopstat.tables import validate
from flopstat.training_laws import branches, exponents, fit_training

CONFIG = {"seed": 1, "statistics": {"replicates": 200, "confidence": 0.95}}


def planted(noise=0.01, seed=0):
    """L = 0.1 + 60 / N^0.5 + 900 / D^0.6 over three sizes and seven token counts."""
    rng = np.random.default_rng(seed)
    n, d = (g.ravel() for g in np.meshgrid([27e3, 150e3, 900e3], np.geomspace(5e5, 2.4e7, 7), indexing="ij"))
    loss = (0.1 + 60 / n**0.5 + 900 / d**0.6) * np.exp(rng.normal(0, noise, n.size))
    names = {27e3: "s", 150e3: "m", 900e3: "l"}
    columns = {"n_params": n.astype(int), "tokens": d.astype(int), "branch_tokens": (d / 1.2).astype(int), "loss": loss}
    return pd.DataFrame({"model": [names[v] for v in n]} | columns)


def test_planted_exponents_are_recovered():
    rows, joint = fit_training(planted(seed=2), CONFIG)
    found = {(what, p.law, p.parameter): p for what, p in rows}
    assert found["ladder", "hoffmann", "alpha"].low < 0.5 < found["ladder", "hoffmann", "alpha"].high
    assert found["ladder", "hoffmann", "beta"].low < 0.6 < found["ladder", "hoffmann", "beta"].high
    assert set(joint) == {"hoffmann", "kaplan-nd"}
    assert {what for what, p in rows if p.law == "kaplan-d"} == {"s", "m", "l"}


def test_a_slope_over_three_sizes_has_no_interval():
    points = planted(0.0).assign(loss=lambda d: 5.0 * d["n_params"].astype(float) ** -0.3)
    rows, _ = fit_training(points.assign(loss=points["loss"] * np.exp(np.random.default_rng(0).normal(0, 1e-4, len(points)))), CONFIG)
    (size,) = [p for what, p in rows if p.law == "kaplan-n"]
    assert size.estimate == pytest.approx(0.3, abs=1e-3)
    assert np.isnan([size.low, size.high]).all()
    assert not size.certified
    assert "no interval" in size.verdict


def test_one_size_leaves_the_joint_laws_out_and_says_so():
    points = planted()
    rows, joint = fit_training(points[points["model"] == "m"], CONFIG)
    assert not joint
    assert {p.law for _, p in rows if p.verdict.startswith("not identified")} == {"hoffmann", "kaplan-nd", "kaplan-n"}


def test_the_ladders_own_logs_are_read():
    points = branches(sorted(LADDER.glob("*/training_log.csv")))
    assert len(points) == 23
    assert (points["tokens"] > points["branch_tokens"]).all()
    assert points["model"].nunique() == 3


def test_a_log_without_its_columns_is_refused(tmp_path):
    (tmp_path / "training_log.csv").write_text("model,kind\nm,branch\n", encoding="utf-8")
    with pytest.raises(InputError, match="loss"):
        branches([tmp_path / "training_log.csv"])


def test_exponents_stand_side_by_side():
    rows, _ = fit_training(planted(), CONFIG)
    table = [law_row(what, None, p) for what, p in rows]
    kappa = {
        "law": "kappa-log-p",
        "arm": "s@fp32",
        "parameter": "kappa",
        "estimate": 0.02,
        "low": 0.01,
        "high": 0.03,
        "certified": True,
        "verdict": "",
    }
    table += [kappa | {"T": 64}, kappa | {"T": 128}]
    laws = pd.DataFrame(table, columns=list(TABLES["laws"])).astype({"T": "Int64"})
    found = validate(exponents(laws, 128), "exponents")
    assert set(found["law"]) == {"hoffmann", "kaplan-nd", "kaplan-d", "kaplan-n", "kappa-log-p"}
    assert found.loc[found["law"] == "kappa-log-p", "source"].tolist() == ["s@fp32, T = 128: accuracy over ln P"]
    assert "ladder: loss over N" in set(found["source"])
