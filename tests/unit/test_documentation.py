"""What README and docs tell to type: commands, options and files are there, and the lines for samples of any origin run as they stand."""

import json
import re
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer

from flopstat import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path, name: str) -> list[list[str]]:
    """Words of every command of that name, in code blocks and between backticks."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    pieces = [piece for line in lines for piece in re.split(r"&&|;", line.partition(" #")[0])]
    return [shlex.split(piece) for piece in pieces if re.match(rf"\s*(\S+/)?{name}\s", piece)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_options_of_flopstat_exist(page):
    known = typer.main.get_command(cli.app).commands
    for words in commands(page, "flopstat"):
        for name in words[1].split("|"):
            assert name in known, words
            given = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
            options = {option: parameter for parameter in known[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
            assert given - options.keys() - {"--help"} == set(), words
            needed = {option for option, parameter in options.items() if parameter.required and option.startswith("--")}
            assert len(words) == 2 or needed <= given, words  # a command alone is a name, not a line to type


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_targets_of_make_and_files_exist(page):
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    for words in commands(page, "make"):
        assert [w for w in words[1:] if "=" not in w and w not in targets] == [], words
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(
        r"\b(?:config|scripts|benchmarks|envs|tests|workflow|docs)/[\w./-]+\.(?:py|yaml|md|smk|csv|lock|sh|zst)\b", text
    ):
        assert (ROOT / path).exists(), path


def test_the_lines_for_samples_of_any_origin_run_as_they_stand(tmp_path, monkeypatch, capsys):
    """With no other fields than those that the README names."""
    monkeypatch.chdir(tmp_path)
    problems = [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(3)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(p) + "\n" for p in problems))
    fields = {"model": "m", "n_params": 1000, "precision": "bf16"}
    samples = [
        fields | {"problem_id": str(n), "sample": k, "text": f"#### {n + 1 + k % 2}", "mean_logprob": -0.1 * k}
        for n in range(3)
        for k in range(16)
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))
    lines = [words for words in commands(ROOT / "README.md", "flopstat") if words[1] in ("grade", "evaluate")]
    assert [words[1] for words in lines] == ["grade", "evaluate"]
    for words in lines:
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 0, capsys.readouterr()
    single = pd.read_csv(tmp_path / "accuracy.csv").query("strategy == 'single'")
    assert single["accuracy"].tolist() == pytest.approx([0.5])
