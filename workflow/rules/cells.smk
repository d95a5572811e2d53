"""Cells: accuracy and cost of every configuration.

Needs: grades, models, calibration of all arms, problems.parquet, the price table. Makes: configurations.csv,
configurations_skipped.csv, unknown_costs.csv, cells.parquet (per problem).
"""


rule estimate_cells:
    """Exact subset averages with bootstrap intervals over problems."""
    input:
        grades=expand(f"{RESULTS}/grades/{{arm}}.parquet", arm=ARMS),
        cards=expand(f"{RESULTS}/models/{{model}}.json", model=MODELS),
        measured=expand(f"{RESULTS}/calibration/{{arm}}.json", arm=DRAWN_ARMS),
        problems=f"{RESULTS}/problems.parquet",
        prices=PRICES,
    output:
        configurations=report(
            f"{RESULTS}/configurations.csv",
            caption="../report/configurations.rst",
            category="2 Accuracy",
            subcategory="Tables",
            labels={"result": "every configuration"},
        ),
        skipped=f"{RESULTS}/configurations_skipped.csv",
        per_problem=f"{RESULTS}/cells.parquet",
        unknown=f"{RESULTS}/unknown_costs.csv",
    log:
        f"{RESULTS}/logs/estimate_cells.log",
    benchmark:
        f"{RESULTS}/timings/estimate_cells.tsv"
    priority: 1  # the longest jobs, and all others wait for them
    conda:
        "../../envs/analysis.yaml"
    threads: 4  # an arm each
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config={key: config[key] for key in ("study", "seed", "budgets", "strategies", "statistics", "costs")}
        | {"samples": config["sampling"]["samples"], "kv_bits": KV_BITS},
        arms=ARMS,
        code=code_hash("study_cells"),
    message:
        "Estimating cells"
    script:
        "../../scripts/estimate_cells.py"
