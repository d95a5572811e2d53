"""Pairing: what common random numbers gain for the difference of two arms.

Needs: problems.parquet, models, grades of all arms. Makes: variance_ratio.csv.
"""


rule measure_variance_ratio:
    """Sampling variance of a difference as drawn over that of independent draws, with an interval over problems."""
    input:
        grades=expand(f"{RESULTS}/grades/{{arm}}.parquet", arm=DRAWN_ARMS),
        cards=expand(f"{RESULTS}/models/{{model}}.json", model=DRAWN),
        problems=f"{RESULTS}/problems.parquet",
    output:
        ratios=report(
            f"{RESULTS}/variance_ratio.csv",
            caption="../report/variance_ratio.rst",
            category="5 Data and checks",
            subcategory="Tables",
            labels={"result": "gain of common random numbers"},
        ),
    log:
        f"{RESULTS}/logs/measure_variance_ratio.log",
    benchmark:
        f"{RESULTS}/timings/measure_variance_ratio.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config={key: config[key] for key in ("study", "seed", "budgets", "statistics")},
        arms=DRAWN_ARMS,
        code=code_hash("pairing", "tables"),
    message:
        "Measuring what shared uniforms gain"
    script:
        "../../scripts/measure_variance_ratio.py"
