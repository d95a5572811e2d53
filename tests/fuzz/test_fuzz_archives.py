"""Hostile archives: what comes out is exactly what the manifest says, or one InputError; nothing lands outside the folder."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile import changed, damaged, fuzz, texts
from hypothesis import given
from hypothesis import strategies as st

from flopstat import archive, bundle, config, models, problems, tables
from flopstat.crate import METADATA, crate
from flopstat.engine import Chain
from flopstat.errors import InputError
from flopstat.pool import _batch
from flopstat.scores import summed

CONTENT = {"a.json": b"{}", "samples/m@fp32.parquet": bytes(range(200)), "b.csv": b""}
ENTRIES = st.sampled_from(
    [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, b"L", b"x"]
)
CONFIG = {
    "study": "packed",
    "dataset": {"source": "ladder", "n_study": 6, "n_calibration": 0},
    "models": [{"name": "ladder-30k", "source": "ladder", "precisions": ["fp32"]}],
    "sampling": {"samples": 1},
    "budgets": {"T": [4, 16]},
}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


def opened(data: bytes, place: Path) -> None:
    """Unpack; whatever happens, nothing but what the manifest names is written, and only into the folder."""
    path, out = place / "x.tar.zst", place / "out"
    path.write_bytes(data)
    try:
        with bundle.unpacked(path, out) as (folder, manifest):
            found = files_of(folder)
            assert found.keys() == manifest["files"].keys()
            assert all(hashlib.sha256(d).hexdigest() == manifest["files"][n]["sha256"] for n, d in found.items())
    except InputError:
        pass
    assert {str(p.relative_to(place)) for p in place.rglob("*")} == {"x.tar.zst", "out"}


def packed(place: Path) -> bytes:
    files = {}
    for name, data in CONTENT.items():
        (place / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "in" / name).write_bytes(data)
        files[name] = place / "in" / name
    bundle.pack(files, {}, place / "good.tar.zst")
    return (place / "good.tar.zst").read_bytes()


def test_damaged_archives(tmp_path, tmp_path_factory):
    whole = packed(tmp_path_factory.mktemp("made"))
    with pa.CompressedInputStream(pa.BufferReader(whole), "zstd") as stream:
        inside = stream.read()

    @fuzz
    @given(damaged(whole), damaged(inside))
    def check(outer, inner):
        opened(outer, tmp_path)
        opened(pa.Codec("zstd").compress(inner).to_pybytes(), tmp_path)

    check()


def test_archives_of_hostile_names_kinds_and_sizes(tmp_path):
    listed = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in CONTENT.items()}
    names = st.sampled_from([*CONTENT, "../x", "/x", "a/../../x", "samples", "a.json/x"]) | texts

    @fuzz
    @given(changed({"format": 1, "files": listed}), st.lists(st.tuples(names, ENTRIES, st.binary(max_size=9)), max_size=4), st.booleans())
    def check(manifest, more, complete):
        text = json.dumps(manifest).encode()
        entries = [(bundle.MANIFEST, tarfile.REGTYPE, text)]
        entries += [(name, tarfile.REGTYPE, data) for name, data in CONTENT.items()] if complete else []
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for name, kind, data in [*entries, *more]:
                made = tarfile.TarInfo(name.replace("\0", "").encode("utf-8", "replace").decode())
                made.type, made.size, made.linkname = kind, len(data), "/etc/passwd"
                tar.addfile(made, io.BytesIO(data))
        opened(pa.Codec("zstd").compress(raw.getvalue()).to_pybytes(), tmp_path)

    check()


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """The files of an archive of a small study, in a folder."""
    folder = tmp_path_factory.mktemp("study")
    merged = config.resolve(CONFIG)
    chosen = problems.select_problems(merged["dataset"], [merged["prompt"]], merged["seed"])
    tables.write(chosen.problems, "problems", folder / "problems.parquet")
    tables.write(chosen.refusals, "refusals", folder / "refusals.csv")
    for name in ("models", "calibration", "pilot", "samples", "tokenizers"):
        (folder / name).mkdir()
    card = models.describe({"name": "ladder-30k", "source": "ladder"}, folder)
    (folder / "models" / "ladder-30k.json").write_text(card.to_json())
    (folder / "tokenizers" / "ladder-30k.json").write_bytes((models.checkpoint(card) / "tokenizer.json").read_bytes())
    shipped = tmp_path_factory.mktemp("shipped")
    bundle.unpack(config.ROOT / "workflow" / "resources" / "ladder.tar.zst", shipped)
    (folder / "calibration" / "ladder-30k@fp32.json").write_bytes((shipped / "calibration" / "ladder-30k@fp32.json").read_bytes())
    counts = {"difficulty": 1, "prompt_tokens": 9, "n_tokens": 5, "answers": 0, "answer_tokens": 0, "answer_prompt": 0}
    pilot = {"key": {}, "pool": "none", "T": 16, "chains": [{"problem_id": "p"} | counts], "rate": {"machine": "none"}}
    (folder / "pilot" / "ladder-30k@fp32.json").write_text(json.dumps(pilot))
    took = {"new_tokens": 7, "job_seconds": 0.1, "peak_memory_bytes": 1}
    (folder / "samples" / "ladder-30k@fp32.json").write_text(json.dumps({"recorded": took}))
    numbers = [np.zeros(5, dtype=np.float32)] * 4
    drawn = [
        Chain(k, i, 9, "eos", np.arange(2, 7, dtype=np.int32), *numbers, near_ties=0)
        for k in chosen.problems["problem_key"]
        for i in (-1, 0)
    ]
    pq.write_table(
        summed(pa.Table.from_batches([_batch(drawn)]), [4, 16]), folder / "samples" / "ladder-30k@fp32.parquet", compression="none"
    )
    (folder / "run.json").write_text(json.dumps({"config": merged}))
    names = [name for name in files_of(folder) if not Path(name).name.startswith(".")]
    (folder / METADATA).write_text(crate({name: folder / name for name in names}, "packed", "1970-01-01"))
    return folder


def test_archives_with_one_damaged_file_each_and_hashes_that_fit(study, tmp_path):
    files = {name: study / name for name in files_of(study) if not Path(name).name.startswith(".")}  # checksums are made anew
    broken = st.one_of(st.tuples(st.just(name), damaged(files[name].read_bytes())) for name in sorted(files))
    record = changed(json.loads((study / "run.json").read_text()))
    sound = st.tuples(st.just("run.json"), record.map(lambda value: json.dumps(value).encode()))

    @fuzz
    @given(st.booleans().flatmap(lambda swap: sound if swap else broken))
    def check(one):
        name, data = one
        (tmp_path / "changed").write_bytes(data)
        bundle.pack(files | {name: tmp_path / "changed"}, {"per_token": False}, tmp_path / "x.tar.zst")
        try:
            archive.restore(tmp_path / "x.tar.zst", tmp_path / "results")
        except InputError:
            assert not files_of(tmp_path / "results")
        else:
            for path in sorted((tmp_path / "results").rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
        assert {p.name for p in tmp_path.iterdir()} <= {"changed", "x.tar.zst", "results"}

    check()
