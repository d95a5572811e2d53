"""What a plan stands on: the config, and what a study's results hold already of problems, pilots and calibrations. No torch here."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flopstat import config as study_config
from flopstat import devices, hardware, tables
from flopstat.costs import DTYPE_BITS, Flops, kv_bytes_per_token, weight_bytes
from flopstat.engine import GREEDY
from flopstat.errors import InputError
from flopstat.forcing import Plan
from flopstat.latency import Device, Latency
from flopstat.models import LADDER, ModelCard
from flopstat.pilot import Pilot
from flopstat.planning import Known, Study, stored_bits
from flopstat.pool import Pool, pool_name
from flopstat.prices import Prices
from flopstat.rates import Rate
from flopstat.sampling import plan_key
from flopstat.shape import Shape, read_config, shape_of
from flopstat.stored import read_json

SHAPES = study_config.ROOT / "workflow" / "resources" / "shapes"


@dataclass(frozen=True)
class Inputs:
    """All that a plan is made from.

    device : what it is planned for, from a calibration or the hardware table; None if neither is there.
    measured : whether the device's rates were measured here.
    price : US$ per hour, None if the price table does not have the device.
    stored : chains that each arm's pool holds already, None without a pool or if it was not asked.
    """

    study: Study
    arms: dict[str, Known]
    device: Device | None
    measured: bool
    price: float | None
    stored: dict[str, int | None]


def read_study(config: dict[str, Any], problems: pd.DataFrame | None) -> Study:
    """The study's sizes, and its problems if they are chosen."""
    if problems is not None:
        return Study(config, problems["problem_id"].astype(str).tolist(), problems["difficulty"].to_numpy(np.int64))
    dataset = config["dataset"]
    return Study(config, [], np.zeros(dataset["n_study"] + dataset["n_calibration"], dtype=np.int64))


def read_shape(entry: dict[str, Any]) -> Shape:
    """Shape of a model that was not described yet: a shipped ladder model, a local folder, or the shipped facts of a config.json.

    Raises
    ------
    InputError
        If none of them is there.
    """
    folder = {"ladder": LADDER / entry["name"], "local": Path(entry["path"] or ".")}.get(entry["source"])
    path = folder / "config.json" if folder is not None else SHAPES / f"{entry['shape'] or entry['name']}.json"
    if not os.path.isfile(path):  # unlike Path.is_file false for names too long to be one
        there = ", ".join(sorted(p.stem for p in SHAPES.glob("*.json")))
        raise InputError(f"models {entry['name']}: its shape is not known yet; set shape to one of {there}, or describe it by a run")
    config = read_config(path)
    try:
        return shape_of(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _pilot(path: Path, plan: Plan, precision: str, config: dict[str, Any]) -> Pilot | None:
    """The pilot of an arm; None if there is none, or it was drawn with other settings."""
    if not path.is_file():
        return None
    found = Pilot.read(path)
    same = found.key == json.loads(json.dumps(plan_key(precision, plan, config["sampling"]["compute_dtype"])))
    return found if same and found.budget >= plan.settings.max_tokens else None


def _roofline(shape: Shape, bits: float, config: dict[str, Any], device: Device) -> Rate:
    kv = kv_bytes_per_token(shape, DTYPE_BITS[config["sampling"]["compute_dtype"]])
    held = weight_bytes(shape, bits)
    return Rate.of_roofline(Latency.roofline(Flops.of(shape), held, kv, device), held, config["plan"]["efficiency"])


def read_arm(
    config: dict[str, Any], model: dict[str, Any], precision: str, results: Path, elsewhere: Device | None, anywhere: bool = False
) -> tuple[Known, Device | None]:
    """What is known of an arm, and the device that it was measured on.

    Parameters
    ----------
    elsewhere : Device or None
        A device of the hardware table that was asked for: what was measured here says nothing about it.
    anywhere : bool
        Plan for the machine that the calibration is of, whichever asks.

    Raises
    ------
    InputError
        For a calibration of another machine, if no device was asked for and it comes from no archive, unless `anywhere`.
    """
    arm = f"{model['name']}@{precision}"
    path = results / "models" / f"{model['name']}.json"
    shape: Shape = ModelCard.read(path) if path.is_file() else read_shape(model)
    plan = Plan.of(config["sampling"], config["budgets"], config["seed"])
    pilot = _pilot(results / "pilot" / f"{arm}.json", plan, precision, config)
    bits = stored_bits(shape, precision, config["sampling"]["compute_dtype"])
    calibration = results / "calibration" / f"{arm}.json"
    if elsewhere is None and calibration.is_file():
        latency = Latency.read(calibration)
        # An archive's measurements are of the machine that it was made on, and so is its plan, wherever it is rebuilt.
        here = latency.device.machine if anywhere or config["archive"] is not None else devices.machine()
        devices.check_device(latency, here)
        measured = float(read_json(calibration)["bits_effective"])
        if not precision.startswith(("rtn", "gguf")):  # those are held as floats
            bits = measured
        rate = Rate.of_pilot(pilot.rate, latency) if pilot is not None and pilot.rate["machine"] == here else Rate.of_calibration(latency)
        return Known(shape, bits, pilot, rate), latency.device
    if elsewhere is None and pilot is not None and pilot.rate["machine"] == devices.machine():
        return Known(shape, bits, pilot, Rate.of_pilot(pilot.rate, None)), None
    device = elsewhere
    if device is None and config["plan"]["device"] is not None:
        device = hardware.find(hardware.read(), config["plan"]["device"])
    return Known(shape, bits, pilot, _roofline(shape, bits, config, device) if device is not None else None), device


def read_inputs(
    config: dict[str, Any], results: Path, device: str | None = None, pools: Path | None = None, anywhere: bool = False
) -> Inputs:
    """Gather what a plan stands on.

    Parameters
    ----------
    results : Path
        Folder of the study's results, which need not exist.
    device : str, optional
        A device of config/hardware.yaml to plan for, whatever was measured here.
    pools : Path, optional
        Folder of all pools, to count what they hold.
    anywhere : bool
        Plan for the machine that was calibrated, whichever asks: of a cluster's nodes another one may write the plan.

    Raises
    ------
    InputError
        For an unknown device, a model whose shape is not known, a study of imported samples, or a calibration of another machine.
    """
    elsewhere = hardware.find(hardware.read(), device) if device is not None else None
    table = results / "problems.parquet"
    problems = tables.read("problems", table) if table.is_file() else None
    study = read_study(config, problems)
    arms: dict[str, Known] = {}
    found: list[Device] = []
    for model in config["models"]:
        for precision in model["precisions"] if model["source"] != "import" else ():
            known, where = read_arm(config, model, precision, results, elsewhere, anywhere)
            arms[f"{model['name']}@{precision}"] = known
            found += [where] if where is not None else []
    if not arms:
        raise InputError(f"{config['study']}: all samples are imported, so nothing is drawn and there is nothing to plan")
    first = found[0] if found else None
    stored = {arm: stored_chains(study, problems, known.pilot, pools) for arm, known in arms.items()}
    measured = any(known.rate is not None and known.rate.source != "roofline" for known in arms.values())
    return Inputs(study, arms, first, measured, _price(config, first, measured), stored)


def _price(config: dict[str, Any], device: Device | None, measured: bool) -> float | None:
    """US$ per hour: of the device that the config prices, else of the one that is planned for."""
    name = config["costs"]["price_device"] or (device.name if device is not None and not measured else None)
    return Prices.read(study_config.price_table(config)).usd_per_hour(name) if name is not None else None


def stored_chains(study: Study, problems: pd.DataFrame | None, pilot: Pilot | None, pools: Path | None) -> int | None:
    """Chains of the study that the pilot's pool holds already; None without it."""
    if problems is None or pilot is None or pools is None or not (pools / pilot.pool / "key.json").is_file():
        return None
    text = (pools / pilot.pool / "key.json").read_bytes()
    if pool_name(text) != pilot.pool:  # damaged; the next job that draws writes it anew
        return None
    pool = Pool(pools, json.loads(text))
    wanted = [(key, i, 0) for key in problems["problem_key"] for i in (*range(study.per_problem - 1), GREEDY)]
    return len(wanted) - len(pool.missing(wanted, study.budget))
