"""Where a study's samples came from: drawn ones and those of an archive never stand in one folder.

`restore` notes the archive's SHA-256 in results/<study>/archive.json before it places anything. Snakemake would not look: the files are
there, whoever made them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flopstat import stored
from flopstat.errors import InputError

NOTE = "archive.json"
HELD = ("problems.parquet", "samples/*/*.parquet", "imported/*.parquet")  # what either way makes


def note(results: Path, sha256: str) -> None:
    """Write down which archive a study's folder is filled from."""
    stored.write_text(results / NOTE, json.dumps({"sha256": sha256}) + "\n")


def check(archive: Mapping[str, Any] | None, results: Path) -> None:
    """Make sure that what a study's folder holds came from where its config takes samples from.

    Parameters
    ----------
    archive : mapping or None
        The config's section `archive`. One whose file is not there is left to `archive.source`, which names it.
    results : Path
        Results folder of the study.

    Raises
    ------
    InputError
        If it holds samples that were drawn, or came from another archive, or came from one and the config names none.
    """
    noted = stored.read_json(results / NOTE, "note of an archive").get("sha256") if (results / NOTE).is_file() else None
    if noted is None and (results / f"{NOTE}{stored.DAMAGED}").is_file():
        return  # set aside by `make run`, which has it made anew, and the rest with it
    if noted is None and not any(path for pattern in HELD for path in results.glob(pattern)):
        return
    if archive is None:
        wanted = None
    elif archive["sha256"] is not None:
        wanted = archive["sha256"]
    elif Path(archive["path"]).is_file():
        wanted = stored.digest(Path(archive["path"]))
    else:
        return
    if noted != wanted:
        holds = f"came from the archive of SHA-256 {noted}" if noted else "did not come from an archive"
        says = "that is another one" if noted and wanted else "the config names one" if wanted else "the config names none"
        raise InputError(f"archive: what {results} holds {holds}, and {says}; give the study another name, or remove that folder")
