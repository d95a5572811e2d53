"""Grades: answer, state and tokens of every chain at every T.

Needs: samples/<arm>/*.parquet, problems.parquet, models/<model>.json. Makes: grades/<arm>.parquet.
"""


rule grade_samples:
    """Read the answers of one arm; asked = answered + no answer + truncated + failed is asserted."""
    input:
        views=expand(f"{RESULTS}/samples/{{{{model}}}}@{{{{precision}}}}/{{shard}}.parquet", shard=SHARDS),
        problems=f"{RESULTS}/problems.parquet",
        card=f"{RESULTS}/models/{{model}}.json",
    output:
        grades=f"{RESULTS}/grades/{{model}}@{{precision}}.parquet",
    log:
        f"{RESULTS}/logs/grade_samples/{{model}}@{{precision}}.log",
    benchmark:
        f"{RESULTS}/timings/grade_samples/{{model}}@{{precision}}.tsv"
    wildcard_constraints:
        model=one_of(DRAWN),
    conda:
        "../../envs/models.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        budgets=config["budgets"]["T"],
        answer_prompt=config["budgets"]["answer_prompt"] if config["budgets"]["forcing"] == "force_answer" else None,
        grader=config["grader"],
        code=code_hash("grading", "models", "tables"),
    message:
        "Grading {wildcards.model} at {wildcards.precision}"
    script:
        "../../scripts/grade_samples.py"
