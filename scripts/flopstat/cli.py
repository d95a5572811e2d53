"""The command line. `snakemake` runs the workflow, `flopstat` answers questions and does the long work of single rules."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from flopstat.errors import InputError, line_of, printable

_UsageError: Any = typer.BadParameter.__mro__[1]  # of an option or argument; typer has no public name for it

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


def _say(text: str, is_json: bool = False) -> None:
    """Print what a command found. Names in it come from files and steer no terminal; JSON is plain ASCII already."""
    typer.echo(text if is_json else printable(text))


def _check_place(option: str, path: Path | None, suffixes: tuple[str, ...] = (), folder: bool = False) -> None:
    """Refuse a file, or a folder, that can't be written, before any work is done for it; nothing is left there."""
    if path is None:
        return
    if suffixes and path.suffix not in suffixes:
        raise InputError(f"{option} {path}: unknown format; use {' or '.join(suffixes)}")
    try:
        if path.exists() and not (path.is_dir() if folder else path.is_file()):
            raise InputError(f"{option} {path}: is there, and no {'folder' if folder else 'file'}; name another one")
        above = path if folder else path.parent
        while not above.exists():
            above = above.parent
        tempfile.TemporaryFile(dir=above, prefix=path.name[:200]).close()
    except OSError as error:
        raise InputError(f"{option} {str(path)[:200]}: can't be written ({error.strerror}); name a place where you may write") from None


@app.command("study-name")
def study_name(files: Annotated[list[Path], typer.Argument(help="Config files, later ones over earlier ones.")]) -> None:
    """Print the study's name after checking its config."""
    from flopstat import config, precisions, scenarios

    loaded = config.load(*files)
    precisions.check_models(loaded)
    scenarios.check_scenarios(loaded)
    if loaded["laws"]:
        from flopstat.lawbook import catalogue

        catalogue.laws(loaded["laws"])
    _say(loaded["study"])


def _settings(text: str) -> tuple[dict[str, Any], Any]:
    """The settings that a rule hands over, and what they say is drawn for every problem."""
    from flopstat.forcing import Plan

    try:
        wanted: dict[str, Any] = json.loads(text)
        return wanted, Plan.of(wanted["sampling"], wanted["budgets"], wanted["seed"])
    except (ValueError, TypeError) as error:
        raise InputError(f"--settings: not JSON with sampling, budgets and seed ({error})") from None
    except KeyError as missing:
        raise InputError(f"--settings: lacks {missing}; JSON with sampling, budgets and seed is wanted") from None


@app.command()
def sample(
    problems: Annotated[Path, typer.Option(help="problems.parquet of the study.")],
    card: Annotated[Path, typer.Option(help="models/<model>.json.")],
    precision: Annotated[str, typer.Option(help="How the weights are held.")],
    settings: Annotated[str, typer.Option(help="JSON with sampling, budgets and seed.")],
    shard: Annotated[int, typer.Option(help="Number of the shard.")],
    store: Annotated[Path, typer.Option(help="Folder of all pools.")],
    out: Annotated[Path, typer.Option(help="The shard's view, a parquet file.")],
    summary: Annotated[Path, typer.Option(help="What was drawn and at what speed, JSON.")],
) -> None:
    """Draw the chains that a shard of an arm still lacks."""
    _check_place("--out", out)
    _check_place("--summary", summary)
    from flopstat import sampling, stored, tables
    from flopstat.models import ModelCard

    model = ModelCard.read(card)
    selected = tables.read("problems", problems)
    wanted, plan = _settings(settings)
    part = sampling.shard_of(selected, shard, wanted["sampling"]["shard_problems"])
    activation = selected.loc[selected["split"] == "calibration", "messages"].tolist()
    arm = sampling.open_arm(model, precision, wanted["sampling"], plan, store, activation)
    account = sampling.draw_samples(part, arm)
    sampling.write_view(arm, part, out)
    account["recorded"] = sampling.record_job(arm, part, account)
    stored.write_text(summary, json.dumps(account, indent=1) + "\n")
    _say(sampling.described(arm, account))


@app.command()
def pilot(
    problems: Annotated[Path, typer.Option(help="problems.parquet of the study.")],
    arm: Annotated[list[str], typer.Option(help="model@precision; once per arm.")],
    card: Annotated[list[Path], typer.Option(help="models/<model>.json of each model that an arm names.")],
    settings: Annotated[str, typer.Option(help="JSON with sampling, budgets and seed.")],
    chains: Annotated[int, typer.Option(min=1, help="How many of each arm, one a problem.")],
    store: Annotated[Path, typer.Option(help="Folder of all pools.")],
    out: Annotated[Path, typer.Option(help="Folder of what was found, <arm>.json.")],
) -> None:
    """Draw the first few chains of each arm, which its pool keeps, and measure how fast its sampling job runs."""
    _check_place("--out", out, folder=True)
    from flopstat import stored, tables
    from flopstat.models import ModelCard

    cards = {one.name: one for one in map(ModelCard.read, card)}
    if unknown := [name for name in arm if name.partition("@")[0] not in cards]:
        raise InputError(f"--arm {unknown[0]}: no model@precision of a card that is given; the cards are of {', '.join(cards)}")
    selected = tables.read("problems", problems)
    wanted, plan = _settings(settings)
    activation = selected.loc[selected["split"] == "calibration", "messages"].tolist()

    from flopstat import sampling, transformers_engine  # noqa: F401  # torch, now: its import counts as every job's
    from flopstat.pilot import draw_pilot

    imports = sampling.job_seconds()
    out.mkdir(parents=True, exist_ok=True)
    for name in arm:
        begun = time.perf_counter() - imports
        model, _, precision = name.partition("@")
        opened = sampling.open_arm(cards[model], precision, wanted["sampling"], plan, store, activation)
        found = draw_pilot(selected, opened, chains, begun)
        stored.write_text(out / f"{name}.json", json.dumps(found, indent=1) + "\n")
        _say(f"{name}: {len(found['chains'])} chains, {found['account']['chains_drawn']} drawn now")


@app.command()
def plan(
    config: Annotated[list[Path], typer.Option(metavar="FILE...", help="Config files, later ones over earlier ones.")],
    more: Annotated[list[Path] | None, typer.Argument(hidden=True)] = None,
    results: Annotated[Path, typer.Option(help="Folder of all studies' results.")] = Path("results"),
    device: Annotated[str | None, typer.Option(help="Plan for this device of config/hardware.yaml, not for this machine.")] = None,
    resolve: Annotated[float | None, typer.Option(min=0.01, max=100, help="Difference in points to resolve; plan.resolve_points.")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Cores for sampling jobs; all if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole plan as JSON.")] = False,
) -> None:
    """Say what a study will take before it runs: tokens, FLOP, hours, memory, money, and how wide its intervals will be."""
    import os

    from flopstat import config as study_config
    from flopstat import plan_inputs, plan_text

    loaded = study_config.load(*config, *(more or []))
    inputs = plan_inputs.read_inputs(loaded, results / loaded["study"], device, results / "pools")
    made = plan_text.make_plan(inputs, resolve or loaded["plan"]["resolve_points"], cores or os.cpu_count() or 1)
    if as_json:
        _say(json.dumps(plan_text.to_json(made), indent=1), is_json=True)
    else:
        plan_text.show(made, sys.stdout)


@app.command()
def calibrate(
    arm: Annotated[list[str], typer.Option(help="model@precision; once per arm.")],
    card: Annotated[list[Path], typer.Option(help="models/<model>.json of each model that an arm names.")],
    settings: Annotated[str, typer.Option(help="JSON with calibration, compute_dtype, device, offload, device_memory and draw.")],
    store: Annotated[Path, typer.Option(help="Folder of all measurements.")],
    out: Annotated[Path, typer.Option(help="Folder of the arms' measurements, <arm>.json.")],
) -> None:
    """Measure what a token of each arm costs on this machine, or reuse the stored measurements."""
    _check_place("--out", out, folder=True)
    from flopstat.models import ModelCard

    try:
        wanted: dict[str, Any] = json.loads(settings)
        keys = [wanted[k] for k in ("compute_dtype", "device", "calibration", "offload", "device_memory", "draw")]
    except (ValueError, TypeError) as error:
        raise InputError(f"--settings: not JSON ({error})") from None
    except KeyError as missing:
        raise InputError(f"--settings: lacks {missing}") from None
    cards = {one.name: one for one in map(ModelCard.read, card)}
    for name in arm:
        if name.partition("@")[0] not in cards or not name.partition("@")[2]:
            raise InputError(f"--arm {name}: no model@precision of a card that is given; the cards are of {', '.join(cards)}")

    from flopstat import calibration, provenance, stored

    compute_dtype, device, measuring, offload, device_memory, draw = keys
    out.mkdir(parents=True, exist_ok=True)
    for name in arm:
        model, _, precision = name.partition("@")
        measured = calibration.calibrate(
            cards[model],
            precision,
            compute_dtype,
            device,
            measuring,
            store,
            provenance.code_hash("calibration"),
            offload,
            device_memory,
            draw,
        )
        stored.write_text(out / f"{name}.json", measured.read_text(encoding="utf-8"))


@app.command()
def train(
    size: Annotated[str, typer.Argument(help="Name of the ladder model.")],
    work: Annotated[Path, typer.Option(help="Folder of checkpoints; an interrupted run resumes there.")],
    out: Annotated[Path, typer.Option(help="Folder of the shipped model.")],
) -> None:
    """Train one model of the ladder on one thread."""
    from flopstat.ladder.sizes import SIZES

    if size not in SIZES:
        raise InputError(f"size {size!r}: unknown; choose one of {', '.join(SIZES)}")
    _check_place("--work", work, folder=True)
    _check_place("--out", out, folder=True)
    from flopstat.ladder.training import train as run

    run(SIZES[size], work, out)


@app.command()
def card(
    out: Annotated[Path, typer.Option(help="Folder of the shipped ladder.")] = Path("workflow/resources/ladder"),
    problems: Annotated[int, typer.Option(min=6, help="Fresh problems.")] = 1200,
    seed: Annotated[int, typer.Option(help="Seed of problems and samples.")] = 7,
    store: Annotated[Path, typer.Option(help="Folder of all pools.")] = Path("results/pools"),
) -> None:
    """Measure the ladder on fresh problems and write its model card (minutes)."""
    _check_place("--out", out, folder=True)
    from flopstat.ladder.card import write_card

    write_card(out, problems, seed, store)


@app.command()
def grade(
    problems: Annotated[Path, typer.Option(help="Problems in GSM8K's form, .jsonl.")],
    samples: Annotated[Path, typer.Option(help="Outputs from anywhere: strict .jsonl, or .parquet.")],
    out: Annotated[Path, typer.Option(help="Grades to write, .csv or .parquet.")],
    grader: Annotated[str, typer.Option(help="gsm8k, gsm8k-strict, gsm8k-flexible, math or exact.")] = "gsm8k",
    jobs: Annotated[int | None, typer.Option(min=1, max=1024, help="Processes; all cores, at most 8, if left out.")] = None,
) -> None:
    """Grade outputs from anywhere; prints the conservation line and accuracy with its interval."""
    import os

    _check_place("--out", out, (".csv", ".parquet"))
    from flopstat.submissions import grade_file

    for line in grade_file(problems, samples, grader, out, jobs or min(8, os.cpu_count() or 1)):
        _say(line)


@app.command()
def evaluate(
    grades: Annotated[Path, typer.Option(help="Graded chains, .parquet or .csv, as `flopstat grade` writes them.")],
    ks: Annotated[str, typer.Option(help="Numbers of chains, such as 1,2,4.")],
    out: Annotated[Path, typer.Option(help="Table to write, .csv or .parquet.")],
    strategies: Annotated[str, typer.Option(help="Names, separated by commas.")] = "single,majority",
    branches: Annotated[int, typer.Option(min=1, help="B of majority_of_best_of; P is k / B.")] = 2,
    strata: Annotated[str | None, typer.Option(help="Column that the selection of problems was stratified by.")] = None,
    confidence: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.95,
) -> None:
    """Accuracy of strategies at k chains, averaged over all subsets of a pool, with intervals over problems."""
    from flopstat import tables
    from flopstat.evaluation import evaluate_grades

    _check_place("--out", out, (".csv", ".parquet"))
    numbers = [part.strip() for part in ks.split(",")]
    if not all(re.fullmatch("[1-9][0-9]{0,8}", part) for part in numbers):
        raise InputError(f"--ks {ks!r}: not a list of positive integers; write it like 1,2,4")
    if not 0.5 < confidence <= 0.999999:  # as statistics.confidence
        raise InputError(f"--confidence {confidence}: must lie between 0.5 and 1, at most 0.999999")
    names = [part.strip() for part in strategies.split(",")]
    table = evaluate_grades(grades, [int(part) for part in numbers], names, branches, strata, confidence)
    tables.write(table, "evaluation", out)
    _say(f"{out}: {len(table)} rows, accuracy with {confidence:.0%} intervals over {table['estimand'].iloc[0]}")


@app.command("import")
def import_(
    kind: Annotated[str, typer.Argument(help="lm-eval, inspect, lighteval, monkeys, kinetics, gsm8k-solutions, jsonl, csv or parquet.")],
    path: Annotated[Path, typer.Argument(help="The log; nothing in it is trusted.")],
    out: Annotated[Path, typer.Option(help="Samples to write, .parquet; the problems go beside it as .problems.jsonl.")],
    model: Annotated[str | None, typer.Option(help="Name of the model where the log holds none.")] = None,
    n_params: Annotated[int | None, typer.Option(min=1, help="Its parameters where the log does not say.")] = None,
    precision: Annotated[str | None, typer.Option(help="How its weights were held where the log does not say.")] = None,
    only: Annotated[str | None, typer.Option(help="Keep the samples of this model only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the account as JSON.")] = False,
) -> None:
    """Turn samples that another tool drew into the Sample form; what is not known is null, what is dropped is listed."""
    _check_place("--out", out)
    from flopstat.importers.samples import Declared, import_samples

    done = import_samples(kind, path, out, Declared(model, n_params, precision), only)
    _say(json.dumps({"out": str(out)} | vars(done)) if as_json else f"{out}: {done.described()}", as_json)


@app.command()
def laws(
    name: Annotated[str | None, typer.Argument(help="One law to explain; all are listed if left out.")] = None,
    config: Annotated[list[Path] | None, typer.Option(help="Study files whose own `laws:` are added.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the catalogue of laws, or explain one with a worked example."""
    from flopstat.lawbook import catalogue, report

    own = _own_laws(config)
    if name is not None:
        law = catalogue.find(name, own)
        _say(json.dumps(law.to_data(), indent=1) if as_json else "\n".join(report.explained(law)), as_json)
        return
    known = catalogue.laws(own).values()
    if as_json:
        _say(json.dumps(report.listed(known), indent=1), is_json=True)
        return
    from rich.console import Console

    Console(highlight=False).print(report.table(known))


def _own_laws(files: list[Path] | None) -> list[Any]:
    from flopstat import config

    return list(config.load(*files)["laws"]) if files else []


@app.command()
def fit(
    law: Annotated[str, typer.Option(help="Law of the catalogue, or of --config.")],
    data: Annotated[Path, typer.Option(help="Observations, .csv or .parquet.")],
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="VAR=COLUMN_OR_ARITHMETIC, once per variable and the response.")
    ] = None,
    drop_highest: Annotated[str | None, typer.Option(help="COLUMN:n leaves out the n rows with the highest value.")] = None,
    fix: Annotated[list[str] | None, typer.Option(help="PARAMETER=NUMBER holds a parameter.")] = None,
    objective: Annotated[
        str | None, typer.Option(help="huber-log, mse, mse-log, mae, binomial or beta-binomial; the law's own if left out.")
    ] = None,
    delta: Annotated[float, typer.Option(help="Huber's delta, in ln(response).")] = 1e-3,
    random_starts: Annotated[
        int | None, typer.Option(min=2, max=1_000_000, help="So many random starts in place of the law's grid.")
    ] = None,
    replicates: Annotated[
        int, typer.Option(min=0, max=100_000, help="Bootstrap refits over rows; 0 takes errors from the curvature.")
    ] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of resamples and random starts.")] = 20261121,
    confidence: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.95,
    keep_duplicates: Annotated[bool, typer.Option(help="Exact duplicates among the rows are meant.")] = False,
    rivals: Annotated[str | None, typer.Option(help="Laws to judge against, separated by commas.")] = None,
    leave_out: Annotated[str | None, typer.Option(help="With --rivals: variable whose largest value is predicted from all others.")] = None,
    sensitivity: Annotated[bool, typer.Option("--sensitivity", help="Refit under every objective and two designs of starts.")] = False,
    config: Annotated[list[Path] | None, typer.Option(help="Study files whose own `laws:` are added.")] = None,
    out: Annotated[Path | None, typer.Option(help="The fit as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the fit as JSON.")] = False,
) -> None:
    """Fit a law; the result is certified, or refused with reasons."""
    from flopstat.lawbook import catalogue, fitting, observations, refutation, report
    from flopstat.lawbook.rivals import compare

    _check_place("--out", out)
    if leave_out is not None and rivals is None:
        raise InputError("--leave-out: judges rivals; name them with --rivals")
    own = _own_laws(config)
    entry = catalogue.find(law, own)
    candidates = [entry] + [catalogue.find(r.strip(), own) for r in rivals.split(",")] if rivals else []
    held = _held(fix or [])
    rows = observations.read(data, entry, mapping or [], drop_highest)
    settings = fitting.Settings(objective, delta, random_starts, replicates, seed, confidence, keep_duplicates=keep_duplicates)
    result = fitting.fit(entry, rows, held, settings)
    lines = [json.dumps(json.loads(result.to_json()), indent=1)] if as_json else report.fitted(result)
    if candidates:
        lines += report.compared(compare(candidates, rows, settings, leave_out, {entry.id: held}))
    if sensitivity:
        lines += report.varied(refutation.sensitivity(entry, rows, settings, held))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(result.to_json(), encoding="utf-8")
    _say("\n".join(lines))


def _held(pairs: list[str]) -> dict[str, float]:
    out: dict[str, float] = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        try:
            out[name.strip()] = float(number)
        except ValueError:
            raise InputError(f"--fix {pair!r}: write PARAMETER=NUMBER") from None
    return out


@app.command()
def recommend(
    study: Annotated[Path, typer.Option(help="Results folder of the study.")],
    flops: Annotated[float | None, typer.Option(help="FLOP per problem, counted.")] = None,
    eflops: Annotated[float | None, typer.Option(help="Equivalent FLOP per problem, memory traffic included.")] = None,
    device_seconds: Annotated[float | None, typer.Option(help="Device-seconds per problem.")] = None,
    latency: Annotated[float | None, typer.Option(help="Seconds until the vote is in, median.")] = None,
    latency_p90: Annotated[float | None, typer.Option(help="Seconds until the vote is in, 90th percentile.")] = None,
    memory: Annotated[float | None, typer.Option(help="Bytes of weights and KV cache.")] = None,
    usd: Annotated[float | None, typer.Option(help="US$ per problem.")] = None,
    joules: Annotated[float | None, typer.Option(help="Joules per problem.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The cell to run for a budget, how sure that is, what more would buy, and how to serve it. Several budgets hold together."""
    from flopstat import budgets
    from flopstat.thermostat import Thermostat, in_words

    given = (flops, eflops, device_seconds, latency, latency_p90, memory, usd, joules)
    wanted = {cost: value for cost, value in zip(budgets.OPTIONS.values(), given, strict=True) if value is not None}
    budgets.check_numbers(wanted)
    found = Thermostat.load(study).recommend(wanted)
    _say(found.to_json() if as_json else in_words(found), as_json)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Results folder of the study that is compared with.")],
    b: Annotated[Path, typer.Argument(help="Results folder of the study that is judged.")],
    cost: Annotated[str | None, typer.Option(help="Cost column; the first that both know if left out.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Figure to write, .png or .pdf.")] = None,
    fail_on: Annotated[
        str | None, typer.Option(help="worse: exit 1 if B is worse at some budget; not-better: unless it is better.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Where frontier and knee moved from study A to study B, per budget, with a verdict."""
    from flopstat import study_comparison

    if fail_on not in (None, "worse", "not-better"):
        raise InputError(f"--fail-on {fail_on}: unknown; use worse or not-better")
    _check_place("--figure", figure, (".png", ".pdf"))
    found = study_comparison.compare(study_comparison.read_side(a), study_comparison.read_side(b), cost)
    _say(found.to_json() if as_json else study_comparison.in_words(found), as_json)
    if figure is not None:
        study_comparison.plot(found, figure)
    if study_comparison.failed(found, fail_on):
        raise typer.Exit(1)


@app.command()
def summary(study: Annotated[Path, typer.Option(help="Results folder of the study.")]) -> None:
    """Print a study's answer in plain text: best cells for a few budgets, crossovers, where the files lie."""
    from flopstat.summary import summarize

    _say(summarize(study))


@app.command()
def rehearse(
    config: Annotated[list[Path], typer.Option(metavar="FILE...", help="Config files of a study of hub models, the default one first.")],
    more: Annotated[list[Path] | None, typer.Argument(hidden=True)] = None,
    n_study: Annotated[int, typer.Option(min=6, help="Study problems.")] = 6,
    n_calibration: Annotated[int, typer.Option(min=0, help="Calibration problems.")] = 6,
    samples: Annotated[int, typer.Option(min=1, help="K.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    problems: Annotated[Path | None, typer.Option(help="Problems in GSM8K's form; generated ones if left out.")] = None,
    cores: Annotated[int, typer.Option(min=1, help="Cores for snakemake.")] = 2,
    kill_at: Annotated[float, typer.Option(min=0, max=0.9, help="Share of the chains at which the run is killed; 0: never.")] = 0.4,
    folder: Annotated[Path, typer.Option(help="Folder of the stand-ins, overlays and logs.")] = Path("results/rehearsal"),
) -> None:
    """Run a study of hub models to its end with random stand-ins for them, killed once and resumed: before money is spent."""
    from flopstat import trial

    _check_place("--folder", folder, folder=True)
    made = trial.prepare([*config, *(more or [])], folder, (n_study, n_calibration), samples, device, cores, problems)
    _say("\n".join(trial.rehearse(made, kill_at or None)))


@app.command()
def archive(
    study: Annotated[Path, typer.Option(help="Results folder of a finished study.")],
    out: Annotated[Path, typer.Option(help="Archive to write, .tar.zst.")],
    per_token: Annotated[bool, typer.Option("--per-token", help="Keep the numbers of each token: larger, other T can be graded.")] = False,
) -> None:
    """Pack what tables, figures and paper are made of, without weights; the same study gives the same bytes."""
    from flopstat.archive import pack_study

    _check_place("--out", out)
    _say(pack_study(study, out, per_token))


@app.command()
def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The archive, or its https or file address; nothing in it is trusted.")],
    out: Annotated[Path, typer.Option(help="New folder for its files and a config that rebuilds the study.")],
    sha256: Annotated[str | None, typer.Option(help="SHA-256 of the archive, needed with an address.")] = None,
    study: Annotated[str | None, typer.Option(help="Name for the rebuilt study; the archive's own if none is given.")] = None,
) -> None:
    """Unpack an archive, and say how its study is rebuilt without a model."""
    from flopstat.archive import restore_folder, source

    _check_place("--out", out, folder=True)
    address = file if "://" in file else None
    if address is not None and sha256 is None:
        raise InputError("--sha256: needed with an address; take it from where the archive is announced")
    place = {"path": None if address else file, "url": address, "sha256": sha256}
    _say(restore_folder(source(place, Path("results/archives")), out, study))


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> None:
    """What this machine has and lacks for a study, each with a remedy; exit code 1 if the default study can't run here."""
    from flopstat import doctor as examination

    findings = examination.examine()
    if as_json:
        _say(examination.as_json(findings), is_json=True)
    else:
        examination.show(findings)
    if not examination.can_run(findings):
        raise typer.Exit(1)


def main() -> None:
    """Entry point: exit code 2 with one line for wrong input, 1 with one line for a store, a disk or a rehearsal that fails."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except typer.Abort:
        sys.exit(1)
    except _UsageError as error:
        if said := error.format_message():  # empty where the help was printed instead
            where = error.ctx.command_path if error.ctx else "flopstat"
            print(f"flopstat: {printable(' '.join(said.split()))} See {where} --help", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        line = line_of(error) or (printable(" ".join(str(error).split())) if isinstance(error, OSError) else None)
        if line is None:
            raise
        print(f"flopstat: {line}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)


if __name__ == "__main__":
    main()
