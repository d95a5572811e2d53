"""Problems: load, filter to the deterministic ones, select, split.

Needs: the dataset that the config names. Makes: problems.parquet, refusals.csv.
"""


rule select_problems:
    """Choose the study's problems and count the refusals by reason."""
    output:
        problems=f"{RESULTS}/problems.parquet",
        refusals=report(
            f"{RESULTS}/refusals.csv",
            caption="../report/refusals.rst",
            category="5 Data and checks",
            subcategory="Tables",
            labels={"result": "problems left out, by reason"},
        ),
    log:
        f"{RESULTS}/logs/select_problems.log",
    benchmark:
        f"{RESULTS}/timings/select_problems.tsv"
    conda:
        "../../envs/models.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        dataset=config["dataset"],
        prompt=config["prompt"],
        variants=config["sampling"]["variants"],
        seed=config["seed"],
        code=code_hash("problems", "tables", "ladder.generator"),
    message:
        "Selecting problems"
    script:
        "../../scripts/select_problems.py"
