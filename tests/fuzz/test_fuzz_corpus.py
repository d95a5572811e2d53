"""The targets of fuzzing by coverage on the inputs that they begin with, whole and cut short; a short run where atheris is."""

import subprocess
import sys
from pathlib import Path

import atheris_targets
import pytest

from flopstat.graders import GRADERS
from flopstat.importers.samples import KINDS


def test_every_grader_and_importer_is_a_target(tmp_path):
    wanted = {f"grader-{name}" for name in GRADERS} | {f"importer-{kind}" for kind in KINDS} | {"importer-inspect-archive"}
    assert set(atheris_targets.targets(tmp_path)) == wanted


@pytest.mark.parametrize("kind", ["grader", "importer"])
def test_targets_hold_on_their_corpus(tmp_path, kind):
    for name, run in atheris_targets.targets(tmp_path).items():
        if name.startswith(kind):
            inputs = list(atheris_targets.corpus(name))
            assert inputs
            for data in [b"", *inputs, *(data[: len(data) // 2] for data in inputs)]:
                run(data)


def test_inputs_of_importers_are_logs_that_they_take(tmp_path):
    """A corpus of refused files would leave coverage nothing to begin with."""
    from flopstat.importers.samples import import_samples

    for kind in KINDS:
        for file in atheris_targets.NAMES.get(kind, ("log.jsonl",)):
            for data in atheris_targets.corpus(f"importer-{kind}{'-archive' if file.endswith('.eval') else ''}"):
                (tmp_path / file).write_bytes(data)
                assert import_samples(kind, tmp_path / file, tmp_path / "out.parquet").n_samples > 0


def test_a_short_run_by_coverage(tmp_path):
    pytest.importorskip("atheris")
    line = [sys.executable, atheris_targets.__file__, "--runs", "1000", "--crashes", str(tmp_path / "crashes")]
    for target in ("grader-gsm8k", "importer-csv"):
        done = subprocess.run([*line, target], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "stat::number_of_executed_units: 1000" in done.stderr
    assert not any((tmp_path / "crashes").iterdir())
