"""Every kind of file that rules read: a flipped or lost byte is one line that names the file and the remedy, never another number."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flopstat import sampling, stored, tables
from flopstat.calibration import _device_rates
from flopstat.columns import TABLES
from flopstat.errors import InputError
from flopstat.finished import load_judged
from flopstat.latency import Latency
from flopstat.models import read_card
from flopstat.pilot import Pilot
from flopstat.pool import Pool
from flopstat.reality import read_jobs

LAWS = {"law": "kappa", "arm": "m@fp32", "T": 64, "parameter": "kappa", "estimate": 0.123456, "low": 0.1, "high": 0.2, "certified": True}


def write_laws(path: Path) -> None:
    row = LAWS | {column: None for column in TABLES["laws"] if column not in LAWS}
    tables.write(pd.DataFrame([row])[list(TABLES["laws"])].fillna({"verdict": "holds"}), "laws", path)


def write_view(path: Path) -> None:
    pq.write_table(pa.table({"n_tokens": np.arange(50)}), path)
    stored.seal(path)


def write_object(path: Path) -> None:
    stored.write_text(path, json.dumps({"source": "ladder", "recorded": {"new_tokens": 12, "job_seconds": 3.5}, "config": {}}))


KINDS = {
    "laws.csv": (write_laws, lambda path: tables.read("laws", path)),
    "laws.parquet": (write_laws, lambda path: tables.read("laws", path)),
    "view.parquet": (write_view, tables.read_view),
    "card.json": (write_object, read_card),
    "calibration.json": (write_object, Latency.read),
    "pilot.json": (write_object, Pilot.read),
    "summary.json": (write_object, lambda path: read_jobs([path])),
    "object.json": (write_object, stored.read_json),
}


@pytest.mark.parametrize("name", KINDS)
def test_damage_is_named_with_its_remedy(tmp_path, name):
    path = tmp_path / name
    write, read = KINDS[name]
    write(path)
    whole = path.read_bytes()
    assert stored.is_whole(path)
    step = max(1, len(whole) // 200)
    damaged = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(0, len(whole), step)]
    damaged += [whole[:i] for i in range(0, len(whole), step)] + [whole + b"\n"]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(InputError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: damaged, its bytes are not those that were written")
        assert "make it again with `make run`" in str(error.value)


def test_a_file_that_nobody_sealed_is_read(tmp_path):
    path = tmp_path / "laws.csv"
    write_laws(path)
    changed = path.read_text(encoding="utf-8").replace("0.123456", "0.2")
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(InputError, match=r"if you changed it on purpose, delete .*/\.laws\.csv\.sha256"):
        tables.read("laws", path)
    stored.seal_of(path).unlink()
    assert tables.read("laws", path)["estimate"].tolist() == [0.2]


@pytest.mark.parametrize("text", ["", "nonsense", "0" * 64 + "  laws.csv\n", "\x80"])
def test_a_damaged_checksum_is_damage_too(tmp_path, text):
    path = tmp_path / "laws.csv"
    write_laws(path)
    stored.seal_of(path).write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="damaged"):
        tables.read("laws", path)


def test_damaged_files_are_set_aside_and_others_stay(tmp_path):
    for name in ("a/laws.csv", "b/laws.csv", "c/laws.parquet"):
        write_laws(tmp_path / name)
    (tmp_path / "b/laws.csv").write_bytes(b"")
    (tmp_path / "c/laws.parquet").unlink()
    assert stored.set_aside_damaged(tmp_path) == [tmp_path / "b/laws.csv"]
    assert (tmp_path / "b/laws.csv.damaged").read_bytes() == b""
    assert not (tmp_path / "b/laws.csv").exists()
    assert stored.set_aside_damaged(tmp_path) == []
    assert stored.lost(tmp_path) == [tmp_path / "b/laws.csv"]
    write_laws(tmp_path / "b/laws.csv")
    assert stored.lost(tmp_path) == []
    assert len(tables.read("laws", tmp_path / "a/laws.csv")) == 1


def test_a_damaged_record_of_a_run_is_named(tmp_path):
    for name in ("configurations.csv", "cells.parquet"):
        (tmp_path / name).touch()
    for text in ("{", "[]", '{"config": {}}'):
        stored.write_text(tmp_path / "run.json", "{}")
        (tmp_path / "run.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"run\.json: damaged"):
            load_judged(tmp_path)


def test_damaged_rates_of_the_device_are_named(tmp_path):
    where = {"device": "cpu"}
    _device_rates("cpu", "float32", 1, tmp_path, where)
    (path,) = (p for p in tmp_path.glob("device-*.json"))
    path.write_text(path.read_text(encoding="utf-8").replace("1", "2", 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"device-.*\.json: damaged"):
        _device_rates("cpu", "float32", 1, tmp_path, where)


def test_a_damaged_key_of_a_pool_is_written_anew(tmp_path):
    key = {"weights": "abc", "precision": "fp32"}
    path = Pool(tmp_path, key).folder / "key.json"
    whole = path.read_bytes()
    for data in (b"", whole[:5], whole.replace(b"abc", b"abd")):
        path.write_bytes(data)
        assert Pool(tmp_path, key).folder == path.parent
        assert path.read_bytes() == whole


def test_a_damaged_line_about_a_job_is_left_out(tmp_path):
    path = tmp_path / sampling.JOBS
    job = dict.fromkeys(sampling.JOB_KEYS, 1) | {"problems": "p"}
    old = json.dumps(job)
    new = json.dumps(job | {"crc": sampling._crc(job)})
    path.write_text(f"{old}\n{new}\n", encoding="utf-8")
    assert list(sampling._jobs(path)) == [job, job]
    for i in range(len(new)):
        line = new[:i] + chr(ord(new[i]) ^ 1) + new[i + 1 :]
        path.write_text(line + "\n", encoding="utf-8")
        assert list(sampling._jobs(path)) in ([], [job]), line
