"""Graders and importers fuzzed by coverage: python tests/fuzz/atheris_targets.py [--runs N] [--seed N] [--crashes FOLDER] [TARGET ...]

What the Hypothesis tests check of an input is checked here of bytes that atheris (libFuzzer) changes towards lines not reached before, from
the shipped logs and grader cases on. An input that breaks a promise is written to the folder and printed. atheris has wheels for Linux on
x86-64 and Python 3.11 to 3.13 alone; without it this says so and ends. `test_fuzz_corpus.py` runs the same functions without it.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

MAX_CHARACTERS = 2000
NAMES = {  # of the file that an importer is given
    "inspect": ("log.json", "log.eval"),
    "lighteval": ("log.parquet",),
    "monkeys": ("0.yaml",),
    "csv": ("log.csv",),
    "parquet": ("log.parquet",),
}
CASES = Path(__file__).parents[1] / "cases" / "graders.json"


def targets(place: Path) -> dict[str, Callable[[bytes], None]]:
    """What is run on an input, by name; importers write below the folder."""
    from flopstat.graders import GRADERS
    from flopstat.importers.samples import KINDS

    logs = [(kind, name) for kind in KINDS for name in NAMES.get(kind, ("log.jsonl",))]
    return {f"grader-{name}": _grader(name) for name in GRADERS} | {_log_target(*log): _importer(*log, place) for log in logs}


def _log_target(kind: str, name: str) -> str:
    return f"importer-{kind}{'-archive' if name.endswith('.eval') else ''}"


def _grader(name: str) -> Callable[[bytes], None]:
    """The first byte says whether the text was finished, which gold answer it is judged by, and whether it is one itself."""
    from test_fuzz_texts import judged

    from flopstat.errors import InputError
    from flopstat.graders import gold_of

    golds = [gold_of(name, f"#### {gold}", "here") for gold in ("5", "12", "-3", "1/2")]

    def run(data: bytes) -> None:
        head, text = (data[:1] or b"\0")[0], data[1:].decode("utf-8", "replace")[:MAX_CHARACTERS]
        judged(name, text, bool(head & 1), golds[head >> 1 & 3])
        if head & 8:
            with contextlib.suppress(InputError):
                assert isinstance(gold_of(name, text, "here"), str)

    return run


def _importer(kind: str, name: str, place: Path) -> Callable[[bytes], None]:
    from test_fuzz_logs import imported

    folder = place / f"{kind}-{name}"
    folder.mkdir()

    def run(data: bytes) -> None:
        (folder / name).write_bytes(data)
        imported(kind, folder / name, folder)

    return run


def corpus(target: str) -> Iterator[bytes]:
    """Inputs to begin with: grader cases that are shipped, and small logs of the importers' own forms."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import test_fuzz_logs as logs

    kind = target.removeprefix("importer-")
    if target.startswith("grader-"):
        for case in json.loads(CASES.read_text(encoding="utf-8")):
            if case["grader"] == target.removeprefix("grader-"):
                yield bytes([case["finished"]]) + case["text"][:MAX_CHARACTERS].encode("utf-8", "replace")
        yield b"\x09#### 5"
    elif kind in logs.JSONL:
        yield "\n".join(map(json.dumps, logs.JSONL[kind])).encode()
    elif kind == "inspect":
        yield json.dumps(logs.INSPECT).encode()
    elif kind == "inspect-archive":
        yield logs.SMALL_ZIP.getvalue()
    elif kind == "monkeys":
        yield from (path.read_bytes() for path in sorted((logs.FOREIGN / "monkeys").glob("*.yaml")))
    elif kind == "csv":
        yield b"problem_id,text,sample,token_ids\n1,a,0,[1]\n"
        yield b'problem_id,text,model,n_params,n_tokens,mean_logprob,finish_reason\n1,"a\nb",m,5,3,-0.5,stop\n'
    else:
        assert kind in ("lighteval", "parquet")
        if kind == "lighteval":
            yield logs.DETAILS.read_bytes()
        raw = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(logs.LIGHTEVAL if kind == "lighteval" else [logs.ROW]), raw, compression="none")
        yield raw.getvalue()


def fuzz(target: str, runs: int, seed: int, crashes: Path) -> None:
    """Run one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["flopstat"]):
        import flopstat.graders
        import flopstat.importers.samples  # noqa: F401
    place = Path(tempfile.mkdtemp())  # in the caller's own: libFuzzer ends the process, and nothing is cleaned up here
    (place / "corpus").mkdir()
    seeds = list(corpus(target))
    for number, data in enumerate(seeds):
        (place / "corpus" / f"{number:03d}").write_bytes(data)
    options = {
        "runs": runs,
        "seed": seed + 1,  # 0 means the clock
        "max_len": 2 * max(map(len, seeds)) + 64,
        "artifact_prefix": f"{crashes}/{target}-",
        "timeout": 120,
        "report_slow_units": 60,  # a loaded machine takes ten seconds to start math's child again
        "rss_limit_mb": 6000,
        "print_final_stats": 1,
    }
    atheris.Setup([target, *(f"-{key}={value}" for key, value in options.items()), str(place / "corpus")], targets(place)[target])
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crashes", type=Path, default=Path("fuzz-crashes"))
    parser.add_argument("--here", action="store_true", help="run the one target in this process")
    parser.add_argument("target", nargs="*")
    asked = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("flopstat: atheris is not here (it has wheels for Linux on x86-64, Python 3.11 to 3.13): no fuzzing by coverage")
        return 0
    asked.crashes.mkdir(parents=True, exist_ok=True)
    if asked.here:
        fuzz(asked.target[0], asked.runs, asked.seed, asked.crashes)
    with tempfile.TemporaryDirectory() as folder:
        known = list(targets(Path(folder)))
    failed = []
    for target in asked.target or known:
        print(f"flopstat: {target}, {asked.runs} runs, seed {asked.seed}", flush=True)
        line = [sys.executable, __file__, "--here", "--runs", str(asked.runs), "--seed", str(asked.seed), "--crashes", str(asked.crashes)]
        with tempfile.TemporaryDirectory() as folder:
            if subprocess.run([*line, target], env=os.environ | {"TMPDIR": folder}, check=False).returncode:
                failed.append(target)
    found = sorted(asked.crashes.iterdir())
    for path in found:
        print(f"flopstat: {path}: {path.read_bytes()[:200]!r}")
    if failed:
        print(f"flopstat: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
