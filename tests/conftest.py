"""Fixtures that several test files share: tiny models on disk, cards of the shipped ladder, one synthetic graded study."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import dataclasses
import json
import re
import subprocess
from pathlib import Path

import hypothesis
import numpy as np
import pandas as pd
import pytest

from flopstat import cells, config, frontier, latency, laws, models, problems, standins
from flopstat.columns import TABLES
from flopstat.strategies import SCORES

ROOT = Path(__file__).resolve().parents[1]
LADDER = ("ladder-30k", "ladder-160k")

hypothesis.settings.register_profile("flopstat", deadline=None, derandomize=True, max_examples=60, database=None)
hypothesis.settings.load_profile("flopstat")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, so that no process waits for the last of them."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shipped(tmp_path_factory):
    """Card of a shipped ladder model by name."""
    store = tmp_path_factory.mktemp("store")
    return lambda name: models.describe({"name": name, "source": "ladder"}, store)


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory):
    """Save a random decoder with the ladder's tokenizer; returns its folder."""
    import torch
    import transformers

    from flopstat.ladder.tokenizer import VOCABULARY, build_tokenizer

    def save(kind: str = "Qwen2", **shape) -> Path:
        default = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        shape = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 256, "tie_word_embeddings": True} | default | shape
        folder = tmp_path_factory.mktemp("model")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            ends = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
            model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**shape, **ends))
        model.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def qwen_like(tmp_path_factory):
    """Card of a random checkpoint of Qwen2.5's make: vocabulary size, grouped queries, biases, tied head, chat template, end tokens."""
    import tokenizers
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("qwen_like")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    ends = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, special_tokens=ends, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator([standins.CHAT_TEMPLATE, "Natalia sold 48 clips in April and half as many in May. #### 72"], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = standins.CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        decoder = transformers.Qwen2Config(vocab_size=151_936, tie_word_embeddings=True, max_position_embeddings=4096, **shape, **ids)
        model = transformers.Qwen2ForCausalLM(decoder)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zeros otherwise, which hide a bias that gets lost
                torch.nn.init.normal_(parameter, std=0.1)
    model.generation_config.eos_token_id = [2, 0]
    model.save_pretrained(folder)
    return models.describe({"name": "qwen-like", "source": "local", "path": str(folder)}, folder)


@pytest.fixture(scope="session")
def random_model(saved_model):
    """A small random Qwen2 in float64 whose distribution is far from flat, so that draws and argmax mean something."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(saved_model(), dtype=torch.float64).eval()
    for parameter in model.parameters():
        parameter.data *= 8 if parameter.ndim == 2 else 1
    return model


@pytest.fixture(scope="session")
def study_config():
    """A resolved two-model study of a size that tests can afford."""
    return config.resolve(
        {
            "study": "synthetic",
            "title": "100% of $5 & more_",
            "dataset": {"source": "ladder", "n_study": 12, "n_calibration": 12},
            "models": [{"name": n, "source": "ladder", "precisions": ["fp32", "rtn3"]} for n in LADDER],
            "sampling": {"samples": 8},
            "budgets": {"T": [16, 64], "T_recipe": [64], "P": [1, 2, 4], "B": [1, 2, 4]},
            "statistics": {"replicates": 200},
        }
    )


@pytest.fixture(scope="session")
def latency_model():
    """The latency model that the synthetic study's arms have."""
    return latency.Latency(
        latency.Device("a_cpu #1", peak_flops=1e11, bandwidth=1e10, fingerprint="abc"),
        latency.Prefill(overhead=1e-4, prompt=0.0, token=1e-6, square=1e-9),
        latency.Decode(overhead=1e-4, row=1e-5, turn=0.0, attention=1e-8),
        held_out_error=0.05,
        max_batch=16,
        form="line",
    )


@pytest.fixture(scope="session")
def study(study_of):
    """Every table of a study from simulated grades, by the library's own functions: a mapping with tables, cards and measurements."""
    return study_of(lambda grades, _: grades)


@pytest.fixture(scope="session")
def study_of(study_config, shipped, latency_model):
    """Make a study as `study` does: `study_of(change)`, where change(grades by arm, problems) gives the grades that it stands on."""
    selection = problems.select_problems(study_config["dataset"], [study_config["prompt"]], study_config["seed"])
    rng = np.random.default_rng(0)
    skill = {"ladder-30k@fp32": 0.35, "ladder-30k@rtn3": 0.25, "ladder-160k@fp32": 0.75, "ladder-160k@rtn3": 0.6}
    grades = {arm: _grades(selection.problems, level, study_config, rng) for arm, level in skill.items()}
    cards = {name: shipped(name) for name in LADDER}
    return lambda change: _study(change(grades, selection.problems), selection, cards, study_config, latency_model)


def _study(grades, selection, cards, study_config, latency_model):
    parts, long, left_out, calibration = [], [], [], []
    shrunk = study_config | {"samples": study_config["sampling"]["samples"]}
    for arm, graded in grades.items():
        card, precision = cards[arm.split("@")[0]], arm.split("@")[1]
        facts = cells.ArmFacts(card, precision, 16.0, 2.1, (3.0, 2.5, 3.5), latency_model, usd_per_hour=0.36)
        configurations, per_problem = cells.estimate_arm(graded, selection.problems, facts, shrunk)
        parts.append(configurations)
        long.append(per_problem)
        left_out += cells.skipped(facts, shrunk)
        for metric, value in {"c_counted": 2.1, "c_effective": 3.0}.items():
            where = {"arm": arm, "phase": "prefill", "batch": 1, "context": 64, "unit": "FLOP/(token·parameter)"}
            told = {"metric": metric, "value": value, "low": value, "high": value, "verdict": None, "fingerprint": "abc"}
            calibration.append(where | told)
    references = dict.fromkeys(LADDER, "fp32")
    tables = {
        "problems": selection.problems,
        "refusals": selection.refusals,
        "configurations": pd.concat(parts, ignore_index=True),
        "configurations_skipped": pd.DataFrame(left_out),
        "calibration": pd.DataFrame(calibration),
        "cells": pd.concat(long, ignore_index=True),
        "laws": pd.DataFrame(laws.fit_study_laws(grades, cards, references, selection.problems, study_config)),
    }
    judged = frontier.judge(tables["configurations"], tables["cells"], shrunk)
    costs = frontier.known_costs(judged)
    tables["frontier"] = pd.concat([frontier.frontier(judged, cost) for cost in costs], ignore_index=True)
    tables["crossovers"] = pd.concat([frontier.crossovers(judged, cost) for cost in costs], ignore_index=True)
    measured = [{"identity": {"fingerprint": {"processor": "a_cpu #1", "threads": 1}}}]
    return {"tables": tables, "cards": list(cards.values()), "grades": grades, "measured": measured, "judged": judged}


@pytest.fixture(scope="session")
def write_paper():
    """Write a study's tables, cards and measurements below a folder, and its paper's macros; returns ledger and texts, and the files."""
    from flopstat import paper, tables

    empty = (
        "cost_per_correct",
        "exponents",
        "latency_by_streams",
        "law_sensitivity",
        "local_kappa",
        "plan_actual",
        "surface_gradients",
        "variance_ratio",
    )
    quoted = ("calibration", "configurations", "crossovers", "frontier", "laws", "refusals", "weight_bits", *empty)

    def write(folder: Path, wanted: dict, made: dict, cards: list, measured: dict, figures: tuple[str, ...] = ()):
        arms = [arm for arm in dict.fromkeys(made["configurations"]["arm"]) if arm in set(made["calibration"]["arm"])]
        tables.write(made["problems"], "problems", folder / "problems.parquet")
        for name in quoted:
            tables.write(made.get(name, pd.DataFrame(columns=list(TABLES[name]))), name, folder / f"{name}.csv")
        for kind, files in {
            "models": {c.name: c.to_json() for c in cards},
            "calibration": dict.fromkeys(arms, json.dumps(measured)),
        }.items():
            (folder / kind).mkdir(exist_ok=True)
            for name, text in files.items():
                (folder / kind / f"{name}.json").write_text(text, encoding="utf-8")
        files = ["problems.parquet", *(f"{name}.csv" for name in quoted)]
        files += [f"models/{c.name}.json" for c in cards] + [f"calibration/{arm}.json" for arm in arms]
        paper.write(folder, files, wanted, list(figures))
        return paper.document(paper.Sources(folder, [*files, paper.SETTINGS, paper.ASSUMPTIONS]), wanted), files

    return write


@pytest.fixture(scope="session")
def as_printed():
    """Text of the paper with its numbers in place."""
    return lambda text, ledger: re.sub(r"\\FS\{([^{}]*)\}", lambda found: ledger.numbers[found[1]].text, text)


def _grades(chosen: pd.DataFrame, level: float, wanted: dict, rng: np.random.Generator) -> pd.DataFrame:
    """Simulated grades: harder problems are answered worse, a shorter T truncates some."""
    rows = []
    for problem in chosen.itertuples():
        p = np.clip(level + 0.1 * (3 - problem.difficulty), 0.02, 0.98)
        for sample in range(-1, wanted["sampling"]["samples"]):
            u, length = rng.random(), int(rng.integers(8, 64))
            for t in wanted["budgets"]["T"]:
                done = length <= t
                answer = (problem.gold if u < p else str(int(u * 7) + 200)) if done else None
                rows.append(
                    {
                        "problem_id": problem.problem_id,
                        "split": problem.split,
                        "difficulty": problem.difficulty,
                        "sample": sample,
                        "variant": 0,
                        "T": t,
                        "answer": answer,
                        "state": "answered" if done else "truncated",
                        "correct": answer == problem.gold,
                        "finish_reason": "eos" if done else "length",
                        "n_tokens": min(length, t),
                        "answer_tokens": 0,
                        "spent_tokens": 0,
                        "prompt_tokens": 40 + problem.difficulty,
                    }
                    | {score: sign * -float(rng.random()) for score, sign in SCORES.items()}
                )
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def chain():
    """Make a chain by hand: `chain(problem, sample, ids, finish)`."""
    from flopstat.engine import Chain

    def make(problem: str, sample: int, ids, finish: str = "eos", prompt_tokens: int = 3):
        ids = np.asarray(ids, dtype=np.int32)
        arrays = {
            n: np.linspace(-1, 1, len(ids), dtype=np.float32) + i
            for i, n in enumerate(("logprob", "entropy", "self_certainty", "confidence"))
        }
        made = Chain(problem, sample, prompt_tokens, finish, ids, **arrays, near_ties=0)
        assert {f.name for f in dataclasses.fields(made)} >= set(arrays)
        return made

    return make


@pytest.fixture
def small_disk(tmp_path):
    """Make a disk of a given size of its own: `small_disk("2m")` gives its folder and a way to remount it."""
    place = tmp_path / "disk"

    def mount(options: str):
        line = ["mount", "-t", "tmpfs", "-o", options, "flopstat", str(place)]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    def make(size: str):
        place.mkdir()
        done = mount(f"size={size}")
        if done.returncode:
            pytest.skip(f"mounting a small disk needs root: {done.stderr.strip()}")
        return place, mount

    yield make
    if place.is_mount():
        subprocess.run(["umount", "--lazy", str(place)], check=True)
