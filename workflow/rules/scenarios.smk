"""Scenarios: what the study would cost under the changes that its config names, without new samples.

Needs: grades, models and calibration of the sampled arms, problems.parquet, configurations.csv, cells.parquet, crossovers.csv,
calibration.csv, tables of prices and hardware.
Makes: scenarios.csv, scenario_crossovers.csv, figures/scenarios.{pdf,png,csv}.
"""


rule redraw_scenarios:
    """Costs anew from the graded chains, then frontier and crossovers; accuracies are not estimated again."""
    input:
        grades=expand(f"{RESULTS}/grades/{{arm}}.parquet", arm=DRAWN_ARMS),
        cards=expand(f"{RESULTS}/models/{{model}}.json", model=MODELS),
        measured=expand(f"{RESULTS}/calibration/{{arm}}.json", arm=DRAWN_ARMS),
        problems=f"{RESULTS}/problems.parquet",
        configurations=f"{RESULTS}/configurations.csv",
        per_problem=f"{RESULTS}/cells.parquet",
        prices=PRICES,
        hardware=str(HARDWARE) if any(scenario["device"] for scenario in config["scenarios"]) else [],
    output:
        scenarios=f"{RESULTS}/scenarios.csv",
        crossovers=report(
            f"{RESULTS}/scenario_crossovers.csv",
            caption="../report/scenario_crossovers.rst",
            category="4 Cost",
            subcategory="Tables",
            labels={"result": "what if: crossovers"},
        ),
    log:
        f"{RESULTS}/logs/redraw_scenarios.log",
    benchmark:
        f"{RESULTS}/timings/redraw_scenarios.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config={key: config[key] for key in ("seed", "budgets", "statistics", "costs", "calibration", "scenarios")}
        | {"samples": config["sampling"]["samples"], "kv_bits": KV_BITS},
        arms=ARMS,
        drawn=DRAWN_ARMS,
        code=code_hash("redrawing", "facts", "tables"),
    message:
        "Redrawing frontier and crossovers by scenario"
    script:
        "../../scripts/redraw_scenarios.py"


rule plot_scenarios:
    """Frontiers of the study and of each scenario, a panel per cost."""
    input:
        scenarios=f"{RESULTS}/scenarios.csv",
        scenario_crossovers=f"{RESULTS}/scenario_crossovers.csv",
        crossovers=f"{RESULTS}/crossovers.csv",
        calibration=f"{RESULTS}/calibration.csv",
    output:
        pdf=f"{RESULTS}/figures/scenarios.pdf",
        png=report(
            f"{RESULTS}/figures/scenarios.png",
            caption="../report/scenarios.rst",
            category="4 Cost",
            subcategory="Figures",
            labels={"result": "what if: frontiers"},
        ),
        data=f"{RESULTS}/figures/scenarios.csv",
    log:
        f"{RESULTS}/logs/plot_scenarios.log",
    benchmark:
        f"{RESULTS}/timings/plot_scenarios.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        title=TITLE,
        code=code_hash("scenario_figure", "devices", "tables"),
    message:
        "Plotting scenarios"
    script:
        "../../scripts/plot_scenarios.py"
