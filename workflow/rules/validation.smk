"""Validation: cells generated one by one against the pool. Not part of the default run: ask for results/<study>/validation.csv.

Needs: problems.parquet, cells.parquet, models, grades of every model's reference precision. Makes: validation.csv, validation_ids.json.
Its chains are kept in results/pools/, so an interrupted check goes on where it was.
"""

REFERENCES = [f"{name}@{FIRST_PRECISIONS[name]}" for name in DRAWN]


rule validate_cells:
    """Draw chosen cells of the two smallest models one chain at a time and compare them with the pool's estimates."""
    input:
        problems=f"{RESULTS}/problems.parquet",
        per_problem=f"{RESULTS}/cells.parquet",
        cards=expand(f"{RESULTS}/models/{{model}}.json", model=DRAWN),
        grades=expand(f"{RESULTS}/grades/{{arm}}.parquet", arm=REFERENCES),
    output:
        table=report(
            f"{RESULTS}/validation.csv",
            caption="../report/validation.rst",
            category="5 Data and checks",
            subcategory="Tables",
            labels={"result": "pool against cells drawn one by one"},
        ),
        ids=f"{RESULTS}/validation_ids.json",
    log:
        f"{RESULTS}/logs/validate_cells.log",
    benchmark:
        f"{RESULTS}/timings/validate_cells.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=6000,
        runtime=720,
        gpu=GPUS,
    params:
        config={key: config[key] for key in ("study", "seed", "budgets", "sampling", "grader", "statistics")},
        arms=REFERENCES,
        store=POOLS,
        code=code_hash("validation", "tables"),
    message:
        "Validating cells one by one"
    script:
        "../../scripts/validate_cells.py"
