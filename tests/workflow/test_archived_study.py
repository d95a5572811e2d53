"""A small real study, its archive, and the same study rebuilt from it where torch can't even be imported; no secret in any of it."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from test_workflow import ROOT, run, snakemake, tracked_files

from flopstat import bundle, stored

pytestmark = pytest.mark.xdist_group("archived")  # the fixture is a whole study
TITLE = "<b>ZqTitle</b> \\input{/etc/passwd} $\\frac{ {{ 7 * 7 }} #1"
TINY = {
    "study": "tiny",
    "title": TITLE,
    "dataset": {"source": "ladder", "n_study": 6, "n_calibration": 6},
    "models": [{"name": "ladder-30k", "source": "ladder", "precisions": ["fp32", "rtn3"]}],
    "sampling": {"samples": 8},
    "budgets": {"T": [16, 32, 64], "P": [1, 2, 4], "B": [1, 2]},
    "strategies": ["single", "greedy", "majority", "weighted_majority", "best_of_lowest_window", "best_of_mean_logprob"],
    "statistics": {"replicates": 200},
    "scenarios": [],
    "calibration": {"prompt_tokens": 32, "decode_tokens": 4, "batches": [1], "repeats": 5},
}
SECRETS = {
    "HF_TOKEN": "hf_ZqSecretTokenOfNobody",
    "OPENAI_API_KEY": "sk-ZqSecretKeyOfNobody",
    "AWS_SECRET_ACCESS_KEY": "ZqSecretAccessKeyOfNobody",
    "HF_ENDPOINT": "https://zquser:ZqPassphraseOfNobody@localhost",
}
REBUILT = ("*.csv", "figures/*", "paper/macros.tex", "paper/numbers.csv", "paper/flopstat.pdf")


def copied(folder: Path) -> Path:
    """A copy of the working tree without history, tests and results."""
    for path in tracked_files():
        if path.parts[0] != "tests":
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)
    return folder


def rebuilt_files(results: Path) -> dict[str, bytes]:
    return {str(p.relative_to(results)): p.read_bytes() for pattern in REBUILT for p in sorted(results.glob(pattern))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A copy of the tree with a finished study, its report and its archive, all made with secrets in the environment."""
    folder = copied(tmp_path_factory.mktemp("finished"))
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        done = snakemake(folder, "--configfile", "tiny.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        reported = snakemake(folder, "--configfile", "tiny.yaml", "--report", "results/tiny/report.html")
        assert reported.returncode == 0, reported.stdout + reported.stderr
        packed = run(folder, "flopstat.cli", "archive", "--study", "results/tiny", "--out", "tiny.tar.zst")
        assert packed.returncode == 0, packed.stdout + packed.stderr
        (folder / "said.txt").write_text(done.stdout + done.stderr + reported.stderr + packed.stdout, encoding="utf-8")
    return folder


@pytest.mark.slow
def test_the_archive_rebuilds_tables_figures_and_paper_byte_for_byte_without_torch(finished, poison, tmp_path):
    folder = copied(tmp_path / "elsewhere")
    shutil.copy(finished / "tiny.tar.zst", folder / "tiny.tar.zst")
    restored = run(folder, "flopstat.cli", "restore", "tiny.tar.zst", "--out", "restored", first=poison)
    assert restored.returncode == 0, restored.stderr
    assert "make run CONFIG=restored/study.yaml" in restored.stdout
    done = snakemake(folder, "--configfile", "restored/study.yaml", first=poison)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = rebuilt_files(finished / "results" / "tiny"), rebuilt_files(folder / "results" / "tiny")
    assert len(before) >= 12
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == []
    hashes = [json.loads((f / "results" / "tiny" / "run.json").read_text(encoding="utf-8"))["sha256"] for f in (finished, folder)]
    assert hashes[0] == hashes[1]
    assert not list((folder / "results").glob("pools/*/*.log"))
    # An archive of the restored study is the archive again, but for run.json, which names where it came from.
    again = run(folder, "flopstat.cli", "archive", "--study", "results/tiny", "--out", "again.tar.zst", first=poison)
    assert again.returncode == 0, again.stderr
    listed = []
    for path in (finished / "tiny.tar.zst", folder / "again.tar.zst"):
        with bundle.unpacked(path, tmp_path) as (_, manifest):
            listed.append({name: entry["sha256"] for name, entry in manifest["files"].items()})
    changed = {name for name in listed[0] if listed[0][name] != listed[1].get(name)}
    assert changed <= {"run.json", "ro-crate-metadata.json"}
    damaged_results_are_made_anew(folder, poison, after)


def damaged_results_are_made_anew(folder: Path, poison: Path, undisturbed: dict[str, bytes]) -> None:
    """Of what nothing reads again, too: a figure, a law's details, the paper."""
    results = folder / "results" / "tiny"
    law = next((results / "laws").glob("*.json"))
    kept = law.read_bytes()
    damaged = [results / "figures" / "lengths.png", law, *(results / "paper").glob("flopstat.pdf")]
    for path in damaged:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    arguments = ["--study", "results/tiny", "--cores", "2", "--nocolor", "--configfile", "restored/study.yaml"]
    mended = run(folder, "flopstat.recovery", *arguments, first=poison)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert [path for path in damaged if f"{path.relative_to(folder)}: damaged, set aside" not in mended.stderr] == []
    assert law.read_bytes() == kept
    assert {name: data for name, data in rebuilt_files(results).items() if not name.endswith(".damaged")} == undisturbed


@pytest.mark.slow
def test_two_archives_of_a_study_have_the_same_bytes(finished):
    for path in (finished / "results" / "tiny").rglob("*"):
        os.utime(path, (1, 1))
    again = run(finished, "flopstat.cli", "archive", "--study", "results/tiny", "--out", "other/name.tar.zst")
    assert again.returncode == 0, again.stderr
    assert (finished / "other" / "name.tar.zst").read_bytes() == (finished / "tiny.tar.zst").read_bytes()
    assert stored.digest(finished / "tiny.tar.zst") in again.stdout


@pytest.mark.slow
def test_a_hostile_title_is_printed_and_not_obeyed(finished):
    macros = (finished / "results" / "tiny" / "paper" / "macros.tex").read_text(encoding="utf-8")
    assert r"\textless{}b\textgreater{}ZqTitle" in macros
    assert r"\input{" not in macros
    assert "49" not in macros.split("FSnumber{Title}", 1)[1].splitlines()[0]


@pytest.mark.slow
def test_no_secret_of_the_environment_lands_in_any_file_or_message(finished, tmp_path):
    secrets = [value.encode() for value in (*SECRETS.values(), "ZqPassphraseOfNobody")]
    places = [p for p in finished.rglob("*") if p.is_file()]
    assert {"run.json", "report.html", "said.txt", "record_run.log"} <= {p.name for p in places}
    assert any(".snakemake" in p.parts for p in places)
    assert [str(p) for p in places if any(s in p.read_bytes() for s in secrets)] == []
    assert "HF_TOKEN" not in (finished / "results" / "tiny" / "run.json").read_text(encoding="utf-8")
    with bundle.unpacked(finished / "tiny.tar.zst", tmp_path) as (unpacked, _):
        inside = [p for p in unpacked.rglob("*") if p.is_file()]
        assert len(inside) >= 9
        assert [str(p) for p in inside if any(s in p.read_bytes() for s in secrets)] == []
        # Nor where the files lay on the machine that made it.
        assert [str(p) for p in inside if str(finished).encode() in p.read_bytes()] == []


@pytest.mark.slow
@pytest.mark.parametrize("dry", [["-n"], []], ids=["dry run", "run"])
def test_an_archive_switched_on_in_a_finished_study_is_refused_and_nothing_changes(finished, dry):
    results = finished / "results" / "tiny"
    before = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    other = TINY | {"archive": {"path": "workflow/resources/ladder.tar.zst"}}
    (finished / "other.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
    done = snakemake(finished, *dry, "--configfile", "other.yaml", "--", "results/tiny/grades/ladder-30k@fp32.parquet")
    assert done.returncode == 2
    assert "flopstat: archive: what results/tiny holds did not come from an archive, and the config names one" in done.stderr
    assert {p: p.read_bytes() for p in results.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_a_restored_study_is_not_mixed_with_samples_drawn_here_or_of_another_archive(finished, tmp_path):
    folder = copied(tmp_path / "mixed")
    shutil.copy(finished / "tiny.tar.zst", folder / "tiny.tar.zst")

    def asked(archive: dict[str, str] | None, target: str = "grades/ladder-30k@fp32.parquet") -> str:
        (folder / "study.yaml").write_text(yaml.safe_dump(TINY | {"archive": archive}), encoding="utf-8")
        done = snakemake(folder, "--configfile", "study.yaml", "--", f"results/tiny/{target}")
        return f"{done.returncode}: {done.stdout}{done.stderr}"

    assert asked({"path": "tiny.tar.zst"}).startswith("0: ")
    said = asked(None)
    assert said.startswith("2: ")
    assert "and the config names none; give the study another name, or remove that folder" in said
    assert "and that is another one" in asked({"path": "workflow/resources/ladder.tar.zst"})
    for path in [*(folder / "results" / "tiny" / "samples").glob("*/*"), folder / "results" / "tiny" / "problems.parquet"]:
        path.unlink()  # as a kill leaves it
    said = asked({"path": "tiny.tar.zst"}, "problems.parquet")
    assert said.startswith("0: ")
    assert "Restoring the archive" in said
