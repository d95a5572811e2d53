"""Laws: κ per arm and T, α(q) per quantised arm and T, on the calibration problems.

Needs: grades, models, problems.parquet. Makes: laws.csv (empty where a study has no calibration problems).
"""


rule fit_laws:
    """Fit κ and α(q) with bootstrap intervals."""
    input:
        grades=expand(f"{RESULTS}/grades/{{arm}}.parquet", arm=ARMS),
        cards=expand(f"{RESULTS}/models/{{model}}.json", model=MODELS),
        problems=f"{RESULTS}/problems.parquet",
    output:
        laws=report(f"{RESULTS}/laws.csv", caption="../report/laws.rst", category="Laws"),
    log:
        f"{RESULTS}/logs/fit_laws.log",
    benchmark:
        f"{RESULTS}/timings/fit_laws.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config={key: config[key] for key in ("seed", "budgets", "statistics")},
        arms=ARMS,
        references={name: model["precisions"][0] for name, model in MODELS.items()},
        code=code_hash("laws", "cells", "tables"),
    message:
        "Fitting laws"
    script:
        "../../scripts/fit_laws.py"
