"""Calibration: what a token of each arm costs on this machine.

Needs: models/<model>.json. Makes: calibration/<arm>.json, calibration.csv. Measurements are kept in results/calibrations/ and reused.
"""


rule calibrate_arms:
    """Count FLOPs and measure prefills and decoding steps of all arms: one job, since loading the libraries takes longer than an arm."""
    input:
        cards=expand(f"{RESULTS}/models/{{model}}.json", model=DRAWN),
    output:
        measured=expand(f"{RESULTS}/calibration/{{arm}}.json", arm=DRAWN_ARMS),
    log:
        f"{RESULTS}/logs/calibrate_arms.log",
    benchmark:
        f"{RESULTS}/timings/calibrate_arms.tsv"
    conda:
        "../../envs/models.yaml"
    threads: workflow.cores  # a timing wants the machine for itself
    resources:
        mem_mb=8000,
        runtime=60,
        gpu=GPUS,
    params:
        arms=[f"--arm {arm}" for arm in DRAWN_ARMS],
        cards=lambda wildcards, input: [f"--card {card}" for card in input.cards],
        store="results/calibrations",
        folder=lambda wildcards, output: str(Path(output.measured[0]).parent),
        settings=json.dumps(
            {
                "calibration": config["calibration"],
                "compute_dtype": config["sampling"]["compute_dtype"],
                "device": config["sampling"]["device"],
                "offload": config["sampling"]["offload"],
                "device_memory": config["sampling"]["device_memory"],
                "draw": {key: config["sampling"][key] for key in ("temperature", "top_p", "top_k", "min_p")},
            }
        ),
        code=code_hash("calibration"),
    message:
        "Calibrating {DRAWN_ARMS}"
    shell:
        "OMP_NUM_THREADS={threads} flopstat calibrate {params.arms} {params.cards}"
        " --settings {params.settings:q} --store {params.store} --out {params.folder} 2> {log}"


rule tabulate_calibration:
    """Gather the measurements of all arms, and compare each precision's speed with its model's reference precision."""
    input:
        measured=expand(f"{RESULTS}/calibration/{{arm}}.json", arm=DRAWN_ARMS),
    output:
        table=report(
            f"{RESULTS}/calibration.csv",
            caption="../report/calibration.rst",
            category="5 Data and checks",
            subcategory="Tables",
            labels={"result": "cost of a token here"},
        ),
    log:
        f"{RESULTS}/logs/tabulate_calibration.log",
    benchmark:
        f"{RESULTS}/timings/tabulate_calibration.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        arms=DRAWN_ARMS,
        references={name: FIRST_PRECISIONS[name] for name in DRAWN},
        code=code_hash("tables", "verdicts"),
    message:
        "Tabulating calibration and comparing precisions"
    script:
        "../../scripts/tabulate_calibration.py"
