"""Calibration: what a token of each arm costs on this machine.

Needs: models/<model>.json. Makes: calibration/<arm>.json, calibration.csv. Measurements are kept in results/calibrations/ and reused.
"""


rule calibrate_arm:
    """Count FLOPs and measure seconds per token of one arm."""
    input:
        card=f"{RESULTS}/models/{{model}}.json",
    output:
        measured=f"{RESULTS}/calibration/{{model}}@{{precision}}.json",
    log:
        f"{RESULTS}/logs/calibrate_arm/{{model}}@{{precision}}.log",
    benchmark:
        f"{RESULTS}/timings/calibrate_arm/{{model}}@{{precision}}.tsv"
    wildcard_constraints:
        model=one_of(DRAWN),
    conda:
        "../../envs/models.yaml"
    threads: workflow.cores  # a timing wants the machine for itself
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        settings=json.dumps(
            {
                "calibration": config["calibration"],
                "compute_dtype": config["sampling"]["compute_dtype"],
                "device": config["sampling"]["device"],
                "offload": config["sampling"]["offload"],
                "device_memory": config["sampling"]["device_memory"],
            }
        ),
        code=code_hash("calibration"),
    message:
        "Calibrating {wildcards.model} at {wildcards.precision}"
    shell:
        "OMP_NUM_THREADS={threads} flopstat calibrate --card {input.card} --precision {wildcards.precision}"
        " --settings {params.settings:q} --store results/calibrations --out {output.measured} 2> {log}"


rule tabulate_calibration:
    """Gather the measurements of all arms."""
    input:
        measured=expand(f"{RESULTS}/calibration/{{arm}}.json", arm=DRAWN_ARMS),
    output:
        table=report(f"{RESULTS}/calibration.csv", caption="../report/calibration.rst", category="Cost"),
    log:
        f"{RESULTS}/logs/tabulate_calibration.log",
    benchmark:
        f"{RESULTS}/timings/tabulate_calibration.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        arms=DRAWN_ARMS,
        code=code_hash("tables"),
    message:
        "Tabulating calibration"
    script:
        "../../scripts/tabulate_calibration.py"
