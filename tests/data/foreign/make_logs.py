"""Make the logs of this folder: lm-eval's and inspect_ai's by the tools themselves, the others by hand after their documented schemas.

    python tests/data/foreign/make_logs.py --lm-eval /tmp/lmeval-venv/bin/python --inspect /tmp/inspect-venv/bin/python

Both tools run the shipped ladder-160k on problems of `flopstat.problems.ladder_rows`, three samples each, on the CPU. Each tool wants an
environment of its own with torch and transformers (`pip install lm-eval`, `pip install inspect-ai`). No text of GSM8K is in here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from flopstat.config import ROOT
from flopstat.problems import ladder_rows

HERE = Path(__file__).resolve().parent
MODEL = ROOT / "workflow" / "resources" / "ladder" / "ladder-160k"
N_PROBLEMS, SAMPLES, SEED = 6, 3, 3
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
ENV = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

LM_EVAL_TASK = {
    "task": "flopstat_ladder",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer.split('####')[-1].strip()}}",
    "repeats": SAMPLES,
    "generation_kwargs": {"until": ["\n\n"], "do_sample": True, "temperature": 1.0, "max_gen_toks": 96},
    "filter_list": [
        {"name": "strict-match", "filter": [{"function": "regex", "regex_pattern": "#### (\\-?[0-9\\.\\,]+)"}, {"function": "take_first"}]},
        {
            "name": "flexible-extract",
            "filter": [{"function": "regex", "group_select": -1, "regex_pattern": "(-?[0-9]+)"}, {"function": "take_first"}],
        },
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
INSPECT_TASK = """
import json
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import match
from inspect_ai.solver import generate


@task
def ladder():
    rows = [json.loads(line) for line in open("problems.jsonl", encoding="utf-8")]
    samples = [Sample(id=r["problem_id"], input=r["question"], target=r["answer"].split("####")[-1].strip()) for r in rows]
    return Task(dataset=samples, solver=generate(), scorer=match(numeric=True))
"""


def write_problems(folder: Path) -> list[dict[str, Any]]:
    """problems.jsonl: question and answer in GSM8K's form."""
    rows = [{k: r[k] for k in ("problem_id", "question", "answer")} for r in ladder_rows([("study", N_PROBLEMS)], 6, 0, SEED)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "problems.jsonl").write_text(text, encoding="utf-8")
    return rows


def copy_model(work: Path) -> None:
    """The model as `model`, its tokenizer apart: beside a config.json transformers 5 takes the class of the model's type for it."""
    shutil.copytree(MODEL, work / "model", ignore=shutil.ignore_patterns("training_log.csv"))
    (work / "tokenizer").mkdir()
    for name in TOKENIZER:
        shutil.copyfile(MODEL / name, work / "tokenizer" / name)


def run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, env=ENV, check=True)


def make_lm_eval(python: str, work: Path, out: Path) -> None:
    """samples_*.jsonl, a line per problem and filter, and results_*.json, as --log_samples writes them."""
    task = LM_EVAL_TASK | {"dataset_kwargs": {"data_files": {"test": str(work / "problems.jsonl")}}}
    (work / "tasks").mkdir()
    (work / "tasks" / "ladder.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    arguments = ["--model", "hf", "--model_args", "pretrained=model,tokenizer=tokenizer,dtype=float32", "--tasks", "flopstat_ladder"]
    arguments += ["--device", "cpu", "--include_path", "tasks", "--apply_chat_template", "--log_samples"]
    arguments += ["--output_path", "lm-eval", "--batch_size", "8"]
    run(work, python, "-m", "lm_eval", *arguments)
    for old in out.glob("*.json*"):
        old.unlink()
    for path in sorted((work / "lm-eval").rglob("*.json*")):
        text = path.read_text(encoding="utf-8").replace(str(work), "work")
        if path.suffix == ".json":  # the harness's facts about the machine it ran on are nobody's business
            text = json.dumps({k: v for k, v in json.loads(text).items() if k != "pretty_env_info"}, indent=1) + "\n"
        (out / path.name).write_text(text, encoding="utf-8")


def make_inspect(python: str, work: Path, out: Path) -> None:
    """The same run as .eval (a zip archive) and as .json, the latter without its events, which are nine tenths of it."""
    (work / "ladder_task.py").write_text(INSPECT_TASK, encoding="utf-8")
    arguments = ["--model", "hf/ladder", "-M", "model_path=model", "-M", "tokenizer_path=tokenizer", "-M", "device=cpu"]
    arguments += ["--epochs", str(SAMPLES), "--max-tokens", "96", "--temperature", "1.0", "--seed", "5", "--display", "plain"]
    for form in ("eval", "json"):
        run(work, python, "-m", "inspect_ai", "eval", "ladder_task.py", *arguments, "--log-format", form, "--log-dir", f"inspect-{form}")
        (log,) = (work / f"inspect-{form}").glob(f"*.{form}")
        if form == "eval":
            shutil.copyfile(log, out / "ladder.eval")
        else:
            record = json.loads(log.read_text(encoding="utf-8"))
            for sample in record["samples"]:
                sample["events"] = []
            (out / "ladder.json").write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")


def texts(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Three chains a problem: the right one, one that is off by one, and one without an answer."""
    wrong = [r["answer"].rpartition(" ")[0] + f" {int(r['answer'].rpartition(' ')[2]) + 1}" for r in rows]
    return [[row["answer"], other, "I can not tell."] for row, other in zip(rows, wrong, strict=True)]


def golds(rows: list[dict[str, Any]]) -> list[str]:
    return [r["answer"].rpartition("#### ")[2] for r in rows]


def make_lighteval(rows: list[dict[str, Any]], out: Path) -> None:
    """details_*.parquet of lighteval >= 0.10, a row per document with doc, metric and model_response, and in the form before."""
    chains = texts(rows)
    new = [
        {
            "doc": {"query": r["question"], "choices": [gold], "gold_index": 0, "task_name": "ladder|0", "id": r["problem_id"]},
            "metric": {"extractive_match": 1.0},
            "model_response": {
                "input": r["question"],
                "input_tokens": list(range(9)),
                "text": chain,
                "output_tokens": [[5, 6, 1], [5, 7, 1], [8, 1]],
                "logprobs": [],
                "truncated_tokens_count": 0,
                "padded_tokens_count": 0,
            },
        }
        for r, gold, chain in zip(rows, golds(rows), chains, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(new), out / "details_ladder_2026-01-01T00-00-00.parquet")
    old = [
        {
            "example": r["question"],
            "instruction": "",
            "full_prompt": r["question"],
            "num_effective_few_shots": 0,
            "predictions": chain,
            "input_tokens": [list(range(9))],
            "cont_tokens": [[5, 6, 1], [5, 7, 1], [8, 1]],
            "gold": [gold],
            "metrics": {"extractive_match": 1.0},
        }
        for r, gold, chain in zip(rows, golds(rows), chains, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(old), out / "details_old_2025-01-01T00-00-00.parquet")


def make_monkeys(rows: list[dict[str, Any]], out: Path) -> None:
    """One YAML a problem, as llmonk.generate.gsm8k and llmonk.evaluate.math_datasets save it."""
    out.mkdir(exist_ok=True)
    for number, (row, chain) in enumerate(zip(rows, texts(rows), strict=True)):
        record = {"prompt": f"Question: {row['question']}\nAnswer:", "question": row["question"], "samples": chain}
        record |= {"gt_answer": row["answer"], "is_corrects": [True, False, False]}
        (out / f"{number}.yaml").write_text(yaml.safe_dump(record, sort_keys=True), encoding="utf-8")


def make_kinetics(rows: list[dict[str, Any]], out: Path) -> None:
    """A summary line, then a line per chain in the order in which the workers were done, as LiteSys/examples/eval_math.py writes them."""
    lines: list[dict[str, Any]] = [{"task": "gsm8k", "pass@1": 33.3, "total_example": 3 * len(rows), "pass@3": 100.0}]
    chains = texts(rows)
    for k in range(3):
        for row, gold, chain in zip(rows, golds(rows), chains, strict=True):
            lines.append({"score": 100.0 * (k == 0), "prediction": [chain[k]], "choices": [gold], "query": row["question"]})
    (out / "gsm8k_2026-01-01_00-00-00.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def make_solutions(rows: list[dict[str, Any]], out: Path) -> None:
    """The form of GSM8K's example_model_solutions.jsonl with our own problems: four systems, one solution each, `A: x` at the end."""
    lines = []
    for number, (row, chain) in enumerate(zip(rows, texts(rows), strict=True)):
        line = {"question": row["question"], "ground_truth": row["answer"].replace("#### ", "A: ")}
        for system, quality in {"6b_finetuning": 3, "6b_verification": 2, "175b_finetuning": 2, "175b_verification": 1}.items():
            right = number % 4 >= quality
            line[system] = {"is_correct": right, "solution": chain[0 if right else 1].replace("#### ", "A: ")}
        lines.append(line)
    (out / "solutions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lm-eval", help="Python of an environment with lm-eval; without it its log stays as it is")
    parser.add_argument("--inspect", help="Python of an environment with inspect_ai; without it its logs stay as they are")
    wanted = parser.parse_args()
    for name in ("lm-eval", "inspect", "lighteval", "kinetics", "gsm8k-solutions"):
        (HERE / name).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rows = write_problems(work)
        copy_model(work)
        if wanted.lm_eval:
            make_lm_eval(wanted.lm_eval, work, HERE / "lm-eval")
        if wanted.inspect:
            make_inspect(wanted.inspect, work, HERE / "inspect")
    make_lighteval(rows, HERE / "lighteval")
    make_monkeys(rows, HERE / "monkeys")
    make_kinetics(rows, HERE / "kinetics")
    make_solutions(rows, HERE / "gsm8k-solutions")


if __name__ == "__main__":
    main()
