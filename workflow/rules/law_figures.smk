"""Figures of the laws, where a study has calibration problems.

Needs: laws.csv and its tables, configurations.csv. Makes: figures/{votes,coverage,alpha,surface}.{pdf,png,csv}.
"""


rule plot_votes:
    """Gain of votes over one stream, with κ ln P and its residuals."""
    input:
        vote_gains=f"{RESULTS}/vote_gains.csv",
        laws=f"{RESULTS}/laws.csv",
    output:
        pdf=f"{RESULTS}/figures/votes.pdf",
        png=report(
            f"{RESULTS}/figures/votes.png",
            caption="../report/figure_votes.rst",
            category="3 Laws",
            subcategory="Figures",
            labels={"result": "votes and their law"},
        ),
        data=f"{RESULTS}/figures/votes.csv",
    log:
        f"{RESULTS}/logs/plot_votes.log",
    benchmark:
        f"{RESULTS}/timings/plot_votes.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        title=TITLE,
        code=code_hash("law_figures", "tables"),
    message:
        "Plotting votes and their law"
    script:
        "../../scripts/plot_votes.py"


rule plot_coverage:
    """pass@k with three laws and the k that they had not seen."""
    input:
        coverage=f"{RESULTS}/coverage.csv",
        laws=f"{RESULTS}/laws.csv",
    output:
        pdf=f"{RESULTS}/figures/coverage.pdf",
        png=report(
            f"{RESULTS}/figures/coverage.png",
            caption="../report/figure_coverage.rst",
            category="3 Laws",
            subcategory="Figures",
            labels={"result": "coverage and its laws"},
        ),
        data=f"{RESULTS}/figures/coverage.csv",
    log:
        f"{RESULTS}/logs/plot_coverage.log",
    benchmark:
        f"{RESULTS}/timings/plot_coverage.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        title=TITLE,
        code=code_hash("law_figures", "tables"),
    message:
        "Plotting coverage and its laws"
    script:
        "../../scripts/plot_coverage.py"


rule plot_alpha:
    """Effective-parameter factor against bits, with its curve."""
    input:
        laws=f"{RESULTS}/laws.csv",
        configurations=f"{RESULTS}/configurations.csv",
    output:
        pdf=f"{RESULTS}/figures/alpha.pdf",
        png=report(
            f"{RESULTS}/figures/alpha.png",
            caption="../report/figure_alpha.rst",
            category="3 Laws",
            subcategory="Figures",
            labels={"result": "effective parameters over bits"},
        ),
        data=f"{RESULTS}/figures/alpha.csv",
    log:
        f"{RESULTS}/logs/plot_alpha.log",
    benchmark:
        f"{RESULTS}/timings/plot_alpha.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        title=TITLE,
        code=code_hash("law_figures", "tables"),
    message:
        "Plotting effective parameters over bits"
    script:
        "../../scripts/plot_alpha.py"


rule plot_surface:
    """Predicted against measured accuracy of all cells, those left out marked."""
    input:
        surface=f"{RESULTS}/surface.csv",
        laws=f"{RESULTS}/laws.csv",
    output:
        pdf=f"{RESULTS}/figures/surface.pdf",
        png=report(
            f"{RESULTS}/figures/surface.png",
            caption="../report/figure_surface.rst",
            category="3 Laws",
            subcategory="Figures",
            labels={"result": "surface, predicted against measured"},
        ),
        data=f"{RESULTS}/figures/surface.csv",
    log:
        f"{RESULTS}/logs/plot_surface.log",
    benchmark:
        f"{RESULTS}/timings/plot_surface.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        title=TITLE,
        code=code_hash("law_figures", "tables"),
    message:
        "Plotting the surface, predicted against measured"
    script:
        "../../scripts/plot_surface.py"
