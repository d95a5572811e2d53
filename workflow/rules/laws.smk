"""Laws: what a study's own cells say about votes, coverage, bits, budgets and the surface, and the ladder's training-time laws.

Needs: grades, models, problems.parquet, configurations.csv, cells.parquet; of ladder studies the training logs. Makes: laws.csv,
laws/<law>.json and the tables beside them (empty where a study has no calibration problems).
"""


rule fit_laws:
    """Fit all laws on calibration problems; the surface and one error of coverage are judged on study problems."""
    input:
        grades=expand(f"{RESULTS}/grades/{{arm}}.parquet", arm=ARMS),
        cards=expand(f"{RESULTS}/models/{{model}}.json", model=MODELS),
        problems=f"{RESULTS}/problems.parquet",
        configurations=f"{RESULTS}/configurations.csv",
        per_problem=f"{RESULTS}/cells.parquet",
        training_logs=TRAINING_LOGS,
    output:
        laws=report(
            f"{RESULTS}/laws.csv", caption="../report/laws.rst", category="3 Laws", subcategory="Tables", labels={"result": "all laws"}
        ),
        vote_gains=f"{RESULTS}/vote_gains.csv",
        local_kappa=f"{RESULTS}/local_kappa.csv",
        coverage=f"{RESULTS}/coverage.csv",
        weight_bits=report(
            f"{RESULTS}/weight_bits.csv",
            caption="../report/weight_bits.rst",
            category="3 Laws",
            subcategory="Tables",
            labels={"result": "accuracy over bits of weights"},
        ),
        surface=f"{RESULTS}/surface.csv",
        surface_gradients=report(
            f"{RESULTS}/surface_gradients.csv",
            caption="../report/surface_gradients.rst",
            category="3 Laws",
            subcategory="Tables",
            labels={"result": "gradients of the surface"},
        ),
        exponents=report(
            f"{RESULTS}/exponents.csv",
            caption="../report/exponents.rst",
            category="3 Laws",
            subcategory="Tables",
            labels={"result": "exponents of training and inference"},
        ),
        law_sensitivity=report(
            f"{RESULTS}/law_sensitivity.csv",
            caption="../report/law_sensitivity.rst",
            category="3 Laws",
            subcategory="Tables",
            labels={"result": "conclusions under other choices"},
        ),
        details=directory(f"{RESULTS}/laws"),
    log:
        f"{RESULTS}/logs/fit_laws.log",
    benchmark:
        f"{RESULTS}/timings/fit_laws.tsv"
    priority: 1  # the longest jobs, and all others wait for them
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config={key: config[key] for key in ("seed", "budgets", "statistics")},
        arms=ARMS,
        references=FIRST_PRECISIONS,
        code=code_hash("study_laws", "tables"),
    message:
        "Fitting laws"
    script:
        "../../scripts/fit_laws.py"
