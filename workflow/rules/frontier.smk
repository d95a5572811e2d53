"""Frontier: which configuration is best at which cost, and where the larger model overtakes.

Needs: configurations.csv, cells.parquet, variance_ratio.csv, surface_gradients.csv. Makes: frontier.csv, crossovers.csv,
frontier_axes.csv, hypervolume.csv, dominance.csv, dominance_passes.csv, recommendations.csv, regret.csv, pairs.csv.
"""

JUDGED = {key: config[key] for key in ("seed", "statistics")} | {"samples": config["sampling"]["samples"]}


rule find_frontier:
    """Pareto cells with a simultaneous band, and crossovers of every two sizes by paired bootstrap."""
    input:
        configurations=f"{RESULTS}/configurations.csv",
        per_problem=f"{RESULTS}/cells.parquet",
        ratios=f"{RESULTS}/variance_ratio.csv",
    output:
        frontier=report(
            f"{RESULTS}/frontier.csv",
            caption="../report/frontier.rst",
            category="1 Headline",
            subcategory="Tables",
            labels={"result": "frontier cells"},
        ),
        crossovers=report(
            f"{RESULTS}/crossovers.csv",
            caption="../report/crossovers.rst",
            category="1 Headline",
            subcategory="Tables",
            labels={"result": "crossovers"},
        ),
    log:
        f"{RESULTS}/logs/find_frontier.log",
    benchmark:
        f"{RESULTS}/timings/find_frontier.tsv"
    priority: 1  # the paper waits for it
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config=JUDGED,
        code=code_hash("frontier", "finished", "tables"),
    message:
        "Finding frontier and crossovers"
    script:
        "../../scripts/find_frontier.py"


rule compare_pairs:
    """Paired difference of two arms' accuracies beside the ratio of their costs, for the pairs that the config names."""
    input:
        configurations=f"{RESULTS}/configurations.csv",
        per_problem=f"{RESULTS}/cells.parquet",
    output:
        pairs=report(
            f"{RESULTS}/pairs.csv",
            caption="../report/pairs.rst",
            category="2 Accuracy",
            subcategory="Tables",
            labels={"result": "pairs of arms"},
        ),
    log:
        f"{RESULTS}/logs/compare_pairs.log",
    benchmark:
        f"{RESULTS}/timings/compare_pairs.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        pairs=config["pairs"],
        config=JUDGED,
        code=code_hash("comparison", "tables"),
    message:
        "Comparing pairs of arms"
    script:
        "../../scripts/compare_pairs.py"


rule find_axes:
    """Frontier of each axis alone and of all, with hypervolumes."""
    input:
        configurations=f"{RESULTS}/configurations.csv",
        per_problem=f"{RESULTS}/cells.parquet",
    output:
        axes=report(
            f"{RESULTS}/frontier_axes.csv",
            caption="../report/frontier_axes.rst",
            category="1 Headline",
            subcategory="Tables",
            labels={"result": "frontier of each axis"},
        ),
        hypervolume=report(
            f"{RESULTS}/hypervolume.csv",
            caption="../report/hypervolume.rst",
            category="1 Headline",
            subcategory="Tables",
            labels={"result": "mean accuracy over cost, by axis"},
        ),
    log:
        f"{RESULTS}/logs/find_axes.log",
    benchmark:
        f"{RESULTS}/timings/find_axes.tsv"
    priority: 1  # the paper waits for it
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config=JUDGED | {"study": STUDY},
        code=code_hash("frontier_axes", "finished", "tables"),
    message:
        "Finding what each axis reaches alone"
    script:
        "../../scripts/find_axes.py"


rule find_dominance:
    """Gain per doubling of cost on each axis, along the frontier and over the map of cost, N and T."""
    input:
        configurations=f"{RESULTS}/configurations.csv",
        per_problem=f"{RESULTS}/cells.parquet",
        frontier=f"{RESULTS}/frontier.csv",
        gradients=f"{RESULTS}/surface_gradients.csv",
    output:
        dominance=report(
            f"{RESULTS}/dominance.csv",
            caption="../report/dominance.rst",
            category="1 Headline",
            subcategory="Tables",
            labels={"result": "gain of one more step"},
        ),
        passes=report(
            f"{RESULTS}/dominance_passes.csv",
            caption="../report/dominance_passes.rst",
            category="1 Headline",
            subcategory="Tables",
            labels={"result": "where the best axis changes"},
        ),
    log:
        f"{RESULTS}/logs/find_dominance.log",
    benchmark:
        f"{RESULTS}/timings/find_dominance.tsv"
    priority: 1  # the paper waits for it
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config=JUDGED | {"study": STUDY},
        code=code_hash("dominance", "finished", "tables"),
    message:
        "Finding which axis pays most"
    script:
        "../../scripts/find_dominance.py"


rule recommend_cells:
    """What to run for a grid of budgets, and the regret of choosing by measured accuracy."""
    input:
        configurations=f"{RESULTS}/configurations.csv",
        per_problem=f"{RESULTS}/cells.parquet",
    output:
        recommendations=report(
            f"{RESULTS}/recommendations.csv",
            caption="../report/recommendations.rst",
            category="1 Headline",
            subcategory="Tables",
            labels={"result": "what to run for a budget"},
        ),
        regret=report(
            f"{RESULTS}/regret.csv",
            caption="../report/regret.rst",
            category="1 Headline",
            subcategory="Tables",
            labels={"result": "regret of the choice"},
        ),
    log:
        f"{RESULTS}/logs/recommend_cells.log",
    benchmark:
        f"{RESULTS}/timings/recommend_cells.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config=JUDGED | {"study": STUDY},
        code=code_hash("recommendations", "tables"),
    message:
        "Recommending cells for budgets"
    script:
        "../../scripts/recommend_cells.py"
