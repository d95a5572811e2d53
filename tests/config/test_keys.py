"""Every key of the config matters: changed alone, it changes a result or what is drawn; keys of speed are tested for the opposite.

The keys are read from the schema, so a new one fails here until it has a mutation. A mutation names what sees it: rules, which are run
with the params that the Snakefile gives them, or one of the functions at the end of this file, where a rule would need a network or a
machine that is not here.
"""

import contextlib
import copy
import json
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from in_process import Rules, content, folder_for, parse_once, run

from flopstat import archive, calibration, models, paper, plan_inputs, plan_text, problems, sampling, stored
from flopstat import config as study_config
from flopstat.errors import InputError
from flopstat.forcing import Plan
from flopstat.lawbook import catalogue, report
from flopstat.sourced import Ledger, Sources

BASE = {
    "study": "keys",
    "seed": 3,
    "dataset": {"source": "ladder", "n_study": 6, "n_calibration": 6},
    "models": [
        {"name": "ladder-30k", "source": "ladder", "precisions": ["fp32", "rtn4"]},
        {"name": "ladder-160k", "source": "ladder", "precisions": ["fp32"]},
    ],
    "sampling": {"samples": 4, "batch_rows": 64, "device": "cpu", "compute_dtype": "float64"},
    "budgets": {"T": [16, 64], "P": [1, 2], "B": [1, 2]},
    "plan": {"pilot_chains": 4},
    "statistics": {"replicates": 200},
    "costs": {"price_device": "epyc-2vcpu", "prices_as_of": "2026-11-01"},
    "calibration": {"prompt_tokens": 16, "decode_tokens": 4, "prefill_tokens": [8, 16], "batches": [1, 4], "contexts": [8, 32]},
    "scenarios": [{"name": "another", "device": None, "kv_bits": 8}],
}
ARM = {"model": "ladder-30k", "precision": "fp32"}
LAW = {
    "id": "own",
    "title": "A straight line",
    "formula": "a * k",
    "latex": "ak",
    "response": {"name": "A", "unit": "share", "meaning": "accuracy"},
    "variables": [{"name": "k", "unit": "samples", "meaning": "samples"}],
    "parameters": [
        {"name": "a", "unit": "1", "meaning": "slope", "scale": "linear", "low": -1, "high": 1, "starts": [0]},
    ],
    "objective": "mse",
    "source": "nowhere",
    "equation": "1",
    "validity": "small k",
    "caveats": ["none"],
    "example": {"parameters": {"a": 0.5}, "at": {"k": 2}, "value": 1},
    "derived": [],
}
pytestmark = pytest.mark.xdist_group("keys")  # the fixture is a whole study
TWICE = {"name": "twice", "unit": "1", "meaning": "twice a", "formula": "2 * a", "variables": {}, "at": {}, "value": 1.0}


@dataclass(frozen=True)
class Mutation:
    """One key changed.

    change : overlay of the config.
    sees : rules, run one after the other, or the name of a function of this file.
    base : overlay of both configs: what gives the key a meaning.
    where : wildcards of the rules.
    """

    change: dict
    sees: tuple[str, ...]
    base: dict = field(default_factory=dict)
    where: dict = field(default_factory=dict)


def sees(change, *names, base=None, **where):
    return Mutation(change, names, base or {}, where)


def first_model(**change):
    return {"models": [BASE["models"][0] | change, BASE["models"][1]]}


def scenario(**change):
    return sees({"scenarios": [{"name": "another", "kv_bits": 8} | change]}, "redraw_scenarios")


def law(**change):
    return sees({"laws": [LAW | change]}, "explained_law", base={"laws": [LAW]})


def variant(**change):
    """Two variants, of which the second changes: its prompt is the problems', the rest the pool's."""
    two = [{"weight": 1}, {"weight": 1, "temperature": 0.8, "system": "Be brief.", "instruction": "Q: {question}", "answer_cue": " A:"}]
    what = "drawn" if change.keys() & {"weight", "temperature"} else "select_problems"
    return sees({"sampling": {"variants": [two[0], two[1] | change]}}, what, base={"sampling": {"variants": two}})


LOCAL = {"dataset": {"source": "local", "path": "problems.jsonl", "n_study": 3, "n_calibration": 2}}
HUB = {"dataset": {"source": "hub", "repo": "a/b", "revision": "0" * 40}}
FORCED, EXTENDED = {"budgets": {"forcing": "force_answer"}}, {"budgets": {"forcing": "extend"}}
ENTRY = {"name": "other", "source": "import", "path": "log.jsonl", "kind": "jsonl", "log_model": "a", "n_params": 1000}
IMPORT = {
    "study": "imported",
    "dataset": {"source": "import", "path": "log.jsonl", "kind": "jsonl", "filter": "gold", "n_study": 4, "n_calibration": 2},
    "models": [ENTRY | {"tokens_per_solution": 50, "external_samples": 3}],
    "sampling": {"samples": 4},
    "budgets": {"T": [64]},
    "costs": {"price_device": None, "prices_as_of": None, "verifier": {"n_params": 500, "tokens": 20}},
    "scenarios": [],
}
OTHER = {"model": "other", "precision": "unknown"}
HUB_MODEL = {
    "models": [
        {"name": "m", "source": "hub", "repo": "a/b", "revision": "0" * 40, "shape": "Qwen2.5-1.5B-Instruct", "precisions": ["bf16"]},
    ],
    "costs": {"price_device": None, "prices_as_of": None},
    "plan": {"device": "T4"},
    "budgets": {"T": [64]},
}


def imported(*then, **change):
    return sees({"models": [IMPORT["models"][0] | change]}, "import_samples", *then, base=IMPORT, **OTHER)


def hub_model(what, **change):
    return sees({"models": [HUB_MODEL["models"][0] | change]}, what, base=HUB_MODEL)


def archived(**change):
    return sees({"archive": change}, "archive_source", base={"archive": {"path": "a.bin", "sha256": None, "url": None}})


MUTATIONS = {
    "study": sees({"study": "others"}, "places"),
    "title": sees({"title": "Another name"}, "plot_accuracy", figure="accuracy"),
    "seed": sees({"seed": 4}, "select_problems"),
    "archive.path": archived(path="b.bin"),
    "archive.url": archived(path=None, url="file:b.bin", sha256="of b.bin"),
    "archive.sha256": archived(sha256="0" * 64),
    "dataset.source": sees(LOCAL, "select_problems"),
    "dataset.path": sees({"dataset": {"path": "more.jsonl"}}, "select_problems", base=LOCAL),
    "dataset.kind": sees({"dataset": {"kind": "csv"}}, "select_problems", base=IMPORT),
    "dataset.filter": sees({"dataset": {"filter": "gold"}}, "select_problems", base=LOCAL),
    "dataset.repo": sees({"dataset": {"repo": "c/d"}}, "asked_of_hub", base=HUB),
    "dataset.subset": sees({"dataset": {"subset": "other"}}, "asked_of_hub", base=HUB),
    "dataset.split": sees({"dataset": {"split": "train"}}, "asked_of_hub", base=HUB),
    "dataset.revision": sees({"dataset": {"revision": "1" * 40}}, "asked_of_hub", base=HUB),
    "dataset.n_study": sees({"dataset": {"n_study": 7}}, "select_problems"),
    "dataset.n_calibration": sees({"dataset": {"n_calibration": 7}}, "select_problems"),
    "dataset.max_steps": sees({"dataset": {"max_steps": 3}}, "select_problems"),
    "dataset.distractors": sees({"dataset": {"distractors": 1}}, "select_problems"),
    "prompt.system": sees({"prompt": {"system": "Be brief."}}, "select_problems"),
    "prompt.instruction": sees({"prompt": {"instruction": "Q: {question}"}}, "select_problems"),
    "prompt.answer_cue": sees({"prompt": {"answer_cue": " A:"}}, "select_problems"),
    "models[].name": sees(first_model(name="ladder-900k"), "described"),
    "models[].source": sees(first_model(source="local", path=str(models.LADDER / "ladder-160k")), "described"),
    "models[].path": sees(
        first_model(source="local", path=str(models.LADDER / "ladder-160k")),
        "described",
        base=first_model(source="local", path=str(models.LADDER / "ladder-30k")),
    ),
    "models[].kind": imported(kind="csv"),
    "models[].log_model": imported("grade_imported", log_model="b"),
    "models[].n_params": imported("estimate_cells", n_params=2000),
    "models[].tokens_per_solution": imported("estimate_cells", tokens_per_solution=60),
    "models[].external_samples": imported("estimate_cells", external_samples=5),
    "models[].repo": hub_model("asked_of_hub_for_model", repo="c/d"),
    "models[].revision": hub_model("asked_of_hub_for_model", revision="1" * 40),
    "models[].shape": hub_model("planned", shape="Qwen2.5-7B-Instruct"),
    "models[].precisions[]": sees(first_model(precisions=["fp32", "rtn3"]), "drawn"),
    "pairs[][]": sees(
        {"pairs": [["ladder-30k@rtn4", "ladder-160k@fp32"]]},
        "compare_pairs",
        base={"pairs": [["ladder-30k@fp32", "ladder-160k@fp32"]]},
    ),
    "sampling.samples": sees({"sampling": {"samples": 5}}, "drawn"),
    "sampling.temperature": sees({"sampling": {"temperature": 0.9}}, "drawn"),
    "sampling.top_p": sees({"sampling": {"top_p": 0.9}}, "drawn"),
    "sampling.top_k": sees({"sampling": {"top_k": 5}}, "drawn"),
    "sampling.min_p": sees({"sampling": {"min_p": 0.1}}, "drawn"),
    "sampling.variants[].weight": variant(weight=2),
    "sampling.variants[].temperature": variant(temperature=0.6),
    "sampling.variants[].system": variant(system="Be long."),
    "sampling.variants[].instruction": variant(instruction="P: {question}"),
    "sampling.variants[].answer_cue": variant(answer_cue=" R:"),
    "sampling.compute_dtype": sees({"sampling": {"compute_dtype": "float32"}}, "drawn"),
    "budgets.T[]": sees({"budgets": {"T": [16, 32, 64]}}, "grade_samples", **ARM),
    "budgets.T_recipe[]": sees({"budgets": {"T_recipe": [64]}}, "estimate_cells"),
    "budgets.P[]": sees({"budgets": {"P": [1, 4]}}, "estimate_cells"),
    "budgets.B[]": sees({"budgets": {"B": [1, 4]}}, "estimate_cells"),
    "budgets.forcing": sees(FORCED, "drawn"),
    "budgets.answer_prompt": sees({"budgets": {"answer_prompt": " ####"}}, "drawn", base=FORCED),
    "budgets.answer_tokens": sees({"budgets": {"answer_tokens": 5}}, "drawn", base=FORCED),
    "budgets.extend_text": sees({"budgets": {"extend_text": "But"}}, "drawn", base=EXTENDED),
    "budgets.extend_times": sees({"budgets": {"extend_times": 2}}, "drawn", base=EXTENDED),
    "budgets.extend_minimum": sees({"budgets": {"extend_minimum": 20}}, "drawn", base=EXTENDED),
    "strategies[]": sees({"strategies": ["single", "weighted_majority"]}, "estimate_cells"),
    "grader": sees({"grader": "exact"}, "grade_samples", **ARM),
    "plan.pilot_chains": sees({"plan": {"pilot_chains": 6}}, "draw_pilots"),
    "plan.tokens_per_chain": sees({"plan": {"tokens_per_chain": 20}}, "planned"),
    "plan.device": sees({"plan": {"device": "T4"}}, "planned"),
    "plan.efficiency": sees({"plan": {"efficiency": 0.5}}, "planned", base={"plan": {"device": "T4"}}),
    "plan.recipe_hours": sees({"plan": {"recipe_hours": 2}}, "planned", base={"plan": {"device": "T4"}}),
    "plan.resolve_points": sees({"plan": {"resolve_points": 5}}, "planned"),
    "statistics.replicates": sees({"statistics": {"replicates": 300}}, "estimate_cells"),
    "statistics.confidence": sees({"statistics": {"confidence": 0.9}}, "estimate_cells"),
    "costs.prices": sees({"costs": {"prices": "dear.yaml"}}, "estimate_cells"),
    "costs.price_device": sees({"costs": {"price_device": "T4"}}, "estimate_cells"),
    "costs.prices_as_of": sees({"costs": {"prices_as_of": "2031-01-01"}}, "estimate_cells"),
    "costs.verifier.n_params": sees({"costs": {"verifier": {"n_params": 700}}}, "estimate_cells", base=IMPORT),
    "costs.verifier.tokens": sees({"costs": {"verifier": {"tokens": 30}}}, "estimate_cells", base=IMPORT),
    "laws[].id": law(id="mine"),
    "laws[].title": law(title="A line"),
    "laws[].formula": law(formula="a * k + 0 * a"),
    "laws[].latex": law(latex="a k"),
    "laws[].response": law(response=LAW["response"] | {"meaning": "share right"}),
    "laws[].variables[]": law(variables=[LAW["variables"][0] | {"meaning": "votes"}]),
    "laws[].parameters[]": law(parameters=[LAW["parameters"][0] | {"low": -2}]),
    "laws[].objective": law(objective="mae"),
    "paper.draft": sees({"paper": {"draft": True}}, "printed_head"),
    "laws[].source": law(source="elsewhere"),
    "laws[].equation": law(equation="2"),
    "laws[].validity": law(validity="any k"),
    "laws[].caveats[]": law(caveats=["some"]),
    "laws[].example": law(example={"parameters": {"a": 0.25}, "at": {"k": 2}, "value": 0.5}),
    "laws[].derived[]": law(derived=[TWICE]),
    "scenarios[].name": scenario(name="renamed"),
    "scenarios[].weights_flops": scenario(weights_flops=0.5),
    "scenarios[].attention_flops": scenario(attention_flops=0.5),
    "scenarios[].attention_budget": scenario(attention_budget=8),
    "scenarios[].attention_block": sees(
        {"scenarios": [{"name": "another", "attention_budget": 8, "attention_block": 4}]},
        "redraw_scenarios",
        base={"scenarios": [{"name": "another", "attention_budget": 8}]},
    ),
    "scenarios[].kv_bits": scenario(kv_bits=4),
    "scenarios[].device": scenario(device="T4"),
    "scenarios[].usd_per_hour": scenario(usd_per_hour=1.0),
    "calibration.prompt_tokens": sees({"calibration": {"prompt_tokens": 24}}, "measured_points"),
    "calibration.prefill_tokens[]": sees({"calibration": {"prefill_tokens": [8, 24]}}, "measured_points"),
    "calibration.decode_tokens": sees({"calibration": {"decode_tokens": 6}}, "measured_points"),
    "calibration.batches[]": sees({"calibration": {"batches": [1, 8]}}, "measured_points"),
    "calibration.contexts[]": sees({"calibration": {"contexts": [8, 16]}}, "measured_points"),
    "calibration.repeats": sees({"calibration": {"repeats": 6}}, "measured_points"),
}
# Keys of speed: other values, and the samples stay.
SPEED = {
    "sampling.device": {"device": "auto"},
    "sampling.offload": {"offload": "disk", "device_memory": "1MiB"},
    "sampling.device_memory": {"offload": "disk", "device_memory": "64KiB"},
    "sampling.batch_rows": {"batch_rows": 5},
    "sampling.shard_problems": {"shard_problems": 5},
}
INERT: dict[str, str] = {}  # key: why it may change nothing; at most five


def leaves(node: dict, name: str = "") -> list[str]:
    """Names of all keys that hold a value: what is below a list has [] in its name."""
    if "properties" in node:
        return [leaf for key, child in node["properties"].items() for leaf in leaves(child, f"{name}.{key}" if name else key)]
    if "items" in node and node.get("type") == "array":
        return leaves(node["items"], f"{name}[]")
    return [name]


def test_every_key_has_a_mutation():
    known = leaves(study_config.schema())
    assert len(known) == len(set(known)) > 100
    assert sorted(known) == sorted([*MUTATIONS, *SPEED, *INERT])
    assert len(INERT) <= 5


def resolved(*overlays: dict) -> dict:
    merged = copy.deepcopy(BASE)
    for overlay in overlays:
        merged = study_config.merge(merged, overlay)
    return study_config.resolve(merged)


@pytest.fixture(scope="module")
def work(tmp_path_factory, root):
    """A folder with a tiny finished study, its rules run in this process."""
    folder = tmp_path_factory.mktemp("keys")
    folder_for(root, folder)
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setattr("flopstat.provenance.code_hash", lambda *modules: "code")
        patch.setattr("snakemake.workflow.parse", parse_once)
        write_sources()
        rules = Rules(resolved())
        arms = [{"model": m["name"], "precision": p} for m in BASE["models"] for p in m["precisions"]]
        for name in ("select_problems", "describe_model", "calibrate_arms", "draw_pilots", "write_plan", "draw_samples"):
            each = {"describe_model": [{"model": m["name"]} for m in BASE["models"]], "draw_samples": [a | {"shard": "000"} for a in arms]}
            for where in each.get(name, [{}]):
                run(rules.job(name, **where))
        for where in arms:
            run(rules.job("grade_samples", **where))
        for name in ("tabulate_calibration", "estimate_cells", "measure_variance_ratio", "find_frontier"):
            run(rules.job(name))
        rules = Rules(resolved(IMPORT))
        for name in ("select_problems", "import_samples", "grade_imported", "estimate_cells"):
            run(rules.job(name, **OTHER))
        yield folder


def write_sources() -> None:
    """Files that some mutations read: problems, a sample log, a price table, two archives of nothing."""
    lines = [{"question": f"What is {i} and 1?", "answer": f"<<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}"} for i in range(8)]
    Path("problems.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines[:6], {"question": "Bare?", "answer": "#### 7"}]))
    Path("more.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[2:]))
    with Path("log.jsonl").open("w", encoding="utf-8") as stream:
        for i in range(7):
            for sample in range(4):
                for model in "ab":
                    row = {"problem_id": i, "model": model, "sample": sample, "question": f"What is {i}?", "gold": str(i), "n_tokens": 9}
                    stream.write(json.dumps(row | {"text": f"#### {i if (i + sample + ord(model)) % 3 else 90 + sample}"}) + "\n")
    table = yaml.safe_load(Path("config/prices.yaml").read_text(encoding="utf-8"))
    table["devices"]["epyc-2vcpu"]["usd_per_hour"] = 9.0
    Path("dear.yaml").write_text(yaml.safe_dump(table), encoding="utf-8")
    for name in ("a.bin", "b.bin"):
        Path(name).write_text(name, encoding="utf-8")


def seen(mutation: Mutation, config: dict, into: Path) -> str:
    """What the observer of a mutation says under one config: contents of files, or the line that refuses it."""
    try:
        if mutation.sees[0] in globals():
            return globals()[mutation.sees[0]](config)
        rules = Rules(config)
        for name in mutation.sees:
            written = run(rules.job(name, **mutation.where), into)
        return "\n".join(map(content, written))
    except InputError as error:
        return f"refused: {error}"
    finally:
        shutil.rmtree(into, ignore_errors=True)


def test_every_key_changes_a_result_or_what_is_drawn(work, capsys):
    silent, said, controls = [], [], {}
    steady = {("draw_pilots",)}  # what was seen to stay while nothing changes; a pilot says what was drawn just now
    for key, mutation in MUTATIONS.items():
        before = json.dumps([mutation.base, mutation.sees, mutation.where], sort_keys=True)
        if before not in controls:
            controls[before] = seen(mutation, resolved(mutation.base), work / "one")
            assert not controls[before].startswith("refused"), (key, controls[before])
            if mutation.sees not in steady:
                steady.add(mutation.sees)
                assert controls[before] == seen(mutation, resolved(mutation.base), work / "one"), f"{key}: changes without a change"
        try:
            config = resolved(mutation.base, changed(mutation.change))
        except InputError as error:
            after = f"refused: {error}"
        else:
            after = seen(mutation, config, work / "two")
        if after == controls[before]:
            silent.append(key)
        said.append(f"{key}: {after[:90] if after.startswith('refused') else ' > '.join(mutation.sees)}")
    with capsys.disabled():
        print("", *said, sep="\n")
    assert silent == []


def changed(change: dict) -> dict:
    """An overlay with the address and the hash of a file that is only there now."""
    if change.get("archive", {}).get("url") is None:
        return change
    file = Path(change["archive"]["url"].removeprefix("file:")).absolute()
    return {"archive": change["archive"] | {"url": file.as_uri(), "sha256": stored.digest(file)}}


@pytest.mark.parametrize("key", SPEED)
def test_keys_of_speed_change_no_sample(work, key, tmp_path):
    usual, other = resolved(), resolved({"sampling": SPEED[key]})
    assert study_config.schema()["properties"]["sampling"]["properties"][key.split(".")[1]]
    assert drawn(usual) == drawn(other)
    rules, views = Rules(other), []
    store = work / "results" / "pools"
    aside = store.with_name("aside")
    store.rename(aside)
    try:
        for shard in study_config.shards(other):
            views.append(content(run(rules.job("draw_samples", **ARM, shard=shard), tmp_path)[0]).splitlines())
        assert {p.name for p in store.iterdir()} <= {p.name for p in aside.iterdir()}
    finally:
        shutil.rmtree(store, ignore_errors=True)
        aside.rename(store)
    stored = content(work / "results/keys/samples/ladder-30k@fp32/000.parquet").splitlines()
    assert sorted({line for view in views for line in view}) == sorted(set(stored))


# --- what sees a key where no rule can run ---------------------------------------------------------------------------


def places(config: dict) -> str:
    """Where a rule writes."""
    return str(Rules(config).job("select_problems").output)


def printed_head(config: dict) -> str:
    """The head of the paper's macros, as the rule's own config sets it."""
    own = Rules(config).job("write_macros").params.config
    ledger = Ledger(Sources(Path("results"), []))
    return paper.macros(ledger, defaultdict(str), [], own["paper"]["draft"], has_ladder=True)


def drawn(config: dict) -> str:
    """Which chains every arm wants of which pool."""
    plan = Plan.of(config["sampling"], config["budgets"], config["seed"])
    out = []
    for model in config["models"]:
        card = models.describe(model, Path("checkpoints"))
        for precision in model["precisions"]:
            key = sampling.pool_key(card, precision, plan, config["sampling"]["compute_dtype"], "transformers")
            out.append([key, plan.samples, plan.settings.max_tokens, str(plan.forcing)])
    return json.dumps(out, sort_keys=True)


def described(config: dict) -> str:
    """The first model's card, its name left out."""
    return json.dumps(vars(models.describe(config["models"][0], Path("checkpoints"))) | {"name": ""}, default=str)


def asked_of_hub(config: dict) -> str:
    """What the hub is asked for a data set."""
    with pytest.MonkeyPatch.context() as patch:
        asked: list = []
        patch.setattr("datasets.load_dataset", lambda *a, **k: asked.append((a, k)) or [])
        problems._from_hub(config["dataset"])
    return str(asked)


def asked_of_hub_for_model(config: dict) -> str:
    """What the hub is asked for a model."""
    with pytest.MonkeyPatch.context() as patch:
        asked: list = []
        patch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: asked.append((a, k)) or ".")
        models._folder(config["models"][0], Path("checkpoints"))
    return str(asked)


def planned(config: dict) -> str:
    """The plan before anything is there, as the command and plan.csv give it."""
    plan = plan_text.make_plan(plan_inputs.read_inputs(config, Path("nowhere")), config["plan"]["resolve_points"], 2)
    return json.dumps([plan_text.to_json(plan), plan_text.table_rows(plan)], default=str)


def archive_source(config: dict) -> str:
    """Which file an archive is taken from."""
    return archive.source(config["archive"], Path("archives")).read_text(encoding="utf-8")


def explained_law(config: dict) -> str:
    """A law of the study's own, as `flopstat laws` explains it and a fit reads it."""
    (own,) = [one["id"] for one in config["laws"]]
    found = catalogue.find(own, config["laws"])
    return "\n".join(report.explained(found)) + json.dumps(found.to_data())


class CountingEngine:
    """Counts what a calibration asks of the engine."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.model = lambda **kwargs: None

    def seat(self, batch: int, context: int) -> None:
        self.at = batch, context

    def step(self) -> tuple[float, float]:
        self.steps.append(self.at)
        return 1.0, 0.0

    def prefill(self, batch: int, tokens: int) -> float:
        return 1.0

    def turnover(self, batch: int, tokens: int) -> float:
        return 1.0


def measured_points(config: dict) -> str:
    """Points and rounds of a calibration, and how many decoding steps each takes."""
    settings, engine = config["calibration"], CountingEngine()
    points = calibration.visits(settings, 200)
    found = calibration.measure(engine, points, settings["repeats"], settings["decode_tokens"], "cpu")
    steps = {point: engine.steps.count(point) / settings["repeats"] for point in sorted(set(engine.steps))}
    return str([(point, len(rounds)) for point, rounds in found.items()]) + str(steps)
