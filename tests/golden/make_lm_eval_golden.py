"""Make lm_eval_*.csv and lm_eval_ladder.jsonl: what lm-evaluation-harness's gsm8k filters and metric say of given texts.

The texts are not stored, except those of the ladder's samples, which are ours: a golden row holds line number, mutation, text hash,
extracted answers and verdicts, and the text is made again by `texts_of`. Sources: GSM8K's training file (not in this repository), the
ladder's generated problems, and samples of the shipped ladder-160k at temperature 1, whole and cut. With --samples FILE.jsonl (problem_id,
gold, text) it prints how often our graders agree with lm-eval on those, for pools that can't be stored here.

python tests/golden/make_lm_eval_golden.py LM_EVAL_PYTHON TRAIN.jsonl     (LM_EVAL_PYTHON: an interpreter that has lm-eval 0.4.9)
"""

import csv
import hashlib
import itertools
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
SEED = 6
GENERATED = 3_000
LADDER = 200  # problems, one greedy and three sampled chains each
COLUMNS = ["line", "seed", "mutation", "sha256_12", "strict", "flexible", "strict_correct", "flexible_correct"]

Mutation = Callable[[str, str, random.Random], str]


def _number(n: str) -> int:
    return int(n.replace(",", ""))


# Each takes (steps, gold number, generator) and returns a text. The shares of right and wrong verdicts come from their mixture.
MUTATIONS: dict[str, Mutation] = {
    "as_is": lambda s, n, r: f"{s}\n#### {n}",
    "as_is_again": lambda s, n, r: f"{s}\n#### {n}",
    "comma": lambda s, n, r: f"{s}\n#### {_number(n) * 1000:,}" if r.random() < 0.3 else f"{s}\n#### {_number(n):,}",
    "comma_misplaced": lambda s, n, r: f"{s}\n#### {n[:1]},{n[1:]}",
    "dollar": lambda s, n, r: f"{s}\n#### ${n}",
    "decimals": lambda s, n, r: f"{s}\n#### {n}.{'0' * r.randint(1, 2)}",
    "full_stop": lambda s, n, r: f"{s}\n#### {n}.",
    "doubled_marker": lambda s, n, r: f"{s}\n#### {n}\n#### {r.choice([n, str(_number(n) + 1)])}",
    "other_before": lambda s, n, r: f"{s}\n#### {_number(n) + r.randint(1, 9)}\n#### {n}",
    "missing_marker": lambda s, n, r: f"{s}\n{n}",
    "no_space": lambda s, n, r: f"{s}\n####{n}",
    "two_spaces": lambda s, n, r: f"{s}\n####  {n}",
    "trailing_text": lambda s, n, r: f"{s}\n#### {n} is what we were asked for.",
    "trailing_question": lambda s, n, r: f"{s}\n#### {n}\n\nQuestion: Tom has {r.randint(2, 99)} hats. How many hats has he?",
    "trailing_unit": lambda s, n, r: f"{s}\n#### {n}{r.choice(['%', ' dollars', 'kg', '€'])}",
    "no_digits": lambda s, n, r: "".join(c for c in f"{s}\n#### {n}" if not c.isdigit()),
    "no_digits_no_points": lambda s, n, r: "".join(c for c in f"{s}\n#### {n}" if not c.isdigit() and c not in ".,$"),
    "wrong": lambda s, n, r: f"{s}\n#### {_number(n) + r.choice([-1, 1, 10])}",
    "negative": lambda s, n, r: f"{s}\n#### -{n}",
    "unicode_minus": lambda s, n, r: f"{s}\n#### \u2212{n}",
    "unicode_digits": lambda s, n, r: f"{s}\n#### {n.translate({48 + i: 0xFF10 + i for i in range(10)})}",
    "boxed": lambda s, n, r: f"{s}\n$\\boxed{{{n}}}$",
    "sentence": lambda s, n, r: f"{s}\nThe answer is {n}.",
    "cut": lambda s, n, r: f"{s}\n#### {n}"[: -r.randint(1, 12)],
    "tab": lambda s, n, r: f"{s}\n####\t{n}",
    "bold": lambda s, n, r: f"{s}\n#### **{n}**",
}


def texts_of(answers: list[str], seed: int) -> Iterator[tuple[int, str, str, str]]:
    """(line, mutation, gold answer, text) of each answer in GSM8K's form: one mutation each, drawn by the seed."""
    names = list(MUTATIONS)
    for line, answer in enumerate(answers):
        generator = random.Random(f"{seed}/{line}")
        mutation = generator.choice(names)
        steps, _, number = answer.rpartition("\n#### ")
        yield line, mutation, answer, MUTATIONS[mutation](steps, number, generator)


def generated_answers(n: int) -> list[str]:
    """Gold answers of the ladder's generator, which are ours."""
    from flopstat.ladder.generator import generate

    return [problem.answer for problem in itertools.islice(generate(np.random.default_rng(SEED), "fresh"), n)]


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def lm_eval(python: str, rows: list[tuple[str, str]]) -> list[list[list]]:
    """[extracted, exact_match] of strict-match and flexible-extract for each (gold answer, text)."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    done = subprocess.run([python, str(FOLDER / "run_lm_eval.py")], input=lines, capture_output=True, text=True, check=True, env={})
    return [json.loads(line) for line in done.stdout.splitlines()]


def write_golden(python: str, answers: list[str], path: Path) -> None:
    """Ask lm-eval and store its answers; at least 1,000 right and 1,000 wrong ones per filter are wanted of the training file."""
    made = list(texts_of(answers, SEED))
    verdicts = lm_eval(python, [(gold, text) for _, _, gold, text in made])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (line, mutation, _, text), ((strict, right), (flexible, also_right)) in zip(made, verdicts, strict=True):
            writer.writerow([line, SEED, mutation, hashed(text), strict, flexible, int(right), int(also_right)])
    for i, name in enumerate(("strict-match", "flexible-extract")):
        print(path.name, name, Counter(("none" if v[i][0] == "[invalid]" else "right" if v[i][1] else "wrong") for v in verdicts))


def ladder_samples() -> list[dict]:
    """Texts of the shipped ladder-160k: whole, and cut at 24 tokens."""
    from flopstat.engine import Request, SamplingSettings
    from flopstat.ladder.generator import generate
    from flopstat.models import describe, load_tokenizer
    from flopstat.precisions import load
    from flopstat.sampling import prompt_ids
    from flopstat.transformers_engine import TransformersEngine

    problems = list(itertools.islice(generate(np.random.default_rng(SEED + 1), "fresh"), LADDER))
    card = describe({"name": "ladder-160k", "source": "ladder"}, Path(tempfile.gettempdir()))
    tokenizer = load_tokenizer(card)
    engine = TransformersEngine(load(card, "fp32", "float32", "cpu"), SamplingSettings(SEED, 1.0, 1.0, 0, 64), [tokenizer.eos_token_id], 64)
    requests = [
        Request(str(i), prompt_ids(tokenizer, [{"role": "user", "content": p.question}]), k)
        for i, p in enumerate(problems)
        for k in (-1, 0, 1, 2)
    ]
    chains = sorted((c for batch in engine.draw(requests) for c in batch), key=lambda c: (int(c.problem_key), c.sample))
    out = []
    for chain in chains:
        for t in (24, 64):
            text = tokenizer.decode(chain.ids[:t], skip_special_tokens=True)
            row = {"problem": int(chain.problem_key), "sample": chain.sample, "T": t, "gold": str(problems[int(chain.problem_key)].gold)}
            out.append(row | {"finished": chain.finish_reason == "eos" and len(chain.ids) <= t, "text": text})
    return out


def write_ladder(python: str, path: Path) -> None:
    rows = ladder_samples()
    verdicts = lm_eval(python, [(f"#### {row['gold']}", row["text"]) for row in rows])
    path.write_text("".join(json.dumps(row | {"lm_eval": v}) + "\n" for row, v in zip(rows, verdicts, strict=True)), encoding="utf-8")
    for i in (0, 1):
        print(path.name, Counter(v[i][1] for v in verdicts))


def print_agreement(python: str, path: Path) -> None:
    """How often our two harness graders give lm-eval's extracted answer and verdict on the samples of a file."""
    from flopstat import harness
    from flopstat.graders import GRADERS

    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    verdicts = lm_eval(python, [(f"#### {row['gold']}", row["text"]) for row in rows])
    for i, (name, extract) in enumerate((("gsm8k-strict", harness.extract_strict), ("gsm8k-flexible", harness.extract_flexible))):
        grader = GRADERS[name]
        same = sum(
            extract(row["text"]) == v[i][0] and grader.grade(row["text"], True, grader.gold(row["gold"])).correct == bool(v[i][1])
            for row, v in zip(rows, verdicts, strict=True)
        )
        print(path.name, name, f"{same} of {len(rows)} as lm-eval;", Counter(v[i][1] for v in verdicts))


if __name__ == "__main__":
    if "--samples" in sys.argv:
        print_agreement(sys.argv[1], Path(sys.argv[3]))
    else:
        training = [json.loads(line)["answer"] for line in Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()]
        write_golden(sys.argv[1], training, FOLDER / "lm_eval_train.csv")
        write_golden(sys.argv[1], generated_answers(GENERATED), FOLDER / "lm_eval_generated.csv")
        write_ladder(sys.argv[1], FOLDER / "lm_eval_ladder.jsonl")
