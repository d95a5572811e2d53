"""Imports: samples that other tools drew, in place of describing, calibrating and sampling a model.

Needs: the logs that the config names, problems.parquet. Makes: imported/<model>.parquet, models/<model>.json, grades/<arm>.parquet.
"""


rule import_samples:
    """Turn a log into the Sample form; what is dropped and what is unknown stands in the card."""
    output:
        samples=f"{RESULTS}/imported/{{model}}.parquet",
        card=f"{RESULTS}/models/{{model}}.json",
    log:
        f"{RESULTS}/logs/import_samples/{{model}}.log",
    benchmark:
        f"{RESULTS}/timings/import_samples/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(IMPORTED),
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        entry=lambda wildcards: MODELS[wildcards.model],
        stored=lambda wildcards: stored_identity(MODELS[wildcards.model]),
        code=code_hash("imports"),
    message:
        "Importing the samples of {wildcards.model}"
    script:
        "../../scripts/import_samples.py"


rule grade_imported:
    """Read the answers of imported samples; their problems must be the study's."""
    input:
        samples=f"{RESULTS}/imported/{{model}}.parquet",
        problems=f"{RESULTS}/problems.parquet",
    output:
        grades=f"{RESULTS}/grades/{{model}}@{{precision}}.parquet",
        verdicts=f"{RESULTS}/verdicts/{{model}}@{{precision}}.parquet",
    log:
        f"{RESULTS}/logs/grade_imported/{{model}}@{{precision}}.log",
    benchmark:
        f"{RESULTS}/timings/grade_imported/{{model}}@{{precision}}.tsv"
    wildcard_constraints:
        model=one_of(IMPORTED),
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        budgets=config["budgets"]["T"],
        graders=GRADERS,
        code=code_hash("imports", "tables"),
    message:
        "Grading the imported samples of {wildcards.model}"
    script:
        "../../scripts/grade_imported.py"
