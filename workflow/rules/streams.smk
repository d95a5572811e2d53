"""Streams: what votes cost in FLOP per right answer, waiting time and throughput, for every number of streams.

Needs: grades, models and calibration of the sampled arms, problems.parquet, calibration.csv. Makes: cost_per_correct.csv,
latency_by_streams.csv, figures/{cost_per_correct,latency_by_streams}.{pdf,png,csv}.
"""


rule plot_streams:
    """FLOP per right answer with its minimum, and latency and throughput with a log fit, against the number of streams P."""
    input:
        grades=expand(f"{RESULTS}/grades/{{arm}}.parquet", arm=DRAWN_ARMS),
        cards=expand(f"{RESULTS}/models/{{model}}.json", model=DRAWN),
        measured=expand(f"{RESULTS}/calibration/{{arm}}.json", arm=DRAWN_ARMS),
        problems=f"{RESULTS}/problems.parquet",
        calibration=f"{RESULTS}/calibration.csv",
    output:
        minima=report(
            f"{RESULTS}/cost_per_correct.csv",
            caption="../report/cost_per_correct_table.rst",
            category="4 Cost",
            subcategory="Tables",
            labels={"result": "least FLOP per right answer"},
        ),
        latency=report(
            f"{RESULTS}/latency_by_streams.csv",
            caption="../report/latency_by_streams_table.rst",
            category="4 Cost",
            subcategory="Tables",
            labels={"result": "latency and throughput over P"},
        ),
        cost_pdf=f"{RESULTS}/figures/cost_per_correct.pdf",
        cost_png=report(
            f"{RESULTS}/figures/cost_per_correct.png",
            caption="../report/cost_per_correct.rst",
            category="4 Cost",
            subcategory="Figures",
            labels={"result": "FLOP per right answer over P"},
        ),
        cost_data=f"{RESULTS}/figures/cost_per_correct.csv",
        latency_pdf=f"{RESULTS}/figures/latency_by_streams.pdf",
        latency_png=report(
            f"{RESULTS}/figures/latency_by_streams.png",
            caption="../report/latency_by_streams.rst",
            category="4 Cost",
            subcategory="Figures",
            labels={"result": "latency and throughput over P"},
        ),
        latency_data=f"{RESULTS}/figures/latency_by_streams.csv",
    log:
        f"{RESULTS}/logs/plot_streams.log",
    benchmark:
        f"{RESULTS}/timings/plot_streams.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        title=TITLE,
        references=FIRST_PRECISIONS,
        config={key: config[key] for key in ("seed", "budgets", "statistics", "costs")} | {"kv_bits": KV_BITS},
        drawn=DRAWN_ARMS,
        code=code_hash("stream_figures", "streams", "facts", "devices", "tables"),
    message:
        "Plotting costs by the number of streams"
    script:
        "../../scripts/plot_streams.py"
