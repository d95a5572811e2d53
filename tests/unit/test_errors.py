"""How errors are said: one line in a rule's script, and nothing changed in a process that only imports the library."""

import subprocess
import sys

import pytest

SCRIPT = """
from pathlib import Path

from flopstat import tables

{body}
"""
SNAKEFILE = 'rule read:\n    output: "done"\n    script: "script.py"\n'


def test_importing_the_library_leaves_the_hook_of_the_process():
    code = "import sys; before = sys.excepthook; from flopstat import cli, errors, tables; assert sys.excepthook is before"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("body", "said", "traced"),
    [
        ('tables.read("laws", Path("absent.csv"))', "flopstat: absent.csv: ", False),
        ('raise KeyError("a defect")', "KeyError: 'a defect'", True),
    ],
)
def test_a_rule_s_script_says_what_a_user_can_mend_in_one_line(tmp_path, body, said, traced):
    (tmp_path / "script.py").write_text(SCRIPT.format(body=body), encoding="utf-8")
    (tmp_path / "Snakefile").write_text(SNAKEFILE, encoding="utf-8")
    run = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    told = done.stdout + done.stderr
    assert said in told
    assert ("Traceback (most recent call last)" in told) == traced
