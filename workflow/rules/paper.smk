"""Paper: every number a generated macro, figures as inputs.

Needs: the tables and figures. Makes: run.json; in paper/ macros.tex, numbers.csv (each number with file, row and column), settings.csv,
assumptions.csv, checked.txt and flopstat.pdf.
"""

import re

from flopstat import assumptions

# All files that the paper may quote, below the study's folder; another one is refused.
PAPER_FILES = [
    "problems.parquet",
    *(
        f"{table}.csv"
        for table in (
            "calibration",
            "configurations",
            "cost_per_correct",
            "crossovers",
            "exponents",
            "frontier",
            "latency_by_streams",
            "law_sensitivity",
            "laws",
            "local_kappa",
            "plan_actual",
            "refusals",
            "surface_gradients",
            "variance_ratio",
            "weight_bits",
        )
    ),
    *(f"models/{model}.json" for model in MODELS),
    *(f"calibration/{arm}.json" for arm in DRAWN_ARMS),
]
# Every figure of the study that paper/flopstat.tex has a place for: \plot{name} there sets it where it is listed here.
PLACES = set(re.findall(r"\\plot\{([a-z_]+)\}", Path("paper/flopstat.tex").read_text(encoding="utf-8")))
PAPER_FIGURES = [Path(path).stem for path in FIGURES if path.endswith(".pdf") and Path(path).stem in PLACES]


rule record_run:
    """Record config, versions, revision, hardware and hashes of the tables."""
    input:
        tables=TABLES,
        measured=expand(f"{RESULTS}/calibration/{{arm}}.json", arm=DRAWN_ARMS),
    output:
        record=f"{RESULTS}/run.json",
    log:
        f"{RESULTS}/logs/record_run.log",
    benchmark:
        f"{RESULTS}/timings/record_run.tsv"
    conda:
        "../../envs/models.yaml"
    params:
        config=config,
        code=code_hash("provenance", "stored"),
    message:
        "Recording the run"
    script:
        "../../scripts/record_run.py"


rule write_macros:
    """Turn the tables into LaTeX macros and table bodies, and name the source of each number."""
    input:
        sources=expand(f"{RESULTS}/{{file}}", file=PAPER_FILES),
    output:
        macros=f"{RESULTS}/paper/macros.tex",
        numbers=f"{RESULTS}/paper/numbers.csv",
        settings=f"{RESULTS}/paper/settings.csv",
        assumptions=f"{RESULTS}/paper/assumptions.csv",
    log:
        f"{RESULTS}/logs/write_macros.log",
    benchmark:
        f"{RESULTS}/timings/write_macros.tsv"
    priority: 1  # the paper waits for it
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        folder=subpath(output.macros, ancestor=2),
        files=PAPER_FILES,
        config=config,
        figures=PAPER_FIGURES,
        assumed=assumptions.digest(),
        code=code_hash("paper"),
    message:
        "Writing the paper's numbers"
    script:
        "../../scripts/write_macros.py"


rule check_macros:
    """Work every number of the paper out again from the cells that it names."""
    input:
        sources=expand(f"{RESULTS}/{{file}}", file=PAPER_FILES),
        made=rules.write_macros.output,
        source="paper/flopstat.tex",
    output:
        report=f"{RESULTS}/paper/checked.txt",
    log:
        f"{RESULTS}/logs/check_macros.log",
    benchmark:
        f"{RESULTS}/timings/check_macros.tsv"
    priority: 1  # the paper waits for it
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        folder=subpath(output.report, ancestor=2),
        files=PAPER_FILES,
        code=code_hash("paper"),
    message:
        "Checking the paper's numbers"
    script:
        "../../scripts/check_macros.py"


rule build_paper:
    """Typeset the paper; the same inputs give the same bytes."""
    input:
        source="paper/flopstat.tex",
        bibliography="paper/references.bib",
        macros=f"{RESULTS}/paper/macros.tex",
        checked=f"{RESULTS}/paper/checked.txt",
        headline=f"{RESULTS}/figures/accuracy.pdf",
        figures=expand(f"{RESULTS}/figures/{{name}}.pdf", name=PAPER_FIGURES),
    output:
        pdf=f"{RESULTS}/paper/flopstat.pdf",
    log:
        f"{RESULTS}/logs/build_paper.log",
    benchmark:
        f"{RESULTS}/timings/build_paper.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        folder=subpath(output.pdf, parent=True),
        figures=subpath(input.headline, parent=True),
    message:
        "Typesetting the paper"
    shell:
        "TEXINPUTS={params.folder}:{params.figures}: BIBINPUTS=paper: SOURCE_DATE_EPOCH=0 FORCE_SOURCE_DATE=1"
        " latexmk -pdf -bibtex -interaction=nonstopmode -halt-on-error -no-shell-escape -norc"
        " -outdir={params.folder} {input.source} > {log} 2>&1"
        " && python -m flopstat.stored {output.pdf}"
