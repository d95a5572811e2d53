"""Figures, each as PDF and PNG with the CSV it was drawn from.

Needs: configurations.csv, frontier.csv, crossovers.csv, calibration.csv. Makes: figures/accuracy.{pdf,png,csv} of the headline's cost, and
figures/accuracy_<cost>.{pdf,png,csv} of every other one that the study is sure to have; those of others are made when asked for.
figures/lengths.{pdf,png,csv} and, where pools hold more than one sample, figures/variance.{pdf,png,csv}.
Where models were sampled here: figures/calibration.{pdf,png,csv}, from calibration/<arm>.json and models/<model>.json.
"""


rule plot_accuracy:
    """Accuracy against a cost, a curve per configuration, frontier and crossover marked."""
    input:
        configurations=f"{RESULTS}/configurations.csv",
        frontier=f"{RESULTS}/frontier.csv",
        crossovers=f"{RESULTS}/crossovers.csv",
        calibration=f"{RESULTS}/calibration.csv",
    output:
        pdf=[f"{RESULTS}/figures/{{figure}}.pdf"],
        png=[
            report(
                f"{RESULTS}/figures/{{figure}}.png",
                caption="../report/accuracy.rst",
                category=lambda wildcards: "4 Cost" if COST_FIGURES[wildcards.figure] else "1 Headline",
                subcategory="Figures",
                labels=lambda wildcards: {"result": f"accuracy against {COST_NAMES.get(COST_FIGURES[wildcards.figure], 'compute')}"},
            ),
        ],
        data=[f"{RESULTS}/figures/{{figure}}.csv"],
    log:
        f"{RESULTS}/logs/plot_accuracy/{{figure}}.log",
    benchmark:
        f"{RESULTS}/timings/plot_accuracy/{{figure}}.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        title=TITLE,
        references=FIRST_PRECISIONS,
        costs=lambda wildcards: [COST_FIGURES[wildcards.figure]],
        code=code_hash("figures", "devices", "tables"),
    message:
        "Plotting {wildcards.figure}"
    script:
        "../../scripts/plot_accuracy.py"


use rule plot_accuracy as plot_costs with:
    output:
        pdf=[f"{RESULTS}/figures/{figure}.pdf" for figure in SURE_FIGURES],
        png=[
            report(
                f"{RESULTS}/figures/{figure}.png",
                caption="../report/accuracy.rst",
                category="4 Cost",
                subcategory="Figures",
                labels={"result": f"accuracy against {COST_NAMES[COST_FIGURES[figure]]}"},
            )
            for figure in SURE_FIGURES
        ],
        data=[f"{RESULTS}/figures/{figure}.csv" for figure in SURE_FIGURES],
    log:
        f"{RESULTS}/logs/plot_costs.log",
    benchmark:
        f"{RESULTS}/timings/plot_costs.tsv"
    params:
        title=TITLE,
        references=FIRST_PRECISIONS,
        costs=[COST_FIGURES[figure] for figure in SURE_FIGURES],
        code=code_hash("figures", "devices", "tables"),
    message:
        "Plotting accuracy against every other cost"


rule plot_calibration:
    """Predicted against measured times of points left out, and the roofline."""
    input:
        measured=expand(f"{RESULTS}/calibration/{{arm}}.json", arm=DRAWN_ARMS),
        cards=expand(f"{RESULTS}/models/{{model}}.json", model=DRAWN),
    output:
        pdf=f"{RESULTS}/figures/calibration.pdf",
        png=report(
            f"{RESULTS}/figures/calibration.png",
            caption="../report/calibration_figure.rst",
            category="5 Data and checks",
            subcategory="Figures",
            labels={"result": "latency model and roofline"},
        ),
        data=f"{RESULTS}/figures/calibration.csv",
    log:
        f"{RESULTS}/logs/plot_calibration.log",
    benchmark:
        f"{RESULTS}/timings/plot_calibration.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        title=TITLE,
        arms=DRAWN_ARMS,
        code=code_hash("calibration_figure"),
    message:
        "Plotting the calibration"
    script:
        "../../scripts/plot_calibration.py"


rule plot_lengths:
    """What a larger budget buys a single chain, and what becomes of the chains."""
    input:
        configurations=f"{RESULTS}/configurations.csv",
    output:
        pdf=f"{RESULTS}/figures/lengths.pdf",
        png=report(
            f"{RESULTS}/figures/lengths.png",
            caption="../report/lengths_figure.rst",
            category="2 Accuracy",
            subcategory="Figures",
            labels={"result": "single chains over T"},
        ),
        data=f"{RESULTS}/figures/lengths.csv",
    log:
        f"{RESULTS}/logs/plot_lengths.log",
    benchmark:
        f"{RESULTS}/timings/plot_lengths.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        title=TITLE,
        references=FIRST_PRECISIONS,
        confidence=config["statistics"]["confidence"],
        code=code_hash("length_figure", "tables"),
    message:
        "Plotting single chains over their budget"
    script:
        "../../scripts/plot_lengths.py"


rule plot_variance:
    """What the error of each cell comes from: the choice of problems, or the finite pool."""
    input:
        configurations=f"{RESULTS}/configurations.csv",
    output:
        pdf=f"{RESULTS}/figures/variance.pdf",
        png=report(
            f"{RESULTS}/figures/variance.png",
            caption="../report/variance_figure.rst",
            category="2 Accuracy",
            subcategory="Figures",
            labels={"result": "what the error comes from"},
        ),
        data=f"{RESULTS}/figures/variance.csv",
    log:
        f"{RESULTS}/logs/plot_variance.log",
    benchmark:
        f"{RESULTS}/timings/plot_variance.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        title=TITLE,
        references=FIRST_PRECISIONS,
        code=code_hash("variance_figure", "tables"),
    message:
        "Plotting the split of the variance"
    script:
        "../../scripts/plot_variance.py"
