"""Importers: every kind keeps what it knows and names what it drops; hostile files are refused by name, within bounded size and time."""

import csv
import io
import json
import struct
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from flopstat import cli, tables
from flopstat.config import ROOT
from flopstat.errors import InputError
from flopstat.importers import reading, samples
from flopstat.importers.samples import KINDS, Declared, import_samples, read_problems
from flopstat.problems import ladder_rows
from flopstat.readings import read_answer

FOREIGN = ROOT / "tests" / "data" / "foreign"
SOLUTIONS = ROOT.parent / "shared" / "data" / "gsm8k" / "example_model_solutions.jsonl"
LOGS = {
    "lm-eval": FOREIGN / "lm-eval",
    "inspect": FOREIGN / "inspect" / "ladder.eval",
    "inspect-json": FOREIGN / "inspect" / "ladder.json",
    "lighteval": FOREIGN / "lighteval" / "details_ladder_2026-01-01T00-00-00.parquet",
    "lighteval-old": FOREIGN / "lighteval" / "details_old_2025-01-01T00-00-00.parquet",
    "monkeys": FOREIGN / "monkeys",
    "kinetics": FOREIGN / "kinetics" / "gsm8k_2026-01-01_00-00-00.jsonl",
}
PROBLEMS = ladder_rows([("study", 6)], 6, 0, 3)
NULLS = {  # known fields beside problem_id, model, sample and text
    "lm-eval": {"n_params", "precision", "T"},
    "inspect": {"n_tokens", "prompt_tokens", "T"},
    "lighteval": {"n_tokens", "token_ids", "prompt_tokens"},
    "lighteval-old": {"n_tokens", "token_ids"},
    "monkeys": set(),
    "kinetics": set(),
}
ROW = {"problem_id": "7", "model": "m", "n_params": 5, "precision": "bf16", "sample": 0, "text": "#### 1"}


def kind_of(name: str) -> str:
    return next(kind for kind in sorted(KINDS, key=len, reverse=True) if name.startswith(kind))


def run(kind, path, out, **more):
    done = import_samples(kind, path, out, **more)
    return done, tables.read("imported", out)


def lines(path: Path, *records) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", LOGS)
def test_every_log_gives_all_samples_of_all_problems_and_the_gold_answers(tmp_path, name):
    done, table = run(kind_of(name), LOGS[name], tmp_path / "s.parquet")
    assert (done.n_samples, done.n_problems, done.n_gold) == (18, 6, 6)
    assert sorted(map(tuple, table[["problem_id", "sample"]].to_numpy())) == [(str(p), s) for p in range(6) for s in range(3)]
    optional = set(table.columns) - {"problem_id", "model", "sample", "text"}
    assert {c for c in optional if table[c].notna().all()} == NULLS[name.removesuffix("-json")]
    assert {c for c in optional if table[c].isna().all()} == optional - NULLS[name.removesuffix("-json")] == done.unknown.keys()
    problems = {p["problem_id"]: p for p in map(json.loads, (tmp_path / "s.problems.jsonl").read_text(encoding="utf-8").splitlines())}
    for row in PROBLEMS:
        assert problems[row["problem_id"]]["question"] == row["question"]
        assert problems[row["problem_id"]]["answer"].rpartition("#### ")[2] == row["answer"].rpartition("#### ")[2]


@pytest.mark.parametrize("name", ["lighteval", "lighteval-old", "monkeys", "kinetics"])
def test_texts_go_with_their_problem_and_number(tmp_path, name):
    """Of each problem the first chain is right, the second off by one, the third without an answer."""
    _, table = run(kind_of(name), LOGS[name], tmp_path / "s.parquet")
    gold = {r["problem_id"]: r["answer"].rpartition("#### ")[2] for r in PROBLEMS}
    for row in table.itertuples():
        state, answer = read_answer(row.text, True)
        right = {0: gold[row.problem_id], 1: str(int(gold[row.problem_id]) + 1), 2: None}[row.sample]
        assert (state, answer) == ("no_answer" if right is None else "answered", right)


def test_lm_eval_takes_every_repeat_from_resps_once_for_all_filters(tmp_path):
    done, table = run("lm-eval", LOGS["lm-eval"], tmp_path / "s.parquet")
    log = next(LOGS["lm-eval"].glob("samples_*.jsonl"))
    raw = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert len(raw) == 12  # two filters
    wanted = {(r["doc"]["problem_id"], i, text) for r in raw for i, text in enumerate(r["resps"][0])}
    assert set(map(tuple, table[["problem_id", "sample", "text"]].to_numpy())) == wanted
    assert done.dropped["filtered_resps"] == done.dropped["exact_match"] == 6
    assert done.notes == {"lines of further filters, which hold the same responses": 6}
    assert set(table["n_params"]) == {152_704}
    assert set(table["precision"]) == {"fp32"}
    assert set(table["T"]) == {96}


def test_lm_eval_log_without_its_results_file(tmp_path):
    log = next(LOGS["lm-eval"].glob("samples_*.jsonl"))
    (tmp_path / "log").mkdir()
    alone = tmp_path / "log" / log.name
    alone.write_bytes(log.read_bytes())
    done, table = run("lm-eval", alone, tmp_path / "s.parquet", declared=Declared("mine", 9, "bf16"))
    assert done.models == ("mine",)
    assert table[["n_params", "precision"]].drop_duplicates().to_numpy().tolist() == [[9, "bf16"]]
    (tmp_path / "log" / "samples_other.jsonl").touch()
    with pytest.raises(InputError, match="2 files samples_"):
        import_samples("lm-eval", tmp_path / "log", tmp_path / "s.parquet")


def test_inspect_archive_and_json_hold_the_same(tmp_path):
    """Both are real runs of the same seed, so the epochs of each give the same number of tokens and problems, and every field is there."""
    _, archive = run("inspect", LOGS["inspect"], tmp_path / "a.parquet")
    _, text = run("inspect", LOGS["inspect-json"], tmp_path / "b.parquet")
    keys = ["problem_id", "sample", "model", "T", "prompt_tokens"]
    pd.testing.assert_frame_equal(
        archive.sort_values(keys)[keys].reset_index(drop=True), text.sort_values(keys)[keys].reset_index(drop=True)
    )


def inspect_log(path: Path, *changes, compression=zipfile.ZIP_DEFLATED, header=True) -> Path:
    """An .eval archive of one sample for each change."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        if header:
            archive.writestr("header.json", json.dumps({"eval": {"model": "m", "model_generate_config": {"max_tokens": 9}}}))
        for i, change in enumerate(changes):
            choice = {"message": {"content": "A: 5"}, "stop_reason": "stop"}
            sample = {"id": i, "epoch": 1, "input": "q", "target": "5", "output": {"choices": [choice]}} | change
            archive.writestr(f"samples/{i}_epoch_1.json", json.dumps(sample))
    return path


def test_inspect_parts_reasons_logprobs_and_failures(tmp_path):
    parts = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "A: 5"}]
    logged = {"content": [{"logprob": -1.0}, {"logprob": -0.5}]}
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "the question"}]
    first = {"message": {"content": parts}, "stop_reason": "max_tokens", "logprobs": logged}
    changes = [{"output": {"choices": [first], "usage": {"output_tokens": 2, "input_tokens": 4}}, "input": chat, "target": ["6"]}]
    changes += [{"output": {"choices": []}, "error": {"message": "out of memory"}}, {}]
    done, table = run("inspect", inspect_log(tmp_path / "l.eval", *changes), tmp_path / "s.parquet")
    assert table["finish_reason"].tolist() == ["length", "engine_error", "eos"]
    assert table["text"].tolist() == ["A: 5", "", "A: 5"]
    assert table["mean_logprob"].tolist()[0] == -0.75
    assert table["n_tokens"].tolist()[0] == 2
    assert done.dropped["message parts that are no text"] == 1
    problems = read_problems("inspect", tmp_path / "l.eval")
    assert problems[0] == {"problem_id": "0", "question": "the question", "answer": "#### 6"}


def test_solutions_have_four_systems_and_golds_in_gsm8ks_form(tmp_path):
    done, table = run("gsm8k-solutions", FOREIGN / "gsm8k-solutions" / "solutions.jsonl", tmp_path / "s.parquet")
    assert done.models == ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    sizes = dict(table[["model", "n_params"]].drop_duplicates().to_numpy())
    assert sizes == {"6b_finetuning": 6e9, "6b_verification": 6e9, "175b_finetuning": 175e9, "175b_verification": 175e9}
    assert done.dropped == {"*.is_correct": 24}
    assert [p["answer"] for p in read_problems("gsm8k-solutions", FOREIGN / "gsm8k-solutions" / "solutions.jsonl")] == [
        row["answer"] for row in PROBLEMS
    ]
    one, _ = run("gsm8k-solutions", FOREIGN / "gsm8k-solutions" / "solutions.jsonl", tmp_path / "o.parquet", only="6b_verification")
    assert (one.n_samples, one.models) == (6, ("6b_verification",))
    with pytest.raises(InputError, match="holds no samples of 7b; its models are 6b_finetuning"):
        import_samples("gsm8k-solutions", FOREIGN / "gsm8k-solutions" / "solutions.jsonl", tmp_path / "n.parquet", only="7b")


@pytest.mark.skipif(not SOLUTIONS.is_file(), reason="example_model_solutions.jsonl is not beside this repository")
def test_released_solutions_give_the_published_numbers_and_the_files_own_verdicts(tmp_path):
    _, table = run("gsm8k-solutions", SOLUTIONS, tmp_path / "s.parquet")
    gold = {p["problem_id"]: p["answer"].rpartition("#### ")[2].replace(",", "") for p in read_problems("gsm8k-solutions", SOLUTIONS)}
    table["correct"] = [read_answer(r.text, True)[1] == gold[r.problem_id] for r in table.itertuples()]
    counts = table.groupby("model")["correct"].sum().to_dict()
    assert counts == {"6b_finetuning": 286, "6b_verification": 515, "175b_finetuning": 458, "175b_verification": 742}
    raw = [json.loads(line) for line in SOLUTIONS.read_text(encoding="utf-8").splitlines()]
    assert all(raw[int(r.problem_id)][r.model]["is_correct"] == r.correct for r in table.itertuples())


# --- the Sample form ----------------------------------------------------------------------------------------------------

FULL = ROW | {"n_tokens": 3, "token_ids": [1, 2, 0], "prompt_tokens": 4, "mean_logprob": -0.5, "finish_reason": "stop", "T": 16}


def plain(kind: str, path: Path, rows: list[dict]) -> Path:
    if kind == "jsonl":
        return lines(path, *rows)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_the_sample_form_is_kept_in_full_and_nothing_else(tmp_path, kind):
    rows = [FULL | {"sample": i, "text": text, "note": "x"} for i, text in enumerate(['a,\n"b"', "", "\u0663 \u2212 \U0001f600"])]
    done, table = run(kind, plain(kind, tmp_path / f"in.{kind}", rows), tmp_path / "s.parquet")
    assert done.dropped == {"note": 3}
    assert done.unknown == {}
    for row, wanted in zip(table.to_dict("records"), rows, strict=True):
        assert {k: list(v) if k == "token_ids" else v for k, v in row.items()} == {k: v for k, v in wanted.items() if k != "note"} | {
            "finish_reason": "eos"
        }
    assert not (tmp_path / "s.problems.jsonl").exists()


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_samples_without_a_number_are_counted_and_unknown_is_null(tmp_path, kind):
    rows = [{"problem_id": p, "text": "t", "question": "q", "gold": "4"} for p in ("b", "a", "b")]
    done, table = run(kind, plain(kind, tmp_path / f"in.{kind}", rows), tmp_path / "s.parquet")
    assert table[["problem_id", "sample", "model"]].to_numpy().tolist() == [["b", 0, "in"], ["a", 0, "in"], ["b", 1, "in"]]
    assert set(done.unknown) == set(samples.SCHEMA.names) - {"problem_id", "model", "sample", "text"}
    beside = (tmp_path / "s.problems.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(beside[0]) == {"problem_id": "b", "question": "q", "answer": "#### 4"}
    assert [p["problem_id"] for p in read_problems("parquet", tmp_path / "s.parquet")] == ["b", "a"]  # from the file beside


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("missing", ["problem_id", "text"])
def test_only_a_needed_field_ends_an_import(tmp_path, kind, missing):
    path = plain(kind, tmp_path / f"in.{kind}", [{k: v for k, v in ROW.items() if k != missing}])
    with pytest.raises(InputError, match=rf"in\.{kind}.*{missing}.*needs problem_id and text"):
        import_samples(kind, path, tmp_path / "s.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


# --- hostile files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "in.jsonl:2: not JSON"),
        ("[" * 100_000, "in.jsonl:2: not JSON"),
        ("[1]", "in.jsonl:2: a JSON object is wanted, found list"),
        ('{"problem_id": "7", "text": "t", "n_tokens": ' + "9" * 5000 + "}", "in.jsonl:2: not JSON"),
        (ROW | {"sample": 1, "n_tokens": -1}, "in.jsonl:2: n_tokens is '-1'"),
        (ROW | {"sample": 1, "n_tokens": 1e300}, "in.jsonl:2: n_tokens"),
        (ROW | {"sample": 1, "n_params": True}, "in.jsonl:2: n_params"),
        (ROW | {"sample": 1, "mean_logprob": float("inf")}, "in.jsonl:2: mean_logprob"),
        (ROW | {"sample": 1, "mean_logprob": 10**400}, "in.jsonl:2: mean_logprob"),  # found by fuzzing: too large for a float
        (ROW | {"sample": 1, "token_ids": [10**400]}, "in.jsonl:2: token_ids"),
        (ROW | {"sample": 1, "token_ids": ["1"]}, "in.jsonl:2: token_ids"),
        (ROW | {"sample": 1, "finish_reason": 3}, "in.jsonl:2: finish_reason"),
        (ROW | {"sample": "1"}, "in.jsonl:2: sample"),
        (ROW | {"sample": -2}, "in.jsonl:2: sample"),
        (ROW | {"problem_id": True}, "in.jsonl:2: problem_id"),
        (ROW | {"problem_id": "x" * 2000}, "in.jsonl:2: problem_id"),
        (ROW | {"problem_id": ""}, "in.jsonl:2: problem_id"),
        (ROW | {"model": 5}, "in.jsonl:2: model"),
        (ROW | {"text": ["t"]}, "in.jsonl:2: text is list"),
        (ROW, "in.jsonl:2: sample 0 of problem '7' by m stands twice"),
    ],
)
def test_broken_lines_are_named_by_number(tmp_path, bad, message):
    path = lines(tmp_path / "in.jsonl", ROW, bad)
    with pytest.raises(InputError) as error:
        import_samples("jsonl", path, tmp_path / "s.parquet")
    assert message in str(error.value)
    assert len(str(error.value)) < 500
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl"]  # nothing half-written


def test_nul_bytes_and_lone_surrogates_are_kept_or_replaced_never_fatal(tmp_path):
    path = lines(tmp_path / "in.jsonl", ROW | {"text": "a\0b"}, ROW | {"sample": 1, "text": "\ud83d!", "problem_id": "\udc00"})
    done, table = run("jsonl", path, tmp_path / "s.parquet")
    assert table["text"].tolist() == ["a\0b", "\ufffd!"]
    assert done.notes == {"texts with lone surrogates, replaced by U+FFFD": 2}


def test_problems_of_a_log_can_be_written(tmp_path):
    path = lines(tmp_path / "in.jsonl", ROW | {"question": "How \ud83d many?", "gold": "5", "problem_id": "\udc00"})
    (problem,) = samples.read_problems("jsonl", path)
    assert problem == {"problem_id": "\ufffd", "question": "How \ufffd many?", "answer": "#### 5"}


@pytest.mark.parametrize("beside", [b"{", b"5", b'{"problem_id": 5}', b"\xff", b"[" * 100_000])
def test_broken_problems_beside_an_import_are_refused(tmp_path, beside):
    run("jsonl", lines(tmp_path / "in.jsonl", ROW), tmp_path / "s.parquet")
    (tmp_path / "s.problems.jsonl").write_bytes(beside)
    with pytest.raises(InputError, match=r"s\.problems\.jsonl:1: "):
        samples.read_problems("parquet", tmp_path / "s.parquet")


def test_huge_lines_and_texts_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE", 1000)
    with pytest.raises(InputError, match=r"in\.jsonl:2: more than 1000 bytes"):
        import_samples("jsonl", lines(tmp_path / "in.jsonl", ROW, ROW | {"text": "x" * 2000}), tmp_path / "s.parquet")
    monkeypatch.setattr(samples, "MAX_TEXT", 100)
    with pytest.raises(InputError, match="a text of 200 characters, more than 100"):
        import_samples("jsonl", lines(tmp_path / "in.jsonl", ROW | {"text": "x" * 200}), tmp_path / "s.parquet")


BOMB = "a: &a [x, x, x]\n" + "".join(f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "samples: !!python/object/apply:os.system ['touch pwned']\n",
        "!!python/object/new:os.system [touch pwned]\n",
        BOMB + "samples: *i\n",
        "t: &t xxxxxxxxxxxx\nsamples: [*t, *t]\n",
        "a: &a {x: 1}\nsamples: [t]\nb: {<<: [*a, *a]}\n",
        "samples: " + "[" * 5000,
        "samples: " + "{a: " * 5000,
        "- a\n",
        "samples: [1, 2]\n",
        "samples: []\n",
        "question: q\n",
        "samples: [t]\n? [a, b]\n: {? {c: d} : e}\n: :\n",
        "samples: [t]\nx: 99999999-99-99\ny: 2001-99-99\n",
        "samples: [t]\n\x00",
    ],
)
def test_hostile_yaml_is_refused_in_one_line(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"0\.yaml"):
        import_samples("monkeys", tmp_path / "0.yaml", tmp_path / "s.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.yaml"]


def test_monkeys_texts_that_look_like_yaml_stay_texts(tmp_path):
    texts = ["!!python/object:os.system", "*a", "&a b", "<<: x", "1", "null", "2001-01-01", "#### 4\n", "\t: -"]
    (tmp_path / "3.yaml").write_text(yaml.safe_dump({"samples": texts, "question": "q", "gt_answer": "#### 4"}), encoding="utf-8")
    _, table = run("monkeys", tmp_path / "3.yaml", tmp_path / "s.parquet")
    assert table["text"].tolist() == texts
    assert set(table["problem_id"]) == {"3"}


def test_zip_bombs_are_refused_before_they_unpack(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_HEADER", 1 << 16)
    path = tmp_path / "bomb.eval"
    inspect_log(path, {"output": {"choices": [{"message": {"content": "0" * (1 << 24)}, "stop_reason": "stop"}]}}, compression=8)
    monkeypatch.setattr(reading, "MAX_DOCUMENT", 1 << 20)
    with pytest.raises(InputError, match=r"bomb\.eval!samples/0_epoch_1\.json: more than \d+ bytes"):
        import_samples("inspect", path, tmp_path / "s.parquet")


def test_zstandard_bombs_are_refused_as_well(tmp_path, monkeypatch):
    """inspect_ai's own compression. Python's zipfile can't write it: the member is stored, and its method patched in both headers."""
    monkeypatch.setattr(reading, "MAX_HEADER", 1 << 16)
    sample = json.dumps({"id": 0, "text": "0" * (1 << 26)}).encode()
    stored = pa.compress(sample, codec="zstd", asbytes=True)
    assert len(stored) < 1 << 14
    path = inspect_log(tmp_path / "bomb.eval")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("samples/0_epoch_1.json", stored)
        offset = archive.infolist()[-1].header_offset
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    data[offset + 8 : offset + 10] = data[central + 10 : central + 12] = (93).to_bytes(2, "little")
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"bomb\.eval!samples/0_epoch_1\.json: more than \d+ bytes"):
        import_samples("inspect", path, tmp_path / "s.parquet")


def test_a_logprob_too_large_for_a_float_is_unknown(tmp_path):
    """JSON has integers of any size."""
    choice = {"message": {"content": "A: 5"}, "stop_reason": "stop", "logprobs": {"content": [{"logprob": -(10**400)}]}}
    _, table = run("inspect", inspect_log(tmp_path / "l.eval", {"output": {"choices": [choice]}}), tmp_path / "s.parquet")
    assert table["mean_logprob"].isna().all()


def test_lighteval_model_is_read_from_the_folders(tmp_path):
    folder = tmp_path / "out" / "details" / "org" / "model" / "2026-01-01"
    folder.mkdir(parents=True)
    (folder / "details_x.parquet").write_bytes(LOGS["lighteval"].read_bytes())
    done, _ = run("lighteval", folder / "details_x.parquet", tmp_path / "s.parquet")
    assert done.models == ("org/model",)


def test_archive_names_are_never_paths(tmp_path):
    path = inspect_log(tmp_path / "l.eval", {"id": "../../evil"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside.json", "{}")
        archive.writestr("/tmp/absolute.json", "not even JSON")
        archive.writestr("samples/../../up.txt", "x")
    done, table = run("inspect", path, tmp_path / "out" / "s.parquet")
    assert table["problem_id"].tolist() == ["../../evil"]
    assert done.n_samples == 1
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["l.eval", "out", "out/s.parquet", "out/s.problems.jsonl"]


def name_in_no_utf8(path: Path) -> None:
    """The first file's own header says that its name is UTF-8, and it is not."""
    data = bytearray(path.read_bytes())
    data[6:8] = (1 << 11).to_bytes(2, "little")
    data[30] = 0x9B
    path.write_bytes(bytes(data))


def at_impossible_place(path: Path) -> None:
    """The last file stands, as the archive's directory has it in the extra field of large archives, beyond 2^63."""
    data = bytearray(path.read_bytes())
    entry, end = data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    extra = struct.pack("<HHQ", 1, 8, (1 << 64) - 5)
    struct.pack_into("<H", data, entry + 30, len(extra))
    struct.pack_into("<I", data, entry + 42, 0xFFFFFFFF)
    struct.pack_into("<I", data, end + 12, int.from_bytes(data[end + 12 : end + 16], "little") + len(extra))
    data[end:end] = extra
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(b"PK\x03\x04 torn"), "not readable as an archive"),
        (lambda p: inspect_log(p, {}, header=False), "no header.json"),
        (lambda p: inspect_log(p, {"id": None}), "id is NoneType"),
        (lambda p: inspect_log(p, {"epoch": "1"}), "epoch is str"),
        (lambda p: inspect_log(p, {"output": 3}), "output is int"),
        (lambda p: inspect_log(p, {"output": {"choices": [3]}}), "a choice is no object"),
        (lambda p: p.write_bytes(LOGS["inspect"].read_bytes()[:20_000]), "not readable as an archive"),
        (lambda p: inspect_log(p, compression=zipfile.ZIP_LZMA), r"l\.eval!header\.json: compressed by method 14"),
        (lambda p: name_in_no_utf8(inspect_log(p)), "not readable as an archive"),  # found by atheris
        (lambda p: at_impossible_place(inspect_log(p)), "not readable as an archive"),
    ],
)
def test_broken_archives(tmp_path, make, message):
    path = tmp_path / "l.eval"
    make(path)
    with pytest.raises(InputError, match=message):
        import_samples("inspect", path, tmp_path / "s.parquet")


def test_a_damaged_member_is_refused(tmp_path):
    data = bytearray(LOGS["inspect"].read_bytes())
    for at in range(2000, 2400):
        data[at] ^= 0xFF
    path = tmp_path / "l.eval"
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"l\.eval"):
        import_samples("inspect", path, tmp_path / "s.parquet")


@pytest.mark.parametrize(
    ("kind", "record", "message"),
    [
        ("lm-eval", {"doc_id": 0, "filtered_resps": ["1"]}, "resps is missing"),
        ("lm-eval", {"doc_id": 0, "resps": [[[-1.0, False]]]}, "resps holds no generated texts"),
        ("lm-eval", {"resps": [["a"]]}, "doc_id is missing"),
        ("kinetics", {"query": "q", "prediction": "t"}, "prediction is str"),
        ("kinetics", {"prediction": ["t"]}, "query is missing"),
        ("gsm8k-solutions", {"question": "q", "ground_truth": "A: 1"}, "no system with a solution"),
        ("gsm8k-solutions", {"question": "q", "ground_truth": "A: 1", "6b_x": {"solution": 1}}, "solution is int"),
    ],
)
def test_lines_that_lack_what_a_kind_needs(tmp_path, kind, record, message):
    with pytest.raises(InputError, match=rf"in\.jsonl:1: {message}"):
        import_samples(kind, lines(tmp_path / "in.jsonl", record), tmp_path / "s.parquet")


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "inspect"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b"\x89PNG\r\n"])
def test_files_of_another_sort_end_in_one_line(tmp_path, kind, content):
    path = tmp_path / "in.bin"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"in\.bin"):
        import_samples(kind, path, tmp_path / "s.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.bin"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('"7","t"\n"8"', ":3: more or fewer cells"),
        ('"7","t","u"', ":2: more or fewer cells"),
        ('"7","t', "not readable as CSV"),
    ],
)
def test_torn_csv(tmp_path, row, message):
    (tmp_path / "in.csv").write_text(f"problem_id,text\n{row}\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        import_samples("csv", tmp_path / "in.csv", tmp_path / "s.parquet")


def test_lighteval_written_as_python_text_is_not_evaluated(tmp_path):
    pq.write_table(pa.table({"predictions": ["__import__('os').system('touch pwned')"], "gold": ["['1']"]}), tmp_path / "d.parquet")
    with pytest.raises(InputError, match="written as Python text"):
        import_samples("lighteval", tmp_path / "d.parquet", tmp_path / "s.parquet")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["jsonl", "in.jsonl", "--out", "s.parquet"], 0, "s.parquet: 1 samples of 1 problems by m; gold answers of 0"),
        (["jsonl", "absent.jsonl", "--out", "s.parquet"], 2, "flopstat: absent.jsonl: no such file; give JSONL in the Sample form"),
        (["pickle", "in.jsonl", "--out", "s.parquet"], 2, "flopstat: import kind 'pickle': unknown; choose one of lm-eval, "),
        (["jsonl", "in.jsonl", "--out", "s.csv"], 2, "flopstat: --out s.csv: a name that ends in .parquet is wanted"),
    ],
)
def test_command_line(tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "in.jsonl", ROW)
    monkeypatch.setattr("sys.argv", ["flopstat", "import", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert left.value.code == code
    assert (err if code else out).startswith(message)
    assert len(err.splitlines()) <= 1


def test_json_account(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "in.jsonl", ROW | {"extra": 1})
    monkeypatch.setattr("sys.argv", ["flopstat", "import", "jsonl", "in.jsonl", "--out", "s.parquet", "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    account = json.loads(capsys.readouterr().out)
    assert account["dropped"] == {"extra": 1}
    assert account["models"] == ["m"]


@pytest.mark.parametrize(
    ("word", "ending"), [("stop", "eos"), ("truncated", "length"), ("max_tokens", "length"), ("error", "engine_error")]
)
def test_other_tools_words_for_an_ending_mean_the_same_here(tmp_path, word, ending):
    """A chain that another tool calls truncated must not be read as one that ended."""
    row = {"problem_id": "0", "model": "m", "sample": 0, "text": "so 7", "finish_reason": word}
    (tmp_path / "s.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    import_samples("jsonl", tmp_path / "s.jsonl", tmp_path / "s.parquet")
    assert tables.read("imported", tmp_path / "s.parquet")["finish_reason"].tolist() == [ending]
