"""What a token costs on this machine: FLOPs counted, seconds measured, and C, the FLOPs per token and parameter.

    c_counted   = counted FLOPs / (tokens · N)             of one eager forward pass of the reference-precision twin
    c_effective = peak FLOP/s · seconds per token / N      per phase and batch

`peak` is the highest measured rate of a square matrix product (what slows one down is never the device's peak) in the reference compute
dtype, one number per device for all arms: so c_effective says what a token of this arm costs in units of the work that the device could
have done, quantised kernels and overheads included.

A measurement is stored under the hash of its settings, the code and the device's fingerprint, and reused: a rerun measures nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from transformers import DynamicCache

from flopstat.costs import Flops, c_counted
from flopstat.models import ModelCard, pick_device
from flopstat.precisions import effective_bits, load

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PEAK_SIZE = 1024


def fingerprint(device: str) -> dict[str, Any]:
    """What a timing depends on besides the code: processor or GPU, threads, memory, library versions."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "processor": processor,
        "logical_cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory if device == "cuda" else psutil.virtual_memory().total,
        "torch": torch.__version__,
    }


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def _time(action: Callable[[], object], repeats: int, device: str) -> list[float]:
    """Seconds of each of `repeats` runs after one warm-up, in rising order."""
    action()
    out = []
    for _ in range(repeats):
        _synchronize(device)
        begun = time.perf_counter()
        action()
        _synchronize(device)
        out.append(time.perf_counter() - begun)
    return sorted(out)


def measure_peak(device: str, dtype: torch.dtype, repeats: int) -> list[float]:
    """Rates of a 1024³ matrix product in FLOP/s, rising."""
    a = torch.randn(PEAK_SIZE, PEAK_SIZE, device=device, dtype=dtype)
    seconds = _time(lambda: a @ a, max(repeats, 20), device)
    return sorted(2.0 * PEAK_SIZE**3 / s for s in seconds)


@torch.inference_mode()
def measure_decode(model: PreTrainedModel, batch: int, context: int, steps: int, repeats: int, device: str) -> list[float]:
    """Seconds per decoding step of `batch` rows behind `context` shared tokens, one value per run, rising."""
    prompt = torch.ones((1, context), dtype=torch.long, device=device)
    token = torch.ones((batch, 1), dtype=torch.long, device=device)
    cache = DynamicCache(config=model.config)
    model(input_ids=prompt, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(batch)

    def run() -> float:
        _synchronize(device)
        begun = time.perf_counter()
        for _ in range(steps):
            model(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1)
        _synchronize(device)
        seconds = (time.perf_counter() - begun) / steps
        cache.crop(-steps)
        return seconds

    run()
    return sorted(run() for _ in range(repeats))


@torch.inference_mode()
def measure_prefill(model: PreTrainedModel, tokens: int, repeats: int, device: str) -> list[float]:
    """Seconds per prompt token of one prefill at batch 1, rising."""
    prompt = torch.ones((1, tokens), dtype=torch.long, device=device)
    seconds = _time(lambda: model(input_ids=prompt, use_cache=True, logits_to_keep=1), repeats, device)
    return [s / tokens for s in seconds]


def count_flops(card: ModelCard, tokens: int) -> int:
    """FLOPs of one eager forward pass as torch's counter sees them, on the meta device: no weights, no time."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    from flopstat.models import checkpoint

    config = AutoConfig.from_pretrained(checkpoint(card), trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", trust_remote_code=False)
        ids = torch.ones((1, tokens), dtype=torch.long)
        square = torch.ones((1, 1, tokens, tokens), dtype=torch.bool)  # given as it is, so that no mask is computed from values
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(input_ids=ids, attention_mask=square, use_cache=False)
    return int(counter.get_total_flops())


def _row(phase: str, batch: int, context: int, metric: str, values: list[float], unit: str) -> dict[str, Any]:
    return {
        "phase": phase,
        "batch": batch,
        "context": context,
        "metric": metric,
        "value": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "unit": unit,
    }


def _through(peak: float, seconds: list[float], n_params: int) -> list[float]:
    return [peak * s / n_params for s in seconds]


def calibrate(
    card: ModelCard,
    precision: str,
    compute_dtype: str,
    device_wanted: str,
    settings: dict[str, Any],
    store: Path,
    code: str,
    offload: str = "none",
    device_memory: str | None = None,
) -> Path:
    """Measure one arm, or reuse the stored measurement; returns the stored file.

    Parameters
    ----------
    settings : mapping
        The `calibration` part of the config.
    store : Path
        Folder that measurements are kept in across studies and reruns.
    code : str
        Hash of the code that measures.
    offload, device_memory : str
        Where weights lie that the device does not hold, as the study samples with them.
    """
    device = pick_device(device_wanted)
    where = fingerprint(device)
    tokens = min(settings["prompt_tokens"], card.context - settings["decode_tokens"] - 1)
    identity: dict[str, Any] = {
        "weights": card.weights_sha256,
        "precision": precision,
        "compute_dtype": compute_dtype,
        "settings": settings,
        "fingerprint": where,
        "code": code,
    }
    if offload != "none":
        identity |= {"offload": offload, "device_memory": device_memory}
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]
    path = store / f"{name}.json"
    if path.exists():
        return path
    repeats = settings["repeats"]
    rates = _peak(device, compute_dtype, repeats, store, where)
    peak = max(rates)
    rounded = store.parent / "checkpoints"  # the copy that sampling reads, too
    model = load(card, precision, compute_dtype, device, offload=offload, device_memory=device_memory, offload_folder=rounded)
    rows = [_row("device", 0, 0, "peak", rates, "FLOP/s") | {"value": peak}]
    counted = count_flops(card, tokens)
    rows.append(_row("prefill", 1, tokens, "c_counted", [counted / (tokens * card.n_params)], "FLOP/(token·parameter)"))
    rows.append(_row("prefill", 1, tokens, "c_closed_form", [c_counted(card, tokens)], "FLOP/(token·parameter)"))
    seconds = measure_prefill(model, tokens, repeats, device)
    rows.append(_row("prefill", 1, tokens, "seconds_per_token", seconds, "s/token"))
    rows.append(_row("prefill", 1, tokens, "c_effective", _through(peak, seconds, card.n_params), "FLOP/(token·parameter)"))
    for batch in settings["batches"]:
        step = measure_decode(model, batch, tokens, settings["decode_tokens"], repeats, device)
        per_token = [s / batch for s in step]
        counted_decode = float(Flops.of(card).decode(tokens, 2)) / card.n_params
        rows.append(_row("decode", batch, tokens, "seconds_per_token", per_token, "s/token"))
        rows.append(_row("decode", batch, tokens, "c_effective", _through(peak, per_token, card.n_params), "FLOP/(token·parameter)"))
        rows.append(_row("decode", batch, tokens, "c_closed_form", [counted_decode], "FLOP/(token·parameter)"))
    result = {"identity": identity, "bits_effective": effective_bits(model, card, precision), "rows": rows}
    _replace(path, json.dumps(result, indent=1))
    return path


def _peak(device: str, compute_dtype: str, repeats: int, store: Path, where: dict[str, Any]) -> list[float]:
    """The device's peak, measured once per fingerprint and compute dtype."""
    name = hashlib.sha256(json.dumps([where, compute_dtype], sort_keys=True).encode()).hexdigest()[:20]
    path = store / f"peak-{name}.json"
    if not path.exists():
        _replace(path, json.dumps({"fingerprint": where, "rates": measure_peak(device, getattr(torch, compute_dtype), repeats)}))
    rates: list[float] = json.loads(path.read_text(encoding="utf-8"))["rates"]
    return rates


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
