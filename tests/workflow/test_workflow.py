"""The workflow: lint, dry runs without network and torch, broken configs, and one real small study to the PDF.

Everything runs in a copy of the working tree; the repository's own results are never touched.
"""

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flopstat import tables
from flopstat.columns import TABLES

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
STUDIES = {
    "ladder": [],
    "ladder-forced": ["config/studies/ladder-forced.yaml"],
    "ladder-full": ["config/studies/ladder-full.yaml"],
    "smollm2-gsm8k": ["config/studies/smollm2-gsm8k.yaml"],
    "qwen2.5-gsm8k": ["config/studies/qwen2.5-gsm8k.yaml"],
    "qwen2.5-gsm8k-colab-t4": ["config/studies/qwen2.5-gsm8k.yaml", "config/personas/colab-t4.yaml"],
    "qwen2.5-gsm8k-published": ["config/studies/qwen2.5-gsm8k.yaml", "config/personas/gsm8k-published.yaml"],
    "qwen2.5-gsm8k-rtx4090": ["config/studies/qwen2.5-gsm8k.yaml", "config/personas/rtx4090.yaml"],
}
SMALL = {
    "study": "small",
    "title": "A small study: 100% of it & more_",
    "dataset": {"source": "ladder", "n_study": 6, "n_calibration": 6},
    "models": [
        {"name": "ladder-30k", "source": "ladder", "precisions": ["fp32", "int8"]},
        {"name": "ladder-160k", "source": "ladder", "precisions": ["fp32", "nf4"]},
    ],
    "sampling": {"samples": 8},
    "budgets": {"T": [16, 64], "P": [1, 2, 4], "B": [1, 2]},
    "statistics": {"replicates": 200},
    "calibration": {
        "prompt_tokens": 32,
        "decode_tokens": 4,
        "prefill_tokens": [8, 32],
        "batches": [1, 4],
        "contexts": [8, 32],
        "repeats": 5,
    },
}
IMPORTED = {
    "study": "imported",
    "dataset": {"source": "import", "path": "pool.parquet", "filter": "gold", "n_study": 8, "n_calibration": 6},
    "models": [
        {"name": "small", "source": "import", "path": "pool.parquet", "log_model": "a", "n_params": 1000, "tokens_per_solution": 50},
        {"name": "large", "source": "import", "path": "pool.parquet", "log_model": "b", "n_params": 9000, "tokens_per_solution": 50},
    ],
    "pairs": [["small@unknown", "large@unknown"]],
    "sampling": {"samples": 4},
    "budgets": {"T": [64], "P": [1, 2, 4], "B": [1]},
    "statistics": {"replicates": 200},
}
MODEL_RULES = {"draw_pilots", "write_plan", "describe_model", "calibrate_arms", "draw_samples", "grade_samples"}


def tracked_files() -> list[Path]:
    """Files of the working tree that git keeps or would keep, as paths relative to the root."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(p) for p in listed.stdout.split("\0") if p and (ROOT / p).is_file()]


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the working tree without its history and results."""
    folder = tmp_path_factory.mktemp("flopstat")
    for path in tracked_files():
        if path.parts[0] != "tests":
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)
    return folder


def run(folder: Path, *command: str, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a tool of the environment in the copy, with the copy's library before the installed one."""
    path = [str(p) for p in (first, folder / "scripts") if p]
    env = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path),
        "XDG_CACHE_HOME": str(folder / ".cache"),
        "HF_HUB_OFFLINE": "1",
    }
    for name in ("OMP_NUM_THREADS", "PYTEST_CURRENT_TEST"):
        env.pop(name, None)
    return subprocess.run([sys.executable, "-m", *command], cwd=folder, env=env, capture_output=True, text=True, check=False)


def snakemake(folder: Path, *arguments: str, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run(folder, "snakemake", "--cores", "2", "--nocolor", *arguments, first=first)


def jobs(dry_run: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Jobs by rule, read off the table of a dry run."""
    assert dry_run.returncode == 0, dry_run.stderr + dry_run.stdout
    lines = (dry_run.stdout + dry_run.stderr).splitlines()
    found = {}
    for line in lines[lines.index(next(x for x in lines if x.startswith("job "))) + 2 :]:
        words = line.split()
        if len(words) != 2 or words[0] == "total":
            break
        found[words[0]] = int(words[1])
    return found


def test_lint_and_format(copy):
    linted = snakemake(copy, "--lint")
    assert linted.returncode == 0, linted.stdout + linted.stderr
    checks = (
        ["snakefmt", "--check", "workflow"],
        ["ruff", "check", "--no-cache", "."],
        ["ruff", "format", "--check", "--no-cache", "."],
        ["mypy", "--cache-dir", os.devnull],
    )
    for command in checks:
        done = run(copy, *command)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_poison_works(copy, poison):
    assert "torch was imported" in run(copy, "torch", first=poison).stderr
    network = poison / "ask.py"
    network.write_text("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')", encoding="utf-8")
    assert "network: " in run(copy, "ask", first=poison).stderr


@pytest.mark.parametrize("study", STUDIES)
def test_dry_run_needs_neither_network_nor_torch(copy, poison, study):
    done = snakemake(copy, "-n", *(["--configfile", *STUDIES[study]] if STUDIES[study] else []), first=poison)
    found = jobs(done)
    arms = found["grade_samples"]
    assert found["calibrate_arms"] == 1
    assert arms >= 2
    assert found["draw_samples"] % arms == 0
    assert {
        "select_problems",
        "describe_model",
        "estimate_cells",
        "fit_laws",
        "find_frontier",
        "measure_variance_ratio",
        "plot_accuracy",
        "record_run",
    } <= found.keys()
    assert f"results/{study}/frontier.csv" in done.stdout + done.stderr


def test_the_pilot_and_the_plan_come_before_sampling_and_reality_after_it(copy, poison):
    done = snakemake(copy, "--rulegraph", first=poison)
    assert done.returncode == 0, done.stderr
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', done.stdout))
    edges = {(names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", done.stdout)}
    wanted = "draw_pilots>write_plan>draw_samples>compare_plan>plot_plan>all".split(">")
    assert set(itertools.pairwise(wanted)) | {("draw_pilots", "draw_samples"), ("write_plan", "compare_plan")} <= edges
    assert any(a.startswith("calibrate") and b == "write_plan" for a, b in edges)


def test_dry_run_of_released_solutions_needs_no_file_and_no_model(copy, poison):
    done = snakemake(copy, "-n", "--configfile", "config/studies/openai-gsm8k.yaml", first=poison)
    found = jobs(done)
    assert not (copy.parent / "shared").exists()
    assert found["import_samples"] == found["grade_imported"] == 4
    assert not MODEL_RULES & found.keys()
    assert {"estimate_cells", "find_frontier", "compare_pairs", "plot_accuracy"} <= found.keys()


def test_released_solutions_without_the_file_end_with_its_name(copy, poison):
    done = snakemake(copy, "--configfile", "config/studies/openai-gsm8k.yaml", "--until", "select_problems", first=poison)
    assert done.returncode != 0
    log = (copy / "results" / "openai-gsm8k" / "logs" / "select_problems.log").parent
    assert "example_model_solutions.jsonl: no such file" in done.stdout + done.stderr + "".join(p.read_text() for p in log.rglob("*.log"))


def write_pool(path: Path) -> None:
    """Two models' samples of 14 problems with their questions and gold answers: four chains each, the larger model right more often."""
    with path.open("w", encoding="utf-8") as stream:
        for problem in range(14):
            for model, right in {"a": 1 + problem % 2, "b": 2 + problem % 3}.items():
                for i in range(4):
                    row = {"problem_id": problem, "model": model, "sample": i, "question": f"How much is {problem}?", "gold": str(problem)}
                    row["text"] = f"It is\n#### {problem if i < right else 90 + i}"
                    stream.write(json.dumps(row) + "\n")


@pytest.mark.slow
def test_import_study_to_the_figures_with_no_model_present(copy, poison):
    """Torch and transformers can't even be imported."""
    write_pool(copy / "log.jsonl")
    imported = run(copy, "flopstat.cli", "import", "jsonl", "log.jsonl", "--out", "pool.parquet", first=poison)
    assert imported.returncode == 0, imported.stderr
    (copy / "imported.yaml").write_text(yaml.safe_dump(IMPORTED), encoding="utf-8")
    done = snakemake(copy, "--configfile", "imported.yaml", first=poison)
    assert done.returncode == 0, done.stdout + done.stderr
    results = copy / "results" / "imported"
    loaded = {name: tables.read(name, results / f"{name}.csv") for name in TABLES if (results / f"{name}.csv").is_file()}
    cells = loaded["configurations"]
    assert set(cells["strategy"]) == {"single", "majority"}
    assert set(loaded["configurations_skipped"]["strategy"]) == {"greedy"}
    assert cells["flops"].isna().all()
    assert set(cells["flags"].str.replace("small_counts;", "")) == {"imported;declared_tokens"}
    single = cells[(cells["strategy"] == "single") & (cells["model"] == "small")]
    assert set(single["flops_nominal"]) == {2.0 * 1000 * 50}
    assert (cells["n_asked"] == cells[["n_answered", "n_no_answer", "n_truncated", "n_failed"]].sum(axis=1)).all()
    laws = loaded["laws"]
    assert set(laws.loc[laws["estimate"].notna(), "parameter"]) == {"kappa"}
    assert laws.loc[laws["estimate"].isna(), "verdict"].str.startswith("not identified").all()
    assert set(loaded["frontier"]["cost"]) == {"flops_nominal"}
    assert set(loaded["crossovers"]["cost"]) == {"flops_nominal"}
    unknown = loaded["unknown_costs"]
    assert set(unknown.loc[unknown["cost"] == "flops", "arm"]) == set(cells["arm"])
    assert loaded["pairs"]["cost_ratio"].tolist() == [pytest.approx(1 / 9)]
    for suffix in ("pdf", "png", "csv"):
        assert (results / "figures" / f"accuracy.{suffix}").stat().st_size > 500
    assert json.loads((results / "run.json").read_text(encoding="utf-8"))["hardware"] == []
    again = snakemake(copy, "--configfile", "imported.yaml", first=poison)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_broken_config_ends_before_any_job_with_one_line(copy):
    broken = copy / "broken.yaml"
    broken.write_text("study: broken\nbudgets: {P: [2, 4]}\n", encoding="utf-8")
    done = snakemake(copy, "--configfile", str(broken))
    assert done.returncode == 2
    named = [line for line in done.stderr.splitlines() if line.startswith("flopstat: ")]
    assert len(named) == 1
    assert "budgets.P: must hold 1" in named[0]
    assert "Traceback" not in done.stdout + done.stderr
    assert not (copy / "results" / "broken").exists()


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of change of every file below a folder, locks apart."""
    return {
        str(p.relative_to(folder)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.endswith(".lock")
    }


@pytest.mark.slow
def test_small_study_from_nothing_to_the_pdf_and_its_reruns(copy):
    (copy / "small.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    config = ["--configfile", "small.yaml"]
    done = snakemake(copy, *config)
    assert done.returncode == 0, done.stdout + done.stderr
    results = copy / "results" / "small"
    check_results(results)

    pools, calibrations = state_of(copy / "results" / "pools"), state_of(copy / "results" / "calibrations")
    assert len([name for name in pools if name.endswith(".log")]) >= 4
    again = snakemake(copy, *config)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout + again.stderr

    # A changed comment reruns nothing; a changed style reruns figures, the record of their tables and the paper, and nothing else.
    style = copy / "scripts" / "flopstat" / "style.py"
    code = style.read_text(encoding="utf-8")
    style.write_text("# A comment.\n" + code, encoding="utf-8")
    commented = snakemake(copy, "-n", *config)
    assert "Nothing to be done" in commented.stdout + commented.stderr
    assert '"font.size": 8.5' in code
    style.write_text(code.replace('"font.size": 8.5', '"font.size": 8.0'), encoding="utf-8")
    rerun = jobs(snakemake(copy, "-n", *config))
    others = {"all", "record_run", "write_macros", "check_macros"} | ({"build_paper"} if shutil.which("latexmk") else set())
    assert {name for name in rerun if not name.startswith("plot_")} == others
    assert rerun["plot_accuracy"] == rerun["plot_costs"] == 1
    style.write_text(code, encoding="utf-8")

    # A branch switch or a formatter changes times, not content: rules may rerun, but nothing is drawn or measured anew.
    tables_before = {p.name: p.read_bytes() for p in results.glob("*.csv")}
    for path in tracked_files():
        if (copy / path).is_file():
            os.utime(copy / path)
    touched = snakemake(copy, *config, "--", "results/small/run.json", "results/small/paper/checked.txt")
    assert touched.returncode == 0, touched.stdout + touched.stderr
    assert state_of(copy / "results" / "pools") == pools
    assert state_of(copy / "results" / "calibrations") == calibrations
    assert {p.name: p.read_bytes() for p in results.glob("*.csv")} == tables_before
    check_forced_answers(copy)


def check_forced_answers(copy: Path) -> None:
    """The same study with forced answers draws no chain anew, answers more at the small T, and charges for it."""
    forced = SMALL | {"study": "small-forced", "budgets": SMALL["budgets"] | {"forcing": "force_answer", "answer_prompt": " ####"}}
    (copy / "forced.yaml").write_text(yaml.safe_dump(forced), encoding="utf-8")
    chains = {name: state for name, state in state_of(copy / "results" / "pools").items() if name.endswith(".log")}
    done = snakemake(copy, "--configfile", "forced.yaml", "--", "results/small-forced/configurations.csv")
    assert done.returncode == 0, done.stdout + done.stderr
    summaries = [json.loads(p.read_text(encoding="utf-8")) for p in (copy / "results" / "small-forced" / "samples").rglob("*.json")]
    assert len(summaries) == 4
    assert all(s["chains_drawn"] == 0 and s["answers_asked"] > s["answers_stored"] for s in summaries)  # the pilot's are stored
    assert chains.items() <= state_of(copy / "results" / "pools").items()
    cut, made = (tables.read("configurations", copy / "results" / s / "configurations.csv") for s in ("small", "small-forced"))
    at_16 = made["T"] == 16
    assert (made.loc[at_16, "mean_tokens"] > cut.loc[at_16, "mean_tokens"]).all()
    assert (made.loc[at_16, "mean_spent_tokens"] > made.loc[at_16, "mean_tokens"]).all()
    assert (made.loc[at_16, "flops"] > cut.loc[at_16, "flops"]).all()
    assert (made.loc[at_16, "n_answered"] > cut.loc[at_16, "n_answered"]).all()
    assert (made["flops_nominal"] > cut["flops_nominal"]).all()
    assert (cut["mean_spent_tokens"] == cut["mean_tokens"]).all()


def check_results(results: Path) -> None:
    """Every table is valid and balanced, every figure and the paper are there."""
    loaded = {name: tables.read(name, results / f"{name}.csv") for name in TABLES if (results / f"{name}.csv").is_file()}
    wanted = {"refusals", "configurations", "configurations_skipped", "calibration", "laws", "frontier", "crossovers", "variance_ratio"}
    assert wanted <= loaded.keys()
    cells = loaded["configurations"]
    # per arm, split and T: single and greedy, majority of 2 and 4, best of 2, and votes of 2 and 4 of best of 2
    assert len(cells) == 4 * 2 * 2 * (2 + 2 + 1 + 2)
    assert loaded["configurations_skipped"].empty
    assert (cells["n_asked"] == cells[["n_answered", "n_no_answer", "n_truncated", "n_failed"]].sum(axis=1)).all()
    assert (cells["accuracy_low"] <= cells["accuracy"]).all()
    assert (cells["accuracy"] <= cells["accuracy_high"]).all()
    assert (cells["accuracy_high"] > cells["accuracy_low"]).all()  # never an interval without width
    assert cells.loc[cells["split"] == "study", "accuracy"].max() > 0.2
    edge = loaded["frontier"][loaded["frontier"]["cost"] == "flops"]
    assert (edge["accuracy"].diff().dropna() >= 0).all()
    for suffix in ("pdf", "png", "csv"):
        assert (results / "figures" / f"accuracy.{suffix}").stat().st_size > 500
    macros = (results / "paper" / "macros.tex").read_text(encoding="utf-8")
    assert r"\FSnumber{Title}{A small study: 100\% of it \& more\_}" in macros
    assert (results / "run.json").is_file()
    if shutil.which("latexmk") is None:
        pytest.skip("no latexmk: the paper was not built")
    assert (results / "paper" / "flopstat.pdf").read_bytes().startswith(b"%PDF")
    log = (results / "paper" / "flopstat.log").read_text(encoding="utf-8", errors="replace")
    assert "undefined" not in log.lower()
