"""Archives of studies: all that grades, laws, figures and paper are made of, and no weights.

An archive holds run.json (merged config, versions, revision, hardware, hashes of the tables), problems.parquet, refusals.csv, the models'
cards and tokenizers (stored ids are decoded with them), the arms' calibrations, pilots and samples with what drawing them took, and
imported logs' samples. A sample is its token ids with its confidence scores at the study's T; with `per_token` the numbers of each token,
which let other T be graded as well.
`restore` puts these into a results folder, in place of selecting problems, describing and calibrating models, and drawing pilots and
samples.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from flopstat import bundle, config, origin, provenance, stored, tables
from flopstat.archive_checks import check_content
from flopstat.crate import METADATA, crate
from flopstat.errors import InputError
from flopstat.models import ImportedCard, ModelCard, checkpoint, read_card, verify_settings
from flopstat.reality import read_jobs
from flopstat.scores import PER_TOKEN, summed
from flopstat.strategies import SCORES

# What samples do not depend on: an archived study may say something else. A model's shape is in its card.
SPEED_KEYS = ("device", "offload", "device_memory", "batch_rows", "shard_problems")
SHARD = "000"  # an archived arm is one shard
LEVEL = 19  # of zstd inside the parquet files: a third smaller than the default, seconds for a study


def pack_study(study: Path, out: Path, per_token: bool = False) -> str:
    """Archive a finished study; returns one line about it. The same study gives the same bytes.

    Parameters
    ----------
    study : Path
        Results folder of the study.
    per_token : bool
        Keep the numbers of each token: larger, and other T can be graded.

    Raises
    ------
    InputError
        If the study is not finished, its tables are not those that run.json was written for, or a file of it is damaged.
    """
    record = _record(study)
    merged = config.resolve(record["config"])
    staging = out.parent / f".{out.name}.{os.getpid()}.staging"
    try:
        files = _stage(study, merged, staging, per_token)
        about: dict[str, Any] = {"flopstat": importlib.metadata.version("flopstat"), "study": merged["study"], "per_token": per_token}
        about["T"] = merged["budgets"]["T"]
        # Studies that were run before the day stood in run.json have the day that their commit has here.
        published = str(record.get("revision_date") or provenance.revision_date(record["revision"]))
        described = crate(files, merged["title"] or merged["study"], published)
        files[METADATA] = _written(staging / METADATA, described)
        bundle.pack(files, about, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return f"{out}: {len(files)} files of {merged['study']}, {out.stat().st_size:,} bytes, SHA-256 {stored.digest(out)}"


def _record(study: Path) -> dict[str, Any]:
    """run.json of a finished study whose tables have not changed since."""
    path = study / "run.json"
    if not path.is_file():
        raise InputError(f"{study}: no run.json; run the study first (`make run`)")
    record = stored.read_json(path)
    if not all(isinstance(record.get(key), kind) for key, kind in {"config": dict, "revision": str, "sha256": dict}.items()):
        raise InputError(f"{path}: not the record of a run; run the study again (`make run`)")
    for name, sha256 in record["sha256"].items():
        table = study / name
        if not table.is_file() or stored.digest(table) != sha256:
            raise InputError(f"{table}: not the table that run.json was written for; run the study again (`make run`)")
    return record


def _written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _stage(study: Path, merged: config.Config, staging: Path, per_token: bool) -> dict[str, Path]:
    """Files of the archive by name; those that change on the way are written to `staging`."""
    files = {name: study / name for name in ("run.json", "problems.parquet", "refusals.csv")}
    for model in merged["models"]:
        name = model["name"]
        card = read_card(study / "models" / f"{name}.json")
        if isinstance(card, ImportedCard):
            files[f"models/{name}.json"] = study / "models" / f"{name}.json"
            files[f"imported/{name}.parquet"] = study / "imported" / f"{name}.parquet"
            continue
        # Without the folder that it lay in here: nobody else has it, and its name may tell who made the archive.
        files[f"models/{name}.json"] = _written(staging / "models" / f"{name}.json", _moved(card, f"tokenizers/{name}").to_json())
        files[f"tokenizers/{name}.json"] = checkpoint(card) / "tokenizer.json"
        if merged["archive"] is None and files[f"tokenizers/{name}.json"].is_file():  # a restored one is a part of what was hashed
            verify_settings(card)
        for precision in model["precisions"]:
            arm = f"{name}@{precision}"
            files[f"calibration/{arm}.json"] = study / "calibration" / f"{arm}.json"
            files[f"samples/{arm}.parquet"] = staging / "samples" / f"{arm}.parquet"
            files[f"pilot/{arm}.json"] = study / "pilot" / f"{arm}.json"
            shards = [study / "samples" / arm / f"{shard}.parquet" for shard in config.shards(merged)]
            _write_samples(shards, files[f"samples/{arm}.parquet"], None if per_token else merged["budgets"]["T"])
            took = read_jobs([view.with_suffix(".json") for view in shards])
            files[f"samples/{arm}.json"] = _written(staging / "samples" / f"{arm}.json", json.dumps({"recorded": took}, indent=1) + "\n")
    for name, path in files.items():
        if not path.is_file():
            raise InputError(f"{path}: no such file, so {name} can't be archived; run the study again (`make run`)")
        stored.check(path)
    return files


def _moved(card: ModelCard, path: str) -> ModelCard:
    return ModelCard(**(vars(card) | {"path": path}))


def _write_samples(views: list[Path], out: Path, grid: list[int] | None) -> None:
    """Samples of an arm, shard by shard, with scores at the grid or, without one, the numbers of each token."""
    out.parent.mkdir(parents=True, exist_ok=True)
    writer: pq.ParquetWriter | None = None
    for view in views:
        if not view.is_file():
            raise InputError(f"{view}: no such file; run the study again (`make run`)")
        rows = tables.read_view(view)
        if grid is not None and "logprob" in rows.column_names:
            rows = summed(rows, grid)
        rows = rows.cast(_named_alike(rows.schema))
        if writer is None:
            floats = [f"{name}.list.element" for name in rows.column_names if name in (*SCORES, *PER_TOKEN)]
            encoding = {name: "BYTE_STREAM_SPLIT" for name in floats}
            writer = pq.ParquetWriter(
                out, rows.schema, compression="zstd", compression_level=LEVEL, use_dictionary=["problem_key", "finish_reason"],
                column_encoding=encoding,
            )  # fmt: skip
        writer.write_table(rows)
    assert writer is not None
    writer.close()


def _named_alike(schema: pa.Schema) -> pa.Schema:
    """A schema whose lists name their items as Parquet does: an archive of a restored study then has the bytes of the first one."""
    types = [pa.list_(pa.field("element", t.value_type)) if pa.types.is_list(t) else t for t in schema.types]
    return pa.schema([f.with_type(t) for f, t in zip(schema, types, strict=True)], metadata=schema.metadata)


def restore(path: Path, results: Path, wanted: config.Config | None = None) -> config.Config:
    """Put an archive's files where the rules look for them; returns the config that the study was run with.

    Parameters
    ----------
    path : Path
        The archive.
    results : Path
        Results folder of the study.
    wanted : mapping, optional
        The resolved config of the study that is to be rebuilt: it must not ask for other samples than the archive holds.

    Raises
    ------
    InputError
        For a broken or hostile archive, or one of other samples.
    """
    with bundle.unpacked(path, results) as (folder, manifest):
        archived = _config_of(folder, path)
        if wanted is not None:
            agree(archived, wanted, manifest)
        chosen = archived if wanted is None else wanted
        places = _places(chosen, results)
        for name in places:
            if name not in manifest["files"]:
                raise InputError(f"{path}: holds no {name}; take the models and precisions that it has")
        unknown = sorted(manifest["files"].keys() - _places(archived, results).keys() - {"run.json", METADATA})
        if unknown:
            raise InputError(f"{path}: holds {unknown[0]}, which belongs to no model of its config; archive the study again")
        check_content(folder, manifest, archived, chosen, path)
        origin.note(results, stored.digest(path))
        for name, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            if name.startswith("models/"):
                model_name = name.removeprefix("models/").removesuffix(".json")
                card = read_card(folder / name)
                text = card.to_json()
                if isinstance(card, ModelCard):
                    text = _moved(card, str((results / "tokenizers" / model_name).absolute())).to_json()
                stored.write_text(place, text)
            else:
                stored.place(folder / name, place)
    return archived


def _places(chosen: config.Config, results: Path) -> dict[str, Path]:
    """Where each of the archive's files goes in a results folder."""
    out = {name: results / name for name in ("problems.parquet", "refusals.csv")}
    for model in chosen["models"]:
        name = model["name"]
        out[f"models/{name}.json"] = results / "models" / f"{name}.json"
        if model["source"] == "import":
            out[f"imported/{name}.parquet"] = results / "imported" / f"{name}.parquet"
            continue
        out[f"tokenizers/{name}.json"] = results / "tokenizers" / name / "tokenizer.json"
        for arm in (f"{name}@{precision}" for precision in model["precisions"]):
            out[f"calibration/{arm}.json"] = results / "calibration" / f"{arm}.json"
            out[f"pilot/{arm}.json"] = results / "pilot" / f"{arm}.json"
            out[f"samples/{arm}.parquet"] = results / "samples" / arm / f"{SHARD}.parquet"
            out[f"samples/{arm}.json"] = results / "samples" / arm / f"{SHARD}.json"
    return out


def _config_of(folder: Path, path: Path) -> config.Config:
    try:
        return config.resolve(json.loads((folder / "run.json").read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise InputError(f"{path}: its run.json holds no config ({' '.join(str(error).split())[:200]}); archive the study again") from None


def agree(archived: config.Config, wanted: config.Config, manifest: Mapping[str, Any]) -> None:
    """Refuse a config that asks for other samples than were archived, by the first key that differs.

    Strategies, graders, statistics, costs, scenarios, laws, P and B are free, and of the plan all but its pilot; so are fewer models,
    precisions and T, and, where the archive has the numbers of each token, other T up to the largest.
    """
    models = {model["name"]: model for model in archived["models"]}
    for i, model in enumerate(wanted["models"]):
        there = models.get(model["name"])
        if there is None:
            raise InputError(f"models.{i}.name: {model['name']} is not in the archive; it has {', '.join(models)}")
        absent = sorted(set(model["precisions"]) - set(there["precisions"]))
        if absent or model["precisions"][0] != there["precisions"][0]:
            raise InputError(f"models.{i}.precisions: the archive has {', '.join(there['precisions'])}, the first of them first")
        _same(f"models.{i}", there, model, ("precisions", "shape"))
    for key in ("seed", "dataset", "prompt", "calibration"):
        _same(key, archived[key], wanted[key])
    _same("sampling", archived["sampling"], wanted["sampling"], SPEED_KEYS)
    _same("plan.pilot_chains", archived["plan"]["pilot_chains"], wanted["plan"]["pilot_chains"])
    _same("budgets", archived["budgets"], wanted["budgets"], ("T", "T_recipe", "P", "B"))
    grid, asked = archived["budgets"]["T"], wanted["budgets"]["T"]
    forced = archived["budgets"]["forcing"] == "force_answer"
    free = manifest.get("per_token") is True and max(asked) <= max(grid) and not forced
    if not free and not set(asked) <= set(grid):
        raise InputError(f"budgets.T: the archive has {grid}, {sorted(set(asked) - set(grid))} is not among them; drop it")


def _same(where: str, archived: Any, wanted: Any, free: tuple[str, ...] = ()) -> None:
    """Equal values; of mappings those keys that both have, for older archives lack newer keys."""
    if isinstance(archived, dict) and isinstance(wanted, dict):
        for key in archived.keys() & wanted.keys() - set(free):
            _same(f"{where}.{key}", archived[key], wanted[key])
    elif archived != wanted:
        raise InputError(f"{where}: the archive's samples were drawn with {archived!r}, not {wanted!r}; set it so, or run without archive")


def restore_folder(path: Path, out: Path, study: str | None = None) -> str:
    """Unpack an archive to a new folder and write a config that rebuilds its study; returns what to do next.

    Parameters
    ----------
    path, out : Path
        The archive, and a folder that is not there or empty.
    study : str, optional
        Another name for the rebuilt study.

    Raises
    ------
    InputError
        For what `restore` refuses, a folder that is in use, or a study whose results are here already: a rebuild would write over them.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is there already and not empty; name a new folder")
    merged = restore(path, out)
    try:
        merged = config.resolve(merged | {"study": study or merged["study"]})
        if (Path("results") / merged["study"] / "run.json").exists():
            raise InputError(
                f"results/{merged['study']}: is there already, and a rebuild would write over it; give the study another name by --study"
            )
    except InputError:
        shutil.rmtree(out)
        raise
    merged["archive"] = {"path": str(path.absolute()), "url": None, "sha256": stored.digest(path)}
    _written(out / "study.yaml", yaml.safe_dump(merged, sort_keys=False, allow_unicode=True))
    return f"{out}: restored. To rebuild tables, figures and paper: make run CONFIG={out / 'study.yaml'}"


def source(archive: Mapping[str, Any], store: Path) -> Path:
    """The archive that a config names, downloaded if it has to be, its hash checked where one is given.

    Raises
    ------
    InputError
        If it is not there, or another one.
    """
    if archive["url"] is not None:
        return bundle.fetch(archive["url"], archive["sha256"], store)
    path = Path(archive["path"])
    if not os.path.isfile(path):
        raise InputError(f"archive.path {path}: no such file; `flopstat archive --study DIR --out FILE` makes one")
    if archive["sha256"] is not None and stored.digest(path) != archive["sha256"]:
        raise InputError(f"archive.path {path}: its SHA-256 is {stored.digest(path)}, archive.sha256 says {archive['sha256']}")
    return path
