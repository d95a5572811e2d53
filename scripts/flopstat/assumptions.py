"""What the code assumes, collected from its `# ASSUME` comments: the paper's threats to validity."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pandas as pd

from flopstat.provenance import ROOT

_MARK = re.compile(r"(?:^|[#\s])ASSUME\s+(?P<text>\S.*?)(?:\"\"\")?$")
_FOLDERS = ("scripts", "workflow")
_SUFFIXES = (".py", ".smk", ".yaml", ".rst")
OTHER = "Elsewhere"
TOPICS = {  # by module: what an assumption is about
    "Problems, chains and grades": ("cells", "imports", "submissions", "strategies", "templates"),
    "Statistics": ("bootstrap", "frontier", "dominance", "study_comparison"),
    "Laws": ("alpha_law", "training_laws", "streams", "fitting"),
    "Cost": ("costs", "kinetics", "models", "rates", "batching", "latency"),
    "Measurement and hardware": ("calibration", "calibration_figure", "devices", "energy", "hardware", "verdicts"),
    "What if": ("scenarios",),
    "Forecasts before a run": ("planning", "rehearsal", "widths"),
    "Tools": ("doctor",),
}


def sentence(text: str) -> str:
    """An assumption as a sentence: first letter upper case unless it is a name of the code, a full stop at the end."""
    first = text.split(maxsplit=1)[0]
    start = text[0] if "_" in first else text[0].upper()
    return start + text[1:] + ("" if text.endswith(".") else ".")


def topic_of(path: Path) -> str:
    return next((topic for topic, modules in TOPICS.items() if path.stem in modules), OTHER)


def collect(root: Path = ROOT) -> pd.DataFrame:
    """All assumptions: topic, file below root, line of the mark, and text, by topic and then file.

    The text runs to the end of the line, and on over comment lines that follow it without code or a mark of their own.
    """
    rows = []
    for folder in _FOLDERS:
        for path in sorted(p for p in (root / folder).rglob("*") if p.suffix in _SUFFIXES and p.is_file()):
            lines = path.read_text(encoding="utf-8").splitlines()
            for i, line in enumerate(lines):
                if (found := _MARK.search(line)) and path.stem != "assumptions":
                    where = path.relative_to(root).as_posix()
                    rows.append((topic_of(path), where, i + 1, sentence(" ".join([found["text"], *_rest(lines, i)]))))
    order = {topic: i for i, topic in enumerate([*TOPICS, OTHER])}
    rows.sort(key=lambda row: (order[row[0]], row[1], row[2]))
    return pd.DataFrame(rows, columns=["topic", "file", "line", "text"])


def digest(root: Path = ROOT) -> str:
    """Hash of all assumptions and of where they stand, for reruns: comments do not count in the hash of the code."""
    return hashlib.sha256(collect(root).to_csv(index=False).encode()).hexdigest()[:16]


def _rest(lines: list[str], at: int) -> list[str]:
    """Comment lines that carry on the one at `at`."""
    out: list[str] = []
    if lines[at].lstrip().startswith("#"):
        for line in lines[at + 1 :]:
            text = line.strip()
            if not text.startswith("# ") or "ASSUME" in text:
                break
            out.append(text.removeprefix("# "))
    return out
