"""The file format of archives: a tar of plain files in zstd, the first of which names every other one with its size and SHA-256.

`pack` writes the same bytes for the same files: sorted names, no times, owners or modes of their own. `unpack` trusts nothing: what it
writes are regular files named in the manifest, inside one new folder, of the size and hash that the manifest says. Any other archive is
refused before it is finished, and the folder is removed.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from flopstat.errors import InputError
from flopstat.stored import digest

MANIFEST = "manifest.json"
FORMAT = 1
BLOCK = 1 << 20
MAX_FILES = 10_000
MAX_BYTES = 1 << 36  # of all files, unpacked
MAX_MANIFEST = 1 << 24
MAX_RATIO = 300  # bytes that one compressed byte may become, beyond a first allowance
ALLOWANCE = 1 << 24
DOWNLOAD_TIMEOUT_S = 60.0
MAX_NAME = 150  # characters; ustar's prefix and name
_PART = "[A-Za-z0-9_][A-Za-z0-9._@-]*"
NAME = re.compile(f"{_PART}(/{_PART}){{0,4}}")
SHA256 = re.compile("[0-9a-f]{64}")
_REMEDY = "copy or download it again, from a source that you trust"


def manifest_of(files: Mapping[str, Path], about: Mapping[str, Any]) -> bytes:
    """The manifest: what the caller says, and size and hash of each file."""
    listed = {name: {"bytes": path.stat().st_size, "sha256": digest(path)} for name, path in sorted(files.items())}
    return (json.dumps({"format": FORMAT, **about, "files": listed}, indent=1, ensure_ascii=False) + "\n").encode()


def pack(files: Mapping[str, Path], about: Mapping[str, Any], out: Path) -> None:
    """Write files under their names in the archive, and a manifest before them."""
    for name in files:
        if not _name_is_fine(name):
            raise InputError(f"{name[:MAX_NAME]!r}: no name that an archive can hold; rename it")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        first = manifest_of(files, about)
        with (
            temporary.open("wb") as raw,
            pa.CompressedOutputStream(raw, "zstd") as zstd,
            tarfile.open(fileobj=zstd, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
        ):
            tar.addfile(_header(MANIFEST, len(first)), io.BytesIO(first))
            for name, path in sorted(files.items()):
                with path.open("rb") as stream:
                    tar.addfile(_header(name, path.stat().st_size), stream)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def _header(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o644, 0
    return entry


def _name_is_fine(name: object) -> bool:
    return isinstance(name, str) and len(name) <= MAX_NAME and NAME.fullmatch(name) is not None


class _Bounded:
    """The unpacked bytes of an archive, refused beyond what its compressed size can be worth."""

    def __init__(self, raw: IO[bytes], path: Path) -> None:
        self._stream = pa.CompressedInputStream(raw, "zstd")
        self._path = path
        self._left = min(MAX_BYTES, ALLOWANCE + MAX_RATIO * path.stat().st_size)

    def read(self, n: int) -> bytes:
        """Exactly n bytes, in pieces that a false size can't inflate."""
        parts = []
        while n:
            part = self._stream.read(min(n, BLOCK))
            if not part:
                raise InputError(f"{self._path}: the archive ends too early; {_REMEDY}")
            self._left -= len(part)
            if self._left < 0:
                raise InputError(f"{self._path}: unpacks to far more than an archive of its size should; {_REMEDY}")
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def blocks(self, n: int) -> Iterator[bytes]:
        while n:
            yield (part := self.read(min(n, BLOCK)))
            n -= len(part)


def _entry(stream: _Bounded, path: Path) -> tuple[str, int] | None:
    """Name and size of the next file; None at the end of the archive."""
    block = stream.read(tarfile.BLOCKSIZE)
    if not any(block):
        return None
    try:
        entry = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, ValueError):
        raise InputError(f"{path}: not a tar archive inside; {_REMEDY}") from None
    kinds = {tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link", tarfile.DIRTYPE: "a folder"}
    if entry.type != tarfile.REGTYPE:
        what = kinds.get(entry.type, "a device or another special entry")
        raise InputError(f"{path}: {entry.name!r} is {what}; only plain files are taken, {_REMEDY}")
    if entry.name != MANIFEST and not _name_is_fine(entry.name):
        raise InputError(f"{path}: {entry.name!r} would leave its folder or is no plain name; {_REMEDY}")
    if not 0 <= entry.size <= MAX_BYTES:
        raise InputError(f"{path}: {entry.name!r} claims {entry.size} bytes; {_REMEDY}")
    return entry.name, entry.size


def _skip_padding(stream: _Bounded, size: int) -> None:
    stream.read(-size % tarfile.BLOCKSIZE)


def _manifest(stream: _Bounded, path: Path) -> dict[str, Any]:
    """The manifest, checked in every part that unpacking stands on."""
    entry = _entry(stream, path)
    if entry is None or entry[0] != MANIFEST or entry[1] > MAX_MANIFEST:
        raise InputError(f"{path}: no flopstat archive: {MANIFEST} does not come first; name a file that `flopstat archive` wrote")
    text = stream.read(entry[1])
    _skip_padding(stream, entry[1])
    try:
        manifest = json.loads(text)
        files = manifest["files"]
        fine = manifest["format"] == FORMAT and 0 < len(files) <= MAX_FILES and all(_file_is_fine(n, f) for n, f in files.items())
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        fine = False
    if not fine:
        raise InputError(f"{path}: its {MANIFEST} is of another format or says nonsense; use the flopstat that wrote it, or {_REMEDY}")
    folded = [name.casefold() for name in files]
    folders = {"/".join(parts[:i]) for parts in (name.split("/") for name in folded) for i in range(1, len(parts))}
    if len(set(folded)) < len(folded) or folders & set(folded):
        raise InputError(f"{path}: two of its files have one name; {_REMEDY}")
    if sum(f["bytes"] for f in files.values()) > MAX_BYTES:
        raise InputError(f"{path}: claims more than {MAX_BYTES} bytes; {_REMEDY}")
    out: dict[str, Any] = manifest
    return out


def _file_is_fine(name: object, stated: object) -> bool:
    if not _name_is_fine(name) or name == MANIFEST or not isinstance(stated, dict):
        return False
    size, sha = stated.get("bytes"), stated.get("sha256")
    return type(size) is int and 0 <= size <= MAX_BYTES and isinstance(sha, str) and SHA256.fullmatch(sha) is not None


@contextmanager
def unpacked(path: Path, beside: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A temporary folder in `beside` with an archive's files, and its manifest; the folder goes at the end.

    Raises
    ------
    InputError
        For anything that is not exactly what the manifest says.
    """
    beside.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".archive-", dir=beside))
    try:
        yield folder, unpack(path, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def unpack(path: Path, folder: Path) -> dict[str, Any]:
    """Unpack an archive into an empty folder and return its manifest; see `unpacked`."""
    if not path.is_file():
        raise InputError(f"{path}: no such archive")
    try:
        with path.open("rb") as raw:
            stream = _Bounded(raw, path)
            manifest = _manifest(stream, path)
            waiting = dict(manifest["files"])
            while (entry := _entry(stream, path)) is not None:
                name, size = entry
                stated = waiting.pop(name, None)
                if stated is None:
                    why = "comes twice" if name in manifest["files"] else "is not in its manifest"
                    raise InputError(f"{path}: {name!r} {why}; {_REMEDY}")
                if size != stated["bytes"]:
                    raise InputError(f"{path}: {name!r} has {size} bytes, its manifest says {stated['bytes']}; {_REMEDY}")
                _write(stream, size, folder / name, stated["sha256"], f"{path}: {name!r}")
                _skip_padding(stream, size)
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:  # a full disk is not the archive's fault
            raise
        raise InputError(f"{path}: not readable as zstd ({' '.join(str(error).split())[:100]}); {_REMEDY}") from None
    if waiting:
        raise InputError(f"{path}: lacks {', '.join(sorted(waiting)[:5])}; {_REMEDY}")
    return manifest


def _write(stream: _Bounded, size: int, target: Path, sha256: str, where: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    total = hashlib.sha256()
    with target.open("xb") as out:
        for block in stream.blocks(size):
            total.update(block)
            out.write(block)
    if total.hexdigest() != sha256:
        raise InputError(f"{where} has another SHA-256 than its manifest says; {_REMEDY}")


class _Unusable(urllib.error.URLError):
    """An address that we refuse ourselves, in words that hold nothing of it."""


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl).scheme != "https":
            raise _Unusable("redirected to an address that is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, sha256: str, store: Path) -> Path:
    """The archive at an https or file address, downloaded once and kept under its hash.

    Raises
    ------
    InputError
        For another kind of address, an address that can't be read, or other content than its hash says.
    """
    if not SHA256.fullmatch(sha256):
        raise InputError("archive.sha256: 64 hexadecimal digits are wanted, as `sha256sum FILE` prints them")
    try:
        parts = urllib.parse.urlsplit(url)
        where = f"archive.url {parts.scheme}://{parts.hostname or ''}{parts.path.rpartition('@')[2][:100]}"  # no password, no query
    except ValueError:
        raise InputError("archive.url: not an address; write https://HOST/FILE or file:///FILE") from None
    if parts.scheme not in ("https", "file") or (parts.scheme == "https" and not parts.hostname):
        raise InputError(f"{where}: https or file is wanted; download it yourself and set archive.path")
    kept = store / f"{sha256}.tar.zst"
    if kept.is_file() and digest(kept) == sha256:
        return kept
    store.mkdir(parents=True, exist_ok=True)
    temporary = store / f".{sha256}.{os.getpid()}.tmp"
    try:
        with _opened(parts, url) as stream, temporary.open("wb") as out:
            left = MAX_BYTES
            while block := stream.read(BLOCK):
                left -= len(block)
                if left < 0:
                    raise InputError(f"{where}: more than {MAX_BYTES} bytes; name another archive")
                out.write(block)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ValueError) as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: not reached ({_why(error)}); download it yourself and set archive.path") from None
    found = digest(temporary)
    if found != sha256:
        temporary.unlink()
        raise InputError(f"{where}: its SHA-256 is {found}, archive.sha256 says {sha256}; ask for the right one")
    os.replace(temporary, kept)
    return kept


def _why(error: Exception) -> str:
    """Why an address can't be read, never in a library's words, which may quote it with its password."""
    if isinstance(error, _Unusable):
        return str(error.reason)
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP status {error.code}"
    return type(getattr(error, "reason", error)).__name__


def _opened(parts: urllib.parse.SplitResult, url: str) -> Any:
    if parts.scheme == "file":
        path = Path(urllib.request.url2pathname(parts.path))
        if not os.path.isfile(path):
            raise _Unusable("no such file")
        return path.open("rb")
    return urllib.request.build_opener(_HttpsOnly).open(url, timeout=DOWNLOAD_TIMEOUT_S)
