"""Figures of the ladder itself, for studies of its models.

Needs: the ladder's training logs and accuracy.csv, laws/<law>.json and exponents.csv. Makes: figures/{training_laws,ladder}.{pdf,png,csv}.
"""


rule plot_training_laws:
    """Held-out losses of the decay branches with the joint laws, and exponents."""
    input:
        training_logs=TRAINING_LOGS,
        details=f"{RESULTS}/laws",
        exponents=f"{RESULTS}/exponents.csv",
    output:
        pdf=f"{RESULTS}/figures/training_laws.pdf",
        png=report(
            f"{RESULTS}/figures/training_laws.png",
            caption="../report/training_laws_figure.rst",
            category="3 Laws",
            subcategory="Figures",
            labels={"result": "training-time laws of the ladder"},
        ),
        data=f"{RESULTS}/figures/training_laws.csv",
    log:
        f"{RESULTS}/logs/plot_training_laws.log",
    benchmark:
        f"{RESULTS}/timings/plot_training_laws.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        title=TITLE,
        confidence=config["statistics"]["confidence"],
        code=code_hash("ladder_figures", "tables"),
    message:
        "Plotting training-time laws"
    script:
        "../../scripts/plot_training_laws.py"


rule plot_ladder:
    """How good the shipped models are on fresh problems, by number of steps."""
    input:
        quality="workflow/resources/ladder/accuracy.csv",
    output:
        pdf=f"{RESULTS}/figures/ladder.pdf",
        png=report(
            f"{RESULTS}/figures/ladder.png",
            caption="../report/ladder_figure.rst",
            category="5 Data and checks",
            subcategory="Figures",
            labels={"result": "quality of the ladder"},
        ),
        data=f"{RESULTS}/figures/ladder.csv",
    log:
        f"{RESULTS}/logs/plot_ladder.log",
    benchmark:
        f"{RESULTS}/timings/plot_ladder.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        title=TITLE,
        n_problems=lambda wildcards, input: int(pd.read_csv(input.quality)["n_problems"].max()),  # for the caption
        code=code_hash("ladder_figures"),
    message:
        "Plotting the quality of the ladder"
    script:
        "../../scripts/plot_ladder.py"
