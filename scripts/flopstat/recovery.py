"""Starts Snakemake where an earlier run was killed: `python -m flopstat.recovery [--study DIR] ARGUMENTS OF SNAKEMAKE...`.

A killed Snakemake leaves its lock, jobs that go on without it, and files that only look finished. Before the next one starts, under a
lock of the system's that no kill outlives:

1. a run that lives is left alone, and this one ends with a line that names it;
2. jobs that a dead run left behind are ended: their environment names the run. Chains that they had drawn are in the pools;
3. Snakemake's lock is removed if its owner, which `.snakemake/flopstat-run.json` names, is dead;
4. files whose bytes are not those that were written are set aside and made anew.

Then this process becomes Snakemake, which deletes and remakes what was incomplete (`--rerun-incomplete`, in the default profile). The
record of the owner is written by Snakemake's own start as well, so a Snakemake that was started by hand is known, too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from flopstat import stored
from flopstat.errors import PoolError, printable

STATE = Path(".snakemake")
LOCKS = STATE / "locks"
RECORD = STATE / "flopstat-run.json"
OWN_LOCK = STATE / "flopstat.lock"
VARIABLE = "FLOPSTAT_RUN"  # in the environment of all jobs of a run
GRACE_S = 10.0  # between the polite and the other end of an orphaned job
FOLDER_MARK = ".snakemake_timestamp"  # in a folder that is an output as a whole
KILLED = re.compile(r"returned non-zero exit status (?:137|-9)\b|died with <Signals\.SIGKILL")  # as Python says it of a job's shell


@dataclass(frozen=True)
class Owner:
    """Who runs, or ran, Snakemake in a folder."""

    run: str
    pid: int
    host: str

    @classmethod
    def this(cls) -> Owner:
        """This process, under the run that its environment names, or a new one."""
        run = os.environ.setdefault(VARIABLE, uuid.uuid4().hex)
        return cls(run, os.getpid(), socket.gethostname())

    @classmethod
    def read(cls) -> Owner | None:
        """The last owner; None if nobody noted one, or the note is torn or damaged."""
        try:
            owner = cls(**json.loads(RECORD.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError, RecursionError):
            return None
        # A run that is no text would be that of every process whose environment names none.
        fine = type(owner.pid) is int and 0 < owner.pid < 1 << 31 and all(type(t) is str and t for t in (owner.run, owner.host))
        return owner if fine else None

    def note(self) -> None:
        """Write this owner down, whole or not at all."""
        temporary = RECORD.with_name(f"{RECORD.name}.{os.getpid()}")
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        os.replace(temporary, RECORD)

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def lives(self) -> bool:
        """Whether its process runs on this machine.

        Numbers of processes are used again and clocks are set, so neither is proof: it must name the run in its environment, or be a
        Snakemake in this folder.
        """
        try:
            process = psutil.Process(self.pid)
            return process.status() != psutil.STATUS_ZOMBIE and (process.environ().get(VARIABLE) == self.run or _works_here(process))
        except (psutil.Error, OSError):
            return False


def note_owner() -> None:
    """Called when Snakemake holds its lock: whatever owner was noted before is gone."""
    STATE.mkdir(exist_ok=True)
    Owner.this().note()


def say_if_killed(logs: str | Path | Sequence[str | Path]) -> str | None:
    """What a job that ended by signal 9 most often means, from a failed run's own logs; None where no job did.

    The kernel kills so when memory runs out, and the job itself can't say a word of it.
    """
    paths = [logs] if isinstance(logs, str | Path) else logs
    if not any(KILLED.search(Path(path).read_text(encoding="utf-8", errors="replace")) for path in paths):
        return None
    remedy = "run fewer jobs at once (make run CORES=1) or give the machine more memory, and run again: what is finished is kept"
    return f"flopstat: a job was killed (signal 9), most often because memory ran out; {remedy}"


def _processes_of(run: str) -> list[psutil.Process]:
    """Processes of a run, this one left out. Those of other users can't be read, and are not ours to end."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(VARIABLE) == run and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def end_orphans(run: str) -> int:
    """End what a dead run left behind, and wait for it; returns how many processes there were.

    Raises
    ------
    PoolError
        If one can't be ended.
    """
    orphans = _processes_of(run)
    for process in orphans:
        try:
            process.terminate()
        except psutil.Error:
            continue
    _, alive = psutil.wait_procs(orphans, timeout=GRACE_S)
    for process in alive:
        try:
            process.kill()
        except psutil.Error:
            continue
    _, alive = psutil.wait_procs(alive, timeout=GRACE_S)
    if alive:
        raise PoolError(f"process {alive[0].pid}, which an earlier run left behind, does not end; end it, and run again")
    return len(orphans)


def _works_here(process: psutil.Process) -> bool:
    """Whether a process is a Snakemake in this folder, and not a shell that mentions one."""
    line = process.cmdline()
    is_snakemake = "snakemake" in [Path(word).name for word in line[:2]] or line[1:3] == ["-m", "snakemake"]
    return is_snakemake and process.cwd() == os.getcwd()


def _running_here() -> psutil.Process | None:
    """A Snakemake that works in this folder on this machine."""
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and _works_here(process):
                return process
        except (psutil.Error, OSError):
            continue
    return None


def _busy(who: str) -> PoolError:
    return PoolError(f"{who} runs Snakemake in {os.getcwd()}; wait for it, or end it, and run again")


def recover() -> list[str]:
    """Clear away what a killed run left in this folder; returns what was done, in words. Call it under the own lock.

    Raises
    ------
    PoolError
        If a run lives, or nobody can tell.
    """
    done = []
    owner = Owner.read()
    if owner is not None and owner.is_here and owner.lives:
        raise _busy(f"process {owner.pid}")
    if owner is not None and owner.is_here and (n := end_orphans(owner.run)):
        done.append(f"ended {n} process(es) that the killed run {owner.pid} left behind")
    if LOCKS.is_dir() and any(LOCKS.iterdir()):
        other = _running_here()
        if other is not None:
            raise _busy(f"process {other.pid}")
        if owner is None or not owner.is_here:
            who = f"process {owner.pid} on {owner.host}" if owner is not None else "a Snakemake that nobody noted"
            raise PoolError(f"{STATE}: locked by {who}; if it does not run any more, `snakemake --unlock`, and run again")
        shutil.rmtree(LOCKS)
        done.append(f"removed the lock of the killed run {owner.pid}")
    return done


def _take_lock() -> None:
    """Hold this folder's own lock for as long as this process, and what it becomes, lives; a kill frees it.

    Raises
    ------
    PoolError
        If another run holds it.
    """
    import fcntl

    lock = os.open(OWN_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy(f"process {os.read(lock, 20).decode() or 'of another `make run`'}") from None
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    os.set_inheritable(lock, True)  # for the Snakemake that this process becomes; its jobs get no descriptors


def _output_of(path: Path) -> Path:
    """What a rule says that it makes: the file, or the folder that it is in."""
    return path.parent if (path.parent / FOLDER_MARK).exists() else path


def main(arguments: Sequence[str]) -> None:
    """Recover, then become Snakemake."""
    STATE.mkdir(exist_ok=True)
    _take_lock()
    os.environ.pop(VARIABLE, None)
    done, damaged, study = recover(), list[Path](), None
    if arguments[:1] == ["--study"]:
        study, arguments = Path(arguments[1]), arguments[2:]
        for folder in (study, study.parent / "calibrations", study.parent / "pools"):
            damaged += stored.set_aside_damaged(folder)
    done += [f"{path}: damaged, set aside as {path.name}{stored.DAMAGED}, and made anew where it is needed" for path in damaged]
    for line in done:
        print(f"flopstat: {printable(line)}", file=sys.stderr, flush=True)
    Owner.this().note()
    # Snakemake makes a file again that something needs, but not one whose results are there: those that were damaged it is told, also if a
    # kill came between.
    outputs = sorted({str(_output_of(path)) for path in stored.lost(study)}) if study is not None else []
    forced = ["--forcerun", *outputs] if outputs else []
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *forced, *arguments])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except PoolError as error:
        print(f"flopstat: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
