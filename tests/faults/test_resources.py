"""A full disk, no network, no memory, a wrong clock: one clear line, nothing finished lost, and the same results in the end."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from test_run_kills import Work, undisturbed_run

from flopstat import models, tables
from flopstat.config import section
from flopstat.errors import InputError
from flopstat.problems import select_problems

DAY_S = 86_400
REVISION = "0" * 40
MISSING = "neither in the hub's cache nor to be had"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    made = Work(tmp_path_factory.mktemp("faults") / "work")
    values, _ = undisturbed_run(made)
    return made, values


def lines(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("flopstat: ")]


def test_a_full_disk_ends_with_a_line_and_a_rerun_goes_on(work, small_disk, capsys):
    whole, values = work
    place, mount = small_disk("300m")
    other = Work(place / "work")
    shutil.copytree(whole.folder / "results" / "calibrations", other.folder / "results" / "calibrations")
    for room in (100_000, 250_000, 450_000):
        used = shutil.disk_usage(place).used
        assert mount(f"remount,size={(used + room) // 4096 * 4}k").returncode == 0
        before = other.chains()
        code, said = other.run()
        with capsys.disabled():
            print(f"\n{room:,} bytes free: exit code {code}, {other.chains()} chains stored, {lines(said)[:2]}")
        if code != 0:
            assert "No space left" in said
            assert other.chains() >= before
        mount("remount,size=300m")
    code, said = other.run()
    assert code == 0, said[-3000:]
    assert other.values() == values


@pytest.mark.parametrize("days", [400, -400])
def test_files_of_another_time_change_no_result(work, days):
    """All files dated far in the future, or in the past, as a clock that was wrong leaves them; then the study grows by a table."""
    made, values = work
    when = time.time() + days * DAY_S
    for path in [*made.results.rglob("*"), *(made.folder / "results" / "pools").rglob("*"), *(made.folder / "scripts").rglob("*.py")]:
        os.utime(path, (when, when))
    (made.results / "configurations.csv").unlink()
    chains = made.chains()
    code, said = made.run()
    assert code == 0, said[-3000:]
    assert made.values() == values
    assert made.chains() == chains


def test_no_network_is_named():
    model = {"name": "m", "source": "hub", "repo": "nobody/nothing", "revision": REVISION}
    with pytest.raises(InputError, match=f"nobody/nothing at {REVISION}: {MISSING}.*check the network, or `hf download nobody/nothing"):
        models._folder(model, None)
    dataset = section("dataset", {"source": "hub", "repo": "nobody/nothing", "revision": REVISION, "n_study": 1, "n_calibration": 0})
    with pytest.raises(InputError, match=f"dataset.repo nobody/nothing at {REVISION}: {MISSING}.*check the network"):
        select_problems(dataset, [{"system": "", "instruction": "{question}", "answer_cue": ""}], 1)


def test_a_machine_without_network_is_named(tmp_path):
    """The same with the hub not declared offline, in a network namespace of its own that reaches nothing."""
    code = "from pathlib import Path; from flopstat.models import describe; describe({entry}, Path('.'))"
    entry = {"name": "m", "source": "hub", "repo": "nobody/nothing", "revision": REVISION}
    env = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"} | {"HF_HOME": str(tmp_path)}
    command = ["unshare", "--net", sys.executable, "-c", code.format(entry=entry)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip("a network namespace needs root")
    assert done.returncode != 0
    assert MISSING in lines(done.stderr)[0]
    assert "Traceback" not in done.stderr


def test_a_job_out_of_memory_ends_with_a_line_and_a_rerun_goes_on(tmp_path, capsys):
    settings = {"sampling": section("sampling", {"samples": 64, "device": "cpu", "batch_rows": 4096, "compute_dtype": "float64"})}
    settings |= {"budgets": section("budgets", {"T": [128]}), "seed": 5}
    card = models.describe({"name": "ladder-900k", "source": "ladder"}, tmp_path)
    (tmp_path / "card.json").write_text(card.to_json(), encoding="utf-8")
    dataset = {"source": "ladder", "max_steps": 3, "distractors": 0, "n_study": 12, "n_calibration": 0}
    chosen = select_problems(dataset, [{"system": "", "instruction": "{question}", "answer_cue": ""}], 3).problems
    tables.write(chosen, "problems", tmp_path / "problems.parquet")

    def sample(store: str, kind: int = resource.RLIMIT_AS, limit: int | None = None):
        named = {"problems": tmp_path / "problems.parquet", "card": tmp_path / "card.json", "precision": "fp32", "shard": 0}
        named |= {"settings": json.dumps(settings), "store": tmp_path / store, "out": tmp_path / f"{store}.parquet"}
        named |= {"summary": tmp_path / f"{store}.json"}
        words = [sys.executable, "-m", "flopstat.cli", "sample", *(str(v) for key, value in named.items() for v in (f"--{key}", value))]

        def limited() -> None:
            if limit is not None:
                resource.setrlimit(kind, (limit, limit))

        env = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(words, env=env, preexec_fn=limited, capture_output=True, text=True, check=False)

    assert sample("free").returncode == 0
    # Too little for torch's libraries; then for the whole batch, which is halved where that helps.
    failed = 0
    for kind, megabytes in (
        (resource.RLIMIT_AS, 600),
        (resource.RLIMIT_DATA, 700),
        (resource.RLIMIT_DATA, 900),
        (resource.RLIMIT_DATA, 1300),
    ):
        done = sample("tight", kind, megabytes << 20)
        with capsys.disabled():
            print(f"\n{megabytes} MiB: exit code {done.returncode}, {lines(done.stderr)[-1:]}")
        if done.returncode:
            failed += 1
            assert "Traceback" not in done.stderr, done.stderr[-2000:]
            assert "out of memory" in lines(done.stderr)[-1]
    assert failed
    assert sample("tight").returncode == 0
    ids = [pq.read_table(tmp_path / f"{store}.parquet").drop_columns(["near_ties"]) for store in ("free", "tight")]
    assert ids[0].select(["problem_key", "sample", "ids"]).equals(ids[1].select(["problem_key", "sample", "ids"]))
