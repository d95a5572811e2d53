"""Sample pools that were released with papers: Large Language Monkeys, Kinetics, and GSM8K's solutions of OpenAI's models."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flopstat.errors import InputError
from flopstat.importers.reading import Account, Item, gold_answer, json_lines, need, yaml_object

_SIZE = re.compile(r"(\d{1,4})b_")


def read_monkeys(path: Path, account: Account) -> Iterator[Item]:
    """All `samples` of one YAML file per problem, or of a folder of them; the file's name is the problem's id.

    Raises
    ------
    InputError
        For a file that is no plain YAML, or whose samples are no texts.
    """
    files = sorted(path.glob("*.y*ml"), key=lambda p: (len(p.stem), p.stem)) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: no YAML files in this folder; give the folder that holds one per problem")
    for file in files:
        record = yaml_object(file)
        texts = need(record, "samples", list, str(file), "give a file of Large Language Monkeys")
        if not texts or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{file}: samples is no list of texts; give a file of Large Language Monkeys")
        account.drop((str(name) for name in record), ("question", "samples", "gt_answer"))
        question, gold = record.get("question"), record.get("gt_answer")
        problem = None
        if isinstance(question, str) and isinstance(gold, str | int) and not isinstance(gold, bool):
            problem = {"problem_id": file.stem, "question": question, "answer": gold_answer(str(gold))}
        model = {"model": path.name} if path.is_dir() else {}
        rows = [model | {"problem_id": file.stem, "text": text, "sample": i} for i, text in enumerate(texts)]
        yield Item(str(file), rows, problem)


def read_kinetics(path: Path, account: Account) -> Iterator[Item]:
    """A chain per line, {query, prediction: [text], choices: [gold], score}, after a summary line.

    Problems are numbered as they appear: the workers' order is arbitrary, and the file holds no other name for a problem than its text.

    Raises
    ------
    InputError
        For a line without query or prediction.
    """
    number: dict[bytes, int] = {}
    for where, record in json_lines(path):
        if "query" not in record and "prediction" not in record and "total_example" in record:
            account.drop(record, ())
            continue
        remedy = "give a results file of Kinetics"
        query = need(record, "query", str, where, remedy)
        texts = need(record, "prediction", list, where, remedy)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{where}: prediction is no list of texts; {remedy}")
        account.drop(record, ("query", "prediction", "choices"))
        key = hashlib.sha256(query.encode("utf-8", "surrogatepass")).digest()
        problem_id = str(number.setdefault(key, len(number)))
        choices = record.get("choices")
        gold = choices[0] if isinstance(choices, list) and choices else None
        problem = None
        if isinstance(gold, str | int) and not isinstance(gold, bool):
            problem = {"problem_id": problem_id, "question": query, "answer": gold_answer(str(gold))}
        yield Item(where, [{"problem_id": problem_id, "text": text} for text in texts], problem)


def read_solutions(path: Path, account: Account) -> Iterator[Item]:
    """GSM8K's example_model_solutions.jsonl: a line per test problem, in the test set's order, with one solution of each system.

    A system is a model; `6b_` and `175b_` in its name say its size, the rounded one. `is_correct` is left out: flopstat grades the text.

    Raises
    ------
    InputError
        For a line without question, ground_truth or a system's solution.
    """
    for index, (where, record) in enumerate(json_lines(path)):
        remedy = "give GSM8K's example_model_solutions.jsonl"
        question = need(record, "question", str, where, remedy)
        truth = need(record, "ground_truth", str, where, remedy)
        systems = {name: value for name, value in record.items() if isinstance(value, dict) and "solution" in value}
        if not systems:
            raise InputError(f"{where}: no system with a solution; {remedy}")
        account.drop(record, ("question", "ground_truth", *systems))
        rows: list[dict[str, Any]] = []
        for name, value in systems.items():
            account.drop(value, ("solution",), "*.")
            size = _SIZE.match(name)
            text = need(value, "solution", str, where, remedy)
            known = {"problem_id": str(index), "model": name, "sample": 0, "text": text}
            rows.append(known | ({"n_params": int(size[1]) * 10**9} if size else {}))
        yield Item(where, rows, {"problem_id": str(index), "question": question, "answer": gold_answer(truth)})
