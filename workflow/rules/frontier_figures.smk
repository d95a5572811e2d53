"""Figures of what the frontier decides.

Needs: configurations.csv, cells.parquet, crossovers.csv, dominance.csv. Makes: figures/{crossovers,dominance}.{pdf,png,csv}.
"""


rule plot_crossovers:
    """Where the larger model's single pass overtakes the best of the smaller, with the band that decides."""
    input:
        configurations=f"{RESULTS}/configurations.csv",
        per_problem=f"{RESULTS}/cells.parquet",
        crossovers=f"{RESULTS}/crossovers.csv",
    output:
        pdf=f"{RESULTS}/figures/crossovers.pdf",
        png=report(
            f"{RESULTS}/figures/crossovers.png",
            caption="../report/crossovers_figure.rst",
            category="1 Headline",
            subcategory="Figures",
            labels={"result": "crossovers"},
        ),
        data=f"{RESULTS}/figures/crossovers.csv",
    log:
        f"{RESULTS}/logs/plot_crossovers.log",
    benchmark:
        f"{RESULTS}/timings/plot_crossovers.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        title=TITLE,
        config=JUDGED,
        code=code_hash("frontier_figures", "finished", "tables"),
    message:
        "Plotting crossovers"
    script:
        "../../scripts/plot_crossovers.py"


rule plot_dominance:
    """Which axis gains most per doubling of cost."""
    input:
        dominance=f"{RESULTS}/dominance.csv",
    output:
        pdf=f"{RESULTS}/figures/dominance.pdf",
        png=report(
            f"{RESULTS}/figures/dominance.png",
            caption="../report/dominance_figure.rst",
            category="1 Headline",
            subcategory="Figures",
            labels={"result": "axis that gains most"},
        ),
        data=f"{RESULTS}/figures/dominance.csv",
    log:
        f"{RESULTS}/logs/plot_dominance.log",
    benchmark:
        f"{RESULTS}/timings/plot_dominance.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        title=TITLE,
        code=code_hash("frontier_figures", "tables"),
    message:
        "Plotting dominance"
    script:
        "../../scripts/plot_dominance.py"
