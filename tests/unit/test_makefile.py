"""The Makefile's own work in `make run`: a report is whole or not there."""

import subprocess

# In the places of recovery and flopstat: the report is torn by a kill as long as `torn` is there.
RECOVER = """#!/bin/bash
if [ "$3" = --report ] || [ "$4" = --report ]; then
    echo "<html>" >"${@: -1}"
    [ -e torn ] && kill -9 $$
    echo "</html>" >>"${@: -1}"
fi
exit 0
"""
FLOPSTAT = '#!/bin/bash\n[ "$1" = study-name ] && echo made\nexit 0\n'


def test_a_report_that_a_kill_tore_is_made_again(root, tmp_path):
    report = tmp_path / "results" / "made" / "report.html"
    report.parent.mkdir(parents=True)
    (tmp_path / "workflow" / "report").mkdir(parents=True)
    for name, text in {"recover": RECOVER, "flopstat": FLOPSTAT}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "torn").touch()
    make = ["make", "-f", str(root / "Makefile"), "-o", "setup", "run", "BIN=.", "RECOVER=./recover"]

    def run() -> int:
        return subprocess.run(make, cwd=tmp_path, capture_output=True, check=False).returncode

    assert run() != 0
    assert not report.exists()
    (tmp_path / "torn").unlink()
    assert run() == 0
    assert report.read_text(encoding="utf-8") == "<html>\n</html>\n"
    (tmp_path / "torn").touch()
    assert run() == 0  # as nothing changed, no report is made
    (report.parent / "laws.csv").touch()
    assert run() != 0
    assert report.read_text(encoding="utf-8") == "<html>\n</html>\n"  # the old one, whole
    (tmp_path / "torn").unlink()
    assert run() == 0
    assert [p.name for p in report.parent.iterdir() if "report" in p.name] == ["report.html"]
