"""Paper: every number a generated macro, figures as inputs.

Needs: the tables and figures. Makes: run.json, paper/macros.tex, paper/flopstat.pdf.
"""


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
        code=code_hash("provenance"),
    message:
        "Recording the run"
    script:
        "../../scripts/record_run.py"


rule write_macros:
    """Turn the tables into LaTeX macros and table bodies."""
    input:
        problems=f"{RESULTS}/problems.parquet",
        refusals=f"{RESULTS}/refusals.csv",
        configurations=f"{RESULTS}/configurations.csv",
        skipped=f"{RESULTS}/configurations_skipped.csv",
        calibration=f"{RESULTS}/calibration.csv",
        laws=f"{RESULTS}/laws.csv",
        frontier=f"{RESULTS}/frontier.csv",
        crossovers=f"{RESULTS}/crossovers.csv",
        cards=expand(f"{RESULTS}/models/{{model}}.json", model=MODELS),
        measured=expand(f"{RESULTS}/calibration/{{arm}}.json", arm=DRAWN_ARMS),
    output:
        macros=f"{RESULTS}/paper/macros.tex",
    log:
        f"{RESULTS}/logs/write_macros.log",
    benchmark:
        f"{RESULTS}/timings/write_macros.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        config=config,
        code=code_hash("paper", "tables"),
    message:
        "Writing the paper's numbers"
    script:
        "../../scripts/write_macros.py"


rule build_paper:
    """Typeset the paper; the same inputs give the same bytes."""
    input:
        source="paper/flopstat.tex",
        bibliography="paper/references.bib",
        macros=f"{RESULTS}/paper/macros.tex",
        figure=f"{RESULTS}/figures/accuracy.pdf",
    output:
        pdf=f"{RESULTS}/paper/flopstat.pdf",
    log:
        f"{RESULTS}/logs/build_paper.log",
    benchmark:
        f"{RESULTS}/timings/build_paper.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        folder=subpath(output.pdf, parent=True),
        figures=subpath(input.figure, parent=True),
    message:
        "Typesetting the paper"
    shell:
        "TEXINPUTS={params.folder}:{params.figures}: BIBINPUTS=paper: SOURCE_DATE_EPOCH=0 FORCE_SOURCE_DATE=1"
        " latexmk -pdf -bibtex -interaction=nonstopmode -halt-on-error -no-shell-escape -norc"
        " -outdir={params.folder} {input.source} > {log} 2>&1"
