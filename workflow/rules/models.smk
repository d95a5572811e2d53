"""Models: where they are, what they are.

Needs: weights on disk, in the hub's cache, or shipped here. Makes: models/<model>.json.
"""

from flopstat.ladder.sizes import SIZES


rule describe_model:
    """Resolve a model and record its size, shape and the sha256 of its weights."""
    output:
        card=f"{RESULTS}/models/{{model}}.json",
    log:
        f"{RESULTS}/logs/describe_model/{{model}}.log",
    benchmark:
        f"{RESULTS}/timings/describe_model/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(DRAWN),
    conda:
        "../../envs/models.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        entry=lambda wildcards: MODELS[wildcards.model],
        store="results/checkpoints",
        stored=lambda wildcards: stored_identity(MODELS[wildcards.model]),
        code=code_hash("models"),
    message:
        "Describing {wildcards.model}"
    script:
        "../../scripts/describe_model.py"


rule ladder_weights:
    """Train the ladder anew (hours; not part of the default run)."""
    input:
        weights=expand("results/ladder-training/{size}/model.safetensors", size=SIZES),
    localrule: True


rule train_ladder:
    """Train one ladder model; an interrupted run resumes from its last checkpoint."""
    output:
        weights="results/ladder-training/{size}/model.safetensors",
        log="results/ladder-training/{size}/training_log.csv",
    log:
        "results/ladder-training/logs/{size}.log",
    benchmark:
        "results/ladder-training/timings/{size}.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=600,
    params:
        work=lambda wildcards: f"results/ladder-training/work/{wildcards.size}",
        out=subpath(output.weights, parent=True),
    message:
        "Training {wildcards.size}"
    shell:
        "flopstat train {wildcards.size} --work {params.work} --out {params.out} 2> {log}"
