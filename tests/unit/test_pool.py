"""The pool store: nothing drawn is lost, drawn twice or half written."""

import json

import filelock
import numpy as np
import pytest

from flopstat.pool import SCHEMA, Pool

KEY = {"weights": "abc", "sampling": {"seed": 1, "temperature": 1.0}}


@pytest.fixture
def pool(tmp_path):
    return Pool(tmp_path, KEY)


def test_append_and_read_back(pool, chain):
    drawn = [chain("b", 0, [5, 6, 1]), chain("a", 1, [7, 1]), chain("a", -1, [9, 9, 1]), chain("c", 0, [1])]
    pool.append(drawn[:2])
    pool.append([])
    pool.append(drawn[2:])
    assert len(pool.segments()) == 2
    table = pool.rows(["a", "b"], 16)
    assert table.schema.names == SCHEMA.names
    assert list(zip(*(table[c].to_pylist() for c in ("problem_key", "sample")), strict=True)) == [("a", -1), ("a", 1), ("b", 0)]
    by_key = {(c.problem_key, c.sample): c for c in drawn}
    for row in table.to_pylist():
        stored = by_key[row["problem_key"], row["sample"]]
        assert row["ids"] == stored.ids.tolist()
        assert row["n_tokens"] == len(stored.ids)
        for name in ("logprob", "entropy", "self_certainty", "confidence"):
            assert np.float32(row[name]).tolist() == getattr(stored, name).tolist()


def test_growing_k_draws_only_what_is_missing(pool, chain):
    assert pool.missing(["a", "b"], [-1, 0], 8) == [("a", -1), ("a", 0), ("b", -1), ("b", 0)]
    pool.append([chain(p, i, [4, 1]) for p in "ab" for i in (-1, 0)])
    assert pool.missing(["a", "b"], [-1, 0], 8) == []
    assert pool.missing(["a", "b", "c"], [-1, 0, 1], 8) == [("a", 1), ("b", 1), ("c", -1), ("c", 0), ("c", 1)]


def test_a_cut_chain_serves_up_to_its_length_and_a_longer_one_replaces_it(pool, chain):
    pool.append([chain("a", 0, [4, 5, 6, 7], "length"), chain("a", 1, [4, 1], "eos")])
    assert pool.missing(["a"], [0, 1], 4) == []
    assert pool.missing(["a"], [0, 1], 5) == [("a", 0)]  # the finished chain serves any budget
    pool.append([chain("a", 0, [4, 5, 6, 7, 8, 1])])
    for budget in (2, 4, 5, 100):
        table = pool.rows(["a"], budget)
        assert table["sample"].to_pylist() == [0, 1]
        assert table["ids"].to_pylist()[0][: min(budget, 4)] == [4, 5, 6, 7][:budget]
    assert pool.rows(["a"], 5)["ids"].to_pylist()[0] == [4, 5, 6, 7, 8, 1]


def test_torn_segments_are_set_aside_and_drawn_again(pool, chain):
    rng = np.random.default_rng(0)
    for number in range(3):
        pool.append([chain(f"p{number}", i, [*rng.integers(2, 68, 50), 1]) for i in range(20)])
    truncated, flipped, whole = pool.segments()
    content = truncated.read_bytes()
    truncated.write_bytes(content[: len(content) // 2])
    content = bytearray(flipped.read_bytes())
    content[len(content) // 3] ^= 0xFF  # bit rot inside a page: the checksum finds it
    flipped.write_bytes(content)
    leftover = pool.folder / ".abc.tmp"
    leftover.write_bytes(b"half")
    with pool.lock():
        assert pool.sweep() == 2
        assert pool.sweep() == 0
    assert not leftover.exists()
    assert pool.segments() == [whole]
    assert len(list(pool.folder.glob("*.torn"))) == 2  # kept for whoever wants to look
    assert pool.missing(["p0", "p2"], range(20), 51) == [("p0", i) for i in range(20)]
    pool.append([chain("p0", i, [3, 1]) for i in range(20)])
    assert pool.missing(["p0", "p2"], range(20), 51) == []
    assert whole in pool.segments()


def test_a_pool_is_found_again_by_its_key_and_by_nothing_else(tmp_path, pool, chain):
    pool.append([chain("a", 0, [4, 1])])
    same = Pool(tmp_path, dict(reversed(KEY.items())))
    assert same.folder == pool.folder
    assert same.missing(["a"], [0], 8) == []
    assert json.loads((pool.folder / "key.json").read_text(encoding="utf-8")) == KEY
    other = Pool(tmp_path, KEY | {"sampling": {"seed": 2, "temperature": 1.0}})
    assert other.folder != pool.folder
    assert other.missing(["a"], [0], 8) == [("a", 0)]


def test_one_writer_at_a_time(pool):
    with pool.lock(), pytest.raises(filelock.Timeout), pool.lock(timeout_s=0.05):
        pass
    with pool.lock(timeout_s=0.05):
        pass
