"""Archive: problems, cards, calibration, pilots and samples of a finished study, in place of making them. No model, no GPU, no torch.

Needs: the archive that the config names, and no samples of other origin in the study's folder (`flopstat.origin`). Makes: what the rules
named in `ruleorder` make otherwise, tokenizers/<model>/tokenizer.json, and archive.json, which says what archive it was.
"""

if config["archive"]:

    ruleorder: restore_archive > select_problems > describe_model > import_samples > calibrate_arms > draw_pilots > draw_samples

    rule restore_archive:
        """Unpack an archive that nothing is trusted of, and refuse one of other samples than the config asks for."""
        input:
            archive=[config["archive"]["path"]] if config["archive"]["path"] else [],
        output:
            problems=f"{RESULTS}/problems.parquet",
            refusals=report(
                f"{RESULTS}/refusals.csv",
                caption="../report/refusals.rst",
                category="5 Data and checks",
                subcategory="Tables",
                labels={"result": "problems left out, by reason"},
            ),
            cards=expand(f"{RESULTS}/models/{{model}}.json", model=MODELS),
            imported=expand(f"{RESULTS}/imported/{{model}}.parquet", model=IMPORTED),
            tokenizers=expand(f"{RESULTS}/tokenizers/{{model}}/tokenizer.json", model=DRAWN),
            measured=expand(f"{RESULTS}/calibration/{{arm}}.json", arm=DRAWN_ARMS),
            pilots=expand(f"{RESULTS}/pilot/{{arm}}.json", arm=DRAWN_ARMS),
            views=expand(f"{RESULTS}/samples/{{arm}}/{{shard}}.parquet", arm=DRAWN_ARMS, shard=SHARDS),
            summaries=expand(f"{RESULTS}/samples/{{arm}}/{{shard}}.json", arm=DRAWN_ARMS, shard=SHARDS),
            note=f"{RESULTS}/archive.json",  # the last that a rerun removes, and the first that it writes
        log:
            f"{RESULTS}/logs/restore_archive.log",
        benchmark:
            f"{RESULTS}/timings/restore_archive.tsv"
        conda:
            "../../envs/models.yaml"  # for tokenizers, as grading; torch is not touched
        resources:
            mem_mb=4000,
            runtime=30,
        params:
            config=config,
            store="results/archives",
            code=code_hash("archive"),
        message:
            "Restoring the archive"
        script:
            "../../scripts/restore_archive.py"
