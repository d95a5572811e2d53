"""Hostile sample logs, each importer: an import in the Sample form, or one InputError; nothing is written outside the named file."""

import contextlib
import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hostile import changed, damaged, fuzz, texts, values
from hypothesis import given
from hypothesis import strategies as st

from flopstat import tables
from flopstat.errors import InputError, printable
from flopstat.importers.samples import KINDS, import_samples, problems_beside, read_problems

FOREIGN = Path(__file__).parents[1] / "data" / "foreign"
ROW = {"problem_id": "0", "model": "m", "n_params": 5, "precision": "fp32", "sample": 0, "text": "#### 5", "n_tokens": 3} | {
    "token_ids": [1, 2], "mean_logprob": -0.5, "finish_reason": "stop", "T": 8, "question": "How many?", "gold": "5",
}  # fmt: skip


def lines(name: str) -> list[dict]:
    return [json.loads(line) for line in next(FOREIGN.glob(name)).read_text(encoding="utf-8").splitlines()][:2]


JSONL = {
    "lm-eval": lines("lm-eval/samples_*.jsonl"),
    "kinetics": lines("kinetics/*.jsonl"),
    "gsm8k-solutions": lines("gsm8k-solutions/*.jsonl"),
    "jsonl": [ROW, ROW | {"sample": 1}],
}
_LOG = json.loads((FOREIGN / "inspect" / "ladder.json").read_text(encoding="utf-8"))
INSPECT = {"eval": _LOG["eval"], "samples": _LOG["samples"][:1]}
MONKEYS = yaml.safe_load((FOREIGN / "monkeys" / "0.yaml").read_text(encoding="utf-8"))
SMALL_ZIP = io.BytesIO()
with zipfile.ZipFile(SMALL_ZIP, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("header.json", json.dumps({"eval": INSPECT["eval"]}))
    archive.writestr("samples/1_epoch_1.json", json.dumps(INSPECT["samples"][0]))


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path


def imported(kind: str, path: Path, place: Path) -> None:
    """Import and read back, or one InputError; its line and the account can't steer a terminal."""
    out = place / "out" / "samples.parquet"
    refusal = None
    try:
        done = import_samples(kind, path, out)
        said = done.described()
    except InputError as error:
        refusal = said = str(error)
    assert printable(said).replace("\n", "").isprintable()
    if refusal is None:
        assert len(tables.read("imported", out)) == done.n_samples > 0
        problems_beside(out).unlink(missing_ok=True)
        out.unlink()
    assert not any(out.parent.iterdir())
    with contextlib.suppress(InputError):
        problems = read_problems(kind, path)
        assert problems
        assert json.dumps(problems, ensure_ascii=False).encode()
    assert {p.name for p in place.iterdir()} <= {"out", path.name}


def test_every_kind_is_fuzzed():
    assert {*JSONL, "inspect", "lighteval", "monkeys", "csv", "parquet"} == set(KINDS)


@pytest.mark.parametrize("kind", JSONL)
def test_json_lines(place, kind):
    path = place / "log.jsonl"

    @fuzz
    @given(st.lists(st.one_of(map(changed, JSONL[kind])), max_size=3), damaged(b"\n"))
    def check(rows, tail):
        path.write_bytes("\n".join(json.dumps(row) for row in rows).encode() + tail)
        imported(kind, path, place)

    check()


@fuzz
@given(changed(INSPECT))
def test_inspect_json(tmp_path_factory, record):
    place = tmp_path_factory.getbasetemp() / "inspect"
    place.mkdir(exist_ok=True)
    (place / "log.json").write_text(json.dumps(record), encoding="utf-8")
    imported("inspect", place / "log.json", place)


@fuzz
@given(damaged(SMALL_ZIP.getvalue()))
def test_inspect_archives(tmp_path_factory, data):
    place = tmp_path_factory.getbasetemp() / "eval"
    place.mkdir(exist_ok=True)
    (place / "log.eval").write_bytes(data)
    imported("inspect", place / "log.eval", place)


@fuzz
@given(changed(MONKEYS).map(yaml.safe_dump).map(str.encode) | damaged((FOREIGN / "monkeys" / "0.yaml").read_bytes()))
def test_monkeys(tmp_path_factory, data):
    place = tmp_path_factory.getbasetemp() / "monkeys"
    place.mkdir(exist_ok=True)
    (place / "0.yaml").write_bytes(data)
    imported("monkeys", place / "0.yaml", place)


@fuzz
@given(st.lists(st.lists(texts, min_size=2, max_size=6), max_size=4), damaged(b"problem_id,text,sample,token_ids\n1,a,0,[1]\n"))
def test_csv(tmp_path_factory, rows, data):
    place = tmp_path_factory.getbasetemp() / "csv"
    place.mkdir(exist_ok=True)
    body = "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")
    for content in (b"problem_id,text,sample,n_tokens,mean_logprob,token_ids\n" + body, data):
        (place / "log.csv").write_bytes(content)
        imported("csv", place / "log.csv", place)


DETAILS = FOREIGN / "lighteval" / "details_ladder_2026-01-01T00-00-00.parquet"
LIGHTEVAL = pq.read_table(DETAILS).slice(0, 2).to_pylist()


@pytest.mark.parametrize(("kind", "rows"), [("lighteval", LIGHTEVAL), ("parquet", [ROW])])
def test_parquet(place, kind, rows):
    path = place / "log.parquet"

    @fuzz
    @given(changed(rows), values)
    def check(changed_rows, extra):
        try:
            table = pa.Table.from_pylist([r if isinstance(r, dict) else {"x": extra} for r in changed_rows])
            pq.write_table(table, path)
        except (pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError):  # no table can hold this
            return
        imported(kind, path, place)

    check()


@pytest.mark.parametrize("kind", ["lighteval", "parquet"])
def test_damaged_parquet(place, kind):
    path = place / "log.parquet"
    pq.write_table(pa.Table.from_pylist([ROW]), path, compression="none")
    base = DETAILS.read_bytes() if kind == "lighteval" else path.read_bytes()

    @fuzz
    @given(damaged(base))
    def check(data):
        path.write_bytes(data)
        imported(kind, path, place)

    check()
