"""Grades: answer, state and tokens of every chain at every T.

Needs: samples/<arm>/*.parquet, problems.parquet, models/<model>.json. Makes: grades/<arm>.parquet, verdicts/<arm>.parquet (what each of
several graders says), and from those grader_disagreements.csv, grader_shift.csv and figures/graders.{pdf,png,csv} if the config names
several.
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
        disagreements=report(
            f"{RESULTS}/grader_disagreements.csv",
            caption="../report/grader_disagreements.rst",
            category="5 Data and checks",
            subcategory="Tables",
            labels={"result": "chains that graders judge differently"},
        ),
        shift=report(
            f"{RESULTS}/grader_shift.csv",
            caption="../report/grader_shift.rst",
            category="5 Data and checks",
            subcategory="Tables",
            labels={"result": "shift of accuracy by grader"},
        ),
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


rule plot_graders:
    """How far the grader alone moves accuracy, and which chains it judges differently."""
    input:
        shift=f"{RESULTS}/grader_shift.csv",
        disagreements=f"{RESULTS}/grader_disagreements.csv",
        problems=f"{RESULTS}/problems.parquet",
    output:
        pdf=f"{RESULTS}/figures/graders.pdf",
        png=report(
            f"{RESULTS}/figures/graders.png",
            caption="../report/graders_figure.rst",
            category="5 Data and checks",
            subcategory="Figures",
            labels={"result": "shift and disagreement of graders"},
        ),
        data=f"{RESULTS}/figures/graders.csv",
    log:
        f"{RESULTS}/logs/plot_graders.log",
    benchmark:
        f"{RESULTS}/timings/plot_graders.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        title=TITLE,
        confidence=config["statistics"]["confidence"],
        code=code_hash("grader_figure", "tables"),
    message:
        "Plotting graders side by side"
    script:
        "../../scripts/plot_graders.py"
