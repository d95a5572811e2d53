"""What `make run` does where a run was killed, and when it refuses. Whole runs: tests/workflow/test_killed_run.py."""

import json
import os
import socket
import subprocess
import sys

import pytest

from flopstat import recovery
from flopstat.errors import PoolError
from flopstat.recovery import LOCKS, RECORD, STATE, VARIABLE, Owner, recover

RUN = f"r-{os.getpid()}"  # pytest's other processes end the orphans of runs of their own names
SLEEPER = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
STUBBORN = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    STATE.mkdir()
    return tmp_path


@pytest.fixture
def process():
    """Start a process of a run; it is gone at the end."""
    started = []

    def start(run: str, command=SLEEPER):
        started.append(subprocess.Popen(command, env=os.environ | {VARIABLE: run}, stdout=subprocess.PIPE))
        started[-1].stdout.readline()
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()
        one.stdout.close()


def owner(run=RUN, pid=None, host=None) -> Owner:
    here = Owner.this()
    return Owner(run, here.pid if pid is None else pid, host or here.host)


def dead_pid() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def lock() -> None:
    LOCKS.mkdir()
    (LOCKS / "0.output.lock").write_text("results/x.csv\n", encoding="utf-8")


def test_a_clean_folder_needs_nothing(folder):
    assert recover() == []


def test_the_lock_of_a_dead_owner_is_removed(folder):
    owner(pid=dead_pid()).note()
    lock()
    assert recover() == [f"removed the lock of the killed run {Owner.read().pid}"]
    assert not LOCKS.exists()


def test_orphans_of_a_dead_owner_are_ended_and_others_live(folder, process, monkeypatch):
    monkeypatch.setattr(recovery, "GRACE_S", 1.0)
    orphans, stranger = [process(RUN), process(RUN, STUBBORN)], process("another")
    owner(pid=dead_pid()).note()
    assert recover() == [f"ended 2 process(es) that the killed run {Owner.read().pid} left behind"]
    assert all(p.poll() is not None for p in orphans)
    assert stranger.poll() is None


def test_a_living_owner_is_left_alone(folder, process):
    alive = process(RUN)
    owner(pid=alive.pid).note()
    lock()
    with pytest.raises(PoolError, match=f"process {alive.pid} runs Snakemake in .*; wait for it, or end it, and run again"):
        recover()
    assert alive.poll() is None
    assert LOCKS.exists()


def test_a_number_that_another_process_has_now_is_no_owner(folder, process):
    other = process("another")
    owner(pid=other.pid).note()
    lock()
    assert recover() == [f"removed the lock of the killed run {other.pid}"]
    assert other.poll() is None


@pytest.mark.parametrize(
    "change",
    [{"pid": p} for p in (-711, 0, "a", None, True, 1.5, 10**30)] + [{"run": r} for r in (None, "", 3)] + [{"host": []}, {"more": 1}],
    ids=str,
)
def test_a_damaged_note_names_nobody(folder, change):
    RECORD.write_text(json.dumps({"run": RUN, "pid": dead_pid(), "host": socket.gethostname()} | change), encoding="utf-8")
    assert Owner.read() is None
    assert recover() == []
    owner().note()
    assert Owner.read() == owner()


@pytest.mark.parametrize("noted", ["nobody", "torn", "elsewhere"])
def test_a_lock_that_nobody_here_can_judge_stays(folder, noted):
    if noted == "elsewhere":
        owner(pid=1, host="another-host").note()
    elif noted == "torn":
        RECORD.write_text('{"run": "r", "pi', encoding="utf-8")
    lock()
    with pytest.raises(PoolError, match=r"locked by .*; if it does not run any more, `snakemake --unlock`, and run again"):
        recover()
    assert LOCKS.exists()


def test_the_note_of_an_owner_comes_back(folder, monkeypatch):
    monkeypatch.setenv(VARIABLE, "run-7")
    recovery.note_owner()
    assert Owner.read() == Owner.this() == owner("run-7")


def test_a_job_that_was_killed_is_told_from_one_that_failed(tmp_path):
    for number, (code, told) in enumerate(
        {"kill -9 $$": True, "sh -c 'kill -9 $$'; exit $?": True, "exit 3": False, "kill -15 $$": False}.items()
    ):
        with pytest.raises(subprocess.CalledProcessError) as error:
            subprocess.run(["bash", "-c", code], check=True)
        log = tmp_path / f"{number}.log"
        log.write_text(f"Job 7: Calibrating\n{error.value}\n", encoding="utf-8")
        assert (recovery.say_if_killed(log) is not None) == told, error.value
        assert recovery.say_if_killed([tmp_path / "0.log", log]) is not None, error.value
