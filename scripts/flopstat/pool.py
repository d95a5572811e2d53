"""The pool store: every chain ever drawn, in append-only logs, found by what its tokens depend on.

`results/pools/<key>/` holds `key.json` and logs `chains-000001.log` ...: a header, then one frame per `append`, which is magic, length,
checksums and the chains as an Arrow record batch. The kernel has a frame before `append` returns, so `kill -9` loses nothing appended;
the disk follows within a second or so. What breaks a frame (a kill in mid-write, a rotten bit) breaks that frame only: its checksum
fails, it is skipped and reported, and `missing` lists its chains again. One process writes at a time (file lock), each session to a log
of its own; anybody reads meanwhile without a lock. The key holds all that changes the output, and no speed settings.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flopstat.errors import PoolError

if TYPE_CHECKING:
    from flopstat.engine import Chain

PER_TOKEN = {"ids": np.int32, "logprob": np.float32, "entropy": np.float32, "self_certainty": np.float32, "confidence": np.float32}
SCHEMA = pa.schema(
    [
        ("problem_key", pa.string()),
        ("sample", pa.int32()),
        ("budget", pa.int32()),  # 0: a chain itself; T: an answer forced at T tokens
        ("variant", pa.int32()),  # which stream of prompt and temperature
        ("prompt_tokens", pa.int32()),
        ("n_tokens", pa.int32()),
        ("finish_reason", pa.string()),  # eos, length, engine_error
        ("near_ties", pa.int32()),
        ("inserted", pa.int32()),  # tokens that budget forcing put in
        *((name, pa.list_(pa.from_numpy_dtype(dtype))) for name, dtype in PER_TOKEN.items()),
    ]
)
FORMAT = 1
# Names and types in words: the serialised schema is pyarrow's to change, and a changed fingerprint makes every stored log foreign.
FINGERPRINT = hashlib.sha256("\n".join([f"flopstat pool {FORMAT}", *(f"{f.name} {f.type}" for f in SCHEMA)]).encode()).digest()
LOG_MAGIC = b"flopstat"
FRAME_MAGIC = FINGERPRINT[:8]  # a frame names its schema itself, so that it outlives a damaged header of its log
HEAD = struct.Struct("<8sQII")  # magic, bytes of the payload, checksum of the payload, checksum of these three
CHUNK = 1 << 24  # bytes of frames held at once while scanning, searching or gathering rows; a larger frame is held alone
LARGEST = 1 << 28  # bytes of a frame; more chains than that are split (one read of the kernel ends at 2 GiB)
SYNC_S = 1.0  # what a power cut may take
LOG_NAME = re.compile(r"chains-(\d+)\.log(\.torn)?")
IDENTITY = ["problem", "sample", "budget"]
INDEX = dict.fromkeys([*IDENTITY, "n_tokens", "number", "row"], np.int32) | {"offset": np.int64, "cut": np.bool_}


@dataclass(frozen=True)
class Recovery:
    """What a writer found damaged when it started. The chains in it are missing, so they are drawn again.

    n_torn : torn tails, set aside now in `<log>.torn`, and damaged stretches inside logs, which stay where they are and are skipped.
    n_bytes : their bytes.
    files : the logs that they were found in.
    """

    n_torn: int
    n_bytes: int
    files: tuple[str, ...]

    @property
    def line(self) -> str:
        """One line for people; empty if nothing was damaged."""
        found = f"{self.n_torn} damaged stretch(es), {self.n_bytes:,} bytes, in {', '.join(self.files)}"
        return f"{found}: set aside or skipped, and their chains are drawn again" if self.n_torn else ""


@dataclass
class _Log:
    """How far a log was read, and the stretches between its whole frames."""

    path: Path
    end: int = 0
    damage: list[tuple[int, int]] = field(default_factory=list)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what the system says into what the user can do."""
    try:
        yield
    except OSError as error:
        remedy = "check the disk"
        if isinstance(error, filelock.Timeout):
            remedy = "wait for the other process that writes this pool, or stop it"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "free some space or raise the quota"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            remedy = "make the folder writable or name another store"
        cause = f"{folder}: {error.strerror or error}"
        raise PoolError(f"{cause}; {remedy}, and run again. Finished chains are kept, only the rest is drawn.") from error


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _logs(folder: Path, torn: bool = False) -> dict[int, Path]:
    """Logs by number, in the order they were written; with `torn` also what was set aside of them."""
    named = [(LOG_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return dict(sorted((int(name[1]), path) for name, path in named if name and (torn or not name[2])))


def _batch(chains: Sequence[Chain]) -> pa.RecordBatch:
    columns: list[pa.Array] = []
    for name, arrow in zip(SCHEMA.names, SCHEMA.types, strict=True):
        if name in PER_TOKEN:
            arrays = [getattr(chain, name) for chain in chains]
            offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
            values = np.concatenate(arrays).astype(PER_TOKEN[name], copy=False)
            columns.append(pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)))
        else:
            columns.append(pa.array([len(c.ids) if name == "n_tokens" else getattr(c, name) for c in chains], arrow))
    return pa.record_batch(columns, schema=SCHEMA)


def _read(payload: bytes) -> pa.RecordBatch:
    return pa.ipc.read_record_batch(pa.py_buffer(payload), SCHEMA)


def _checked(fields: bytes) -> bytes:
    return fields + struct.pack("<I", zlib.crc32(fields))


HEADER = _checked(LOG_MAGIC + struct.pack("<I", FORMAT) + FINGERPRINT)


def _frame(batch: pa.RecordBatch) -> bytes:
    payload = batch.serialize()
    return _checked(FRAME_MAGIC + struct.pack("<QI", payload.size, zlib.crc32(payload))) + payload.to_pybytes()


def _payload(fd: int, at: int, size: int) -> bytes | None:
    """The payload of the frame at a byte; None if no whole, undamaged frame stands there."""
    head = os.pread(fd, HEAD.size, at)
    if len(head) < HEAD.size or not head.startswith(FRAME_MAGIC) or head != _checked(head[:-4]):
        return None
    _, length, checksum, _ = HEAD.unpack(head)
    payload = os.pread(fd, length, at + HEAD.size) if at + HEAD.size + length <= size else b""
    return payload if len(payload) == length and zlib.crc32(payload) == checksum else None


def _find(fd: int, at: int) -> int:
    """The first byte at or after `at` where a frame may begin; -1 if there is none."""
    while len(chunk := os.pread(fd, CHUNK, at)) >= len(FRAME_MAGIC):
        if (found := chunk.find(FRAME_MAGIC)) >= 0:
            return at + found
        at += len(chunk) - len(FRAME_MAGIC) + 1
    return -1


def _frames(fd: int, at: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Place and payload of each whole frame from a byte on; what lies between them is damage."""
    while at >= 0:
        payload = _payload(fd, at, size)
        if payload is None:
            at = _find(fd, at + 1)
        else:
            yield at, payload
            at += HEAD.size + len(payload)


class _Index:
    """Identity, length and place of every stored row: 33 bytes each, in the order they were stored."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}  # number of each problem
        self._rows = pd.DataFrame({name: np.zeros(0, dtype) for name, dtype in INDEX.items()})
        self._pending: list[tuple[pa.RecordBatch, int, int]] = []
        self._pending_bytes = 0

    def add(self, payload: bytes, number: int, offset: int) -> None:
        self._pending.append((_read(payload), number, offset))
        self._pending_bytes += len(payload)
        if self._pending_bytes > CHUNK:
            self._settle()

    def _settle(self) -> None:
        """Copy the columns that matter out of the frames read last, all at once, and let the frames go."""
        batches, numbers, offsets = zip(*self._pending, strict=True)
        table = pa.Table.from_batches(batches)
        keys = table["problem_key"].combine_chunks().dictionary_encode()
        codes = np.array([self.codes.setdefault(k, len(self.codes)) for k in keys.dictionary.to_pylist()])
        n = np.array([batch.num_rows for batch in batches])
        columns = {name: table[name].to_numpy() for name in ("sample", "budget", "n_tokens")}
        columns["problem"] = codes[keys.indices.to_numpy()]
        columns["cut"] = pc.equal(table["finish_reason"], "length").to_numpy()
        columns |= {"number": np.repeat(numbers, n), "offset": np.repeat(offsets, n)}
        columns["row"] = np.arange(n.sum()) - np.repeat(n.cumsum() - n, n)
        self._rows = pd.concat([self._rows, pd.DataFrame({k: columns[k].astype(t) for k, t in INDEX.items()})], ignore_index=True)
        self._pending, self._pending_bytes = [], 0

    def serving(self, max_tokens: int) -> pd.DataFrame:
        """Rows that serve a budget: answers forced at a T, chains that ended, and chains cut no earlier than the budget."""
        if self._pending:
            self._settle()
        rows = self._rows
        return rows[~rows["cut"] | (rows["budget"] > 0) | (rows["n_tokens"] >= max_tokens)]


class Writer:
    """Appends chains to a log of its own; made by `Pool.writing`."""

    def __init__(self, folder: Path, recovered: Recovery) -> None:
        self.recovered = recovered
        self._folder = self._path = folder
        self._fd = -1
        self._end = 0
        self._synced = 0.0

    def append(self, chains: Sequence[Chain]) -> None:
        """Store chains, each whole or not at all: when this returns they outlive the process, and a second or so later the machine.

        Raises
        ------
        PoolError
            If the disk is full, broken or read-only. What was appended before is kept, and a later append may be tried.
        """
        if not chains:
            return
        frame = _frame(_batch(chains))
        if len(frame) > LARGEST and len(chains) > 1:
            self.append(chains[: len(chains) // 2])
            return self.append(chains[len(chains) // 2 :])
        with explained(self._folder):
            if self._fd < 0:
                self._create()
            self._write(frame if self._end else HEADER + frame)
            if time.monotonic() - self._synced >= SYNC_S:
                os.fsync(self._fd)
                self._synced = time.monotonic()

    def _create(self) -> None:
        # No number is used twice, not even that of a log that was set aside whole.
        self._path = self._folder / f"chains-{1 + max(_logs(self._folder, torn=True), default=0):06d}.log"
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        self._end, self._synced = 0, time.monotonic()
        with _opened(self._folder) as fd:
            os.fsync(fd)

    def _write(self, data: bytes) -> None:
        """Hand the bytes to the kernel. If that fails they are cut off again, and the next append starts a new log."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except BaseException:  # an interrupt leaves half a frame just as a full disk does
            with suppress(OSError):
                os.ftruncate(self._fd, self._end)
            self._leave()
            raise
        self._end += len(data)

    def _leave(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)
        if not self._end:
            self._path.unlink()

    def close(self) -> None:
        """Wait until the disk has everything; a `PoolError` if it fails."""
        if self._fd >= 0:
            with explained(self._folder):
                try:
                    os.fsync(self._fd)
                finally:
                    self._leave()


def pool_name(key: bytes) -> str:
    """Name of a pool's folder: the hash of its key.json."""
    return hashlib.sha256(key).hexdigest()[:20]


class Pool:
    """One pool of chains in a folder named by the hash of its key.

    A row is one (problem_key, sample, budget). It serves a budget of `max_tokens` if it is an answer forced at a T (budget > 0), if its
    chain was not cut, or if it is at least that long. Of several stored rows that serve, the first counts. Every method raises
    `PoolError` where the folder or a log can't be read, or a log has another format.
    """

    def __init__(self, store: Path, key: dict[str, Any]) -> None:
        text = json.dumps(key, sort_keys=True, indent=1)
        self.folder = store / pool_name(text.encode())
        self._index = _Index()
        self._known: dict[int, _Log] = {}
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            # Named by the key's hash, the folder tells what the key must be: a damaged one is written anew.
            noted = self.folder / "key.json"
            if not noted.exists() or noted.read_bytes() != text.encode():
                temporary = self.folder / f".key.json.{uuid.uuid4().hex}"
                temporary.write_text(text, encoding="utf-8")
                os.replace(temporary, noted)

    @contextmanager
    def writing(self, timeout_s: float = -1, waiting: Callable[[], None] | None = None) -> Iterator[Writer]:
        """Hold the pool for writing: wait for the lock, set aside what a killed writer left, and close the log at the end.

        `waiting` is called once if another process holds the pool. After `timeout_s` seconds (negative: never) the wait ends in a
        `PoolError`, and so does a folder that can't be written.
        """
        lock = filelock.FileLock(self.folder / "writer.lock")
        with explained(self.folder):
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                if waiting is not None:
                    waiting()
                lock.acquire(timeout=timeout_s)
        try:
            with closing(Writer(self.folder, self._recover())) as writer:
                yield writer
        finally:
            lock.release()

    def missing(self, wanted: Iterable[tuple[str, int, int]], max_tokens: int) -> list[tuple[str, int, int]]:
        """Those of the (problem_key, sample, budget) that no stored row serves, each once, in the order they were asked for."""
        triples = list(wanted)
        self._refresh()
        there = self._index.serving(max_tokens)[IDENTITY]
        asked = pd.DataFrame(triples, columns=IDENTITY)
        codes, problems = pd.factorize(asked["problem"])
        # A problem never seen gets a number of its own, behind those of the index.
        known = [self._index.codes.get(problem, len(self._index.codes) + i) for i, problem in enumerate(problems)]
        asked["problem"] = np.array(known, dtype=np.int64)[codes]
        stored = pd.concat([there, asked]).duplicated().to_numpy()[len(there) :]
        return [triples[i] for i in np.flatnonzero(~stored)]

    def rows(self, problem_keys: Iterable[str], max_tokens: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of some problems that serve, one per (problem_key, sample, budget), sorted by these; all in memory at once.

        Longer chains are returned as they are: whoever reads them cuts.
        """
        return self._fetch(self._select(sorted(set(problem_keys)), max_tokens), columns)

    def blocks(self, problem_keys: Sequence[str], max_tokens: int, block: int = 64) -> Iterator[pa.Table]:
        """The rows of `rows`, one table per `block` problems, in the order of the problems given, each once."""
        keys = list(dict.fromkeys(problem_keys))
        chosen = self._select(keys, max_tokens)
        for start, stop in pairwise(np.searchsorted(chosen["rank"], np.arange(0, len(keys) + block, block))):
            yield self._fetch(chosen.iloc[start:stop])

    def _select(self, keys: Sequence[str], max_tokens: int) -> pd.DataFrame:
        """Places of the rows that serve, sorted by the rank of their problem in `keys`, sample and budget."""
        self._refresh()
        rows = self._index.serving(max_tokens)
        ranks = np.full(len(self._index.codes) + 1, -1)  # one more, for the problems that the index does not know
        ranks[[self._index.codes.get(key, -1) for key in keys]] = np.arange(len(keys))
        rows = rows.assign(rank=ranks[rows["problem"].to_numpy()])
        return rows[rows["rank"] >= 0].drop_duplicates(IDENTITY).sort_values(["rank", "sample", "budget"])

    def _fetch(self, chosen: pd.DataFrame, columns: Sequence[str] | None = None) -> pa.Table:
        """The chosen rows in their order."""
        places = chosen[["number", "offset", "row"]].to_numpy()
        order = np.lexsort(places.T[::-1])
        names = SCHEMA.names if columns is None else list(columns)
        empty = pa.schema([SCHEMA.field(name) for name in names]).empty_table()
        return pa.concat_tables([empty, *self._gather(places[order], names)]).take(np.argsort(order))

    def _gather(self, places: np.ndarray, names: list[str]) -> Iterator[pa.Table]:
        """Rows by (log, offset, row), in storage order: each frame that holds any is read once, and copied from."""
        starts = np.flatnonzero(np.diff(places[:, :2], axis=0, prepend=-1).any(axis=1))
        batches: list[pa.RecordBatch] = []
        taken: list[np.ndarray] = []
        n_rows = n_bytes = 0
        for start, stop in pairwise([*starts.tolist(), len(places)]):
            log, offset = self._known[int(places[start, 0])], int(places[start, 1])
            with explained(self.folder), _opened(log.path) as fd:
                payload = _payload(fd, offset, log.end)
            if payload is None:
                raise PoolError(f"{log.path}: the record at byte {offset} was damaged a moment ago; check the disk and run again")
            batches.append(_read(payload).select(names))
            taken.append(places[start:stop, 2] + n_rows)
            n_rows += batches[-1].num_rows
            n_bytes += len(payload)
            if n_bytes > CHUNK or stop == len(places):
                yield pa.Table.from_batches(batches).combine_chunks().take(np.concatenate(taken))
                batches, taken, n_rows, n_bytes = [], [], 0, 0

    def _refresh(self) -> None:
        """Index what was appended since the last look."""
        with explained(self.folder):
            for number, path in _logs(self.folder).items():
                log = self._known.setdefault(number, _Log(path))
                # A log that is gone was set aside whole by a writer just now: it held no frame.
                with suppress(FileNotFoundError), _opened(path) as fd:
                    self._scan(number, log, fd, os.fstat(fd).st_size)

    def _scan(self, number: int, log: _Log, fd: int, size: int) -> None:
        header = os.pread(fd, len(HEADER), 0)
        if header == HEADER:  # otherwise it is damaged, or half written, and frames have to be searched for
            log.end = max(log.end, len(HEADER))
        elif header.startswith(LOG_MAGIC) and header == _checked(header[:-4]):
            raise PoolError(
                f"{log.path}: another format of the pool; use the flopstat that wrote it, or move it away to draw its chains anew"
            )
        for offset, payload in _frames(fd, log.end, size) if log.end < size else ():
            if offset > log.end:
                log.damage.append((log.end, offset))
            self._index.add(payload, number, offset)
            log.end = offset + HEAD.size + len(payload)

    def _recover(self) -> Recovery:
        """Set torn tails aside and report all damage; call it under the lock."""
        self._refresh()
        found: list[tuple[str, int]] = []
        with explained(self.folder):
            for number, path in _logs(self.folder).items():
                log = self._known[number]
                found += [(path.name, stop - start) for start, stop in log.damage]
                if (tail := path.stat().st_size - log.end) > 0:
                    found.append((path.name, tail))
                    with path.open("rb") as source, path.with_name(f"{path.name}.torn").open("ab") as aside:
                        source.seek(log.end)
                        shutil.copyfileobj(source, aside)
                    os.truncate(path, log.end)
                if not log.end:
                    path.unlink()
        return Recovery(len(found), sum(n for _, n in found), tuple(dict.fromkeys(name for name, _ in found)))
