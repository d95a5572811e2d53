"""Archives of studies: what goes in and comes out again, configs that ask for other samples, and content that lies about itself."""

import dataclasses
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from flopstat import archive, bundle, config, problems, stored, tables
from flopstat.engine import Chain
from flopstat.errors import InputError
from flopstat.grading import grade_chains
from flopstat.models import checkpoint, read_card
from flopstat.pool import _batch

ARMS = ("ladder-30k@fp32", "ladder-30k@rtn3")
CONFIG = {
    "study": "packed",
    "dataset": {"source": "ladder", "n_study": 6, "n_calibration": 6},
    "models": [{"name": "ladder-30k", "source": "ladder", "precisions": ["fp32", "rtn3"]}],
    "sampling": {"samples": 3, "shard_problems": 5},
    "budgets": {"T": [4, 16, 48]},
}

PILOT = {
    "key": {},
    "pool": "none",
    "T": 48,
    "chains": [
        {"problem_id": "p", "difficulty": 1, "prompt_tokens": 9, "n_tokens": 5, "answers": 0, "answer_tokens": 0, "answer_prompt": 0}
    ],
    "rate": {"machine": "none"},
}


SHIPPED = config.ROOT / "workflow" / "resources" / "ladder.tar.zst"
with tempfile.TemporaryDirectory() as _folder:
    bundle.unpack(SHIPPED, Path(_folder))
    CALIBRATION = Path(_folder, "calibration", "ladder-30k@fp32.json").read_text()


def chains(keys, samples: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    out = []
    for key in keys:
        for i in range(-1, samples):
            n = int(rng.integers(0, 60))
            numbers = (rng.normal(size=n).astype(np.float32) for _ in range(4))
            out.append(Chain(key, i, 9, "eos" if n < 48 else "length", rng.integers(2, 60, n).astype(np.int32), *numbers, near_ties=0))
    return pa.Table.from_batches([_batch(out)])


@pytest.fixture(scope="module")
def study(tmp_path_factory, shipped):
    """A finished study's folder as far as archives read it; its samples are noise."""
    folder = tmp_path_factory.mktemp("study")
    merged = config.resolve(CONFIG)
    chosen = problems.select_problems(merged["dataset"], [merged["prompt"]], merged["seed"])
    tables.write(chosen.problems, "problems", folder / "problems.parquet")
    tables.write(chosen.refusals, "refusals", folder / "refusals.csv")
    (folder / "models").mkdir()
    (folder / "models" / "ladder-30k.json").write_text(shipped("ladder-30k").to_json())
    (folder / "calibration").mkdir()
    (folder / "pilot").mkdir()
    for seed, arm in enumerate(ARMS):
        (folder / "calibration" / f"{arm}.json").write_text(CALIBRATION)
        (folder / "pilot" / f"{arm}.json").write_text(json.dumps(PILOT))
        (folder / "samples" / arm).mkdir(parents=True)
        for shard in config.shards(merged):
            took = {"jobs": 1, "new_tokens": 7, "seconds": 0.1, "job_seconds": 0.1 + int(shard), "peak_memory_bytes": 100 - int(shard)}
            (folder / "samples" / arm / f"{shard}.json").write_text(json.dumps({"recorded": took, "pool": "x"}))
            part = chosen.problems["problem_key"].iloc[5 * int(shard) : 5 * int(shard) + 5]
            pq.write_table(chains(part, 3, seed), folder / "samples" / arm / f"{shard}.parquet")
    sha256 = hashlib.sha256((folder / "refusals.csv").read_bytes()).hexdigest()
    (folder / "run.json").write_text(json.dumps({"config": merged, "revision": "unknown", "sha256": {"refusals.csv": sha256}}))
    return folder


@pytest.fixture(scope="module")
def packed(study):
    archive.pack_study(study, study.parent / "packed.tar.zst")
    return study.parent / "packed.tar.zst"


def graded(results, samples, budgets):
    table = tables.read("problems", results / "problems.parquet")
    card = read_card(results / "models" / "ladder-30k.json")
    return grade_chains(samples, table, budgets, checkpoint(card) / "tokenizer.json")


@pytest.mark.parametrize("per_token", [False, True])
def test_restored_samples_grade_exactly_as_the_study_did(study, tmp_path, per_token):
    said = archive.pack_study(study, tmp_path / "x.tar.zst", per_token)
    assert stored.digest(tmp_path / "x.tar.zst") in said
    archive.restore(tmp_path / "x.tar.zst", tmp_path / "results")
    budgets = [4, 16, 48]
    for arm in ARMS:
        before = pa.concat_tables([pq.read_table(p) for p in sorted((study / "samples" / arm).glob("*.parquet"))])
        after = pq.read_table(tmp_path / "results" / "samples" / arm / "000.parquet")
        assert ("logprob" in after.column_names) == per_token
        pd.testing.assert_frame_equal(graded(study, before, budgets), graded(tmp_path / "results", after, budgets), check_exact=True)
        # Shards 0, 1 and 2 took 0.1, 1.1 and 2.1 s.
        took = json.loads((tmp_path / "results" / "samples" / arm / "000.json").read_text())["recorded"]
        assert took == {"new_tokens": 21, "job_seconds": pytest.approx(3.3), "peak_memory_bytes": 100}
        if per_token:  # other T as well
            pd.testing.assert_frame_equal(graded(study, before, [7]), graded(tmp_path / "results", after, [7]), check_exact=True)
    for name in ("problems.parquet", "refusals.csv", f"calibration/{ARMS[0]}.json", f"pilot/{ARMS[1]}.json"):
        assert (tmp_path / "results" / name).read_bytes() == (study / name).read_bytes()
    card = read_card(tmp_path / "results" / "models" / "ladder-30k.json")
    assert checkpoint(card) == tmp_path / "results" / "tokenizers" / "ladder-30k"


@pytest.mark.parametrize("per_token", [False, True])
def test_an_archive_of_restored_samples_has_the_same_bytes(study, tmp_path, per_token):
    # Shards of different row groups become one file, so the second and the third archive are compared.
    said = []
    for i in range(3):
        archive.pack_study(study, tmp_path / f"{i}.tar.zst", per_token)
        archive.restore(tmp_path / f"{i}.tar.zst", tmp_path / f"{i}")
        with bundle.unpacked(tmp_path / f"{i}.tar.zst", tmp_path) as (_, manifest):
            said.append(manifest["files"])
        record = json.loads((study / "run.json").read_text())
        record["config"]["archive"] = {"path": "x", "url": None, "sha256": None}
        study = tmp_path / f"{i}"
        (study / "run.json").write_text(json.dumps(record))
    assert {name for name in said[1] if said[1][name] != said[2][name]} <= {"run.json", "ro-crate-metadata.json"}
    assert {name for name in said[0] if said[0][name] != said[1][name]} <= {
        "run.json",
        "ro-crate-metadata.json",
        *(f"samples/{arm}.parquet" for arm in ARMS),
    }


def test_the_description_is_a_research_object_crate(packed, tmp_path):
    with bundle.unpacked(packed, tmp_path) as (folder, manifest):
        crate = json.loads((folder / "ro-crate-metadata.json").read_text())
    assert crate["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    graph = {entity["@id"]: entity for entity in crate["@graph"]}
    assert graph["ro-crate-metadata.json"]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert graph["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    root = graph["./"]
    assert root["@type"] == "Dataset"
    assert all(root[key] for key in ("name", "description", "datePublished", "license"))
    parts = {part["@id"] for part in root["hasPart"]}
    assert parts == set(manifest["files"]) - {"ro-crate-metadata.json"}
    assert all(graph[name]["contentSize"] == str(manifest["files"][name]["bytes"]) for name in parts)
    assert all(graph[name]["@type"] == "File" for name in parts)


def test_restore_to_a_new_folder_writes_a_config_that_rebuilds_the_study(packed, tmp_path):
    said = archive.restore_folder(packed, tmp_path / "new")
    assert said.endswith(f"make run CONFIG={tmp_path / 'new' / 'study.yaml'}")
    loaded = config.load(tmp_path / "new" / "study.yaml")
    assert loaded["archive"] == {"path": str(packed), "url": None, "sha256": stored.digest(packed)}
    assert loaded | {"archive": None} == config.resolve(CONFIG)
    assert config.shards(loaded) == [archive.SHARD]
    with pytest.raises(InputError, match="not empty"):
        archive.restore_folder(packed, tmp_path / "new")


def test_a_restored_study_does_not_take_the_place_of_one_that_is_there(packed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = config.resolve(CONFIG)["study"]
    (tmp_path / "results" / name).mkdir(parents=True)
    (tmp_path / "results" / name / "run.json").write_text("{}")
    with pytest.raises(InputError, match=f"results/{name}: is there already.* --study"):
        archive.restore_folder(packed, tmp_path / "new")
    with pytest.raises(InputError, match="study"):
        archive.restore_folder(packed, tmp_path / "new", "../evil")
    assert not (tmp_path / "new").exists()
    archive.restore_folder(packed, tmp_path / "new", "again")
    assert config.load(tmp_path / "new" / "study.yaml")["study"] == "again"


FREE = {
    "strategies": ["single"],
    "grader": ["exact", "gsm8k"],
    "statistics": {"replicates": 500},
    "plan": {"tokens_per_chain": 5, "resolve_points": 2.0},
    "costs": {"price_device": "L4"},
    "scenarios": [{"name": "long", "attention_flops": 0.5}],
    "title": "other",
    "study": "other",
    "budgets": {"T": [4, 48], "P": [1, 8]},
    "sampling": {"samples": 3, "batch_rows": 7, "shard_problems": 2, "device": "cuda"},
    "models": [{"name": "ladder-30k", "source": "ladder", "precisions": ["fp32"]}],
}


@pytest.mark.parametrize("key", FREE)
def test_what_samples_do_not_depend_on_is_free(packed, tmp_path, key):
    wanted = config.resolve(CONFIG | {key: FREE[key]})
    archive.restore(packed, tmp_path / "results", wanted)
    assert {p.parent.name for p in (tmp_path / "results" / "samples").glob("*/000.parquet")} == set(config.arms(wanted))


OTHER = {
    "seed": (CONFIG | {"seed": 1}, "seed: the archive's samples were drawn with 20261121, not 1"),
    "problems": (CONFIG | {"dataset": CONFIG["dataset"] | {"n_study": 7}}, "dataset.n_study: the archive's"),
    "prompt": (CONFIG | {"prompt": {"system": "Think."}}, "prompt.system: the archive's"),
    "temperature": (CONFIG | {"sampling": {"samples": 3, "temperature": 0.5}}, "sampling.temperature: the archive's"),
    "K": (CONFIG | {"sampling": {"samples": 2}}, "sampling.samples: the archive's"),
    "T": (CONFIG | {"budgets": {"T": [4, 8]}}, r"budgets.T: the archive has \[4, 16, 48\], \[8\] is not among them"),
    "pilot": (CONFIG | {"plan": {"pilot_chains": 3}}, "plan.pilot_chains: the archive's"),
    "forcing": (CONFIG | {"budgets": {"T": [4], "forcing": "force_answer"}}, "budgets.forcing: the archive's"),
    "model": (
        CONFIG | {"models": [{"name": "ladder-160k", "source": "ladder", "precisions": ["fp32"]}]},
        "ladder-160k is not in the archive",
    ),
    "precision": (
        CONFIG | {"models": [{"name": "ladder-30k", "source": "ladder", "precisions": ["fp32", "int8"]}]},
        "models.0.precisions: the archive has fp32, rtn3",
    ),
    "reference": (
        CONFIG | {"models": [{"name": "ladder-30k", "source": "ladder", "precisions": ["rtn3"]}]},
        "models.0.precisions: the archive has fp32, rtn3, the first of them first",
    ),
}


@pytest.mark.parametrize("name", OTHER)
def test_a_config_that_asks_for_other_samples_is_refused_by_its_key(packed, tmp_path, name):
    wanted, message = OTHER[name]
    with pytest.raises(InputError, match=message):
        archive.restore(packed, tmp_path / "results", config.resolve(wanted))
    assert not any((tmp_path / "results").iterdir())


def test_per_token_archives_take_other_t_up_to_the_largest():
    archived = config.resolve(CONFIG)
    archive.agree(archived, config.resolve(CONFIG | {"budgets": {"T": [5, 47]}}), {"per_token": True})
    with pytest.raises(InputError, match=r"\[49\] is not among them"):
        archive.agree(archived, config.resolve(CONFIG | {"budgets": {"T": [49]}}), {"per_token": True})


def test_a_study_that_changed_or_is_not_finished_is_not_archived(study, tmp_path):
    with pytest.raises(InputError, match=r"no run.json; run the study first"):
        archive.pack_study(tmp_path, tmp_path / "x.tar.zst")
    kept = (study / "refusals.csv").read_bytes()
    try:
        (study / "refusals.csv").write_bytes(kept + b"more,1\n")
        with pytest.raises(InputError, match=r"refusals.csv: not the table that run.json was written for"):
            archive.pack_study(study, tmp_path / "x.tar.zst")
    finally:
        (study / "refusals.csv").write_bytes(kept)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("record", [{}, [], {"config": {}, "revision": "unknown", "sha256": []}])
def test_a_run_json_that_records_nothing_is_refused_in_one_line(tmp_path, record):
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"run.json: not ") as error:
        archive.pack_study(tmp_path, tmp_path / "x.tar.zst")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["problems.parquet", f"calibration/{ARMS[0]}.json", f"pilot/{ARMS[1]}.json", "models/ladder-30k.json", "run.json"]
)
def test_a_damaged_file_is_not_archived(study, tmp_path, name):
    folder = shutil.copytree(study, tmp_path / "study")
    stored.seal(folder / name)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name}: damaged, its bytes are not those that were written"):
        archive.pack_study(folder, tmp_path / "x.tar.zst")
    assert [p.name for p in tmp_path.iterdir()] == ["study"]


@pytest.mark.parametrize("restored", [False, True])
def test_another_tokenizer_than_was_described_is_not_archived(study, packed, tmp_path, restored):
    folder = shutil.copytree(study, tmp_path / "study")
    if restored:
        archive.restore(packed, folder)
        record = json.loads((folder / "run.json").read_text())
        record["config"]["archive"] = {"path": str(packed), "url": None, "sha256": None}
        (folder / "run.json").write_text(json.dumps(record))
    else:
        card = read_card(folder / "models" / "ladder-30k.json")
        shutil.copytree(checkpoint(card), tmp_path / "model")
        (folder / "models" / "ladder-30k.json").write_text(dataclasses.replace(card, path=str(tmp_path / "model")).to_json())
    archive.pack_study(folder, tmp_path / "x.tar.zst")
    tokenizer = folder / "tokenizers" / "ladder-30k" / "tokenizer.json" if restored else tmp_path / "model" / "tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes() + b"\n")
    with pytest.raises(InputError, match="damaged" if restored else "tokenizer, chat template or config of ladder-30k changed since"):
        archive.pack_study(folder, tmp_path / "x.tar.zst")


def test_the_day_of_an_archive_does_not_depend_on_the_clone(study, tmp_path):
    folder = shutil.copytree(study, tmp_path / "study")
    record = json.loads((folder / "run.json").read_text()) | {"revision": "0" * 40, "revision_date": "2026-11-01"}
    (folder / "run.json").write_text(json.dumps(record))
    archive.pack_study(folder, tmp_path / "x.tar.zst")
    with bundle.unpacked(tmp_path / "x.tar.zst", tmp_path) as (unpacked, manifest):
        graph = {e["@id"]: e for e in json.loads((unpacked / "ro-crate-metadata.json").read_text())["@graph"]}
    assert graph["./"]["datePublished"] == "2026-11-01"
    assert all(graph[name]["sha256"] == entry["sha256"] for name, entry in manifest["files"].items() if name != "ro-crate-metadata.json")


def test_a_source_is_there_and_has_its_hash(packed, tmp_path):
    good = {"path": str(packed), "url": None, "sha256": stored.digest(packed)}
    assert archive.source(good, tmp_path) == packed
    with pytest.raises(InputError, match="no such file"):
        archive.source(good | {"path": "absent"}, tmp_path)
    with pytest.raises(InputError, match="its SHA-256 is"):
        archive.source(good | {"sha256": "0" * 64}, tmp_path)
    assert archive.source({"path": None, "url": packed.as_uri(), "sha256": good["sha256"]}, tmp_path).parent == tmp_path


def repacked(packed, tmp_path, change) -> None:
    """The archive with one change made to its unpacked files, and a manifest that fits."""
    folder = tmp_path / "changed"
    folder.mkdir()
    bundle.unpack(packed, folder)
    change(folder)
    files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    bundle.pack(files, {"per_token": False}, tmp_path / "changed.tar.zst")


def with_ids(make, dtype=None):
    """Other ids for each chain of n tokens."""

    def change(folder):
        path = folder / "samples" / f"{ARMS[0]}.parquet"
        rows = pq.read_table(path)
        ids = pa.array([make(n) for n in rows["n_tokens"].to_pylist()], pa.list_(dtype or pa.int32()))
        pq.write_table(rows.set_column(rows.schema.get_field_index("ids"), "ids", ids), path)

    return change


def with_column(name, value):
    """Another value in each row of a column."""

    def change(folder):
        path = folder / "samples" / f"{ARMS[0]}.parquet"
        rows = pq.read_table(path)
        at = rows.schema.get_field_index(name)
        pq.write_table(rows.set_column(at, name, pa.array([value] * len(rows))), path)

    return change


def without_column(name):
    def change(folder):
        path = folder / "samples" / f"{ARMS[0]}.parquet"
        pq.write_table(pq.read_table(path).drop_columns([name]), path)

    return change


def with_text(name, text):
    return lambda folder: (folder / name).write_text(text)


def with_bytes(old, new):
    """The same file but for some bytes, which its pages' own checks do not cover: those of its footer."""

    def change(folder):
        path = folder / "samples" / f"{ARMS[0]}.parquet"
        path.write_bytes(path.read_bytes().replace(old, new))

    return change


def with_card(**values):
    def change(folder):
        path = folder / "models" / "ladder-30k.json"
        path.write_text(dataclasses.replace(read_card(path), **values).to_json())

    return change


def with_calibration(**values):
    return with_text(f"calibration/{ARMS[0]}.json", json.dumps(json.loads(CALIBRATION) | values))


def with_problems(make):
    def change(folder):
        make(pd.read_parquet(folder / "problems.parquet")).to_parquet(folder / "problems.parquet", index=False, compression="zstd")

    return change


def with_groups(n, size):
    """The samples n times over, the last chain of `size` equal ids each time: hundreds of bytes that say they are millions of values."""

    def change(folder):
        path = folder / "samples" / f"{ARMS[0]}.parquet"
        rows = pq.read_table(path)
        ids = pa.array([[5] * k for k in rows["n_tokens"].to_pylist()[:-1]] + [[5] * size], pa.list_(pa.field("element", pa.int32())))
        with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
            for _ in range(n):
                writer.write_table(rows.set_column(rows.schema.get_field_index("ids"), rows.schema.field("ids"), ids))

    return change


LIES = {
    "ids beyond the vocabulary": (with_ids(lambda n: [99999] * n), "ids outside"),
    "negative ids": (with_ids(lambda n: [-1] * n), "ids outside"),
    "fewer ids": (with_ids(lambda n: []), "n_tokens is not the number of ids"),
    "ids of another type": (with_ids(lambda n: ["x"] * n, pa.string()), "column ids is missing or of another type"),
    "fewer than no tokens in a prompt": (with_column("prompt_tokens", -1), "not a table of samples"),
    "half a token in a prompt": (with_column("prompt_tokens", 0.5), "not a table of samples"),
    "a text where a number is wanted": (with_column("prompt_tokens", "many"), "not a table of samples"),
    "no ending": (with_column("finish_reason", None), "not a table of samples"),
    "a column less": (without_column("finish_reason"), "not a table of samples"),
    "no parquet": (with_text(f"samples/{ARMS[0]}.parquet", "PAR1 not PAR1"), "not a parquet file"),
    "a column whose name is no text": (with_bytes(b"finish_reason", b"\x80inish_reason"), "not a parquet file"),  # found by fuzzing
    "no card": (with_text("models/ladder-30k.json", "[]"), "no model card"),
    "deep card": (with_text("models/ladder-30k.json", "[" * 100_000), "no model card"),
    "card of another model": (with_card(name="other"), "card of another model"),
    "imported card": (with_text("models/ladder-30k.json", '{"source": "import"}'), "no model card"),
    "no config": (with_text("run.json", "{}"), "holds no config"),
    "hostile config": (with_text("run.json", json.dumps({"config": CONFIG | {"study": "../../etc"}})), "holds no config"),
    "model with a path for a name": (
        with_text("run.json", json.dumps({"config": CONFIG | {"models": [{"name": "../x", "source": "ladder", "precisions": ["fp32"]}]}})),
        "holds no config",
    ),
    "no pilot": (with_text(f"pilot/{ARMS[0]}.json", "{}"), "is no pilot"),
    "pilot without rate": (with_text(f"pilot/{ARMS[0]}.json", json.dumps(PILOT | {"rate": 5})), "is no pilot"),
    "deep pilot": (with_text(f"pilot/{ARMS[0]}.json", "[" * 100_000), "is no pilot"),
    "no account": (with_text(f"samples/{ARMS[0]}.json", "[]"), "does not say what drawing took"),
    "account of nothing": (
        with_text(f"samples/{ARMS[0]}.json", '{"recorded": {"new_tokens": NaN, "job_seconds": 1, "peak_memory_bytes": 1}}'),
        "does not say what drawing took",
    ),
    "no calibration": (with_text(f"calibration/{ARMS[0]}.json", "{}"), "is no calibration"),
    "calibration that is no JSON": (with_text(f"calibration/{ARMS[0]}.json", "rows: []"), "is no calibration"),
    "calibration of negative bits": (with_calibration(bits_effective=-1), "is no calibration"),
    "calibration of a machine without a name": (with_calibration(identity={}), "is no calibration"),
    "calibration whose points are texts": (with_calibration(held_out=[{"batch": 1}]), "is no calibration"),
    "calibration of too many rounds": (with_calibration(rows=[{"rounds": [1.0] * 1001}]), "is no calibration"),
    "no problems": (with_text("problems.parquet", "junk"), "problems.parquet is not the 12 problems"),
    "problems less": (with_problems(lambda table: table.iloc[1:]), "is not the 12 problems"),
    "problems without a number for an answer": (with_problems(lambda table: table.assign(gold="x")), "is not the 12 problems"),
    "problems without messages": (with_problems(lambda table: table.assign(messages="{}")), "is not the 12 problems"),
    "refusals that are no text": (lambda folder: (folder / "refusals.csv").write_bytes(b"\xff\x00"), "no table of refusals"),
    "a problem twice": (with_problems(lambda table: table.assign(problem_key="x")), "is not the 12 problems"),
    "chains of other problems": (with_column("problem_key", "x"), "chains of problems that are not the study's"),
    "no tokenizer": (with_text("tokenizers/ladder-30k.json", "{"), "is no tokenizer"),
    "card of fewer than no layers": (with_card(n_layers=-5), "is no model card"),
    "card of no layers": (with_card(n_layers=0), "is no model card"),
    "card of more parameters than a number holds": (with_card(n_params=10**400), "is no model card"),
    "card of endless bits": (with_card(stored_bits=float("inf")), "is no model card"),
    "a file more": (with_text("evil.py", "import os"), "holds evil.py, which belongs to no model"),
    "a model more": (with_text("models/evil.json", "{}"), "holds models/evil.json, which belongs to no model"),
    "without crate": (lambda folder: (folder / "ro-crate-metadata.json").unlink(), "does not describe its files"),
    "crate that is no JSON": (with_text("ro-crate-metadata.json", "<"), "does not describe its files"),
    "crate of nothing": (with_text("ro-crate-metadata.json", '{"@graph": [{"@id": "./", "hasPart": []}]}'), "does not describe its files"),
    "more values than the study has": (with_groups(40, 100_000), "more than its study and its size can have"),
    "a text that stands everywhere": (
        with_problems(lambda table: table.assign(question="x" * 20_000_000)),
        "is not the 12 problems",
    ),
    "without pilot": (lambda folder: (folder / "pilot" / f"{ARMS[0]}.json").unlink(), "holds no pilot"),
    "without account": (lambda folder: (folder / "samples" / f"{ARMS[0]}.json").unlink(), "holds no samples"),
    "without calibration": (lambda folder: (folder / "calibration" / f"{ARMS[0]}.json").unlink(), "holds no calibration"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_an_archive_whose_content_lies_is_refused_in_one_line_and_places_nothing(packed, tmp_path, name):
    change, message = LIES[name]
    repacked(packed, tmp_path, change)
    with pytest.raises(InputError, match=message) as error:
        archive.restore(tmp_path / "changed.tar.zst", tmp_path / "results")
    assert len(str(error.value).splitlines()) == 1
    assert not any((tmp_path / "results").iterdir())


def test_the_config_in_an_archive_is_plain_yaml_when_it_comes_out(packed, tmp_path):
    archive.restore_folder(packed, tmp_path / "new")
    assert "!!python" not in (tmp_path / "new" / "study.yaml").read_text()
    assert isinstance(yaml.safe_load((tmp_path / "new" / "study.yaml").read_text()), dict)
