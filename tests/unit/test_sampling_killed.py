"""Five of the kills of tests/faults/test_sampling_kills.py, where every run of the tests sees them."""

import importlib.util

import pytest

SEED = 7


@pytest.mark.slow
def test_killed_sampling_ends_in_the_same_ids(tmp_path, root):
    spec = importlib.util.spec_from_file_location("sampling_kills", root / "tests" / "faults" / "test_sampling_kills.py")
    kills = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kills)
    study = kills.Study(tmp_path, "float64")
    view, attempts, history = kills.kill_and_resume(study, tmp_path / "work", SEED)
    assert view.select(kills.SAME).equals(study.view.select(kills.SAME)), history
    print(*history, sep="\n")
    assert len(attempts) >= 4, history  # a run may be over a moment before
    assert {"chains", "view"} < {one["phase"] for one in attempts}, history
