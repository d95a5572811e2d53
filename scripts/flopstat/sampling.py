"""The sampling stage: draw what a shard of an arm still lacks, store it, and write the shard's view."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq
from tqdm import tqdm

from flopstat import tables
from flopstat.engine import ENGINE, GREEDY, SAMPLER_VERSION, Request, SamplingSettings, TransformersEngine
from flopstat.errors import InputError
from flopstat.models import ModelCard, load, load_tokenizer, pick_device
from flopstat.pool import Pool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def library_versions() -> dict[str, str]:
    """Versions of the libraries that the tokens depend on."""
    import bitsandbytes
    import torch
    import transformers

    return {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__, "bitsandbytes": bitsandbytes.__version__}


def pool_key(card: ModelCard, precision: str, settings: SamplingSettings, compute_dtype: str) -> dict[str, Any]:
    """All that changes the tokens of a chain, but for the problem and the sample that name its row.

    `max_tokens` is left out: a chain cut at T is the chain that a budget of T would have given.
    """
    shape = asdict(settings)
    del shape["max_tokens"]
    versions = library_versions()
    if precision not in ("int8", "nf4"):
        del versions["bitsandbytes"]
    return {
        "weights": card.weights_sha256,
        "tokenizer": card.tokenizer_sha256,
        "precision": precision,
        "compute_dtype": compute_dtype,
        "sampling": shape,
        "engine": ENGINE,
        "sampler_version": SAMPLER_VERSION,
        "libraries": versions,
    }


def prompt_ids(tokenizer: PreTrainedTokenizerFast, messages: str) -> tuple[int, ...]:
    """Token ids of rendered messages with the generation prompt."""
    text = tokenizer.apply_chat_template(json.loads(messages), tokenize=False, add_generation_prompt=True)
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def eos_ids(tokenizer: PreTrainedTokenizerFast, generation: Any) -> list[int]:
    """Every token that ends a chain."""
    named = generation.eos_token_id if generation is not None else None
    ids = named if isinstance(named, list) else [named] if named is not None else []
    return [*ids, tokenizer.eos_token_id]


def draw_samples(
    problems: pd.DataFrame,
    card: ModelCard,
    precision: str,
    sampling: dict[str, Any],
    max_tokens: int,
    seed: int,
    store: Path,
) -> tuple[Pool, dict[str, Any]]:
    """Draw every chain that the pool lacks for these problems.

    Returns
    -------
    pool, summary
        The summary says how many chains were asked for, stored and drawn now, and at what speed.

    Raises
    ------
    InputError
        If a prompt and the largest T do not fit the model's context.
    """
    settings = SamplingSettings(seed, sampling["temperature"], sampling["top_p"], sampling["top_k"], max_tokens)
    device = pick_device(sampling["device"])
    pool = Pool(store, pool_key(card, precision, settings, sampling["compute_dtype"]))
    keys = problems["problem_key"].tolist()
    samples = [*range(sampling["samples"]), GREEDY]
    with pool.lock():
        torn = pool.sweep()
        missing = pool.missing(keys, samples, max_tokens)
        summary: dict[str, Any] = {
            "pool": pool.folder.name,
            "chains_asked": len(keys) * len(samples),
            "chains_stored": len(keys) * len(samples) - len(missing),
            "chains_drawn": 0,
            "torn_segments": torn,
            "device": device,
        }
        if missing:
            tokenizer = load_tokenizer(card)
            messages = dict(zip(problems["problem_key"], problems["messages"], strict=True))
            prompts = {k: prompt_ids(tokenizer, messages[k]) for k in {k for k, _ in missing}}
            longest = max(prompts, key=lambda k: len(prompts[k]))
            if len(prompts[longest]) + max_tokens > card.context:
                raise InputError(
                    f"{card.name}: prompt of {len(prompts[longest])} tokens and T = {max_tokens} exceed its context of "
                    f"{card.context}; lower budgets.T"
                )
            model = load(card, precision, sampling["compute_dtype"], device)
            engine = TransformersEngine(model, settings, eos_ids(tokenizer, model.generation_config), sampling["batch_rows"])
            with tqdm(total=len(missing), unit="chain", desc=f"{card.name}@{precision}", disable=None) as bar:
                for chains in engine.draw([Request(k, prompts[k], i) for k, i in missing]):
                    pool.append(chains)
                    bar.update(len(chains))
                    bar.set_postfix_str(f"{engine.account.new_tokens / engine.account.seconds:,.0f} tokens/s")
            account = asdict(engine.account)
            summary |= {"chains_drawn": account.pop("chains")} | account
            summary["tokens_per_s"] = round(account["new_tokens"] / account["seconds"], 1)
            summary["prefill_share"] = round(account["prefill_seconds"] / account["seconds"], 4)
    return pool, summary


def write_view(pool: Pool, problems: pd.DataFrame, samples: int, max_tokens: int, path: Path) -> None:
    """Write one shard's chains, samples -1..K-1 of its problems, as a parquet file."""
    table = pool.rows(problems["problem_key"], max_tokens)
    frame = table.select([c for c in table.column_names if c in tables.TABLES["samples"]]).to_pandas()
    wanted = frame["sample"] < samples
    tables.validate(frame[wanted], "samples")
    if int(wanted.sum()) != len(problems) * (samples + 1):
        raise AssertionError(f"{path}: {int(wanted.sum())} chains for {len(problems)} problems × {samples + 1}")
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(table.filter(wanted.to_numpy()), temporary, compression="zstd")
    os.replace(temporary, path)


def shard_of(problems: pd.DataFrame, shard: int, size: int) -> pd.DataFrame:
    """The problems of one shard."""
    return problems.iloc[shard * size : (shard + 1) * size]
