"""Sampling and calibration on a shipped model: drawn once, stored, reused, the same whatever the shards and batches."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flopstat import calibration, tables
from flopstat.cells import matrices
from flopstat.columns import TABLES
from flopstat.config import section
from flopstat.costs import Flops
from flopstat.engine import GREEDY
from flopstat.errors import InputError
from flopstat.forcing import BudgetViolation, Plan, answer_key, verify_budgets
from flopstat.grading import grade_chains
from flopstat.models import checkpoint
from flopstat.pool import SCHEMA
from flopstat.problems import prompts_of, select_problems
from flopstat.readings import read_answer
from flopstat.sampling import described, draw_samples, open_arm, pool_key, shard_of, write_view

PROMPT = {"system": "", "instruction": "{question}", "answer_cue": ""}
DATASET = {"source": "ladder", "max_steps": 3, "distractors": 0, "n_study": 7, "n_calibration": 0}


@pytest.fixture(scope="module")
def chosen():
    return select_problems(DATASET, [PROMPT], 3).problems


def plan(T=(40,), seed=5, budgets=None, **sampling):
    filled = section("sampling", {"samples": 3, "device": "cpu", "batch_rows": 7} | sampling)
    return filled, Plan.of(filled, section("budgets", {"T": list(T)} | (budgets or {})), seed)


def arm_of(card, store, precision="fp32", **changes):
    sampling, wanted = plan(**changes)
    return open_arm(card, precision, sampling, wanted, store)


def view(arm, problems, path):
    write_view(arm, problems, path)
    return pq.read_table(path)


def test_a_pool_grows_and_nothing_is_drawn_twice(tmp_path, chosen, shipped):
    card = shipped("ladder-160k")

    def draw(part=chosen, **changes):
        arm = arm_of(card, tmp_path / "pools", **changes)
        return arm, draw_samples(part, arm)

    arm, account = draw(chosen.iloc[:4])
    assert (account["chains_asked"], account["chains_stored"], account["chains_drawn"]) == (16, 0, 16)
    assert "16 chains drawn, 0 of 16 were stored" in described(arm, account)
    assert account["tokens_per_s"] > 0
    assert account["peak_memory_bytes"] > 10**8
    before = {p.name: p.read_bytes() for p in arm.pool.folder.glob("chains-*.log")}
    _, account = draw(samples=5, batch_rows=64)  # other speed settings: the same pool
    assert (account["chains_asked"], account["chains_stored"], account["chains_drawn"]) == (42, 16, 26)
    assert {p.name: p.read_bytes() for p in arm.pool.folder.glob("chains-*.log")}.items() >= before.items()
    shorter, account = draw(samples=5, T=[20])
    assert account["chains_drawn"] == 0
    assert "tokens_per_s" not in account
    assert "0 chains drawn, 42 of 42 were stored" in described(shorter, account)
    longer, account = draw(samples=5, T=[40, 80])
    assert account["chains_drawn"] == sum(
        view(arm_of(card, tmp_path / "pools", samples=5), chosen, tmp_path / "v")["n_tokens"].to_numpy() == 40
    )
    assert longer.pool.folder == arm.pool.folder
    assert draw(chosen.iloc[:1], temperature=0.9)[0].pool.folder != arm.pool.folder

    table = view(arm, chosen, tmp_path / "view.parquet")
    tables.validate(table.select(list(TABLES["samples"])).to_pandas(), "samples")
    assert table.num_rows == 7 * 4
    graded = grade_chains(table, chosen, [16, 40], checkpoint(card) / "tokenizer.json")
    tables.validate(graded.assign(model="m", precision="fp32"), "grades")
    assert graded.loc[graded["T"] == 40, "correct"].mean() > 0.5  # three steps are easy for the shipped model
    with pytest.raises(AssertionError, match="chains for 7 problems"):
        write_view(arm_of(card, tmp_path / "pools", samples=9), chosen, tmp_path / "other.parquet")
    assert not (tmp_path / "other.parquet").exists()


def test_pools_do_not_depend_on_shards_or_batches(tmp_path, chosen, shipped):
    """In float64: 1, 2 and 7 shards times batches of 1, 5, 64 rows and of what memory holds give the same ids and finish reasons."""
    card = shipped("ladder-30k")
    pools = {}
    for shards in (1, 2, 7):
        for rows in (1, 5, 64, None):
            arm = arm_of(card, tmp_path / f"{shards}-{rows}", compute_dtype="float64", batch_rows=rows, T=[20])
            size = -(-len(chosen) // shards)
            for shard in reversed(range(shards)):
                draw_samples(shard_of(chosen, shard, size), arm)
            pools[shards, rows] = view(arm, chosen, tmp_path / "view.parquet").select(["problem_key", "sample", "finish_reason", "ids"])
    first = pools[1, 1]
    assert first.num_rows == 7 * 4
    assert {"eos", "length"} == set(first["finish_reason"].to_pylist())
    assert all(table.equals(first) for table in pools.values())


def test_pools_do_not_depend_on_threads(tmp_path, chosen, shipped):
    import torch

    before, views = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            arm = arm_of(shipped("ladder-160k"), tmp_path / str(threads), compute_dtype="float64", T=[20])
            draw_samples(chosen, arm)
            views.append(view(arm, chosen, tmp_path / "view.parquet").select(["problem_key", "sample", "finish_reason", "ids"]))
    finally:
        torch.set_num_threads(before)
    assert all(table.equals(views[0]) for table in views)


def test_pool_key_holds_what_changes_tokens(shipped):
    a, b = shipped("ladder-30k"), shipped("ladder-160k")

    def key(card=a, precision="fp32", dtype="float32", engine="e", ids=None, **changes):
        return json.dumps(pool_key(card, precision, plan(**changes)[1], dtype, engine, ids), sort_keys=True)

    same = [key(), key(T=[16, 90]), key(samples=9), key(batch_rows=None), key(device="auto"), key(shard_problems=3), key(offload="disk")]
    assert set(same) == {key()}
    hotter, prompted = {"temperature": 2.0}, {"system": "Think."}
    others = [
        key(card=b),
        key(precision="int8"),
        key(precision="nf4-dq"),
        key(precision="torchao-int8"),
        key(precision="quanto-int8", ids=[[1, 2]]),
        key(precision="quanto-int8", ids=[[1, 3]]),
        key(dtype="bfloat16"),
        key(engine="other"),
        key(seed=6),
        key(temperature=0.9),
        key(top_p=0.9),
        key(top_k=5),
        key(min_p=0.1),
        key(budgets={"forcing": "extend"}),
        key(budgets={"forcing": "extend", "extend_text": "Hm"}),
        key(variants=[hotter]),
        key(variants=[{}, hotter]),
        key(variants=[{"weight": 2}, hotter]),
    ]
    assert len({*others, key()}) == len(others) + 1
    assert key(variants=[{}, prompted]) != key()  # the prompts themselves are in the problem's key, the lottery is here
    assert key(budgets={"forcing": "force_answer"}) == key()  # answers have a pool of their own
    assert "bitsandbytes" not in key()
    assert "bitsandbytes" in key(precision="fp4")


def test_variants_are_drawn_per_sample_and_reach_the_model(tmp_path, shipped):
    card = shipped("ladder-160k")
    variants = [{"temperature": 0.2}, {"temperature": 1.5, "instruction": "{question} {question}"}]
    filled, wanted = plan(samples=24, variants=variants)
    several = prompts_of(PROMPT, filled["variants"])
    problems = select_problems(DATASET, several, 3).problems
    plain = select_problems(DATASET, [PROMPT], 3).problems
    assert set(problems["problem_key"]).isdisjoint(plain["problem_key"])
    arm = open_arm(card, "fp32", filled, wanted, tmp_path)
    draw_samples(problems, arm)
    table = view(arm, problems, tmp_path / "view.parquet").to_pandas()
    drawn = table[table["sample"] >= 0]
    assert 0.35 < drawn["variant"].mean() < 0.65
    assert (table.loc[table["sample"] == GREEDY, "variant"] == 0).all()
    lengths = drawn.groupby(["problem_key", "variant"])["prompt_tokens"].agg(["min", "max"]).unstack()
    assert (lengths["min"] == lengths["max"]).all().all()
    assert (lengths["min"][1] > 1.5 * lengths["min"][0]).all()
    # The cold variant is nearly greedy, the hot one is not.
    greedy = table[table["sample"] == GREEDY].set_index("problem_key")["ids"]
    same = [np.array_equal(ids, greedy[key]) for key, ids in zip(drawn["problem_key"], drawn["ids"], strict=True)]
    shares = drawn.assign(same=same).groupby("variant")["same"].mean()
    assert shares[0] > shares[1] + 0.2
    graded = grade_chains(pq.read_table(tmp_path / "view.parquet"), problems, [40], checkpoint(card) / "tokenizer.json")
    gold = dict(zip(problems["problem_id"], problems["gold"], strict=True))
    assert matrices(graded, gold, Flops.of(card)).pool.size == 24
    with pytest.raises(InputError, match="each sample index has the same variant in all problems, so the samples are not exchangeable"):
        matrices(graded.assign(variant=graded["sample"] % 2), gold, Flops.of(card))


FORCED = {"forcing": "force_answer", "answer_prompt": " ####", "answer_tokens": 6}


@pytest.fixture(scope="module")
def forced(tmp_path_factory, chosen, shipped):
    folder, card = tmp_path_factory.mktemp("forced"), shipped("ladder-160k")
    arm = arm_of(card, folder, T=[8, 16, 64], budgets=FORCED, compute_dtype="float64")
    account = draw_samples(chosen, arm)
    return arm, account, view(arm, chosen, folder / "view.parquet")


def test_forced_answers_continue_the_very_ids(forced, chosen):
    """Each answer is what a plain loop gives behind prompt, ids[:T] and the cue's ids; chains that ended before T are left alone."""
    import torch

    from flopstat.choice import choose
    from flopstat.randomness import uniforms

    arm, account, table = forced
    rows = table.to_pandas()
    chains = rows[rows["budget"] == 0].set_index(["problem_key", "sample"])
    answers = rows[rows["budget"] > 0]
    expected = {
        (k, s, t)
        for (k, s), c in chains.iterrows()
        for t in (8, 16, 64)
        if c["n_tokens"] > t or (c["n_tokens"] == t and c["finish_reason"] == "length")
    }
    assert set(zip(answers["problem_key"], answers["sample"], answers["budget"], strict=True)) == expected
    assert account["answers_asked"] == len(expected) == account["answers_stored"] + len(answers)
    assert answers["n_tokens"].max() <= 6
    assert (answers["budget"] == 8).sum() > (answers["budget"] == 16).sum() > 0
    cue = arm.tokenizer(" ####", add_special_tokens=False)["input_ids"]
    model = arm.engine.model
    for row in answers.iloc[::9].itertuples():
        chain = chains.loc[(row.problem_key, row.sample)]
        messages = json.loads(chosen.set_index("problem_key").loc[row.problem_key, "messages"])
        text = arm.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = [*arm.tokenizer(text, add_special_tokens=False)["input_ids"], *chain["ids"][: row.budget].tolist(), *cue]
        assert row.prompt_tokens == len(ids)
        u = uniforms(5, row.problem_key, max(row.sample, 0), 6, row.budget)
        for t, token in enumerate(row.ids):
            logits = model(torch.tensor([ids])).logits[:, -1].detach()
            one = torch.ones(1, dtype=torch.float64)
            step = choose(logits, torch.tensor([u[t]]), one, torch.tensor([row.sample == GREEDY]), 1.0, 0, 0.0)
            assert int(step.tokens) == token
            ids.append(token)


def test_forced_answers_are_graded_and_charged(forced, chosen):
    arm, _, table = forced
    tokenizer = checkpoint(arm.card) / "tokenizer.json"
    graded = grade_chains(table, chosen, [8, 16, 64], tokenizer, " ####").set_index(["problem_id", "sample", "T"])
    cut = grade_chains(table, chosen, [8, 16, 64], tokenizer).set_index(["problem_id", "sample", "T"])
    was_forced = graded["answer_tokens"] > 0
    assert was_forced.sum() == (table["budget"].to_numpy() > 0).sum()
    assert graded[~was_forced].equals(cut[~was_forced])
    assert (graded.loc[was_forced, "state"] == "answered").mean() > 0.8
    assert (cut.loc[was_forced, "state"] == "truncated").mean() > 0.8
    of = chosen.set_index("problem_key")["problem_id"]
    for row in table.filter(pa.compute.greater(table["budget"], 0)).to_pylist()[::7]:
        grade = graded.loc[(of[row["problem_key"]], row["sample"], row["budget"])]
        text = " ####" + arm.tokenizer.decode(row["ids"], skip_special_tokens=True)
        assert (grade["state"], grade["answer"]) == read_answer(text, row["finish_reason"] == "eos")
        assert grade["answer_tokens"] == 1 + row["n_tokens"]  # the cue is one token of the ladder's
        assert grade["spent_tokens"] == row["prompt_tokens"] + row["n_tokens"]
    gold = dict(zip(chosen["problem_id"], chosen["gold"], strict=True))
    charged = matrices(graded.xs(8, level="T", drop_level=False).reset_index(), gold, Flops.of(arm.card))
    bare = matrices(cut.xs(8, level="T", drop_level=False).reset_index(), gold, Flops.of(arm.card))
    assert (charged.tokens > bare.tokens).all()
    assert (charged.tokens <= bare.tokens + 7).all()
    assert (charged.decode_flops > bare.decode_flops).all()
    assert (charged.spent_tokens > charged.tokens + 10).all()
    assert np.array_equal(bare.spent_tokens, bare.tokens)


def test_answers_are_stored_and_belong_to_their_ids(forced, chosen, shipped):
    arm, _, _ = forced
    again = arm_of(shipped("ladder-160k"), arm.pool.folder.parent, T=[8, 16, 64], budgets=FORCED, compute_dtype="float64")
    account = draw_samples(chosen, again)
    assert (account["chains_drawn"], account["answers_stored"]) == (0, account["answers_asked"])
    assert again.engine is None  # no weights were read
    more = arm_of(shipped("ladder-160k"), arm.pool.folder.parent, T=[8, 12, 16, 64], budgets=FORCED, compute_dtype="float64")
    account = draw_samples(chosen, more)
    assert account["chains_drawn"] == 0
    assert 0 < account["answers_asked"] - account["answers_stored"] < account["answers_asked"]
    a = np.array([1, 2, 3], dtype=np.int32)
    assert answer_key("p", a) == answer_key("p", a.copy()) != answer_key("p", a[:2])


def test_an_extension_makes_chains_go_on(tmp_path, chosen, shipped):
    card = shipped("ladder-160k")
    plain = arm_of(card, tmp_path, T=[64])
    extended = arm_of(card, tmp_path, T=[64], budgets={"forcing": "extend", "extend_text": "so", "extend_times": 2, "extend_minimum": 30})
    for arm in (plain, extended):
        draw_samples(chosen, arm)
    a, b = (view(arm, chosen, tmp_path / "view.parquet").to_pandas() for arm in (plain, extended))
    early = (a["finish_reason"] == "eos") & (a["n_tokens"] <= 30)
    assert 0 < early.sum() < len(a)
    assert (b.loc[early, "n_tokens"] > a.loc[early, "n_tokens"]).all()
    assert (b.loc[early, "inserted"] > 0).all()
    assert (b.loc[~early, "inserted"] == 0).all()
    assert b.loc[~early, "ids"].map(list).equals(a.loc[~early, "ids"].map(list))
    with pytest.raises(InputError, match="extend_text"):
        draw_samples(chosen.iloc[:1], arm_of(card, tmp_path, budgets={"forcing": "extend", "extend_text": card.name and "<|end|>"}))


def broken(table, row, **changes):
    rows = table.to_pylist()
    rows[row] |= changes
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def test_budgets_are_verified_from_the_ids(forced):
    arm, _, table = forced
    ends = arm.ends
    verify_budgets(table, arm.plan, ends, 0)
    rows = table.to_pylist()
    done = next(i for i, r in enumerate(rows) if r["budget"] == 0 and r["finish_reason"] == "eos")
    answer = next(i for i, r in enumerate(rows) if r["budget"] == 16)
    ids = rows[done]["ids"]
    cases = {
        "ids and counts": broken(table, done, ids=ids[:-1]),
        "goes on behind an end token": broken(table, done, ids=[ids[-1], *ids[1:]]),
        "or ends without one": broken(table, done, finish_reason="length"),
        "is cut at 3 tokens, budget 64": broken(table, done, ids=ids[:3], n_tokens=3, finish_reason="length"),
        "answers in 7 tokens, budget 6": broken(table, answer, ids=[*ids[:6], ends[0]], n_tokens=7, finish_reason="eos"),
        "is cut at 8 tokens, budget 6": broken(table, answer, ids=ids[:8], n_tokens=8, finish_reason="length"),
        "though it had ended": broken(
            table,
            next(
                i
                for i, r in enumerate(rows)
                if r["budget"] == 0 and r["sample"] == rows[answer]["sample"] and r["problem_key"] == rows[answer]["problem_key"]
            ),
            ids=[*ids[:3], ends[0]],
            n_tokens=4,
            finish_reason="eos",
        ),
    }
    for message, table_broken in cases.items():
        with pytest.raises(BudgetViolation, match=message):
            verify_budgets(table_broken, arm.plan, ends, 0)
    _, stretched = plan(T=[64], budgets={"forcing": "extend", "extend_minimum": 64})
    chains = table.filter(pa.compute.equal(table["budget"], 0))
    with pytest.raises(BudgetViolation, match=r"ends after .* tokens with 0 inserted"):
        verify_budgets(chains, stretched, ends, 1)


def test_calibration_offloads_as_sampling_does_and_shares_the_rounded_copy(tmp_path, chosen, shipped):
    card, offload = shipped("ladder-30k"), {"offload": "disk", "device_memory": "1MiB"}
    settings = {"prompt_tokens": 16, "decode_tokens": 4, "prefill_tokens": [4, 8], "batches": [1], "contexts": [8], "repeats": 5}
    stored = calibration.calibrate(card, "rtn3", "float32", "cpu", settings, tmp_path / "calibrations", "code", **offload)
    assert json.loads(stored.read_text(encoding="utf-8"))["identity"]["offload"] == "disk"
    copies = list((tmp_path / "checkpoints").iterdir())
    draw_samples(chosen.iloc[:1], arm_of(card, tmp_path / "pools", "rtn3", T=[4], **offload))
    assert list((tmp_path / "checkpoints").iterdir()) == copies
    assert len(copies) == 1
