"""Frontier: which configuration is best at which cost, and where the larger model overtakes.

Needs: configurations.csv, cells.parquet. Makes: frontier.csv, crossovers.csv, pairs.csv.
"""


rule find_frontier:
    """Pareto cells with a simultaneous band, and crossovers of neighbours in size by paired bootstrap."""
    input:
        configurations=f"{RESULTS}/configurations.csv",
        per_problem=f"{RESULTS}/cells.parquet",
    output:
        frontier=report(f"{RESULTS}/frontier.csv", caption="../report/frontier.rst", category="Frontier"),
        crossovers=report(f"{RESULTS}/crossovers.csv", caption="../report/crossovers.rst", category="Frontier"),
    log:
        f"{RESULTS}/logs/find_frontier.log",
    benchmark:
        f"{RESULTS}/timings/find_frontier.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config={key: config[key] for key in ("seed", "statistics")} | {"samples": config["sampling"]["samples"]},
        code=code_hash("frontier", "tables"),
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
        pairs=report(f"{RESULTS}/pairs.csv", caption="../report/pairs.rst", category="Accuracy"),
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
        config={key: config[key] for key in ("seed", "statistics")} | {"samples": config["sampling"]["samples"]},
        code=code_hash("comparison", "tables"),
    message:
        "Comparing pairs of arms"
    script:
        "../../scripts/compare_pairs.py"
