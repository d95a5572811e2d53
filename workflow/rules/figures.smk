"""Figures, each as PDF and PNG with the CSV it was drawn from.

Needs: configurations.csv, frontier.csv, crossovers.csv. Makes: figures/accuracy.{pdf,png,csv}.
"""


rule plot_accuracy:
    """Accuracy against FLOPs, a curve per configuration, frontier and crossover marked."""
    input:
        configurations=f"{RESULTS}/configurations.csv",
        frontier=f"{RESULTS}/frontier.csv",
        crossovers=f"{RESULTS}/crossovers.csv",
    output:
        pdf=f"{RESULTS}/figures/accuracy.pdf",
        png=report(
            f"{RESULTS}/figures/accuracy.png",
            caption="../report/accuracy.rst",
            category="Figures",
            labels={"figure": "accuracy against FLOPs"},
        ),
        data=f"{RESULTS}/figures/accuracy.csv",
    log:
        f"{RESULTS}/logs/plot_accuracy.log",
    benchmark:
        f"{RESULTS}/timings/plot_accuracy.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        title=config["title"] or STUDY,
        references={name: model["precisions"][0] for name, model in MODELS.items()},
        code=code_hash("figures", "tables"),
    message:
        "Plotting accuracy against FLOPs"
    script:
        "../../scripts/plot_accuracy.py"
