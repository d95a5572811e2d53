"""Whole runs that are killed, doubled, or find damaged files: the short version of tests/faults/test_run_kills.py."""

import importlib.util
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

SEED = 5
SMALL = {
    "dataset": {"source": "ladder", "n_study": 6, "n_calibration": 0},
    "models": [{"name": "ladder-30k", "source": "ladder", "precisions": ["fp32"]}],
}


@pytest.fixture(scope="module")
def kills(root):
    spec = importlib.util.spec_from_file_location("run_kills", root / "tests" / "faults" / "test_run_kills.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flip(path):
    """Turn one bit of the byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.slow
def test_killed_doubled_and_damaged_runs_end_in_the_same_tables(kills, tmp_path):
    work = kills.Work(tmp_path / "work", kills.STUDY | SMALL, ("configurations", "laws"))
    first = work.start()
    while not (work.folder / ".snakemake" / "locks" / "0.output.lock").exists():
        assert first.poll() is None, work.said()
        time.sleep(0.05)
    # A second run beside a living one ends with one line, and leaves it alone. So does one beside a Snakemake that was started by hand.
    second = kills.Work.start(work)
    assert second.wait() == 1
    assert f"flopstat: process {first.pid} runs Snakemake in " in work.said()
    assert first.wait() == 0, work.said()
    undisturbed = work.values()
    chains = work.chains()

    # Damage of every kind of file that rules read, and no chain left; then three kills.
    files = ["problems.parquet", "models/ladder-30k.json", "samples/ladder-30k@fp32/000.parquet", "grades/ladder-30k@fp32.parquet"]
    files += ["calibration/ladder-30k@fp32.json", "pilot/ladder-30k@fp32.json", "plan.csv", "cells.parquet"]
    for name in files:
        flip(work.results / name)
    (work.results / "configurations.csv").write_bytes(b"")
    shutil.rmtree(work.folder / "results" / "pools")
    (work.folder / "said.txt").unlink()
    history = kills.kill_and_rerun(work, undisturbed, 3, 6.0, random.Random(SEED))
    assert len(history) == 3
    assert work.chains() == chains
    assert sorted(path.name for path in work.results.rglob("*.damaged")) == sorted(
        f"{Path(f).name}.damaged" for f in [*files, "configurations.csv"]
    )


@pytest.mark.slow
def test_a_snakemake_started_by_hand_is_left_alone_and_its_lock_removed_once_it_is_dead(kills, tmp_path):
    work = kills.Work(tmp_path / "work", kills.STUDY | SMALL, ("refusals",))
    by_hand = work.start("snakemake")
    record = work.folder / ".snakemake" / "flopstat-run.json"
    while not record.exists():
        assert by_hand.poll() is None, work.said()
        time.sleep(0.02)
    by_hand.send_signal(signal.SIGSTOP)
    beside = work.start()
    assert beside.wait() == 1
    assert f"flopstat: process {by_hand.pid} runs Snakemake in " in work.said()
    by_hand.kill()
    by_hand.wait()
    assert any((work.folder / ".snakemake" / "locks").iterdir())
    code, said = work.run()
    assert code == 0, said[-3000:]
    assert "removed the lock of the killed run" in said
