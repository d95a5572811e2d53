"""What all rule files share: the checked config, names, and hashes of the code that results stand on."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd

from flopstat import config as study_config
from flopstat import origin
from flopstat.config import one_of
from flopstat.costs import COST_NAMES, COSTS, DTYPE_BITS, certain_costs
from flopstat.errors import InputError, printable
from flopstat.graders import names_of
from flopstat.hardware import HARDWARE
from flopstat.models import ABSENT, device_present, likely_device, stored_identity
from flopstat.precisions import check_models
from flopstat.provenance import code_hash
from flopstat.recovery import note_owner, say_if_killed
from flopstat.scenarios import check_scenarios

try:
    config = study_config.resolve(config)
    check_models(config)
    check_scenarios(config)
    if workflow.is_main_process:  # jobs are parsed while files come and go
        origin.check(config["archive"], Path("results") / config["study"])
except InputError as error:
    print(f"flopstat: {printable(str(error))}", file=sys.stderr)
    sys.exit(2)

STUDY = config["study"]
TITLE = config["title"] or STUDY  # of figures
RESULTS = f"results/{STUDY}"
ARMS = study_config.arms(config)
SHARDS = study_config.shards(config)
MODELS = {model["name"]: model for model in config["models"]}
FIRST_PRECISIONS = {name: model["precisions"][0] for name, model in MODELS.items()}  # a model's others are read against it
IMPORTED = study_config.imported(config)
DRAWN = [name for name in MODELS if name not in IMPORTED]
DRAWN_ARMS = [arm for arm in ARMS if arm.split("@")[0] in DRAWN]
GRADERS = names_of(config["grader"])
POOLS = "results/pools"  # chains of all studies: no rule's output, and outlives every rerun
KV_BITS = DTYPE_BITS[config["sampling"]["compute_dtype"]]
PRICES = str(study_config.price_table(config)) if config["costs"]["price_device"] else []
# What chains are drawn with, for the command line.
DRAWING = json.dumps({"sampling": config["sampling"], "budgets": config["budgets"], "seed": config["seed"]})
# Jobs that need a GPU ask for one: on a machine they come one after the other (profiles/default), a cluster gives each its own.
GPUS = int(likely_device(config["sampling"]["device"]) == "cuda")
HAS_LATEX = shutil.which("latexmk") is not None and shutil.which("pdflatex") is not None

TABLES = [
    f"{RESULTS}/{name}.csv"
    for name in (
        "refusals",
        "configurations",
        "configurations_skipped",
        "unknown_costs",
        "calibration",
        "laws",
        "weight_bits",
        "surface",
        "surface_gradients",
        "exponents",
        "law_sensitivity",
        "frontier",
        "crossovers",
        "frontier_axes",
        "hypervolume",
        "dominance",
        "dominance_passes",
        "recommendations",
        "regret",
        "variance_ratio",
        *(("grader_disagreements", "grader_shift") if len(GRADERS) > 1 else ()),
        *(("plan", "plan_actual") if DRAWN else ()),
    )
]
if config["pairs"]:
    TABLES.append(f"{RESULTS}/pairs.csv")
# Figures of accuracy by the cost they are drawn against; the first one shows the study's headline cost.
COST_FIGURES = {"accuracy": None} | {f"accuracy_{cost}": cost for cost in COSTS}
# Of these, beside the headline, the ones that the study is sure to have.
SURE_FIGURES = [f"accuracy_{cost}" for cost in certain_costs(bool(DRAWN), bool(config["costs"]["price_device"]))[1:]]
FIGURES = [
    f"{RESULTS}/figures/{figure}.{suffix}"
    for figure in (
        "accuracy",
        "crossovers",
        "dominance",
        "lengths",
        *(["variance"] if config["sampling"]["samples"] > 1 else []),  # the error of pools of one sample is not split
        *(["graders"] if len(GRADERS) > 1 else []),
        *SURE_FIGURES,
    )
    for suffix in ("pdf", "png", "csv")
]
if DRAWN:
    # Streams and scenarios stand on calibrated models: imported samples alone have neither times nor shapes.
    TABLES += [f"{RESULTS}/{name}.csv" for name in ("cost_per_correct", "latency_by_streams")]
    FIGURES += [
        f"{RESULTS}/figures/{figure}.{suffix}"
        for figure in ("calibration", "plan", "cost_per_correct", "latency_by_streams")
        for suffix in ("pdf", "png", "csv")
    ]
if DRAWN and config["scenarios"]:
    TABLES += [f"{RESULTS}/{name}.csv" for name in ("scenarios", "scenario_crossovers")]
    FIGURES += [f"{RESULTS}/figures/scenarios.{suffix}" for suffix in ("pdf", "png", "csv")]
# Without calibration problems there is no law to draw.
LAW_FIGURES = ["votes", "coverage", "alpha", "surface"] if config["dataset"]["n_calibration"] else []
FIGURES += [f"{RESULTS}/figures/{name}.{suffix}" for name in LAW_FIGURES for suffix in ("pdf", "png", "csv")]
# The ladder's own logs, of all its sizes: training laws are about the repository, and stand beside any study of its models.
TRAINING_LOGS = (
    sorted(str(path) for path in Path("workflow/resources/ladder").glob("*/training_log.csv"))
    if any(model["source"] == "ladder" for model in MODELS.values())
    else []
)
FIGURES += [
    f"{RESULTS}/figures/{name}.{suffix}" for name in ("training_laws", "ladder") for suffix in ("pdf", "png", "csv") if TRAINING_LOGS
]
# The paper tells how samples were drawn and what they cost: without a model in the study it has nothing to say.
PAPER = [f"{RESULTS}/paper/flopstat.pdf" if HAS_LATEX else f"{RESULTS}/paper/checked.txt"] if DRAWN else []


wildcard_constraints:
    model="|".join(MODELS),
    arm="|".join(ARMS),
    precision="[a-z0-9_-]+",
    shard="[0-9]{3}",
    figure=one_of([figure for figure in COST_FIGURES if figure not in SURE_FIGURES]),


# CPU libraries take every core they see; a rule's jobs take only their own. The two MALLOC settings keep glibc from giving freed tensors
# back to the system at every step: page faults cost a third of the time of a small model.
shell.prefix(
    "export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-1}} TOKENIZERS_PARALLELISM=false"
    " MALLOC_MMAP_THRESHOLD_=${{MALLOC_MMAP_THRESHOLD_:-33554432}} MALLOC_TRIM_THRESHOLD_=${{MALLOC_TRIM_THRESHOLD_:-4294967296}}; "
)
