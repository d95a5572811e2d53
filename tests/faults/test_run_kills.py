"""`kill -9` of a whole run at random moments, then the same command again: the tables of an undisturbed run, and no finished chain lost."""

import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import yaml

from flopstat import stored
from flopstat.pool import Pool
from flopstat.recovery import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
SEED = 20261122
KILLS = 40
PER_RUN = 10  # kills of one run before it is left alone
STUDY = {
    "study": "tiny",
    "dataset": {"source": "ladder", "n_study": 6, "n_calibration": 6},
    "models": [{"name": "ladder-30k", "source": "ladder", "precisions": ["fp32", "rtn4"]}],
    "sampling": {"samples": 4, "batch_rows": 4, "shard_problems": 6, "device": "cpu", "compute_dtype": "float64"},
    "budgets": {"T": [16, 64], "P": [1, 2], "B": [1, 2]},
    "plan": {"pilot_chains": 4},
    "statistics": {"replicates": 200},
    "costs": {"price_device": None, "prices_as_of": None},
    "calibration": {"prompt_tokens": 16, "decode_tokens": 4, "prefill_tokens": [8, 16], "batches": [1, 4], "contexts": [8, 32]},
    "scenarios": [],
}
TABLES = ("calibration", "configurations", "variance_ratio", "frontier", "crossovers", "laws", "plan_actual")
TIMED = ("plan.csv", "plan_actual.csv")  # hold what jobs took


def tree(folder: Path) -> None:
    """The working tree's files without tests and results."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for path in (Path(p) for p in listed.stdout.split("\0") if p):
        if path.parts[0] not in ("tests", "docs", "benchmarks") and (ROOT / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)


@dataclass
class Work:
    """A copy of the tree in which a study is run as `make run` runs it."""

    folder: Path
    study: dict = field(default_factory=lambda: STUDY)
    tables: tuple[str, ...] = TABLES  # that are asked for; none: everything, figures and paper too

    def __post_init__(self):
        self.folder.mkdir()
        tree(self.folder)
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(self.study), encoding="utf-8")

    @property
    def results(self):
        return self.folder / "results" / "tiny"

    def start(self, module="flopstat.recovery", control_group: Path | None = None):
        """Start the run in a process group of its own, and maybe in a control group."""
        first = ["--study", "results/tiny"] if module == "flopstat.recovery" else []
        options = ["--cores", "2", "--nocolor", "--configfile", "tiny.yaml"]
        command = [sys.executable, "-m", module, *first, *options, "--", *(f"results/tiny/{name}.csv" for name in self.tables)]
        env = os.environ | {
            "PYTHONPATH": str(self.folder / "scripts"),
            "XDG_CACHE_HOME": str(self.folder / ".cache"),
            "HF_HUB_OFFLINE": "1",
        }
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        for name in ("OMP_NUM_THREADS", VARIABLE):
            env.pop(name, None)

        def join() -> None:
            if control_group is not None:
                (control_group / "cgroup.procs").write_text("0", encoding="ascii")

        with (self.folder / "said.txt").open("ab") as said:
            return subprocess.Popen(command, cwd=self.folder, env=env, stdout=said, stderr=said, start_new_session=True, preexec_fn=join)

    def said(self):
        return (self.folder / "said.txt").read_text(encoding="utf-8", errors="replace")

    def run(self, control_group: Path | None = None):
        (self.folder / "said.txt").unlink(missing_ok=True)
        return self.start(control_group=control_group).wait(), self.said()

    def renew(self):
        """Take back all but the measurements: nothing drawn, nothing made, no state of Snakemake's."""
        for path in (self.results, self.folder / "results" / "pools", self.folder / ".snakemake"):
            shutil.rmtree(path, ignore_errors=True)

    def values(self):
        """Bytes of all tables and figures' data but those of times, which pictures and pages are there, and the ids of all samples."""
        out = {path.name: path.read_bytes() for path in self.results.glob("*.csv") if path.name not in TIMED}
        out |= {f"figures/{path.name}": path.read_bytes() for path in self.results.glob("figures/*.csv") if path.name not in TIMED}
        out["drawn"] = sorted(path.name for folder in ("figures", "paper") for path in (self.results / folder).glob("*.p*"))
        for path in sorted(self.results.glob("samples/*/*.parquet")):
            out[str(path.relative_to(self.results))] = str(pq.read_table(path).to_pydict())
        return out

    def chains(self):
        """Chains in all pools, as a fresh reader finds them."""
        total = 0
        for key in (self.folder / "results" / "pools").glob("*/key.json"):
            pool = Pool(key.parent.parent, json.loads(key.read_text(encoding="utf-8")))
            pool._refresh()
            total += len(pool._index.serving(0).drop_duplicates(["problem", "sample", "budget"]))
        return total

    def finished(self):
        """Stages of the run that are done, for the count of where it was killed."""
        stages = {"problems": "problems.parquet", "calibration": "calibration.csv", "pilot": "plan.csv", "samples": "samples/*/*.parquet"}
        stages |= {"grades": "grades/*.parquet", "cells": "configurations.csv", "laws": "laws.csv"}
        stages |= {"figures": "figures/accuracy.png", "paper's numbers": "paper/checked.txt"}
        return [name for name, pattern in stages.items() if any(self.results.glob(pattern))]


def of_run(folder: Path) -> list[psutil.Process]:
    """Processes of the last run in a folder that still live."""
    try:
        run = json.loads((folder / ".snakemake" / "flopstat-run.json").read_text(encoding="utf-8"))["run"]
    except FileNotFoundError:
        return []
    out = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(VARIABLE) == run and process.status() != psutil.STATUS_ZOMBIE:
                out.append(process)
        except psutil.Error:
            continue
    return out


def kill(work: Work, seconds: float, whole: bool) -> str | None:
    """Start the run and kill it after some seconds, its jobs with it or not; says when and how, None if it was over before."""
    process = work.start()
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        left = len(of_run(work.folder))
        where = (work.finished() or ["nothing"])[-1]
        return f"{'group' if whole else 'snakemake'} killed after {seconds:.1f} s, behind {where}, {left} of its processes left"
    assert code == 0, work.said()[-3000:]
    return None


def kill_and_rerun(work: Work, undisturbed: dict, kills: int, longest: float, rng: random.Random) -> list[str]:
    """Kill a run so many times, run it to its end, and compare; returns what was done."""
    history, chains = [], 0
    for number in range(kills):
        note = kill(work, rng.uniform(0.5, longest), whole=number % 2 == 0)
        if note is None:
            break
        now = work.chains()
        assert now >= chains, history
        chains = now
        history.append(f"{note}, {chains} chains stored")
    code, said = work.run()
    assert code == 0, f"{history}\n{said[-3000:]}"
    assert "Traceback" not in said, f"{history}\n{said[-3000:]}"
    assert work.chains() >= chains, history
    assert work.values() == undisturbed, history
    assert [path for path in work.results.rglob("*") if path.is_file() and not stored.is_whole(path)] == [], history
    assert not of_run(work.folder), history
    return history


def undisturbed_run(work: Work) -> tuple[dict, float]:
    begun = time.monotonic()
    code, said = work.run()
    assert code == 0, said[-3000:]
    return work.values(), time.monotonic() - begun


def test_forty_kills(tmp_path, capsys):
    work, rng, done = Work(tmp_path / "work", tables=()), random.Random(SEED), []
    values, seconds = undisturbed_run(work)
    begun = time.monotonic()
    while len(done) < KILLS:
        work.renew()
        history = kill_and_rerun(work, values, min(PER_RUN, KILLS - len(done)), seconds / 4, rng)
        done += history
        with capsys.disabled():
            print("", *history, sep="\n  ", flush=True)
    assert len(done) == KILLS  # each of which `kill_and_rerun` found recovered
    places = collections.Counter(note.split("behind ")[1].split(",")[0] for note in done)
    with capsys.disabled():
        took = time.monotonic() - begun
        print(f"\n{len(done)} kills in {took:.0f} s (undisturbed {seconds:.0f} s): {dict(places)}", flush=True)
