"""The summary of a study in plain text."""

import re

import pandas as pd
import pytest

from flopstat import provenance, tables
from flopstat.errors import InputError
from flopstat.summary import BUDGETS, summarize


@pytest.fixture(scope="module")
def folder(tmp_path_factory, study, study_config):
    path = tmp_path_factory.mktemp("results") / "synthetic"
    for name in ("frontier", "crossovers", "configurations"):
        tables.write(study["tables"][name], name, path / f"{name}.csv")
    (path / "run.json").write_text(provenance.record(study_config, {}, []), encoding="utf-8")
    return path


def test_missing_study_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"no frontier\.csv; run the study first"):
        summarize(tmp_path / "absent")


def test_summary_gives_cells_crossovers_and_places(folder, study):
    lines = summarize(folder).splitlines()
    assert lines[0] == "synthetic: best cell for a budget (12 study problems, 95% intervals over problems like these)"
    cells = [line for line in lines if "FLOP/problem" in line]
    assert len(cells) == BUDGETS
    edge = study["tables"]["frontier"]
    edge = edge[edge["cost"] == "flops"].sort_values("value")
    assert f"{100 * edge['accuracy_chosen'].iloc[-1]:.1f}% [" in cells[-1]
    last = edge.iloc[-1]
    lead = lines[lines.index(cells[-1]) + 1]
    assert lead.strip().startswith(f"{100 * last['lead']:+.1f} points [")
    assert last["runner_up"] in lead
    assert edge["arm"].iloc[-1] in cells[-1]
    costs = [float(re.search(r"[\d.]+e\+\d+", line)[0]) for line in cells]
    assert costs == sorted(costs)
    for status in study["tables"]["crossovers"].query("cost == 'flops'")["status"]:
        assert any(status.replace("_", " ") in line for line in lines)
    assert any(line.startswith("paper:") and line.endswith("(not built)") for line in lines)
    assert any(line.startswith("tables:") and not line.endswith("(not built)") for line in lines)


def test_summary_names_fragile_conclusions_in_one_line(folder):
    assert "Fragile" not in summarize(folder)
    row = {
        "law": "kappa-log-p",
        "arm": "a@fp32",
        "parameter": "kappa",
        "estimate": 0.1,
        "low": 0.0,
        "high": 0.2,
        "conclusion": "votes gain",
    }
    rows = [row | {"T": t, "variant": v, "fragile": t == 8} for t in (8, 16) for v in ("one", "two")]
    tables.write(pd.DataFrame(rows).astype({"T": "Int64"}), "law_sensitivity", folder / "law_sensitivity.csv")
    (line,) = [line for line in summarize(folder).splitlines() if line.startswith("Fragile")]
    assert line.startswith("Fragile: 1 of 2 conclusions of laws flip with the choices of the fit (kappa-log-p kappa 1)")
    (folder / "law_sensitivity.csv").unlink()
