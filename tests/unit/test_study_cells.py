"""Cells of all arms: the number of processes changes nothing."""

import json
from dataclasses import asdict

import pandas as pd
import pytest

from flopstat import tables
from flopstat.study_cells import MADE, ArmFiles, estimate_study

ARMS = ("ladder-160k@fp32", "ladder-30k@rtn3")


@pytest.fixture
def files(study, tmp_path) -> list[ArmFiles]:
    tables.write(study["tables"]["problems"], "problems", tmp_path / "problems.parquet")
    for card in study["cards"]:
        (tmp_path / f"{card.name}.json").write_text(json.dumps(asdict(card)), encoding="utf-8")
    for arm in ARMS:
        model, precision = arm.split("@")
        graded = study["grades"][arm].assign(model=model, precision=precision)
        tables.write(graded, "grades", tmp_path / f"{arm}.parquet")
    return [ArmFiles(arm, tmp_path / f"{arm}.parquet", tmp_path / f"{arm.split('@')[0]}.json", None) for arm in ARMS]


def test_one_process_and_two_give_the_same_tables_in_the_order_asked(files, study_config, tmp_path):
    config = study_config | {"samples": 8, "kv_bits": 32}
    one, two = (estimate_study(files, tmp_path / "problems.parquet", None, config, jobs) for jobs in (1, 2))
    assert one.keys() == set(MADE)
    for name in MADE:
        pd.testing.assert_frame_equal(one[name], two[name], check_exact=True)
    assert list(dict.fromkeys(one["configurations"]["arm"])) == list(ARMS)
    assert len(one["configurations"]) > 20
