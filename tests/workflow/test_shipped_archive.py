"""The shipped archive of the default study rebuilds the paper's numbers and tables, and the README's findings, byte for byte.

After a change that is meant to change numbers, run `make run CONFIG=config/studies/ladder-archived.yaml`, then
`grep -v assumptions results/ladder-archived/paper/macros.tex > tests/golden/ladder_macros.tex`, and read the difference. The assumptions
are left out, since they name lines of the code.
"""

import shutil
from pathlib import Path

import pytest
from test_workflow import ROOT, snakemake, tracked_files

from flopstat import tables
from flopstat.findings import findings

GOLDEN = ROOT / "tests" / "golden" / "ladder_macros.tex"
RESULTS = Path("results", "ladder-archived")


@pytest.mark.slow
def test_the_shipped_archive_rebuilds_the_papers_tables_and_the_readmes_findings(tmp_path):
    for path in tracked_files():
        if path.parts[0] != "tests":
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, tmp_path / path)
    macros = RESULTS / "paper" / "macros.tex"
    done = snakemake(tmp_path, "--configfile", "config/studies/ladder-archived.yaml", "--", str(macros), str(RESULTS / "laws.csv"))
    assert done.returncode == 0, done.stdout + done.stderr
    made = (tmp_path / macros).read_text(encoding="utf-8").splitlines()
    assert [line for line in made if "assumptions" not in line] == GOLDEN.read_text(encoding="utf-8").splitlines()
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    cells, crossings = (tables.read(name, tmp_path / RESULTS / f"{name}.csv") for name in ("configurations", "crossovers"))
    found = findings(tmp_path / RESULTS, cells, crossings, "flops")
    assert len(found) == 3
    assert [text for text in found if text not in readme] == []
