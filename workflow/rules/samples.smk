"""Samples: draw what the pools lack.

Needs: problems.parquet, models/<model>.json, pilot and plan. Makes: samples/<arm>/<shard>.parquet, views of results/pools/.
"""


rule draw_samples:
    """Draw the chains of one shard of one arm that its pool does not hold yet."""
    input:
        problems=f"{RESULTS}/problems.parquet",
        card=f"{RESULTS}/models/{{model}}.json",
        # First the pilot, whose chains these jobs find in the pool, and the plan; neither reruns what is drawn.
        pilot=ancient(f"{RESULTS}/pilot/{{model}}@{{precision}}.json"),
        plan=ancient(f"{RESULTS}/plan.csv"),
    output:
        view=f"{RESULTS}/samples/{{model}}@{{precision}}/{{shard}}.parquet",
        summary=f"{RESULTS}/samples/{{model}}@{{precision}}/{{shard}}.json",
    log:
        f"{RESULTS}/logs/draw_samples/{{model}}@{{precision}}-{{shard}}.log",
    benchmark:
        f"{RESULTS}/timings/draw_samples/{{model}}@{{precision}}-{{shard}}.tsv"
    wildcard_constraints:
        model=one_of(DRAWN),
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=6000,
        runtime=720,
        gpu=GPUS,
    params:
        settings=DRAWING,
        pools=POOLS,
    message:
        "Sampling {wildcards.model} at {wildcards.precision}, shard {wildcards.shard}"
    shell:
        "OMP_NUM_THREADS={threads} flopstat sample --problems {input.problems} --card {input.card}"
        " --precision {wildcards.precision} --settings {params.settings:q} --shard {wildcards.shard} --store {params.pools}"
        " --out {output.view} --summary {output.summary} 2> {log}"
