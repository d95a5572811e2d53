"""The pool store: nothing drawn is lost, drawn twice or half written, and nothing that was not drawn is ever returned."""

import json
import multiprocessing
import os
import re
import resource
import tempfile
import time
import zlib
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopstat import pool as pool_module
from flopstat.pool import FINGERPRINT, HEADER, PER_TOKEN, SCHEMA, Pool, PoolError, Recovery

KEY = {"weights": "abc", "sampling": {"seed": 1, "temperature": 1.0}}
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, eq=False)
class Drawn:
    """What the store needs of a chain. The arrays follow from its identity and length."""

    problem_key: str
    sample: int = 0
    length: int = 3
    finish_reason: str = "eos"
    budget: int = 0
    variant: int = 0
    prompt_tokens: int = 7
    near_ties: int = 0
    inserted: int = 0
    ids: np.ndarray = field(init=False)
    logprob: np.ndarray = field(init=False)
    entropy: np.ndarray = field(init=False)
    self_certainty: np.ndarray = field(init=False)
    confidence: np.ndarray = field(init=False)

    def __post_init__(self):
        rng = np.random.default_rng(zlib.crc32(repr((self.problem_key, self.sample, self.budget, self.length)).encode()))
        for name, dtype in PER_TOKEN.items():
            values = rng.integers(0, 2**31 - 1, self.length) if name == "ids" else rng.normal(size=self.length)
            object.__setattr__(self, name, values.astype(dtype))

    @property
    def identity(self):
        return self.problem_key, self.sample, self.budget

    def row(self):
        return {
            name: self.length if name == "n_tokens" else getattr(self, name).tolist() if name in PER_TOKEN else getattr(self, name)
            for name in SCHEMA.names
        }


def some(n, start=0, length=3):
    """Chains of several problems, four samples each."""
    return [Drawn(f"p{i // 4:03d}", i % 4, length + i % 3) for i in range(start, start + n)]


def write(pool, *appends):
    """One writing session."""
    with pool.writing() as writer:
        for chains in appends:
            writer.append(chains)
    return writer.recovered


def stored(pool, chains, max_tokens=1):
    """The rows stored for the problems of some chains, by identity."""
    rows = pool.rows([c.problem_key for c in chains], max_tokens).to_pylist()
    by_identity = {(row["problem_key"], row["sample"], row["budget"]): row for row in rows}
    assert len(by_identity) == len(rows)
    return by_identity


def expected(chains):
    return {c.identity: c.row() for c in chains}


def lost(pool, chains):
    """Chains that a caller would draw again."""
    missing = set(pool.missing([c.identity for c in chains], 1))
    return [c for c in chains if c.identity in missing]


@pytest.fixture
def pool(tmp_path):
    return Pool(tmp_path, KEY)


@pytest.fixture
def mounted(small_disk):
    return small_disk("2m")


def test_every_column_comes_back(pool):
    chains = [
        Drawn("b", 0, 3, near_ties=2, prompt_tokens=11),
        Drawn("a", 1, 0, "engine_error"),
        Drawn("a", -1, 5, "length"),
        Drawn("a", 1, 2, "length", budget=16, variant=3, inserted=4),
        Drawn("Größe", 0, 1),
    ]
    write(pool, chains[:2], [], chains[2:])
    for reader in (pool, Pool(pool.folder.parent, KEY)):
        table = reader.rows(["a", "b", "Größe", "unknown"], 5)
        assert table.schema == SCHEMA
        assert table.to_pylist() == [c.row() for c in sorted(chains, key=lambda c: c.identity)]
        assert reader.rows(["b"], 5, ["n_tokens", "ids"]).to_pylist() == [{"n_tokens": 3, "ids": chains[0].ids.tolist()}]
    assert pool.rows([], 5).schema == pool.rows(["unknown"], 5).schema == SCHEMA
    write(pool, [Drawn("empty", 0, 0), Drawn("empty", 1, 0)])  # an append without a single token
    assert pool.rows(["empty"], 5)["ids"].to_pylist() == [[], []]


def test_an_append_too_large_for_one_frame_is_split(pool, monkeypatch):
    monkeypatch.setattr(pool_module, "LARGEST", 5000)
    write(pool, some(37, 0, 100))
    with (pool.folder / "chains-000001.log").open("rb") as log:
        frames = [len(payload) for _, payload in pool_module._frames(log.fileno(), len(HEADER), 10**9)]
    assert len(frames) > 10
    assert max(frames) < 5000
    assert stored(pool, some(37)) == expected(some(37, 0, 100))


def test_growing_k_draws_only_what_is_missing(pool):
    wanted = [(p, i, 0) for p in "ab" for i in (-1, 0)]
    assert pool.missing(wanted, 8) == wanted
    assert pool.missing([*wanted, *wanted], 8) == wanted  # nothing is drawn twice
    assert pool.missing([], 8) == []
    write(pool, [Drawn(p, i) for p, i, _ in wanted])
    assert pool.missing(wanted, 8) == []
    grown = [("a", 1, 0), ("c", 0, 0), ("d", 0, 0), ("b", -1, 16)]
    assert pool.missing([*wanted, *grown], 8) == grown


def test_a_cut_chain_serves_up_to_its_length_and_a_longer_one_replaces_it(pool):
    short, ended, longer = Drawn("a", 0, 4, "length"), Drawn("a", 1, 2), Drawn("a", 0, 6)
    forced = Drawn("a", 0, 1, "length", budget=4)
    write(pool, [short, ended, forced])
    wanted = [c.identity for c in (short, ended, forced)]
    assert pool.missing(wanted, 4) == []
    assert pool.missing(wanted, 5) == [("a", 0, 0)]  # what ended serves any budget, and so does an answer forced at its T
    assert stored(pool, [short], 5) == expected([ended, forced])
    write(pool, [longer])
    assert pool.missing(wanted, 5) == []
    assert stored(pool, [short], 4) == expected([short, ended, forced])  # the first that serves
    assert stored(pool, [short], 5) == expected([longer, ended, forced])


def test_blocks_are_the_rows_in_the_order_given(pool, monkeypatch):
    chains = some(90)
    order = np.random.default_rng(3).permutation(90)
    write(pool, *([chains[i] for i in part] for part in np.array_split(order, 17)))
    keys = [f"p{i:03d}" for i in np.random.default_rng(4).permutation(25)]  # 22 of them stored
    by_key = {key: [c.row() for c in chains if c.problem_key == key] for key in keys}
    for chunk in (1 << 24, 1500):  # rows gathered at once, and in many parts
        monkeypatch.setattr(pool_module, "CHUNK", chunk)
        reader = Pool(pool.folder.parent, KEY)
        assert reader.rows(keys, 1).to_pylist() == [c.row() for c in chains]
        for block in (1, 7, 25, 64):
            tables = list(reader.blocks([*keys, *keys[:3]], 1, block))
            assert [table.to_pylist() for table in tables] == [
                [row for key in keys[i : i + block] for row in by_key[key]] for i in range(0, 25, block)
            ]
    assert list(pool.blocks([], 1)) == []


def test_only_frames_of_wanted_problems_are_opened(pool):
    """Damage after the index was built: a row of that frame is refused, rows of the others are not touched by it."""
    write(pool, some(4), some(4, 4), some(4, 8))
    log = pool.folder / "chains-000001.log"
    assert pool.missing([c.identity for c in some(12)], 1) == []
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)
    assert stored(pool, some(4)) == expected(some(4))
    assert stored(pool, some(4, 8)) == expected(some(4, 8))
    with pytest.raises(PoolError, match=r"chains-000001\.log: the record at byte \d+ was damaged a moment ago; .* run again"):
        pool.rows(["p001"], 1)
    assert Pool(pool.folder.parent, KEY).missing([c.identity for c in some(12)], 1) == [("p001", i, 0) for i in range(4)]


def logged(appends):
    """The bytes of a log, and where each of its frames ends."""
    with tempfile.TemporaryDirectory() as store:
        pool = Pool(Path(store), KEY)
        ends = [len(HEADER)]
        with pool.writing() as writer:
            for chains in appends:
                writer.append(chains)
                ends.append((pool.folder / "chains-000001.log").stat().st_size)
        return (pool.folder / "chains-000001.log").read_bytes(), ends


APPENDS = [some(3), some(1, 3), some(7, 4), some(2, 11)]
ALL = [c for chains in APPENDS for c in chains]
LOG, ENDS = logged(APPENDS)


def placed(store, content):
    """A pool whose only log has this content."""
    pool = Pool(Path(store), KEY)
    (pool.folder / "chains-000001.log").write_bytes(content)
    return pool


def check_truncated(cut):
    with tempfile.TemporaryDirectory() as store:
        pool = placed(store, LOG[:cut])
        whole = sum(end <= cut for end in ENDS[1:])
        before = [c for chains in APPENDS[:whole] for c in chains]
        assert stored(pool, ALL) == expected(before)
        kept = max((end for end in ENDS if end <= cut), default=0)
        with Pool(Path(store), KEY).writing() as writer:
            names = ("chains-000001.log",) if cut > kept else ()
            assert writer.recovered == Recovery(len(names), cut - kept, names)
            assert (writer.recovered.line == "") == (cut == kept)
            redrawn = lost(pool, ALL)
            assert redrawn == ALL[len(before) :]
            writer.append(redrawn)
        aside = pool.folder / "chains-000001.log.torn"
        assert (aside.read_bytes() if aside.exists() else b"") == LOG[kept:cut]
        for reader in (pool, Pool(Path(store), KEY)):
            assert stored(reader, ALL) == expected(ALL)
            assert not lost(reader, ALL)
        assert write(pool, some(2, 20)) == Recovery(0, 0, ())  # repaired once, and no number used twice
        assert stored(pool, some(2, 20)) == expected(some(2, 20))


@given(st.integers(0, len(LOG)))
def test_a_log_cut_at_any_byte_keeps_exactly_the_appends_before(cut):
    check_truncated(cut)


def test_a_log_cut_around_the_ends_of_its_frames():
    for end in (0, *ENDS):
        for cut in range(max(0, end - 2), min(len(LOG), end + 2) + 1):
            check_truncated(cut)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, len(LOG) - 1), st.binary(min_size=1, max_size=200)), min_size=1, max_size=3),
    st.sampled_from([16, 100, 1 << 24]),
)
def test_bytes_changed_anywhere_never_give_a_wrong_row(changes, chunk):
    content = bytearray(LOG)
    for start, mask in changes:  # from one flipped bit to a lost block
        for i, bits in enumerate(mask[: len(LOG) - start]):
            content[start + i] ^= bits
    touched = [content[a:b] != LOG[a:b] for a, b in pairwise([0, *ENDS])]
    survivors = [c for chains, damaged in zip(APPENDS, touched[1:], strict=True) for c in chains if not damaged]
    with tempfile.TemporaryDirectory() as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_module, "CHUNK", chunk)
        pool = placed(store, bytes(content))
        assert stored(pool, ALL) == expected(survivors)
        with pool.writing() as writer:
            assert (writer.recovered.n_torn > 0) == any(touched)
            stretches = [b - a for (a, b), damaged in zip(pairwise([0, *ENDS]), touched, strict=True) if damaged]
            assert writer.recovered.n_bytes == (sum(stretches) if survivors or not touched[0] else len(LOG))
            assert lost(pool, ALL) == [c for c in ALL if c not in survivors]
            writer.append(lost(pool, ALL))
        for reader in (pool, Pool(Path(store), KEY)):
            assert stored(reader, ALL) == expected(ALL)
        # What is damaged inside a log stays where it is, reported but not copied at each start.
        asides = [path.stat().st_size for path in pool.folder.glob("*.torn")]
        write(pool, [])
        assert [path.stat().st_size for path in pool.folder.glob("*.torn")] == asides


def test_a_log_of_another_format_is_refused_and_left_alone(pool):
    other = pool_module._checked(HEADER[:8] + b"\x02\0\0\0" + bytes(32)) + LOG[len(HEADER) :]
    log = pool.folder / "chains-000001.log"
    log.write_bytes(other)
    for use in (lambda: pool.missing([], 1), lambda: write(pool, some(1))):
        with pytest.raises(PoolError, match=r"chains-000001\.log: another format .* move it away"):
            use()
    assert log.read_bytes() == other
    # Change this number only together with FORMAT: logs of the old one are refused.
    assert FINGERPRINT.hex()[:16] == "61b797cd3f54b20c"


def appending(folder, connection, length):
    """Child: append for ever and acknowledge each append."""
    done = 0
    with Pool(folder, KEY).writing() as writer:
        while True:
            chains = some(1 + done % 7, done, length)
            writer.append(chains)
            done += len(chains)
            connection.send(done)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.3])
def test_kill_9_loses_nothing_acknowledged(tmp_path, seconds):
    parent, child = SPAWN.Pipe()
    process = SPAWN.Process(target=appending, args=(tmp_path, child, 500))
    process.start()
    child.close()
    acknowledged = parent.recv()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        acknowledged = parent.recv()
    process.kill()
    process.join()
    assert process.exitcode == -9
    while parent.poll():
        try:
            acknowledged = parent.recv()
        except EOFError:
            break
    pool = Pool(tmp_path, KEY)
    chains = some(acknowledged, 0, 500)
    there = stored(pool, chains)
    assert {c.identity: there[c.identity] for c in chains} == expected(chains)
    assert len(there) - acknowledged <= 7  # at most the append that was not acknowledged yet
    with pool.writing(timeout_s=5) as writer:  # the lock died with its holder
        writer.append(some(3, 10**6))
    assert stored(pool, some(3, 10**6)) == expected(some(3, 10**6))


def test_a_reader_during_writing_sees_whole_rows_and_ever_more(tmp_path):
    parent, child = SPAWN.Pipe()
    process = SPAWN.Process(target=appending, args=(tmp_path, child, 50))
    process.start()
    pool = Pool(tmp_path, KEY)
    seen = []
    try:
        while len(seen) < 12:
            acknowledged = parent.recv()
            while parent.poll():
                acknowledged = parent.recv()
            there = stored(pool, some(acknowledged, 0, 50))
            assert len(there) >= acknowledged
            assert list(there.values()) == [c.row() for c in sorted(some(len(there), 0, 50), key=lambda c: c.identity)]
            seen.append(len(there))
    finally:
        process.kill()
        process.join()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


def holding(folder, connection):
    """Child: hold the pool until told, then write and leave."""
    with Pool(folder, KEY).writing() as writer:
        connection.send("holding")
        connection.recv()
        writer.append(some(8))


def test_a_second_writer_waits_and_both_sets_are_there(tmp_path):
    parent, child = SPAWN.Pipe()
    process = SPAWN.Process(target=holding, args=(tmp_path, child))
    process.start()
    assert parent.recv() == "holding"
    pool = Pool(tmp_path, KEY)
    calls = []
    with pytest.raises(PoolError, match=rf"{pool.folder}: .* wait for the other process"), pool.writing(0.05, lambda: calls.append(1)):
        pytest.fail("two writers at a time")
    assert calls == [1]
    with pool.writing(timeout_s=20, waiting=lambda: parent.send("go")) as writer:
        assert not lost(pool, some(8))  # a look under the lock shows what the other wrote
        writer.append(some(8, 8))
    process.join()
    assert process.exitcode == 0
    assert stored(pool, some(16)) == expected(some(16))
    with pool.writing(timeout_s=0, waiting=lambda: pytest.fail("nobody holds the pool")):
        pass


def test_the_lock_is_free_after_an_error(pool):
    def interrupted():
        with pool.writing() as writer:
            writer.append(some(4))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with Pool(pool.folder.parent, KEY).writing(timeout_s=0):
        pass
    assert not lost(pool, some(4))
    (pool.folder / "chains-000009.log").write_bytes(pool_module._checked(HEADER[:8] + bytes(36)))
    with pytest.raises(PoolError), pool.writing():
        pass
    (pool.folder / "chains-000009.log").unlink()
    with Pool(pool.folder.parent, KEY).writing(timeout_s=0):
        pass


def limited(folder, connection):
    """Child: append until a file may not grow any more, as on a full disk, then once more."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    done = 0
    with Pool(folder, KEY).writing() as writer:
        try:
            while True:
                writer.append(some(5, done, 100))
                done += 5
        except PoolError as error:
            connection.send((done, str(error)))
        writer.append(some(5, done, 100))


def test_a_write_that_fails_halfway_is_taken_back(tmp_path):
    parent, child = SPAWN.Pipe()
    process = SPAWN.Process(target=limited, args=(tmp_path, child))
    process.start()
    done, message = parent.recv()
    process.join()
    assert process.exitcode == 0
    pool = Pool(tmp_path, KEY)
    assert done > 0
    assert message.startswith(f"{pool.folder}: File too large; free some space")
    assert "Finished chains are kept" in message
    assert write(pool, some(4, 10**6)) == Recovery(0, 0, ())
    assert stored(pool, some(done + 5, 0, 100)) == expected(some(done + 5, 0, 100))
    assert sorted(path.name for path in pool.folder.glob("chains-*")) == [f"chains-00000{i}.log" for i in (1, 2, 3)]


def test_a_full_disk_keeps_what_is_finished_and_a_rerun_goes_on(mounted):
    folder, _ = mounted
    pool = Pool(folder, KEY)
    filler = folder / "filler"
    filler.write_bytes(bytes(1 << 20))
    done, message = 0, ""
    with pool.writing() as writer:
        while not message:
            try:
                writer.append(some(10, done, 100))
                done += 10
            except PoolError as error:
                message = str(error)
        assert message.startswith(f"{pool.folder}: No space left on device; free some space")
        assert "Finished chains are kept" in message
        assert done > 100
        assert stored(pool, some(done, 0, 100)) == expected(some(done, 0, 100))
        with pytest.raises(PoolError, match="No space left"):
            writer.append(some(4000, 0, 100))
        filler.unlink()
        writer.append(some(10, done, 100))  # the same session goes on
    rerun = Pool(folder, KEY)
    assert not lost(rerun, some(done + 10, 0, 100))
    assert write(rerun, some(10, done + 10, 100)) == Recovery(0, 0, ())
    assert stored(rerun, some(done + 20, 0, 100)) == expected(some(done + 20, 0, 100))


def test_a_read_only_folder_can_be_read_and_says_what_to_do(mounted):
    folder, mount = mounted
    write(Pool(folder, KEY), some(8))
    assert mount("remount,ro").returncode == 0
    pool = Pool(folder, KEY)
    assert stored(pool, some(8)) == expected(some(8))
    remedy = "Read-only file system; make the folder writable or name another store"
    with pytest.raises(PoolError, match=f"{pool.folder}: {remedy}"), pool.writing():
        pass
    with pytest.raises(PoolError, match=f"{folder}/[0-9a-f]{{20}}: {remedy}"):
        Pool(folder, KEY | {"weights": "other"})


def test_the_disk_is_waited_for_at_most_once_a_second_and_at_the_end(pool, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd, real=os.fsync: (real(fd), synced.append(os.fstat(fd).st_size)))
    with pool.writing() as writer:
        start = time.monotonic()
        for i in range(100):
            writer.append(some(1, i))
        assert len(synced) <= 1 + (time.monotonic() - start)  # the folder once
        writer._synced -= pool_module.SYNC_S
        before = len(synced)
        writer.append(some(1, 100))
        assert len(synced) == before + 1
        writer.append(some(1, 101))
    assert len(synced) == before + 2
    assert synced[-1] == (pool.folder / "chains-000001.log").stat().st_size


def peak_bytes():
    """Peak of this process's own memory; `ru_maxrss` would begin with that of the parent."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))[1])


def peaks_of(folder, connection):
    """Child: growth of the peak memory, in bytes, over appending, indexing and reading blocks that lie scattered over all frames."""
    template = [Drawn(f"p{k}", 0, 400) for k in range(20)]
    pool = Pool(folder, KEY)

    def chains(sample):
        for chain in template:
            object.__setattr__(chain, "sample", sample)
        return template

    write(pool, chains(0))
    list(pool.blocks(["p0"], 1))
    peaks = [peak_bytes()]
    with pool.writing() as writer:
        for sample in range(1, 1000):
            writer.append(chains(sample))
    peaks.append(peak_bytes())
    reader = Pool(folder, KEY)
    n = 20_000 - len(reader.missing([(f"p{k}", sample, 0) for k in range(20) for sample in range(1000)], 1))
    peaks.append(peak_bytes())
    rows = [table.num_rows for table in reader.blocks(["p3", "p17"], 1, block=1)]
    peaks.append(peak_bytes())
    connection.send((n, rows, np.diff(peaks).tolist()))


def test_memory_does_not_grow_with_the_chains(tmp_path):
    parent, child = SPAWN.Pipe()
    process = SPAWN.Process(target=peaks_of, args=(tmp_path, child))
    process.start()
    n, rows, (appending, indexing, reading) = parent.recv()
    process.join()
    assert (n, rows) == (20_000, [1000, 1000])
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*.log")) > 160e6
    assert appending < 5e6
    assert indexing < 50e6  # CHUNK, the index and the 20,000 triples
    assert reading < 90e6  # CHUNK twice, a block of 8 MB and its copies


def test_a_pool_is_found_again_by_its_key_and_by_nothing_else(tmp_path, pool):
    write(pool, some(1))
    same = Pool(tmp_path, dict(reversed(KEY.items())))
    assert same.folder == pool.folder
    assert not lost(same, some(1))
    assert json.loads((pool.folder / "key.json").read_text(encoding="utf-8")) == KEY
    other = Pool(tmp_path, KEY | {"sampling": {"seed": 2, "temperature": 1.0}})
    assert other.folder != pool.folder
    assert lost(other, some(1))


def test_files_of_other_names_are_none_of_its_business(pool):
    for name in ("segment-000000.parquet", "chains-old.log", "chains-000001.log.torn", ".key.json.abc"):
        (pool.folder / name).write_bytes(b"whatever")
    assert write(pool, some(4)) == Recovery(0, 0, ())
    assert stored(pool, some(4)) == expected(some(4))
    assert (pool.folder / "chains-000002.log").exists()  # the number of a log that was set aside whole is not used again
    assert isinstance(pool.rows(["p000"], 1), pa.Table)
