"""Grades: answer, state and tokens of every chain at every T.

Needs: samples/<arm>/*.parquet, problems.parquet, models/<model>.json. Makes: grades/<arm>.parquet, verdicts/<arm>.parquet (what each of
several graders says), and from those grader_disagreements.csv and grader_shift.csv if the config names several.
"""


rule grade_samples:
    """Read the answers of one arm; asked = answered + no answer + truncated + failed is asserted."""
    input:
        views=expand(f"{RESULTS}/samples/{{{{model}}}}@{{{{precision}}}}/{{shard}}.parquet", shard=SHARDS),
        problems=f"{RESULTS}/problems.parquet",
        card=f"{RESULTS}/models/{{model}}.json",
    output:
        grades=f"{RESULTS}/grades/{{model}}@{{precision}}.parquet",
        verdicts=f"{RESULTS}/verdicts/{{model}}@{{precision}}.parquet",
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
        graders=GRADERS,
        code=code_hash("grading", "models", "tables"),
    message:
        "Grading {wildcards.model} at {wildcards.precision}"
    script:
        "../../scripts/grade_samples.py"


rule compare_graders:
    """Where graders disagree, chain by chain, and how far each moves the accuracy curves."""
    input:
        verdicts=expand(f"{RESULTS}/verdicts/{{arm}}.parquet", arm=ARMS),
        problems=f"{RESULTS}/problems.parquet",
    output:
        disagreements=report(f"{RESULTS}/grader_disagreements.csv", caption="../report/grader_disagreements.rst", category="Graders"),
        shift=report(f"{RESULTS}/grader_shift.csv", caption="../report/grader_shift.rst", category="Graders"),
    log:
        f"{RESULTS}/logs/compare_graders.log",
    benchmark:
        f"{RESULTS}/timings/compare_graders.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config={key: config[key] for key in ("seed", "statistics")},
        graders=GRADERS,
        arms=ARMS,
        code=code_hash("agreement", "tables"),
    message:
        "Comparing graders"
    script:
        "../../scripts/compare_graders.py"
