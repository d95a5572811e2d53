"""Plan: the first chains of every arm, what the study will take, and after the run how it came out.

Needs: problems.parquet, models, calibration. Makes: pilot/<arm>.json, plan.csv before sampling; plan_actual.csv, figures/plan.{pdf,png,csv}
after it.
"""


rule draw_pilots:
    """Draw the first chains of every arm and time its engine: one job, since loading the libraries takes longer than a small arm."""
    input:
        problems=f"{RESULTS}/problems.parquet",
        cards=expand(f"{RESULTS}/models/{{model}}.json", model=DRAWN),
    output:
        pilots=expand(f"{RESULTS}/pilot/{{arm}}.json", arm=DRAWN_ARMS),
    log:
        f"{RESULTS}/logs/draw_pilots.log",
    benchmark:
        f"{RESULTS}/timings/draw_pilots.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 1  # as many as a sampling job has: what is timed is such a job
    resources:
        mem_mb=6000,
        runtime=120,
        gpu=GPUS,
    params:
        arms=[f"--arm {arm}" for arm in DRAWN_ARMS],
        cards=lambda wildcards, input: [f"--card {card}" for card in input.cards],
        results=subpath(input.problems, parent=True),
        chains=config["plan"]["pilot_chains"],
        settings=DRAWING,
        pools=POOLS,
    message:
        "Drawing the pilot of every arm"
    shell:
        "OMP_NUM_THREADS={threads} flopstat pilot --problems {input.problems} {params.arms} {params.cards} --settings {params.settings:q}"
        " --chains {params.chains} --store {params.pools} --out {params.results}/pilot 2> {log}"


rule write_plan:
    """Forecast tokens, FLOP, hours, memory, money and interval widths before anything but the pilot is drawn."""
    input:
        problems=f"{RESULTS}/problems.parquet",
        cards=expand(f"{RESULTS}/models/{{model}}.json", model=DRAWN),
        pilots=expand(f"{RESULTS}/pilot/{{arm}}.json", arm=DRAWN_ARMS),
        measured=expand(f"{RESULTS}/calibration/{{arm}}.json", arm=DRAWN_ARMS),
    output:
        plan=report(
            f"{RESULTS}/plan.csv",
            caption="../report/plan.rst",
            category="5 Data and checks",
            subcategory="Tables",
            labels={"result": "plan"},
        ),
    log:
        f"{RESULTS}/logs/write_plan.log",
    benchmark:
        f"{RESULTS}/timings/write_plan.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        config=config,
        results=subpath(input.problems, parent=True),
        cores=lambda wildcards: workflow.cores or 1,
        code=code_hash("plan_text", "tables"),
    message:
        "Writing the plan"
    script:
        "../../scripts/write_plan.py"


rule compare_plan:
    """Set what was drawn beside what was planned."""
    input:
        plan=f"{RESULTS}/plan.csv",
        views=expand(f"{RESULTS}/samples/{{arm}}/{{shard}}.parquet", arm=DRAWN_ARMS, shard=SHARDS),
        summaries=expand(f"{RESULTS}/samples/{{arm}}/{{shard}}.json", arm=DRAWN_ARMS, shard=SHARDS),
        pilots=expand(f"{RESULTS}/pilot/{{arm}}.json", arm=DRAWN_ARMS),
    output:
        actual=report(
            f"{RESULTS}/plan_actual.csv",
            caption="../report/plan_actual.rst",
            category="5 Data and checks",
            subcategory="Tables",
            labels={"result": "plan and reality"},
        ),
    log:
        f"{RESULTS}/logs/compare_plan.log",
    benchmark:
        f"{RESULTS}/timings/compare_plan.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        study=STUDY,
        arms=DRAWN_ARMS,
        budget=config["budgets"]["T"][-1],
        code=code_hash("reality", "tables"),
    message:
        "Comparing plan and run"
    script:
        "../../scripts/compare_plan.py"


rule plot_plan:
    """Tokens, time and memory of each arm over what was planned."""
    input:
        actual=f"{RESULTS}/plan_actual.csv",
    output:
        pdf=f"{RESULTS}/figures/plan.pdf",
        png=report(
            f"{RESULTS}/figures/plan.png",
            caption="../report/plan_figure.rst",
            category="5 Data and checks",
            subcategory="Figures",
            labels={"result": "plan and reality"},
        ),
        data=f"{RESULTS}/figures/plan.csv",
    log:
        f"{RESULTS}/logs/plot_plan.log",
    benchmark:
        f"{RESULTS}/timings/plot_plan.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        title=TITLE,
        code=code_hash("plan_figure", "tables"),
    message:
        "Plotting plan and reality"
    script:
        "../../scripts/plot_plan.py"
