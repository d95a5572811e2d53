"""Study configuration: merge, defaults, strict validation, cross-checks."""

from __future__ import annotations

import copy
import datetime
import functools
import os
import re
import sys
from pathlib import Path
from typing import Any

from flopstat import plain_yaml
from flopstat.errors import LONE_SURROGATE, InputError, without_secrets
from flopstat.prices import Prices

Config = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON Schema of a study, with a description and a default for every key."""
    loaded: dict[str, Any] = plain_yaml.parse(SCHEMA.read_text(encoding="utf-8"))
    return loaded


@functools.cache
def _validator() -> Any:
    """Of `schema`, but 50.0 is no integer, which JSON Schema takes for one and `range` does not."""
    import jsonschema

    draft = jsonschema.Draft202012Validator
    checker = draft.TYPE_CHECKER.redefine("integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool))
    return jsonschema.validators.extend(draft, type_checker=checker)(schema())


def merge(base: Config, overlay: Config) -> Config:
    """Deep merge as Snakemake does it: dictionaries merge, lists and values of the overlay replace."""
    out = dict(base)
    for key, value in overlay.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def _fill(value: Any, node: dict[str, Any]) -> None:
    """Fill the schema's defaults into `value`, in place, at every depth."""
    if isinstance(value, dict):
        for key, child in node.get("properties", {}).items():
            if key not in value and "default" in child:
                value[key] = copy.deepcopy(child["default"])
            if key in value:
                _fill(value[key], child)
    elif isinstance(value, list) and "items" in node:
        for item in value:
            _fill(item, node["items"])


_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]|</?script|<!--", re.IGNORECASE)


def _where(path: list[str | int]) -> str:
    return ".".join(str(p) for p in path) or "config"


def _refuse_endless(config: Any) -> None:
    """Refuse what aliases make of a short file, for Snakemake's reader takes them all: values without end, a value inside of itself."""
    waiting, n = [(config, 0)], 1
    while waiting:
        value, depth = waiting.pop()
        inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        n += len(inside)
        if n > plain_yaml.MAX_VALUES or depth > plain_yaml.MAX_DEPTH:
            what = f"more than {plain_yaml.MAX_VALUES} values, or {plain_yaml.MAX_DEPTH} in one another"
            raise InputError(f"config: {what}, each counted as often as aliases repeat it; write out what is meant")
        waiting += [(one, depth + 1) for one in inside]


def _refuse_what_acts(value: Any, where: str) -> None:
    """Refuse what passes a schema: numbers that no float holds, texts that act where they are shown (Snakemake puts params in a script)."""
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_what_acts(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _refuse_what_acts(item, f"{where}.{i}")
    elif isinstance(value, int | float) and not abs(value) <= sys.float_info.max:  # whole numbers are of any length
        raise InputError(f"{where}: {str(value)[:20]} is not a finite number")
    elif isinstance(value, str) and LONE_SURROGATE.search(value):
        raise InputError(f"{where}: holds half of a surrogate pair, which UTF-8 has no form for; leave it out")
    elif isinstance(value, str) and (found := _OBEYED.search(value)) is not None:
        raise InputError(f"{where}: holds {found[0]!r}, which a terminal or the report's browser would obey; leave it out")


IMPORT_ONLY = ("log_model", "n_params", "tokens_per_solution", "external_samples")
# Folders below results/ that all studies share.
SHARED = ("archives", "calibrations", "checkpoints", "ladder-training", "pools", "rehearsal")
MAX_SHARDS = 10_000  # of an arm: Snakemake plans a job for each
UNKNOWN = "unknown"  # precision of samples whose log does not hold it


def _check_import(model: Config, where: str) -> None:
    """What an imported pool's entry must have and what no other may have."""
    if model["source"] == "import":
        if len(model["precisions"]) != 1:
            raise InputError(f"{where}.precisions: an imported pool has one; give each precision an entry of its own")
        return
    if UNKNOWN in model["precisions"]:
        raise InputError(f"{where}.precisions: {UNKNOWN} is for source import; name how the weights are held")
    for key in IMPORT_ONLY:
        if model[key] is not None:
            raise InputError(f"{where}.{key}: is for source import only; drop it")


def _check_pairs(config: Config) -> None:
    there = arms(config)
    for i, pair in enumerate(config["pairs"]):
        for arm in pair:
            if arm not in there:
                raise InputError(f"pairs.{i}: {arm!r} is no arm of this study; its arms are {', '.join(there)}")


def price_table(config: Config) -> Path:
    """The price table that a study names, in the working directory or else in this repository."""
    named = Path(config["costs"]["prices"])
    return named if os.path.isfile(named) else ROOT / named


def _check_costs(config: Config) -> None:
    """What `costs` must not hold, its price table included, if one is used."""
    costs = config["costs"]
    day = None
    if costs["prices_as_of"]:
        try:
            day = datetime.date.fromisoformat(costs["prices_as_of"])
        except ValueError:
            raise InputError(f"costs.prices_as_of: {costs['prices_as_of']} is no day; write it as 2026-01-31") from None
    if costs["price_device"]:
        Prices.read(price_table(config)).check(costs["price_device"], day)
    elif day:
        raise InputError("costs.prices_as_of: no price is used without costs.price_device; set that, or leave this out")
    judged = [model["name"] for model in config["models"] if (model["external_samples"] or 1) > 1]
    if costs["verifier"] and not judged:
        raise InputError("costs.verifier: has nothing to judge, no imported model declares external_samples; drop it")


def _check_archive(archive: Config | None) -> None:
    """An archive has one place; one from elsewhere is known by its hash."""
    if archive is None:
        return
    if (archive["path"] is None) == (archive["url"] is None):
        raise InputError("archive: needs path or url, and not both; set one")
    if {"@", "?"} & set(archive["url"] or ""):
        what = "holds a user, a password or a query (@ or ?), which records and the report would show"
        raise InputError(f"archive.url: {what}; put the file where none is needed, or download it and set archive.path")
    if archive["url"] is not None and archive["sha256"] is None:
        raise InputError("archive.sha256: needed with archive.url; set it to what `sha256sum FILE` prints")


def _cross_check(config: Config) -> None:
    """What a schema cannot say. Each message names the key and the remedy."""
    if config["study"] in SHARED:
        raise InputError(f"study: results/{config['study']}/ is a folder that all studies share; choose another name")
    _check_archive(config["archive"])
    dataset, budgets = config["dataset"], config["budgets"]
    for source, keys in {"local": ["path"], "hub": ["repo", "revision"], "import": ["path"]}.items():
        for key in keys:
            if dataset["source"] == source and not dataset[key]:
                raise InputError(f"dataset.{key}: needed for dataset.source {source}; set it")
    names: set[str] = set()
    for i, model in enumerate(config["models"]):
        where = f"models.{i}"
        if model["name"].lower() in names:
            raise InputError(f"{where}.name {model['name']!r}: stands twice (upper and lower case count as one); rename one model")
        names.add(model["name"].lower())
        for source, keys in {"local": ["path"], "gguf": ["path"], "hub": ["repo", "revision"], "import": ["path"]}.items():
            for key in keys:
                if model["source"] == source and not model[key]:
                    raise InputError(f"{where}.{key}: needed for source {source}; set it")
        _check_import(model, where)
        stored = [p for p in model["precisions"] if p.startswith("gguf-")]
        if stored and model["source"] not in ("gguf", "import"):
            raise InputError(f"{where}.precisions: {stored[0]} needs source gguf")
        if model["source"] == "gguf" and (len(stored) != 1 or model["precisions"][0] != stored[0]):
            raise InputError(f"{where}.precisions: a GGUF model's first precision is that of its file, such as gguf-q4_1")
    if config["sampling"]["device_memory"] and config["sampling"]["offload"] == "none":
        raise InputError("sampling.device_memory: bounds nothing without sampling.offload; set that to cpu or disk, or leave this out")
    if budgets["forcing"] == "extend" and (budgets["extend_minimum"] or 0) > max(budgets["T"]):
        raise InputError("budgets.extend_minimum: above the largest T, so every chain would be cut; lower it")
    _check_pairs(config)
    _check_costs(config)
    unknown = sorted(set(budgets["T_recipe"]) - set(budgets["T"]))
    if unknown:
        raise InputError(f"budgets.T_recipe: {unknown} are not in budgets.T; add them there or drop them here")
    for axis in ("P", "B"):
        if 1 not in budgets[axis]:
            raise InputError(f"budgets.{axis}: must hold 1, the single chain that all others are compared with")
    if dataset["source"] == "ladder" and dataset["n_study"] < dataset["max_steps"]:
        raise InputError("dataset.n_study: smaller than dataset.max_steps; every number of steps needs a problem")
    if config["archive"] is None and (jobs := _shard_count(config)) > MAX_SHARDS:
        raise InputError(
            f"sampling.shard_problems: so few problems a job make {jobs} jobs for each arm, at most {MAX_SHARDS} can be; raise it"
        )
    if 1 not in config["calibration"]["batches"]:
        raise InputError("calibration.batches: must hold 1, the batch that C is defined at")


def resolve(raw: Config) -> Config:
    """Validated configuration with all defaults filled in.

    Raises
    ------
    InputError
        One line that names the key, what was found and the remedy.
    """
    _refuse_endless(raw)
    config = copy.deepcopy(raw)
    if not isinstance(config, dict):
        raise InputError(f"config: a mapping is wanted, found {type(config).__name__}")
    _refuse_what_acts(config, "")
    _fill(config, schema())
    for model in config["models"] if isinstance(config.get("models"), list) else []:
        if isinstance(model, dict) and model.get("source") == "import":
            model.setdefault("precisions", [UNKNOWN])
    errors = sorted(_validator().iter_errors(config), key=lambda e: (-len(e.absolute_path), str(e.absolute_path)))
    if errors:
        error = errors[0]
        where = _where(list(error.absolute_path))
        hint = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
        message = without_secrets(error.message) if "://" in error.message else error.message
        message = message if len(message) < 200 else message[:200] + "..."
        raise InputError(f"{where}: {message}." + (f" It means: {' '.join(hint.split())}" if hint and where != "config" else ""))
    for axis in ("T", "P", "B"):
        config["budgets"][axis] = sorted(config["budgets"][axis])
    _cross_check(config)
    return config


def section(name: str, values: Config) -> Config:
    """One part of a config, such as `sampling`, with its defaults filled in: for callers without a whole study."""
    out = copy.deepcopy(values)
    _fill(out, schema()["properties"][name])
    return out


def load(*paths: Path) -> Config:
    """Merge YAML files in order and resolve them."""
    merged: Config = {}
    for path in paths:
        part = plain_yaml.read(path, "config file")
        if not isinstance(part, dict):
            raise InputError(f"{path}: a mapping is wanted, found {type(part).__name__}")
        merged = merge(merged, part)
    return resolve(merged)


def arms(config: Config) -> list[str]:
    """Names of the arms, `<model>@<precision>`, in the order of the config."""
    return [f"{model['name']}@{precision}" for model in config["models"] for precision in model["precisions"]]


def imported(config: Config) -> list[str]:
    """Names of the models whose samples are imported."""
    return [model["name"] for model in config["models"] if model["source"] == "import"]


def one_of(names: list[str]) -> str:
    """Pattern of a wildcard that takes these values only; without any it matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


def shards(config: Config) -> list[str]:
    """Names of the sampling shards: blocks of problems, whatever K; an archived arm is one block."""
    if config["archive"] is not None:
        return ["000"]
    return [f"{i:03d}" for i in range(_shard_count(config))]


def _shard_count(config: Config) -> int:
    n: int = config["dataset"]["n_study"] + config["dataset"]["n_calibration"]
    return -(-n // config["sampling"]["shard_problems"])
