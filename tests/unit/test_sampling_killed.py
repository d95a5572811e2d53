"""Five of the kills of tests/faults/test_sampling_kills.py, where every run of the tests sees them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))

from test_sampling_kills import SAME, Study, kill_and_resume

SEED = 7


@pytest.mark.slow
def test_killed_sampling_ends_in_the_same_ids(tmp_path):
    study = Study(tmp_path, "float64")
    view, attempts, history = kill_and_resume(study, tmp_path / "work", SEED)
    assert view.select(SAME).equals(study.view.select(SAME)), history
    print(*history, sep="\n")
    assert len(attempts) >= 4, history  # a run may be over a moment before
    assert {"chains", "view"} < {one["phase"] for one in attempts}, history
