"""Sampling and calibration on a shipped model: drawn once, stored, reused."""

import json

import pyarrow.parquet as pq
import pytest

from flopstat import calibration, tables
from flopstat.engine import SamplingSettings
from flopstat.grading import grade_chains
from flopstat.models import checkpoint
from flopstat.problems import select_problems
from flopstat.sampling import draw_samples, pool_key, write_view

PROMPT = {"system": "", "instruction": "{question}", "answer_cue": ""}
SAMPLING = {"samples": 3, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "compute_dtype": "float32", "device": "cpu", "batch_rows": 7}


@pytest.fixture(scope="module")
def chosen():
    dataset = {"source": "ladder", "max_steps": 3, "distractors": 0, "n_study": 6, "n_calibration": 0}
    return select_problems(dataset, PROMPT, 3).problems


def test_a_pool_grows_and_nothing_is_drawn_twice(tmp_path, chosen, shipped):
    card = shipped("ladder-160k")

    def draw(part=chosen, max_tokens=40, **changes):
        return draw_samples(part, card, "fp32", SAMPLING | changes, max_tokens, 5, tmp_path / "pools")

    pool, account = draw(chosen.iloc[:4])
    assert (account["chains_asked"], account["chains_stored"], account["chains_drawn"]) == (16, 0, 16)
    before = {p.name: p.read_bytes() for p in pool.segments()}
    _, account = draw(samples=5, batch_rows=64)  # other speed settings: the same pool
    assert (account["chains_asked"], account["chains_stored"], account["chains_drawn"]) == (36, 16, 20)
    assert {p.name: p.read_bytes() for p in pool.segments()}.items() >= before.items()
    _, account = draw(samples=5, max_tokens=20)
    assert account["chains_drawn"] == 0
    assert draw(chosen.iloc[:1], temperature=0.9)[0].folder != pool.folder

    view = tmp_path / "view.parquet"
    write_view(pool, chosen, 3, 40, view)
    table = pq.read_table(view)
    tables.validate(table.select(list(tables.TABLES["samples"])).to_pandas(), "samples")
    assert table.num_rows == 6 * 4
    graded = grade_chains(table, chosen, [16, 40], checkpoint(card) / "tokenizer.json")
    tables.validate(graded.assign(model="m", precision="fp32"), "grades")
    assert graded.loc[graded["T"] == 40, "correct"].mean() > 0.5  # three steps are easy for the shipped model
    with pytest.raises(AssertionError, match="chains for 6 problems"):
        write_view(pool, chosen, 9, 40, view)


def test_pool_key_holds_what_changes_tokens(shipped):
    a, b = shipped("ladder-30k"), shipped("ladder-160k")
    base = SamplingSettings(1, 1.0, 1.0, 0, 64)
    key = pool_key(a, "fp32", base, "float32")
    assert key == pool_key(a, "fp32", SamplingSettings(1, 1.0, 1.0, 0, 128), "float32")  # the budget only cuts
    others = [
        pool_key(b, "fp32", base, "float32"),
        pool_key(a, "int8", base, "float32"),
        pool_key(a, "fp32", base, "bfloat16"),
        *(pool_key(a, "fp32", s, "float32") for s in (SamplingSettings(2, 1.0, 1.0, 0, 64), SamplingSettings(1, 0.9, 1.0, 0, 64))),
        *(pool_key(a, "fp32", s, "float32") for s in (SamplingSettings(1, 1.0, 0.9, 0, 64), SamplingSettings(1, 1.0, 1.0, 5, 64))),
    ]
    assert all(other != key for other in others)
    assert "bitsandbytes" not in key["libraries"]
    assert "bitsandbytes" in others[1]["libraries"]


def test_calibration_is_measured_once_and_counts_what_the_closed_form_says(tmp_path, shipped):
    card = shipped("ladder-30k")
    settings = {"prompt_tokens": 16, "decode_tokens": 4, "batches": [1, 3], "repeats": 5}
    path = calibration.calibrate(card, "fp32", "float32", "cpu", settings, tmp_path, "code")
    made, before = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime_ns
    assert calibration.calibrate(card, "fp32", "float32", "cpu", settings, tmp_path, "code") == path
    assert path.stat().st_mtime_ns == before
    rows = {(r["phase"], r["batch"], r["metric"]): r for r in made["rows"]}
    assert rows["prefill", 1, "c_counted"]["value"] == pytest.approx(rows["prefill", 1, "c_closed_form"]["value"])
    assert {b for _, b, _ in rows} == {0, 1, 3}
    for row in made["rows"]:
        assert 0 < row["low"] <= row["value"] <= row["high"]
    peak = rows["device", 0, "peak"]["value"]
    seconds = rows["prefill", 1, "seconds_per_token"]["value"]
    assert rows["prefill", 1, "c_effective"]["value"] == pytest.approx(peak * seconds / card.n_params)
    other = calibration.calibrate(card, "fp32", "float32", "cpu", settings, tmp_path, "other code")
    assert other != path
    peaks = list(tmp_path.glob("peak-*.json"))
    assert len(peaks) == 1  # one peak for all arms of a device
