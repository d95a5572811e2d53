"""Logs of evaluation harnesses: lm-evaluation-harness, inspect_ai, lighteval. Their verdicts are dropped: flopstat grades texts itself."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flopstat.errors import InputError
from flopstat.importers.reading import (
    MAX_DOCUMENT,
    MAX_HEADER,
    MAX_INTEGER,
    Account,
    Item,
    document,
    gold_answer,
    identifier,
    integer,
    json_lines,
    members,
    need,
    parse_json,
    parse_object,
)

DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
ROWS = 256  # rows of a parquet file held at a time


def _problem(problem_id: str, question: Any, gold: Any) -> dict[str, str] | None:
    """A problem where the log holds both parts of it."""
    if isinstance(gold, list) and gold:
        gold = gold[0]
    if isinstance(gold, int | float) and not isinstance(gold, bool):
        gold = str(gold)
    if not isinstance(question, str) or not isinstance(gold, str) or not gold.strip():
        return None
    return {"problem_id": problem_id, "question": question, "answer": gold_answer(gold)}


def _is_gsm8k_form(answer: Any) -> bool:
    return isinstance(answer, str) and "####" in answer


# --- lm-evaluation-harness ----------------------------------------------------------------------------------------------


def _run_facts(log: Path) -> dict[str, Any]:
    """Model, parameters and precision as the results file beside a sample log has them; empty without one."""
    stamp = re.search(r"_(\d{4}-\d{2}-\d{2}T[\d.:-]+)$", log.stem)
    beside = log.with_name(f"results_{stamp[1]}.json") if stamp else None
    if beside is None or not os.path.isfile(beside):
        return {}
    results = parse_object(document(beside, MAX_HEADER), str(beside))
    config = results.get("config")
    config = config if isinstance(config, dict) else {}
    dtype, name = str(config.get("model_dtype", "")).removeprefix("torch."), results.get("model_name")
    n_params = config.get("model_num_parameters")
    facts: dict[str, Any] = {"precision": DTYPES.get(dtype)}
    if isinstance(name, str) and name:
        facts["model"] = name
    if isinstance(n_params, int) and n_params > 0:
        facts["n_params"] = n_params
    return facts


def read_lm_eval(path: Path, account: Account) -> Iterator[Item]:
    """All repeats of every document from `resps`, not what a filter or `take_first` left of them.

    The harness writes a line per document and filter; the responses are the same, so a document's first line counts. `T` is max_gen_toks.

    Raises
    ------
    InputError
        For a line without doc_id or resps, or a task that scores choices and generates no text.
    """
    if path.is_dir():
        logs = sorted(path.glob("samples_*.jsonl"))
        if len(logs) != 1:
            raise InputError(f"{path}: {len(logs)} files samples_*.jsonl; name the one to import")
        path = logs[0]
    facts = _run_facts(path)
    seen: dict[str, Any] = {}
    known = ("doc_id", "doc", "resps", "target", "arguments")
    for where, record in json_lines(path):
        doc_id = identifier(need(record, "doc_id", (int, str), where, "give a log written with --log_samples"), where, "doc_id")
        filtered = record.get("filter")
        if doc_id in seen:
            if seen[doc_id] == filtered:
                raise InputError(f"{where}: doc_id {doc_id} stands twice with filter {str(filtered)[:50]!r}; give the log of one run")
            account.notes["lines of further filters, which hold the same responses"] += 1
            continue
        seen[doc_id] = filtered
        account.drop(record, known)
        texts: list[str] = []
        for request in need(record, "resps", list, where, "give a log written with --log_samples"):
            texts += request if isinstance(request, list) else [request]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{where}: resps holds no generated texts; a generate_until task is wanted, not one that scores choices")
        doc = record.get("doc")
        doc = doc if isinstance(doc, dict) else {}
        answer = doc.get("answer")
        gold = answer if _is_gsm8k_form(answer) else record.get("target")
        account.drop(doc, ("question", "answer", "problem_id"), "doc.")
        settings = _generation_settings(record.get("arguments"))
        account.drop(settings, ("max_gen_toks",), "arguments.")
        named = doc.get("problem_id")
        problem_id = doc_id if named is None else identifier(named, where)
        row = facts | {"problem_id": problem_id, "T": settings.get("max_gen_toks")}
        rows = [row | {"text": text, "sample": i} for i, text in enumerate(texts)]
        yield Item(where, rows, _problem(problem_id, doc.get("question"), gold))


def _generation_settings(arguments: Any) -> dict[str, Any]:
    """The keyword arguments of the first request: {"gen_args_0": {"arg_0": prompt, "arg_1": settings}}."""
    first = next(iter(arguments.values()), None) if isinstance(arguments, dict) else None
    settings = first.get("arg_1") if isinstance(first, dict) else None
    return settings if isinstance(settings, dict) else {}


# --- inspect_ai ---------------------------------------------------------------------------------------------------------


def read_inspect(path: Path, account: Account) -> Iterator[Item]:
    """Every epoch of every sample, of an .eval archive or a .json log. An epoch is a sample; a failed one is kept as engine_error.

    Raises
    ------
    InputError
        For a broken archive or JSON, or a sample without id, epoch or output.
    """
    if path.suffix == ".json":
        record = parse_object(document(path), str(path))
        header, samples = record, need(record, "samples", list, str(path), "give a log with samples, not a header alone")
        parts = ((f"{path}, sample {i + 1}", sample) for i, sample in enumerate(samples))
        yield from _inspect_items(parts, _inspect_facts(header), account)
        return
    files = members(path)
    name, data = next(files, ("", b""))
    if name != "header.json":
        raise InputError(f"{path}: no header.json in the archive; give a finished log of inspect_ai")
    facts = _inspect_facts(parse_object(data, f"{path}!header.json"))
    chosen = ((f"{path}!{n}", parse_json(d, f"{path}!{n}")) for n, d in files if n.startswith("samples/"))
    yield from _inspect_items(chosen, facts, account)


def _inspect_facts(header: dict[str, Any]) -> dict[str, Any]:
    eval_ = header.get("eval")
    eval_ = eval_ if isinstance(eval_, dict) else {}
    config = eval_.get("model_generate_config")
    facts = {"T": config.get("max_tokens")} if isinstance(config, dict) else {}
    return facts | ({"model": eval_["model"]} if isinstance(eval_.get("model"), str) else {})


def _inspect_items(parts: Iterator[tuple[str, Any]], facts: dict[str, Any], account: Account) -> Iterator[Item]:
    for where, sample in parts:
        if not isinstance(sample, dict):
            raise InputError(f"{where}: an object is wanted, found {type(sample).__name__}; give a log of inspect_ai")
        remedy = "give a log of inspect_ai with its samples"
        problem_id = identifier(need(sample, "id", (int, str), where, remedy), where, "id")
        epoch = integer(need(sample, "epoch", int, where, remedy), where, "epoch") or 1
        output = need(sample, "output", dict, where, remedy)
        account.drop(sample, ("id", "epoch", "input", "target", "output", "error"))
        account.drop(output, ("choices", "usage", "completion"), "output.")
        choices = output.get("choices")
        choices = choices if isinstance(choices, list) else []
        rows = []
        for number, choice in enumerate(choices):
            if not isinstance(choice, dict):
                raise InputError(f"{where}: a choice is no object; {remedy}")
            reason = choice.get("stop_reason")
            row: dict[str, Any] = {"problem_id": problem_id, "text": _message_text(choice.get("message"), account)}
            row |= {"sample": (epoch - 1) * len(choices) + number, "finish_reason": None if reason == "unknown" else reason}
            rows.append(facts | row | (_usage(output.get("usage"), where) if len(choices) == 1 else {}) | _logprob(choice, where))
        if not choices:
            failed = {"problem_id": problem_id, "text": "", "sample": epoch - 1, "finish_reason": "engine_error"}
            rows.append(facts | failed)
            account.notes["samples without output, kept as engine_error"] += 1
        yield Item(where, rows, _problem(problem_id, _question(sample.get("input")), sample.get("target")))


def _question(value: Any) -> Any:
    """The last user message of a chat, or the text itself."""
    if not isinstance(value, list):
        return value
    said = [m.get("content") for m in value if isinstance(m, dict) and m.get("role") == "user"]
    return said[-1] if said else None


def _message_text(message: Any, account: Account) -> str:
    """The text of a message; of one in parts its text parts, reasoning apart."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    texts = []
    for part in content if isinstance(content, list) else []:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            account.dropped["message parts that are no text"] += 1
    return "\n".join(texts)


def _usage(usage: Any, where: str) -> dict[str, int | None]:
    """Token counts as inspect_ai has them."""
    if not isinstance(usage, dict):
        return {}
    keys = {"n_tokens": "output_tokens", "prompt_tokens": "input_tokens"}
    return {name: integer(usage.get(key), where, key) for name, key in keys.items()}


def _logprob(choice: dict[str, Any], where: str) -> dict[str, float]:
    """Mean log-probability of the chosen tokens, where every one of them is logged."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    values = [entry.get("logprob") if isinstance(entry, dict) else None for entry in content] if isinstance(content, list) else []
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= MAX_INTEGER]
    return {"mean_logprob": sum(numbers) / len(numbers)} if numbers and len(numbers) == len(values) else {}


# --- lighteval ----------------------------------------------------------------------------------------------------------


def parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a parquet file, a few at a time."""
    try:
        file = pq.ParquetFile(path)
        start = 0
        for group in range(file.metadata.num_row_groups):
            part = file.metadata.row_group(group)
            if part.total_byte_size > 16 * MAX_DOCUMENT:
                raise InputError(f"{path}: a row group of {part.total_byte_size} bytes; write smaller ones")
        for batch in file.iter_batches(batch_size=ROWS):
            for i, row in enumerate(batch.to_pylist(), start=start + 1):
                yield f"{path}, row {i}", row
            start += batch.num_rows
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as parquet ({str(error).splitlines()[0][:100]}); copy or export it again") from None


def read_lighteval(path: Path, account: Account) -> Iterator[Item]:
    """Every generation of every document, from `doc` and `model_response` (0.10 and later) or `predictions` (before).

    The model's name stands in the path alone: details/<model>/<date>/details_<task>_<date>.parquet.
    """
    folders = path.resolve().parts[:-2]
    after = len(folders) - folders[::-1].index("details") if "details" in folders else len(folders)
    model = {"model": "/".join(folders[after:]) or None}
    for number, (where, row) in enumerate(parquet_rows(path)):
        read = _lighteval_item if "model_response" in row else _lighteval_old_item
        item = read(where, number, row, account)
        yield Item(where, [model | r for r in item.rows], item.problem)


def _texts(values: Any, where: str) -> list[str]:
    if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
        found = "text: the file was written as Python text" if isinstance(values, str) else "no list of generated texts"
        raise InputError(f"{where}: its predictions are {found}; give details of a generative task, of lighteval 0.6 or later")
    return values


def _ids(values: Any, i: int, n: int) -> dict[str, Any]:
    """Token ids and their number, where there is one list per text."""
    ids = values[i] if isinstance(values, list) and len(values) == n else None
    return {"token_ids": ids, "n_tokens": len(ids)} if isinstance(ids, list) and ids and all(type(t) is int for t in ids) else {}


def _lighteval_item(where: str, number: int, row: dict[str, Any], account: Account) -> Item:
    response = need(row, "model_response", dict, where, "give details of lighteval")
    doc = row.get("doc")
    doc = doc if isinstance(doc, dict) else {}
    texts = _texts(response.get("text"), where)
    account.drop(row, ("doc", "model_response"))
    account.drop(response, ("text", "output_tokens", "input_tokens"), "model_response.")
    account.drop(doc, ("id", "query", "choices", "gold_index"), "doc.")
    problem_id = doc["id"] if isinstance(doc.get("id"), str) and doc["id"] else str(number)
    prompt, ids = response.get("input_tokens"), response.get("output_tokens")
    row = {"problem_id": problem_id, "prompt_tokens": len(prompt) if isinstance(prompt, list) and prompt else None}
    rows = [row | {"text": text, "sample": i} | _ids(ids, i, len(texts)) for i, text in enumerate(texts)]
    gold, choices = doc.get("gold_index"), doc.get("choices")
    gold = gold[0] if isinstance(gold, list) and gold else gold
    right = choices[gold] if isinstance(choices, list) and isinstance(gold, int) and 0 <= gold < len(choices) else None
    return Item(where, rows, _problem(problem_id, doc.get("query"), right))


def _lighteval_old_item(where: str, number: int, row: dict[str, Any], account: Account) -> Item:
    texts = _texts(row.get("predictions"), where)
    account.drop(row, ("example", "predictions", "cont_tokens", "gold"))
    rows = [{"problem_id": str(number), "text": t, "sample": i} | _ids(row.get("cont_tokens"), i, len(texts)) for i, t in enumerate(texts)]
    return Item(where, rows, _problem(str(number), row.get("example"), row.get("gold")))
