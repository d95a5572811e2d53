"""Training: a run that was interrupted ends bit for bit like an undisturbed one, and it learns."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from flopstat.errors import InputError
from flopstat.ladder import training
from flopstat.ladder.generator import generate
from flopstat.ladder.sizes import Size
from flopstat.ladder.tokenizer import VOCABULARY, build_tokenizer
from flopstat.problems import judge

# The log's step 100 falls on the first decay branch and, later, on the trunk.
TINY = Size("tiny", 16, 1, 2, 1, 32, (24_000, 40_000), batch_problems=4, warmup_steps=10, decay_fraction=0.5)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = training.Run(TINY, tmp_path_factory.mktemp("run"))
    rows = list(run.steps())
    return run, rows


def weights_of(run):
    return [load_file(run.path / f"branch-{i}" / "model.safetensors") for i in range(len(TINY.branches))]


def without_time(log):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in log]


@pytest.mark.parametrize(("rows_before_kill", "checkpoints_s"), [(1, 0.0), (3, 0.0), (3, 120.0)])
def test_resumed_run_is_bit_identical(tmp_path, monkeypatch, undisturbed, rows_before_kill, checkpoints_s):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", checkpoints_s)
    first = training.Run(TINY, tmp_path)
    for _, _row in zip(range(rows_before_kill), first.steps(), strict=False):
        pass
    resumed = training.Run(TINY, tmp_path)
    assert resumed.progress.step > 0
    list(resumed.steps())
    whole, _ = undisturbed
    for mine, other in zip(weights_of(resumed), weights_of(whole), strict=True):
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[k], other[k]) for k in mine)
    assert without_time(resumed.progress.log) == without_time(whole.progress.log)
    assert list(training.Run(TINY, tmp_path).steps()) == []  # finished runs do no more


def test_branches_are_recorded_and_held_out_loss_falls(undisturbed):
    run, rows = undisturbed
    assert without_time(rows) == without_time(run.progress.log)
    log = pd.DataFrame(rows)
    branches = log[log["kind"] == "branch"]
    assert len(branches) == 2
    assert (branches["branch_tokens"].to_numpy() >= TINY.branches).all()
    assert (branches["tokens"] >= 1.5 * branches["branch_tokens"]).all()
    start = training.heldout_loss(training.build_model(TINY), TINY.seed, 256)
    assert start == pytest.approx(math.log(len(VOCABULARY)), abs=0.2)
    first, last = branches["loss"]
    assert last < first < start - 0.5


def test_ship_writes_a_model_that_loads_and_refuses_an_unfinished_branch(tmp_path, undisturbed):
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    run, _ = undisturbed
    training.ship(run, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    stored = weights_of(run)[-1]
    assert all(torch.equal(p, stored[n]) for n, p in model.named_parameters())
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == build_tokenizer().chat_template
    assert len(pd.read_csv(tmp_path / "out" / "training_log.csv")) == len(run.progress.log)
    with pytest.raises(InputError, match="not finished"):
        training.ship(training.Run(TINY, tmp_path / "new"), tmp_path / "never")
    with pytest.raises(InputError, match="another recipe"):
        training.Run(replace(TINY, seed=1), tmp_path / "new")
    training.Run(replace(TINY, shipped=0), tmp_path / "new")  # which branch is shipped is no part of the recipe


def test_targets_are_the_solution_and_its_end_only():
    problems = list(itertools.islice(generate(np.random.default_rng(0), "training"), 4))
    batch = training.collate(problems)
    tokenizer = build_tokenizer()
    for r, problem in enumerate(problems):
        wanted = batch.targets[r][batch.targets[r] != -100].tolist()
        assert tokenizer.decode(wanted) == problem.solution + "<|end|>"
        at = int((batch.targets[r] != -100).nonzero()[0])
        assert batch.ids[r, at] == VOCABULARY.index("<|assistant|>")
        assert judge(problem.answer)[0] is None
    assert batch.n_targets == int((batch.targets != -100).sum())
