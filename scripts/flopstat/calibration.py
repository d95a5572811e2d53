"""What a token costs on this machine: FLOPs counted, seconds measured, and C, the FLOPs per token and parameter.

    c_counted   = counted FLOPs / (tokens · N)             of one eager forward pass of the reference-precision twin
    c_effective = peak FLOP/s · seconds per token / N      per phase, batch and context

`peak` is the highest measured rate of a square matrix product (what slows one down is never the device's peak) in the reference compute
dtype, one number per device for all arms: so c_effective says what a token of this arm costs in units of the work that the device could
have done, quantised kernels and overheads included. `bandwidth` is the highest rate of a large copy; their ratio is the FLOP/byte at which
arithmetic and memory take equally long.

Decoding is timed as the study samples: the reference engine's own step, its slots and its draw, at every batch and context. Every point is
visited once per round and the rounds follow one another, so that a disturbance of a second meets one visit of several points and not
all visits of one: the median over rounds leaves it out. `latency` fits a model to these points.

A measurement is stored under the hash of its settings, the code and the device's fingerprint, and reused: a rerun measures nothing.
"""

from __future__ import annotations

import gc
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from flopstat import stored
from flopstat.costs import Flops, c_counted
from flopstat.devices import machine, processor, short_hash
from flopstat.energy import NOT_MEASURED, Meter, meter
from flopstat.engine import SamplingSettings
from flopstat.latency import CHAIN, SECONDS, Device, fit, to_json
from flopstat.models import ModelCard, pick_device
from flopstat.precisions import effective_bits, emulated, load
from flopstat.rehearsal import Rehearsal
from flopstat.transformers_engine import out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PEAK_SIZE = 1024
COPY_BYTES = 1 << 27  # of one array; two of them are beyond every cache
VISIT_SECONDS = 0.03  # a visit takes steps until then, at least two and at most decode_tokens
POWER_SECONDS = 1.0  # counters of energy move every tenth of a second
C_UNIT = "FLOP/(token·parameter)"


def fingerprint(device: str) -> dict[str, Any]:
    """What a timing depends on besides the code: processor or GPU, threads, memory, library versions."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "processor": processor(),
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


def measure_bandwidth(device: str, repeats: int) -> list[float]:
    """Rates of a copy of 128 MiB in byte/s, rising: every byte is read once and written once.

    # ASSUME the copy that measures bandwidth writes past the caches; where lines are read first, half as much again was moved
    """
    source = torch.ones(COPY_BYTES // 4, dtype=torch.float32, device=device)
    target = torch.zeros_like(source)
    seconds = _time(lambda: target.copy_(source), max(repeats, 10), device)
    return sorted(2.0 * COPY_BYTES / s for s in seconds)


@dataclass(frozen=True)
class Visit:
    """One point of the measurement: what to prepare, and what to time."""

    phase: str
    batch: int
    context: int
    kind: str  # "plain": a forward pass without the engine, for C; "engine": what a study runs


def visits(settings: Mapping[str, Any], longest: int) -> list[Visit]:
    """The points of a calibration; lengths beyond `longest` tokens, what the model's context holds, are cut to it.

    A prefill of n tokens is taken of one prompt and of as many as make up the largest prefill, as the engine takes several at once.
    """
    lengths = sorted({min(n, longest) for n in settings["prefill_tokens"]})
    out = [Visit("prefill", 1, min(settings["prompt_tokens"], longest), "plain")]
    out += [Visit("prefill", b, n, "engine") for n in lengths for b in sorted({1, max(1, lengths[-1] // n)})]
    contexts = sorted({min(c, longest) for c in settings["contexts"]})
    out += [Visit("decode", b, c, "engine") for b in sorted(settings["batches"]) for c in contexts]
    return [*out, Visit("chain", max(settings["batches"]), contexts[-1], "engine")]


@torch.inference_mode()
def _plain_prefill(model: PreTrainedModel, tokens: int, device: str) -> float:
    """Seconds of one prefill of one prompt, the engine left out."""
    prompt = torch.ones((1, tokens), dtype=torch.long, device=device)
    _synchronize(device)
    begun = time.perf_counter()
    model(input_ids=prompt, use_cache=True, logits_to_keep=1)
    _synchronize(device)
    return time.perf_counter() - begun


def _take(visit: Visit, engine: Rehearsal, most_steps: int, device: str) -> tuple[float, float]:
    """One visit: median seconds of a prefill or step (or per chain) after a warm-up, and those of a step's draw."""
    if visit.phase == "decode":
        engine.seat(visit.batch, visit.context)

    def once() -> tuple[float, float]:
        if visit.phase == "decode":
            return engine.step()
        if visit.phase == "chain":
            return engine.turnover(visit.batch, visit.context), 0.0
        if visit.kind == "plain":
            return _plain_prefill(engine.model, visit.context, device), 0.0
        return engine.prefill(visit.batch, visit.context), 0.0

    begun = time.perf_counter()
    once()
    taken = [once()]
    while len(taken) < most_steps and time.perf_counter() - begun < VISIT_SECONDS:
        taken.append(once())
    return statistics.median(t for t, _ in taken), statistics.median(d for _, d in taken)


def measure(engine: Rehearsal, points: list[Visit], rounds: int, most_steps: int, device: str) -> dict[Visit, list[tuple[float, float]]]:
    """Seconds of a step or prefill and of its draw at every point, one pair per round; points that memory is too small for are left out.

    The order of the points turns round from one round to the next, so that none always follows the same one.
    """
    found: dict[Visit, list[tuple[float, float]]] = {point: [] for point in points}
    for r in range(rounds):
        for point in points if r % 2 == 0 else points[::-1]:
            if point not in found:
                continue
            full = False
            try:
                found[point].append(_take(point, engine, most_steps, device))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or point.batch == 1:
                    raise
                full = True
            if full:  # outside the handler, whose traceback holds the tensors
                del found[point]
                gc.collect()
                print(f"flopstat: {point.phase} at batch {point.batch} and {point.context} tokens: no memory, left out", file=sys.stderr)
    return found


def measure_power(engine: Rehearsal, counter: Meter, batch: int, context: int) -> float:
    """Mean power in W while decoding at one point for a second."""
    engine.seat(batch, context)
    engine.step()
    before, begun = counter.read(), time.perf_counter()
    while time.perf_counter() - begun < POWER_SECONDS:
        engine.step()
    after, seconds = counter.read(), time.perf_counter() - begun
    return counter.joules(before, after) / seconds


def count_flops(card: ModelCard, tokens: int) -> int:
    """FLOPs of one eager forward pass as torch's counter sees them, on the meta device: no weights, no time.

    Of a model with experts the closed form: a token's way depends on values, which the meta device has not. Tests hold the two
    together on small models with real weights.
    """
    if card.n_experts:
        return int(Flops.of(card).forward(tokens))
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
        "rounds": values,
    }


def _through(peak: float, seconds: list[float], n_params: int) -> list[float]:
    return [peak * s / n_params for s in seconds]


def _arm_rows(card: ModelCard, peak: float, found: dict[Visit, list[tuple[float, float]]]) -> list[dict[str, Any]]:
    """The rows of all points: `seconds` is what the latency model is fitted to."""
    rows = []
    for visit, pairs in found.items():
        batch, context = visit.batch, visit.context
        seconds, draws = [s for s, _ in pairs], [d for _, d in pairs]
        if visit.kind == "plain":
            counted, per_token = count_flops(card, context) / (context * card.n_params), [s / context for s in seconds]
            rows.append(_row("prefill", 1, context, "c_counted", [counted], C_UNIT))
            rows.append(_row("prefill", 1, context, "c_closed_form", [c_counted(card, context)], C_UNIT))
            rows.append(_row("prefill", 1, context, "seconds_per_token", per_token, "s/token"))
            rows.append(_row("prefill", 1, context, "c_effective", _through(peak, per_token, card.n_params), C_UNIT))
            continue
        if visit.phase == "chain":
            rows.append(_row("chain", batch, context, CHAIN, seconds, "s/chain"))
            continue
        rows.append(_row(visit.phase, batch, context, SECONDS, seconds, "s"))
        if visit.phase == "decode":
            per_token = [s / batch for s in seconds]
            closed = float(Flops.of(card).decode(context - 1, 2)) / card.n_params  # one pass that sees `context` tokens
            rows.append(_row("decode", batch, context, "draw_seconds", draws, "s"))
            rows.append(_row("decode", batch, context, "seconds_per_token", per_token, "s/token"))
            rows.append(_row("decode", batch, context, "c_effective", _through(peak, per_token, card.n_params), C_UNIT))
            rows.append(_row("decode", batch, context, "c_closed_form", [closed], C_UNIT))
    return rows


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
    draw: Mapping[str, Any] | None = None,
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
    draw : mapping, optional
        temperature, top_p, top_k and min_p that the study samples with: sorting a vocabulary takes time. Nothing is truncated if left out.
    """
    device = pick_device(device_wanted)
    where = fingerprint(device)
    shape = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0} | dict(draw or {})
    identity: dict[str, Any] = {
        "weights": card.weights_sha256,
        "precision": precision,
        "compute_dtype": compute_dtype,
        "settings": settings,
        "draw": shape,
        "fingerprint": where,
        "code": code,
    }
    if offload != "none":
        identity |= {"offload": offload, "device_memory": device_memory}
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]
    path = store / f"{name}.json"
    if path.exists():
        return stored.check(path)
    rates, copies = _device_rates(device, compute_dtype, settings["repeats"], store, where)
    rounded = store.parent / "checkpoints"  # the copy that sampling reads, too
    model = load(card, precision, compute_dtype, device, offload=offload, device_memory=device_memory, offload_folder=rounded)
    points = visits(settings, card.context - 2)  # the slots hold one token more than a step sees
    engine = Rehearsal(model, SamplingSettings(seed=0, max_tokens=card.context, **shape), max(settings["batches"]), device)
    found = measure(engine, points, settings["repeats"], settings["decode_tokens"], device)
    counter = meter(device)
    largest = max((v for v in found if v.phase == "decode"), key=lambda v: (v.batch, -v.context))
    watts = measure_power(engine, counter, largest.batch, largest.context) if counter is not None else None
    peak, bandwidth = max(rates), max(copies)
    rows = [
        _row("device", 0, 0, "peak", rates, "FLOP/s") | {"value": peak},
        _row("device", 0, 0, "bandwidth", copies, "byte/s") | {"value": bandwidth},
        _row("device", 0, 0, "intensity", [peak / bandwidth], "FLOP/byte"),
    ]
    if watts is not None:
        rows.append(_row("decode", largest.batch, largest.context, "power", [watts], "W"))
    rows += _arm_rows(card, peak, found)
    called = where["device"] if device == "cuda" else f"{where['processor']}, {where['threads']} threads"
    here = Device(called, peak, bandwidth, short_hash(where), watts, machine(), float(where["memory_bytes"]))
    latency, predictions = fit(rows, here)
    result = {
        "identity": identity,
        "bits_effective": effective_bits(model, card, precision),
        "device": asdict(here),
        "latency": to_json(latency),
        "held_out": predictions,
        "energy": counter.name if counter is not None else NOT_MEASURED,
        "emulated": emulated(precision, compute_dtype),
        "rows": rows,
    }
    stored.write_text(path, json.dumps(result, indent=1))
    return path


def _device_rates(device: str, compute_dtype: str, repeats: int, store: Path, where: dict[str, Any]) -> tuple[list[float], list[float]]:
    """The device's products in FLOP/s and copies in byte/s, measured once per fingerprint and compute dtype."""
    name = hashlib.sha256(json.dumps([where, compute_dtype], sort_keys=True).encode()).hexdigest()[:20]
    path = store / f"device-{name}.json"
    if not path.exists():
        rates, copies = measure_peak(device, getattr(torch, compute_dtype), repeats), measure_bandwidth(device, repeats)
        stored.write_text(path, json.dumps({"fingerprint": where, "rates": rates, "copies": copies}))
    found = stored.read_json(path)
    return found["rates"], found["copies"]
