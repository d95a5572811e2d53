"""Whole runs in too little memory: the kernel kills jobs or all of it; the same command with enough ends as if nothing had been."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_run_kills import Work, of_run, undisturbed_run

MEGABYTES = (120, 200, 300, 400, 500, 560, 620, 700, 800)


@contextlib.contextmanager
def memory_group(megabytes: int) -> Iterator[Path]:
    """A control group of this process's own whose members share so much memory and no swap."""
    listed = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()]
    old = next((path for _, kinds, path in listed if kinds == "memory"), None)
    where = Path("/sys/fs/cgroup/memory" + old if old else "/sys/fs/cgroup" + next((p for _, kinds, p in listed if not kinds), ""))
    group = where / f"flopstat-{os.getpid()}"
    try:
        group.mkdir()
        for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if old else ("memory.max",):
            (group / name).write_text(str(megabytes << 20), encoding="ascii")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group of memory can be made here: {error}")
    try:
        yield group
    finally:
        for member in (group / "cgroup.procs").read_text(encoding="ascii").split():  # orphans of a Snakemake that was killed itself
            with contextlib.suppress(ProcessLookupError):
                (where / "cgroup.procs").write_text(member, encoding="ascii")
        group.rmdir()


def killed_by_the_kernel(group: Path) -> int:
    """Processes of a group that the kernel has killed for want of memory."""
    for name in ("memory.oom_control", "memory.events"):
        if (group / name).is_file():
            counts = dict(line.split() for line in (group / name).read_text(encoding="ascii").splitlines())
            return int(counts["oom_kill"])
    raise FileNotFoundError(group)


def test_runs_in_too_little_memory_end_and_a_rerun_gives_the_same(tmp_path, capsys):
    work = Work(tmp_path / "work")
    undisturbed, _ = undisturbed_run(work)
    killed, chains = 0, 0
    work.renew()
    for megabytes in MEGABYTES:
        with memory_group(megabytes) as group:
            code, said = work.run(group)
            found = killed_by_the_kernel(group)
        with capsys.disabled():
            stages = (work.finished() or ["nothing"])[-1]
            print(f"\n{megabytes} MiB: exit code {code}, {found} processes killed by the kernel, behind {stages}", flush=True)
        assert code in (0, 1, -signal.SIGKILL), said[-3000:]
        assert ("most often because memory ran out" in said) == (code == 1), said[-3000:]
        assert work.chains() >= chains
        killed, chains = killed + found, work.chains()
    assert killed
    code, said = work.run()
    assert code == 0, said[-3000:]
    assert work.values() == undisturbed
    assert not of_run(work.folder)
