"""The command line: light to start, one line for wrong input."""

import json
import subprocess
import sys

import pytest

from flopstat import cli


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def imported(stderr):
    """Top-level packages in the report of -X importtime."""
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        (["--help"], {"torch", "transformers", "pandas", "numpy", "scipy", "pyarrow"}),
        (["study-name", "config/config.yaml"], {"torch", "transformers"}),
        (["laws", "hoffmann"], {"torch", "transformers", "sympy"}),
    ],
)
def test_light_commands_import_nothing_heavy(root, command, heavy):
    arguments = [str(root / a) if a.endswith(".yaml") else a for a in command]
    done = python("-X", "importtime", "-m", "flopstat.cli", *arguments)
    assert done.returncode == 0
    loaded = imported(done.stderr)
    assert "typer" in loaded  # the report was read
    assert not loaded & heavy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["summary", "--study", "absent"], "flopstat: absent: no frontier.csv; run the study first (`make run`)"),
        (["recommend", "--study", "absent", "--flops", "1e9"], "flopstat: absent: no configurations.csv; give the results folder"),
        (["recommend", "--study", "absent"], "flopstat: no budget: give one of --flops, --eflops"),
        (["recommend", "--study", "absent", "--flops", "nan"], "flopstat: --flops nan: a budget is a finite number above 0"),
        (["recommend", "--study", "absent", "--memory", "-1"], "flopstat: --memory -1: a budget is a finite number above 0"),
        (["compare", "absent", "other"], "flopstat: absent: no configurations.csv; give the results folder"),
        (["compare", "absent", "other", "--fail-on", "better"], "flopstat: --fail-on better: unknown; use worse or not-better"),
        (["compare", "absent", "other", "--figure", "f.svg"], "flopstat: --figure f.svg: unknown format; use .png or .pdf"),
        (["train", "ladder-70b", "--work", "w", "--out", "o"], "flopstat: size 'ladder-70b': unknown; choose one of"),
        (["study-name", "absent.yaml"], "flopstat: absent.yaml: no such config file"),
        (["evaluate", "--grades", "g.csv", "--ks", "²", "--out", "e.csv"], "flopstat: --ks '²': not a list of positive integers"),
        (["evaluate", "--grades", "g.csv", "--ks", "1" * 5000, "--out", "e.csv"], "flopstat: --ks '111"),
        (
            ["evaluate", "--grades", "g.csv", "--ks", "1", "--confidence", "0.9999999999999999", "--out", "e.csv"],
            "flopstat: --confidence 0.9999999999999999: must lie between 0.5 and 1, at most 0.999999",
        ),
        (["evaluate", "--grades", "g.csv", "--ks", "1", "--out", "e.txt"], "flopstat: --out e.txt: unknown format; use .csv or .parquet"),
        (["evaluate", "--grades", "g.csv", "--ks", "1", "--out", "."], "flopstat: --out .: unknown format"),
        (["evaluate", "--grades", "g.csv", "--ks", "1"], "flopstat: Missing option '--out'. See "),
        (["evaluate", "--grade", "g.csv", "--ks", "1"], "flopstat: No such option: --grade"),
        (["no\x1b[2Jthing"], "flopstat: No such command 'no\\x1b[2Jthing'. See "),
        (["grade", "--problems", "p", "--samples", "s", "--out", "/proc/x.csv"], "flopstat: --out /proc/x.csv: can't be written ("),
        (["grade", "--problems", "p", "--samples", "s", "--out", "/dev/null/x.csv"], "flopstat: --out /dev/null/x.csv: can't be written ("),
        (["import", "csv", "absent.csv", "--out", "x.csv"], "flopstat: --out x.csv: a name that ends in .parquet is wanted"),
        (["archive", "--study", "absent", "--out", "."], "flopstat: --out .: is there, and no file"),
        (["archive", "--study", "absent", "--out", "/dev/null"], "flopstat: --out /dev/null: is there, and no file"),
        (["archive", "--study", "absent", "--out", "a" * 300], "flopstat: --out aaa"),
        (["fit", "--law", "hoffmann", "--data", "d.csv", "--out", "."], "flopstat: --out .: is there, and no file"),
        (["fit", "--law", "hoffmann", "--data", "d", "--random-starts", "99999999999"], "flopstat: Invalid value for '--random-starts'"),
        (["fit", "--law", "hoffmann", "--data", "d", "--replicates", "9999999999999"], "flopstat: Invalid value for '--replicates'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["flopstat", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_hostile_log_can_not_steer_the_terminal(tmp_path):
    rows = [{"problem_id": "1", "model": "m\x1b[2J", "text": "x", "\x1b]0;title\x07": 1, "sample": 0}] * 2
    for n in (1, 2):  # an account, and a refusal
        (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(row) for row in rows[:n]), encoding="utf-8")
        command = ["-m", "flopstat.cli", "import", "jsonl", str(tmp_path / "log.jsonl"), "--out", str(tmp_path / "o.parquet")]
        done = python(*command)
        assert done.returncode == (0 if n == 1 else 2)
        said = done.stdout + done.stderr
        assert "m\\x1b[2J" in said
        assert said.replace("\n", "").isprintable()


def test_a_pipe_that_closes_and_no_command_at_all(root):
    assert subprocess.run(f"{sys.executable} -m flopstat.cli laws | head -1", shell=True, capture_output=True, check=False).stderr == b""
    assert "Usage" in python("-m", "flopstat.cli").stdout
