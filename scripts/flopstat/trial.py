"""A study rehearsed to its end with stand-ins for its models: killed while it samples, run again, report built; then an account of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from flopstat import config as study_config
from flopstat import standins, tables
from flopstat.config import ROOT
from flopstat.engine import GREEDY
from flopstat.errors import InputError, PoolError, TrialError, printable
from flopstat.pool import Pool
from flopstat.stored import read_json

POLL_S = 0.5
TAIL = 25  # lines of a log that are shown if a run fails


@dataclass(frozen=True)
class Trial:
    """A rehearsal that is ready to run.

    folder : of the stand-ins, the overlay and the logs.
    files : the study's config files with the rehearsal's overlay behind them.
    """

    folder: Path
    files: tuple[Path, ...]
    config: dict[str, Any]
    cores: int

    @property
    def results(self) -> Path:
        return Path("results") / self.config["study"]

    @property
    def chains(self) -> int:
        """Chains that each arm's pool holds in the end: K and a greedy one per problem."""
        dataset = self.config["dataset"]
        return int((dataset["n_study"] + dataset["n_calibration"]) * (self.config["sampling"]["samples"] + 1))

    def command(self, *more: str) -> list[str]:
        """Snakemake, started as `make run` does: where a killed one left off."""
        named = [str(path) for path in self.files]
        return [sys.executable, "-m", "flopstat.recovery", "--cores", str(self.cores), *more, "--configfile", *named]

    def environment(self) -> dict[str, str]:
        """Models come from the stand-ins' cache and nowhere else."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return os.environ | {"PATH": path, "HF_HUB_CACHE": str((self.folder / "hub").resolve()), "HF_HUB_OFFLINE": "1"}

    def log(self, what: str) -> Path:
        return self.folder / f"{self.config['study']}-{what}.log"


def prepare(
    files: Sequence[Path], folder: Path, sizes: tuple[int, int], samples: int, device: str, cores: int, problems: Path | None = None
) -> Trial:
    """Build the stand-ins, the problems and the overlay of a rehearsal.

    Parameters
    ----------
    files : sequence of Path
        The study's config files, the default one first, as for `flopstat plan`.
    sizes : (int, int)
        Study and calibration problems.
    problems : Path, optional
        Problems in GSM8K's form; generated ones if left out.

    Raises
    ------
    InputError
        For a wrong config, or a model that has no stand-in.
    """
    study = study_config.load(*files)
    folder.mkdir(parents=True, exist_ok=True)
    standins.build_standins(study, folder / "hub")
    if problems is None:
        problems = folder / f"problems-{sum(sizes)}.jsonl"
        if not problems.is_file():
            standins.write_problems(problems, sum(sizes), study["seed"])
    changes = standins.overlay(study, problems, sizes, samples, device)
    path = folder / f"{changes['study']}.yaml"
    path.write_text(yaml.safe_dump(changes, sort_keys=False), encoding="utf-8")
    resolved = study_config.load(*files, path)
    # config/config.yaml is what every study lies over; snakemake reads it by itself.
    over = tuple(file for file in files if file.resolve() != (ROOT / "config" / "config.yaml").resolve())
    return Trial(folder, (*over, path), resolved, cores)


def stored(trial: Trial) -> dict[str, set[tuple[str, int, int]]]:
    """Finished chains of each pool of a trial's arms, (problem, sample, tokens): as a fresh reader finds them."""
    table = trial.results / "problems.parquet"
    keys = tables.read("problems", table)["problem_key"].tolist() if table.is_file() else []
    out = {}
    for pilot in sorted((trial.results / "pilot").glob("*.json")):
        name = read_json(pilot)["pool"]
        key = read_json(Path("results") / "pools" / name / "key.json")
        rows = Pool(Path("results") / "pools", key).rows(keys, 1, ["problem_key", "sample", "n_tokens"])
        wanted = set(range(GREEDY, trial.config["sampling"]["samples"]))
        out[pilot.stem] = {row for row in zip(*(rows[c].to_pylist() for c in rows.column_names), strict=True) if row[1] in wanted}
    return out


def run_and_kill(trial: Trial, share: float) -> str:
    """Start the run and kill it, and all that it started, once its pools hold a share of their chains; says when that was.

    Raises
    ------
    TrialError
        If the run ended by itself before.
    """
    begun = time.monotonic()
    with trial.log("killed").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(trial.command(), stdout=log, stderr=log, env=trial.environment(), start_new_session=True)
        while not _drawn(trial, share):
            if process.poll() is not None:
                raise TrialError(_failure(trial.log("killed"), "ended before it could be killed"))
            time.sleep(POLL_S)
        jobs = sum(_samples(one) for one in _family(process.pid))
        _kill(process.pid)
        process.wait()
    return f"after {time.monotonic() - begun:.0f} s, with {jobs} sampling job{'' if jobs == 1 else 's'} at work"


def _drawn(trial: Trial, share: float) -> bool:
    """Whether sampling jobs have drawn that much: the pilot is over, and one has a log that is still written to."""
    if not (trial.results / "plan.csv").is_file():
        return False
    with suppress(PoolError, FileNotFoundError, InputError):  # a pool in the making
        there = stored(trial)
        return sum(map(len, there.values())) >= share * trial.chains * len(study_config.arms(trial.config))
    return False


def _family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def _samples(process: psutil.Process) -> bool:
    """Whether a process is a job that draws chains, not the shell around it."""
    with suppress(psutil.NoSuchProcess):
        words = process.cmdline()
        return len(words) > 2 and Path(words[1]).name == "flopstat" and words[2] == "sample"
    return False


def _kill(pid: int) -> None:
    """kill -9 of a run and of its jobs, which would live on without it."""
    for process in _family(pid):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def finish(trial: Trial) -> float:
    """Run the study to its end, and build its report; returns the seconds.

    Raises
    ------
    TrialError
        If a run fails.
    """
    begun = time.monotonic()
    for what, more in {"run": [], "report": ["--report", str(trial.results / "report.html")]}.items():
        with trial.log(what).open("w", encoding="utf-8") as log:
            done = subprocess.run(trial.command(*more), stdout=log, stderr=log, env=trial.environment(), check=False)
        if done.returncode:
            raise TrialError(_failure(trial.log(what), f"failed with exit code {done.returncode}"))
    return time.monotonic() - begun


def _failure(log: Path, what: str) -> str:
    """One line about a failed run; what it said last is shown at once."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
    print(printable("\n".join(lines)), file=sys.stderr)
    return f"the rehearsal {what}: see {log}"


def rehearse(trial: Trial, kill_at: float | None) -> list[str]:
    """Run a trial, killed once unless `kill_at` is None, and say what happened, a line each.

    Raises
    ------
    TrialError
        If a run fails, or a chain that was finished before the kill is not there after the rerun.
    """
    study = trial.config["study"]
    before: dict[str, set[tuple[str, int, int]]] = {}
    lines = [f"{study}: {len(study_config.arms(trial.config))} arms of {trial.chains} chains, {trial.cores} cores"]
    if kill_at is not None:
        lines.append(f"killed {run_and_kill(trial, kill_at)}")
        before = stored(trial)
    seconds = finish(trial)
    after = stored(trial)
    if lost := {arm: len(chains - after[arm]) for arm, chains in before.items() if chains - after[arm]}:
        raise TrialError(f"{study}: finished chains are lost: {lost}")
    summaries = [read_json(p) for p in sorted((trial.results / "samples").rglob("*.json"))]
    drawn = sum(s["chains_drawn"] for s in summaries)
    n_before, n_after = (sum(map(len, found.values())) for found in (before, after))
    if kill_at is not None:
        lines.append(f"chains stored at the kill: {n_before:,} of {n_after:,}, none lost; the last jobs drew {drawn:,}")
    lines.append(f"to the end in {seconds:.0f} s")
    for arm in study_config.arms(trial.config):
        recorded = [read_json(p)["recorded"] for p in sorted((trial.results / "samples" / arm).glob("*.json"))]
        tokens, took = (sum(r[name] for r in recorded) for name in ("new_tokens", "job_seconds"))
        lines.append(f"  {arm}: {len(after[arm]):,} chains; {tokens:,} tokens in {took:.0f} s of jobs that ended")
    for what in ("paper/flopstat.pdf", "report.html"):
        path = trial.results / what
        lines.append(f"{path}{'' if path.is_file() else ' (not built)'}")
    return lines
