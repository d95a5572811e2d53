"""The description of an archive as a Research Object Crate, version 1.1: https://w3id.org/ro/crate/1.1."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flopstat.stored import digest

METADATA = "ro-crate-metadata.json"
FORMATS = {".json": "application/json", ".parquet": "application/vnd.apache.parquet", ".csv": "text/csv"}
MEANINGS = {
    "run.json": "merged config, versions, revision, hardware, and SHA-256 of the study's tables",
    "problems.parquet": "the problems with their gold answers, splits and rendered messages",
    "refusals.csv": "problems left out, by reason",
    "models": "what a model is: size, shape, hashes of weights and tokenizer",
    "tokenizers": "the tokenizer that decodes the samples' ids",
    "calibration": "what a token of the arm costs on the machine that the study ran on",
    "pilot": "lengths of the arm's first chains, and how fast its sampling job ran: what the plan stands on",
    "samples": "every chain: token ids, confidence scores and how it ended; what drawing them took",
    "imported": "samples that another tool drew",
}


def crate(files: Mapping[str, Path], title: str, published: str) -> str:
    """The text of ro-crate-metadata.json; `published` is a day that belongs to the study, so that it gives the same bytes anywhere."""
    entities: list[dict[str, Any]] = [
        {
            "@id": METADATA,
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": title,
            "description": "Samples, problems, calibration and config of a flopstat study, of which tables, figures and paper are made.",
            "datePublished": published,
            "mainEntity": {"@id": "run.json"},
            "hasPart": [{"@id": name} for name in sorted(files)],
            "license": {"@id": "#license"},
        },
        {
            "@id": "#license",
            "@type": "CreativeWork",
            "name": "As the problems and models of the study are licensed; the ladder's are MIT",
        },
    ]
    for name, path in sorted(files.items()):
        meaning = MEANINGS[name.split("/")[0]]
        kind = FORMATS[Path(name).suffix]
        entities.append(
            {"@id": name, "@type": "File", "name": name, "description": meaning, "encodingFormat": kind}
            | {"contentSize": str(path.stat().st_size), "sha256": digest(path)}
        )
    context = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "http://schema.org/sha256"}]  # younger than version 1.1
    graph = {"@context": context, "@graph": entities}
    return json.dumps(graph, indent=1, ensure_ascii=False) + "\n"
