"""The archive format: same bytes for the same files, the files back as they were, and every hostile archive refused in one line."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from flopstat import bundle, stored
from flopstat.errors import InputError

CONTENT = {"a.json": b"{}", "samples/m@fp32.parquet": bytes(range(256)) * 40, "empty.csv": b""}


def write(folder: Path, content: dict[str, bytes]) -> dict[str, Path]:
    out = {}
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        out[name] = folder / name
    return out


def listed(content: dict[str, bytes]) -> dict:
    return {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in content.items()}


def entry(name: str, data: bytes = b"", **changes) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for key, value in changes.items():
        setattr(made, key, value)
    return made, data


def archive(path: Path, entries, manifest: object = None, form: int = tarfile.GNU_FORMAT) -> Path:
    """An archive by hand: a manifest of the given content (or any bytes), then whatever entries."""
    data = manifest if isinstance(manifest, bytes) else json.dumps({"format": 1, "files": listed(CONTENT)} | (manifest or {})).encode()
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as tar:
        for made, content in [entry(bundle.MANIFEST, data), *entries]:
            tar.addfile(made, io.BytesIO(content))
    path.write_bytes(pa.Codec("zstd").compress(raw.getvalue()).to_pybytes())
    return path


def refused(path: Path, folder: Path) -> str:
    """The one line that an archive is refused with; nothing of it stays, and nothing lands beside its folder."""
    before = sorted(p for p in path.parent.rglob("*"))
    with pytest.raises(InputError) as error, bundle.unpacked(path, folder):
        pass
    assert len(str(error.value).splitlines()) == 1
    assert sorted(p for p in path.parent.rglob("*") if p != folder) == before
    assert not any(folder.iterdir())
    return str(error.value)


GOOD = [entry(name, data) for name, data in sorted(CONTENT.items())]
OTHER = {"format": 1, "files": listed({"a.json": b"[]"} | {k: v for k, v in CONTENT.items() if k != "a.json"})}
HOSTILE = {
    "parent": ([entry("../evil", b"x")], None, "would leave its folder"),
    "inner parent": ([entry("samples/../../evil", b"x")], None, "would leave its folder"),
    "absolute": ([entry("/etc/evil", b"x")], None, "would leave its folder"),
    "backslash": ([entry("..\\evil", b"x")], None, "would leave its folder"),
    "hidden": ([entry(".bashrc", b"x")], None, "would leave its folder"),
    "terminal": ([entry("a\x1b[2Jb", b"x")], None, "would leave its folder"),
    "symbolic link": ([entry("a.json", type=tarfile.SYMTYPE, linkname="/etc/passwd")], None, "a symbolic link"),
    "hard link": ([entry("a.json", type=tarfile.LNKTYPE, linkname="/etc/passwd")], None, "a hard link"),
    "device": ([entry("a.json", type=tarfile.CHRTYPE, devmajor=1, devminor=5)], None, "a device"),
    "pipe": ([entry("a.json", type=tarfile.FIFOTYPE)], None, "a device or another special entry"),
    "folder": ([entry("samples", type=tarfile.DIRTYPE)], None, "a folder"),
    "sparse": ([entry("a.json", type=tarfile.GNUTYPE_SPARSE)], None, "special entry"),
    "long name": ([entry("a" * 300, b"x")], None, "special entry"),
    "twice": ([*GOOD, entry("a.json", b"{}")], None, "comes twice"),
    "not listed": ([*GOOD, entry("b.json", b"{}")], None, "is not in its manifest"),
    "absent": (GOOD[:-1], None, "lacks samples/m@fp32.parquet"),
    "other content": (GOOD, OTHER, "another SHA-256"),
    "other size": ([entry("a.json", b"{ }")], None, "its manifest says 2"),
    "manifest of a link": (GOOD, {"files": {"../a": {"bytes": 1, "sha256": "0" * 64}}}, "says nonsense"),
    "manifest with itself": (GOOD, {"files": listed({bundle.MANIFEST: b""})}, "says nonsense"),
    "negative size": (GOOD, {"files": {"a": {"bytes": -1, "sha256": "0" * 64}}}, "says nonsense"),
    "boolean size": (GOOD, {"files": {"a": {"bytes": True, "sha256": "0" * 64}}}, "says nonsense"),
    "no hash": (GOOD, {"files": {"a": {"bytes": 1}}}, "says nonsense"),
    "other format": (GOOD, {"format": 2}, "of another format"),
    "list for manifest": (GOOD, b"[]", "says nonsense"),
    "deep manifest": (GOOD, b"[" * 100_000, "says nonsense"),
    "no manifest": ([entry("a.json", b"x")], b"", "says nonsense"),
    "one name in two cases": (GOOD, {"files": listed({"a": b"", "A": b""})}, "two of its files have one name"),
    "file and folder": (GOOD, {"files": listed({"a": b"", "a/b": b""})}, "two of its files have one name"),
    "claims too much": (GOOD, {"files": {f"f{i}": {"bytes": 1 << 36, "sha256": "0" * 64} for i in range(2)}}, "claims more than"),
    "too many files": (GOOD, {"files": listed({f"f{i}": b"" for i in range(bundle.MAX_FILES + 1)})}, "says nonsense"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_in_one_line_and_leaves_nothing(tmp_path, name):
    entries, manifest, message = HOSTILE[name]
    said = refused(archive(tmp_path / "x.tar.zst", entries, manifest), tmp_path / "out")
    assert message in said
    assert said.isprintable()


def test_files_come_back_as_they_were_and_the_bytes_do_not_depend_on_times_modes_or_order(tmp_path):
    files = write(tmp_path / "in", CONTENT)
    bundle.pack(files, {"study": "x"}, tmp_path / "one.tar.zst")
    for path in files.values():
        os.utime(path, (1, 2))
        path.chmod(0o600)
    bundle.pack(dict(reversed(files.items())), {"study": "x"}, tmp_path / "two.tar.zst")
    assert (tmp_path / "one.tar.zst").read_bytes() == (tmp_path / "two.tar.zst").read_bytes()
    with bundle.unpacked(tmp_path / "one.tar.zst", tmp_path / "out") as (folder, manifest):
        assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == CONTENT
        assert manifest["study"] == "x"
    assert not any((tmp_path / "out").iterdir())


def test_other_tools_can_read_it(tmp_path):
    bundle.pack(write(tmp_path / "in", CONTENT), {}, tmp_path / "x.tar.zst")
    with pa.CompressedInputStream(pa.OSFile(str(tmp_path / "x.tar.zst")), "zstd") as stream:
        raw = io.BytesIO(stream.read())
    with tarfile.open(fileobj=raw) as tar:
        assert tar.getnames() == [bundle.MANIFEST, *sorted(CONTENT)]
        assert {m.mtime for m in tar} | {m.uid for m in tar} == {0}


@pytest.mark.parametrize("keep", [0, 1, 50, 300])
def test_a_torn_archive_is_refused(tmp_path, keep):
    bundle.pack(write(tmp_path / "in", CONTENT), {}, tmp_path / "x.tar.zst")
    data = (tmp_path / "x.tar.zst").read_bytes()
    (tmp_path / "x.tar.zst").write_bytes(data[:keep])
    assert refused(tmp_path / "x.tar.zst", tmp_path / "out")


def test_every_flipped_byte_is_noticed_or_changes_nothing(tmp_path):
    bundle.pack(write(tmp_path / "in", CONTENT), {}, tmp_path / "x.tar.zst")
    data = bytearray((tmp_path / "x.tar.zst").read_bytes())
    unnoticed = 0
    for place in range(len(data)):
        data[place] ^= 0x41
        (tmp_path / "x.tar.zst").write_bytes(data)
        data[place] ^= 0x41
        try:
            with bundle.unpacked(tmp_path / "x.tar.zst", tmp_path / "out") as (folder, _):
                assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == CONTENT
                unnoticed += 1
        except InputError:
            pass
    assert unnoticed < len(data) / 10  # fields of the container that nobody needs


def test_a_bomb_is_refused_long_before_it_fills_the_disk(tmp_path):
    size = 1 << 30
    files = {"bomb": {"bytes": size, "sha256": "0" * 64}}
    made, _ = entry("bomb")
    made.size = size
    manifest = json.dumps({"format": 1, "files": files}).encode()
    head, _ = entry(bundle.MANIFEST, manifest)
    path = tmp_path / "bomb.tar.zst"
    with path.open("wb") as raw, pa.CompressedOutputStream(raw, "zstd") as zstd:
        zstd.write(head.tobuf() + manifest + bytes(-len(manifest) % 512) + made.tobuf())
        for _ in range(size >> 24):
            zstd.write(bytes(1 << 24))
    assert path.stat().st_size < 1 << 17
    assert "far more than an archive of its size should" in refused(path, tmp_path / "out")
    with pytest.raises(InputError):
        bundle.unpack(path, tmp_path / "kept")
    assert (tmp_path / "kept" / "bomb").stat().st_size <= bundle.ALLOWANCE + bundle.MAX_RATIO * path.stat().st_size < size / 10


def test_no_archive_at_all(tmp_path):
    with pytest.raises(InputError, match="no such archive"):
        bundle.unpack(tmp_path / "absent", tmp_path)
    (tmp_path / "text").write_text("hello")
    assert "not readable as zstd" in refused(tmp_path / "text", tmp_path / "out")


@pytest.mark.parametrize("name", ["../a", "/a", "a/../b", ".a", "a b", "é", "a" * 151])
def test_a_name_that_could_hurt_is_not_packed(tmp_path, name):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(InputError, match="no name that an archive can hold"):
        bundle.pack({name: tmp_path / "a"}, {}, tmp_path / "x.tar.zst")


def test_a_full_disk_is_not_blamed_on_the_archive(tmp_path, small_disk):
    place, _ = small_disk("64k")
    bundle.pack(write(tmp_path / "in", {"big.csv": os.urandom(1 << 18)}), {}, tmp_path / "x.tar.zst")
    with pytest.raises(OSError, match="No space left"), bundle.unpacked(tmp_path / "x.tar.zst", place):
        pass
    assert not any(place.iterdir())


def test_an_address_is_fetched_once_and_only_with_its_hash(tmp_path):
    bundle.pack(write(tmp_path / "in", CONTENT), {}, tmp_path / "x.tar.zst")
    sha256, url = stored.digest(tmp_path / "x.tar.zst"), (tmp_path / "x.tar.zst").as_uri()
    kept = bundle.fetch(url, sha256, tmp_path / "store")
    assert kept.read_bytes() == (tmp_path / "x.tar.zst").read_bytes()
    (tmp_path / "x.tar.zst").write_bytes(b"other")
    assert bundle.fetch(url, sha256, tmp_path / "store") == kept  # from the store
    with pytest.raises(InputError, match="its SHA-256 is"):
        bundle.fetch(url, "0" * 64, tmp_path / "store")
    assert [p.name for p in (tmp_path / "store").iterdir()] == [kept.name]
    for address, message in {
        "http://localhost/x": "https or file is wanted",
        "ftp://localhost/x": "https or file is wanted",
        "https:///x": "https or file is wanted",
        "https://[": "not an address",
        "file:///no/such/file": "not reached",
        "https://user:hunter2@127.0.0.1:9/x?key=hunter2": r"not reached \(\w+\)",
        "https://user:hunter2@localhost/x": "not reached",
        "https://user:hun/ter:hunter2@localhost/x": r"not reached \(InvalidURL\)",
        "https://localhost/x?token=hunter2 y": r"not reached \(InvalidURL\)",
        "https://localhost:hunter2/x": r"not reached \(InvalidURL\)",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            bundle.fetch(address, sha256[::-1], tmp_path / "store")
        assert "hunter2" not in str(error.value)
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        bundle.fetch(url, "abc", tmp_path / "store")


def test_gnu_tar_lists_it(tmp_path):
    bundle.pack(write(tmp_path / "in", CONTENT), {}, tmp_path / "x.tar.zst")
    done = subprocess.run(["tar", "--zstd", "-tf", str(tmp_path / "x.tar.zst")], capture_output=True, text=True, check=False)
    if done.returncode and "zstd" in done.stderr and "exec" in done.stderr:
        pytest.skip("no zstd command here")
    assert done.stdout.splitlines() == [bundle.MANIFEST, *sorted(CONTENT)]
