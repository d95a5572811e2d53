"""Imported arms: card, grades, cells without costs, pairs, and what is refused by name."""

import json

import numpy as np
import pandas as pd
import pytest

from flopstat import bootstrap, cells, comparison, config, frontier, imports, laws, paper, problems, spending, tables
from flopstat.columns import TABLES
from flopstat.costs import headline_cost
from flopstat.errors import InputError
from flopstat.figures import plot_accuracy
from flopstat.models import read_card

SOLUTIONS = config.ROOT.parent / "shared" / "data" / "gsm8k" / "example_model_solutions.jsonl"
ENTRY = {"name": "m", "source": "import", "kind": "jsonl", "log_model": None, "n_params": 1000, "precisions": ["unknown"]}
ENTRY |= {"tokens_per_solution": None, "external_samples": None}
DATASET = {"source": "ladder", "n_study": 12, "n_calibration": 12, "max_steps": 6, "distractors": 0}
PROMPT = {"system": "", "instruction": "{question}", "answer_cue": ""}


@pytest.fixture(scope="module")
def chosen():
    return problems.select_problems(DATASET, [PROMPT], 1).problems


def write_log(path, chosen, k=4, right=0.6, seed=0, **known):
    """A log of k samples per problem, each right with the same probability, written by nobody's model."""
    rng = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8") as stream:
        for row in chosen.itertuples():
            for i in range(k):
                answer = row.gold if rng.random() < right else str(int(row.gold) + 1 + int(rng.integers(3)))
                stream.write(json.dumps({"problem_id": row.problem_id, "text": f"#### {answer}", "sample": i} | known) + "\n")
    return path


def arm(tmp_path, chosen, budgets=(8, 64), entry=None, **log):
    """Card and grades of an imported log."""
    path = write_log(tmp_path / "log.jsonl", chosen, **log)
    out = tmp_path / "samples.parquet"
    card = imports.import_arm(ENTRY | {"path": str(path)} | (entry or {}), out)
    graded = imports.grade_imported(tables.read("imported", out), chosen, list(budgets), "m@unknown", ["gsm8k"])[0]
    return card, tables.validate(graded.assign(model="m", precision="unknown"), "grades")


def estimate(card, graded, chosen, strategies=("single", "greedy", "majority", "best_of_mean_logprob")):
    wanted = {"study": "s", "seed": 1, "samples": int(graded["sample"].max()) + 1, "strategies": list(strategies)}
    wanted |= {"statistics": {"replicates": 200, "confidence": 0.95}}
    wanted |= {"budgets": {"T": [64], "T_recipe": [], "P": [1, 2, 4], "B": [1, 2], "forcing": "truncate", "answer_tokens": 16}}
    facts = cells.ArmFacts(card, "unknown", None, None, None)
    configurations, per_problem = cells.estimate_arm(graded, chosen, facts, wanted)
    left_out = pd.DataFrame(cells.skipped(facts, wanted, graded), columns=list(TABLES["configurations_skipped"]))
    return (
        tables.validate(configurations, "configurations"),
        tables.validate(per_problem, "cells"),
        tables.validate(left_out, "configurations_skipped"),
        wanted,
    )


def test_card_says_what_was_declared_dropped_and_unknown(tmp_path, chosen):
    card, _ = arm(tmp_path, chosen, entry={"tokens_per_solution": 50, "external_samples": 10}, extra=1)
    (tmp_path / "card.json").write_text(card.to_json(), encoding="utf-8")
    assert read_card(tmp_path / "card.json") == card
    assert card.flags == ["imported", "declared_tokens", "external_samples"]
    assert card.dropped == {"extra": 96}
    assert card.unknown["n_tokens"] == 96
    assert card.nominal_flops(3, float("nan")) == 2 * 1000 * 50 * 3 * 10


def test_size_and_model_must_be_known(tmp_path, chosen):
    path = write_log(tmp_path / "log.jsonl", chosen)
    with pytest.raises(InputError, match=r"models m: .* names 0 sizes of the model; declare n_params"):
        imports.import_arm(ENTRY | {"path": str(path), "n_params": None}, tmp_path / "s.parquet")
    path.write_text(path.read_text() + json.dumps({"problem_id": "x", "text": "", "model": "other"}) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"models m: .* holds log, other; choose one with log_model"):
        imports.import_arm(ENTRY | {"path": str(path)}, tmp_path / "s.parquet")
    card = imports.import_arm(ENTRY | {"path": str(path), "log_model": "other"}, tmp_path / "s.parquet")
    assert card.unknown["n_tokens"] == 1


def test_chains_are_graded_whole_at_the_largest_t_and_by_how_they_ended(tmp_path, chosen):
    path = tmp_path / "log.jsonl"
    ends = {0: ("so 5", "stop"), 1: ("so 5", "length"), 2: ("", "engine_error"), 3: ("so 5", None)}
    rows = [{"problem_id": p, "text": t, "finish_reason": f, "sample": i} for p in chosen["problem_id"] for i, (t, f) in ends.items()]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    imports.import_arm(ENTRY | {"path": str(path)}, tmp_path / "s.parquet")
    graded = imports.grade_imported(tables.read("imported", tmp_path / "s.parquet"), chosen, [8, 64], "a", ["gsm8k"])[0]
    assert set(graded["T"]) == {64}
    states = graded.groupby("sample")["state"].unique().map(list).to_dict()
    assert states == {0: ["answered"], 1: ["truncated"], 2: ["engine_error"], 3: ["answered"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[t["problem_id"] != "3"], "a: no samples of 1 problems, such as '3'; take the problems from the same log"),
        (lambda t: t[(t["problem_id"] != "3") | (t["sample"] < 2)], "a: 2 samples of problem '3' and 4 of"),
        (lambda t: t.assign(sample=t["sample"] + 1), "a: samples up to 4 and 0 greedy chains of 24 problems; every problem needs each"),
        (lambda t: t.assign(sample=-1), "a: samples up to -1 and 96 greedy chains"),
        (lambda t: t.assign(sample=t["sample"].replace(3, 2)), "every problem needs each sample"),
        (lambda t: t.assign(n_tokens=100), "a: a chain of 100 tokens can't be cut at 64 without its tokenizer; raise budgets.T to 100"),
    ],
)
def test_pools_that_do_not_fit_the_study(tmp_path, chosen, change, message):
    imports.import_arm(ENTRY | {"path": str(write_log(tmp_path / "log.jsonl", chosen))}, tmp_path / "s.parquet")
    with pytest.raises(InputError, match=message):
        imports.grade_imported(change(tables.read("imported", tmp_path / "s.parquet")), chosen, [8, 64], "a", ["gsm8k"])


def test_problems_beyond_the_study_are_left_out(tmp_path, chosen):
    imports.import_arm(ENTRY | {"path": str(write_log(tmp_path / "log.jsonl", chosen))}, tmp_path / "s.parquet")
    few, samples = chosen.head(5), tables.read("imported", tmp_path / "s.parquet")
    assert set(imports.grade_imported(samples, few, [64], "a", ["gsm8k"])[0]["problem_id"]) == set(few["problem_id"])


def test_cells_of_an_imported_arm_have_accuracy_and_null_costs(tmp_path, chosen):
    card, graded = arm(tmp_path, chosen)
    configurations, per_problem, left_out, _ = estimate(card, graded, chosen)
    assert set(configurations["strategy"]) == {"single", "majority"}
    unknown = [f"{cost}{end}" for cost in spending.COLUMNS for end in spending.ENDS]
    assert configurations[[*unknown, "mean_tokens", "bits_effective"]].isna().all().all()
    missing = spending.unknown_costs(cells.ArmFacts(card, "unknown", None, None, None), configurations)
    assert [row["cost"] for row in missing] == list(spending.COLUMNS)
    assert "models.N.tokens_per_solution" in {row["cost"]: row["reason"] for row in missing}["flops_nominal"]
    assert per_problem["flops"].isna().all()
    assert configurations["flags"].str.contains("imported").all()
    study = graded[graded["split"] == "study"]
    single = configurations[(configurations["split"] == "study") & (configurations["strategy"] == "single")]
    assert single["accuracy"].item() == pytest.approx(study["correct"].mean())
    reasons = dict(left_out.groupby("strategy")["reason"].first())
    assert reasons == {
        "greedy": "needs a chain with sample -1 of every problem, which these samples lack",
        "best_of_mean_logprob": "needs mean_logprob, which these samples lack",
    }


def test_logged_tokens_give_a_nominal_cost_and_logprobs_a_best_of(tmp_path, chosen):
    card, graded = arm(tmp_path, chosen, n_tokens=30, mean_logprob=-0.5)
    configurations, _, left_out, _ = estimate(card, graded, chosen)
    pairs = configurations["P"] * configurations["B"]
    assert configurations["flops_nominal"].tolist() == [2.0 * 1000 * 30 * k for k in pairs]
    assert set(configurations["mean_tokens"] / pairs) == {30.0}
    assert "best_of_mean_logprob" in set(configurations["strategy"])
    assert set(left_out["strategy"]) == {"greedy"}


def test_one_sample_per_problem_gives_single_alone_and_no_kappa(tmp_path, chosen):
    card, graded = arm(tmp_path, chosen, k=1, entry={"tokens_per_solution": 50})
    configurations, _, left_out, wanted = estimate(card, graded, chosen)
    assert set(configurations["strategy"]) == {"single"}
    assert set(left_out.loc[left_out["strategy"] == "majority", "reason"]) == {
        "P·B = 2 exceeds the pool of K = 1",
        "P·B = 4 exceeds the pool of K = 1",
    }
    rows = laws.fit_study_laws({"m@unknown": graded}, {"m": card}, {"m": "unknown"}, chosen, wanted)
    assert rows == []


def test_kappa_of_an_imported_pool(tmp_path, chosen):
    card, graded = arm(tmp_path, chosen, k=8)
    wanted = {"seed": 1, "budgets": {"T": [8, 64]}, "statistics": {"replicates": 200, "confidence": 0.95}}
    rows = laws.fit_study_laws({"m@unknown": graded}, {"m": card}, {"m": "unknown"}, chosen, wanted)
    assert [(r["parameter"], r["T"]) for r in rows] == [("kappa", 64)]
    tables.validate(pd.DataFrame(rows), "laws")


@pytest.fixture
def two(tmp_path, chosen):
    """Two imported arms: the larger has a declared cost only if asked for."""

    def make(small=None, large=None):
        parts = []
        for name, n, entry, right in (("small", 1000, small, 0.4), ("large", 9000, large, 0.8)):
            (tmp_path / name).mkdir(exist_ok=True)
            own = {"name": name, "n_params": n} | (entry or {})
            card, graded = arm(tmp_path / name, chosen, entry=own, right=right, seed=n)
            parts.append(estimate(card, graded, chosen, ["single", "majority"]))
        merged = [pd.concat([a, b], ignore_index=True) for a, b in zip(parts[0][:2], parts[1][:2], strict=True)]
        return merged[0], frontier.judge(*merged, parts[0][3])

    return make


def test_frontier_and_crossovers_take_the_costs_that_are_known(two):
    _, judged = two({"tokens_per_solution": 50}, None)
    arms = ["small@unknown", "large@unknown"]
    assert frontier.unknown_costs(judged) == dict.fromkeys(frontier.COSTS, arms) | {"flops_nominal": ["large@unknown"]}
    assert frontier.known_costs(judged) == ["flops_nominal"]
    assert set(tables.validate(frontier.frontier(judged, "flops_nominal"), "frontier")["arm"]) == {"small@unknown"}
    assert tables.validate(frontier.frontier(judged, "flops"), "frontier").empty
    found = tables.validate(frontier.crossovers(judged, "flops_nominal"), "crossovers")
    assert found[["kind", "status"]].to_numpy().tolist() == [["best", "unknown_cost"]]
    _, both = two({"tokens_per_solution": 50}, {"tokens_per_solution": 50})
    assert list(frontier.crossovers(both, "flops_nominal")["kind"]) == ["single", "best"]  # there is no greedy cell


def test_figure_stands_on_the_known_cost_or_is_refused_by_name(two, tmp_path):
    configurations, judged = two({"tokens_per_solution": 50}, {"tokens_per_solution": 50})
    assert headline_cost(configurations) == "flops_nominal"
    edge, crossings = frontier.frontier(judged, "flops_nominal"), frontier.crossovers(judged, "flops_nominal")
    references = {"small": "unknown", "large": "unknown"}
    data = plot_accuracy(configurations, edge, crossings, references, "t", [tmp_path / "f.png"])
    single = configurations[(configurations["split"] == "study") & (configurations["strategy"] == "single")]
    drawn = data[(data["series"] == "single")].set_index("model")["cost"].to_dict()
    assert drawn == dict(zip(single["model"], single["flops_nominal"], strict=True))
    bare, _ = two()
    with pytest.raises(InputError, match=r"no cost is known for small@unknown, large@unknown; declare models\.N\.tokens_per_solution"):
        plot_accuracy(bare, edge, crossings, references, "t", [tmp_path / "f.png"])
    with pytest.raises(InputError, match=r"no arm has joules; unknown_costs\.csv says why"):
        plot_accuracy(configurations, edge, crossings, references, "t", [tmp_path / "f.png"], "joules")


def test_pairs_are_paired_differences_beside_the_ratio_of_costs(two):
    declared = {"tokens_per_solution": 50}
    _, judged = two(declared | {"external_samples": 100}, declared)
    table = tables.validate(comparison.compare_pairs(judged, [["small@unknown", "large@unknown"]]), "pairs")
    row = table.iloc[0]
    assert len(table) == 1
    assert (row["cost"], row["cost_ratio"]) == ("flops_nominal", pytest.approx(1000 * 100 / 9000))
    assert row["flags"].split(";")[:3] == ["imported", "declared_tokens", "external_samples"]
    columns = judged.cells.index[judged.cells["strategy"] == "single"]
    d = judged.values[:, columns[0]] - judged.values[:, columns[1]]
    wanted = bootstrap.paired_interval(d[:, None], judged.w, 0.95)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((d.mean(), wanted.low[0], wanted.high[0]))
    _, bare = two()
    row = comparison.compare_pairs(bare, [["small@unknown", "large@unknown"]]).iloc[0]
    assert pd.isna(row["cost"])
    assert np.isfinite(row["difference"])


def test_config_of_an_imported_arm():
    raw = {
        "study": "s",
        "dataset": {"source": "import", "path": "x.parquet"},
        "models": [{"name": "m", "source": "import", "path": "x.parquet"}],
    }
    raw |= {"budgets": {"T": [64]}, "sampling": {"samples": 1}, "pairs": []}
    resolved = config.resolve(raw)
    assert resolved["models"][0]["precisions"] == ["unknown"]
    assert config.imported(resolved) == ["m"]
    assert config.resolve(resolved) == resolved


def test_gold_filter_keeps_problems_without_annotations():
    rows = [
        {"problem_id": str(i), "question": f"q{i}", "answer": a} for i, a in enumerate(["#### 5", "<<1+1=3>>\n#### 3", "x", "#### 1.5"])
    ]
    kept, refusals = problems.filter_problems(rows, problems.judge_gold)
    assert kept["gold"].tolist() == ["5", "3"]
    assert kept["difficulty"].tolist() == [0, 1]
    assert dict(refusals) == {"no_gold_answer": 1, "gold_not_one_integer": 1}
    assert len(problems.filter_problems(rows)[0]) == 0


@pytest.mark.skipif(not SOLUTIONS.is_file(), reason="example_model_solutions.jsonl is not beside this repository")
def test_the_study_of_released_solutions(tmp_path):
    """Cobbe et al. 2021: 6B with a verifier beats 175B fine-tuned, here with its interval and at what cost."""
    wanted = config.load(config.ROOT / "config" / "config.yaml", config.ROOT / "config" / "studies" / "openai-gsm8k.yaml")
    wanted["dataset"]["path"] = str(SOLUTIONS)
    chosen = problems.select_problems(wanted["dataset"], [wanted["prompt"]], wanted["seed"]).problems
    settings = {key: wanted[key] for key in ("study", "seed", "budgets", "strategies", "statistics")} | {"samples": 1}
    parts = []
    for entry in wanted["models"]:
        card = imports.import_arm(entry | {"path": str(SOLUTIONS)}, tmp_path / "s.parquet")
        graded = imports.grade_imported(
            tables.read("imported", tmp_path / "s.parquet"), chosen, wanted["budgets"]["T"], entry["name"], ["gsm8k"]
        )[0]
        graded = tables.validate(graded.assign(model=card.name, precision="fp16"), "grades")
        parts.append(cells.estimate_arm(graded, chosen, cells.ArmFacts(card, "fp16", None, None, None), settings))
    configurations, per_problem = (pd.concat([part[i] for part in parts], ignore_index=True) for i in (0, 1))
    assert (configurations["accuracy"] * 1319).round(6).tolist() == [286, 515, 458, 742]
    assert (configurations["accuracy_high"] - configurations["accuracy_low"]).between(0.03, 0.06).all()
    assert configurations["flags"].str.contains("declared_tokens").all()
    assert configurations["flags"].str.contains("external_samples").tolist() == [False, True, False, True]
    row = comparison.compare_pairs(frontier.judge(configurations, per_problem, settings), wanted["pairs"]).iloc[0]
    assert (row["arm_a"], row["arm_b"]) == ("gpt3-6b-verifier@fp16", "gpt3-175b-finetuned@fp16")
    assert row["difference"] == pytest.approx((515 - 458) / 1319)
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert row["cost_ratio"] == pytest.approx(6 * 100 / 175)


def test_an_imported_arm_beside_drawn_ones(tmp_path, study, study_config, write_paper, as_printed):
    """It takes part in tables, frontiers of the costs it has, figure and paper; the paper says what is not known of it."""
    chosen = study["tables"]["problems"]
    card, graded = arm(tmp_path, chosen, budgets=study_config["budgets"]["T"], entry={"tokens_per_solution": 50})
    configurations, per_problem, _, _ = estimate(card, graded, chosen, ["single", "majority"])
    own = study["tables"]
    merged = pd.concat([own["configurations"], configurations.assign(study=study_config["study"])], ignore_index=True)
    long = pd.concat([own["cells"], per_problem], ignore_index=True)
    judged = frontier.judge(merged, long, study_config | {"samples": 8})
    edge = pd.concat([frontier.frontier(judged, cost) for cost in frontier.COSTS], ignore_index=True)
    crossings = tables.validate(pd.concat([frontier.crossovers(judged, cost) for cost in frontier.COSTS]), "crossovers")
    assert "m@unknown" in set(edge.loc[edge["cost"] == "flops_nominal", "arm"])
    assert "m@unknown" not in set(edge.loc[edge["cost"] == "flops", "arm"])
    assert set(crossings.loc[crossings["small"] == "m", "status"]) > {"unknown_cost"}
    changed = own | {"configurations": merged, "cells": long, "frontier": tables.validate(edge, "frontier"), "crossovers": crossings}
    wanted = study_config | {"models": [*study_config["models"], {"name": "m", "source": "import", "precisions": ["unknown"]}]}
    (ledger, texts), files = write_paper(tmp_path, wanted, changed, [*study["cards"], card], study["measured"][0])
    assert paper.check(tmp_path, files, "") == []
    written = {name: as_printed(text, ledger) for name, text in texts.items()}
    assert "The samples of m were imported" in written["FSLimits"]
    assert "ladder-30k and m are not compared, for one of them has no counted cost." in written["FSCrossoverSentences"]
    assert r"m@unknown & 1000 & -- & " in written["FSArmRows"]
    assert "unknown" not in written["FSModelRows"]
    references = dict.fromkeys(merged["model"], "fp32") | {"m": "unknown"}
    data = plot_accuracy(merged, edge, crossings, references, "t", [tmp_path / "f.png"])
    assert "m" not in set(data["model"])  # the figure's axis is the counted cost
