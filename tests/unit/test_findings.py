"""Findings: each sentence tells the numbers of its table, and is left out where there are none."""

import pandas as pd
import pytest

from flopstat import tables
from flopstat.findings import findings


@pytest.fixture
def folder(study, tmp_path):
    tables.write(study["tables"]["laws"], "laws", tmp_path / "laws.csv")
    return tmp_path


def crossing(**changes) -> pd.DataFrame:
    row = {"cost": "flops", "small": "ladder-30k", "large": "ladder-160k", "kind": "single", "status": "found", "unit": "FLOP"}
    return pd.DataFrame([row | {"at": 2e7, "at_low": 1e7, "at_high": 3e7, "n_more": float("nan")} | changes])


def test_size_is_told_only_where_a_crossover_was_found(folder, study):
    cells = study["tables"]["configurations"]
    subject = "Size, in FLOP per problem (counted): a single pass of ladder-160k"
    assert findings(folder, cells, crossing(), "flops") == [
        f"{subject} beats the best cell of ladder-30k from 2.00e+07 [1.00e+07, 3.00e+07] on."
    ]
    assert findings(folder, cells, crossing(status="not_separable"), "flops") == []


def test_votes_and_bits_come_with_their_limits(folder, study):
    arm, top = "ladder-30k@fp32", max(study["tables"]["laws"]["T"].dropna())
    gains = [{"arm": arm, "T": top, "P": p, "gain": 0.05, "low": 0.01, "high": 0.09, "fitted": 0.04} for p in (1, 2, 4, 8)]
    gains[2]["gain"] = 0.0723
    tables.write(pd.DataFrame(gains).astype({"T": int}), "vote_gains", folder / "vote_gains.csv")
    bits = {
        "arm": arm,
        "model": "ladder-30k",
        "n_params": 27072,
        "precision": "fp32",
        "bits_effective": 4.5,
        "weight_bits": 1e5,
        "T": int(top),
    }
    bits |= {"accuracy": 0.2, "accuracy_low": 0.1, "accuracy_high": 0.3, "p_on_frontier": 0.75}
    tables.write(pd.DataFrame([bits | {"four_bit_effective": False, "four_bit_nominal": True}]), "weight_bits", folder / "weight_bits.csv")
    verdict = {"law": "kappa-log-p", "arm": arm, "T": int(top), "parameter": "lack_of_fit_p", "estimate": 0.01, "low": None, "high": None}
    told = [verdict | {"variant": v, "conclusion": c, "fragile": True} for v, c in (("all P", "rejected"), ("upper half", "not rejected"))]
    tables.write(pd.DataFrame(told).astype({"low": float, "high": float}), "law_sensitivity", folder / "law_sensitivity.csv")
    votes, weights = findings(folder, study["tables"]["configurations"], crossing(status="none_in_range"), "flops")
    # A vote of 8 is no cell of the study.
    assert votes.startswith("Votes: 4 of them add to one chain: ladder-30k@fp32 7.2 points [1.0, 9.0].")
    assert votes.endswith("; in 1 the verdict changes with the P that are fitted.")
    assert weights.endswith("ladder-30k@fp32 75%.")
