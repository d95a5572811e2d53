"""The doctor: verdicts and remedies of things that are there and things that are not, and no secret in what it prints."""

import json
import os
import subprocess
import sys

import pytest

from flopstat import doctor, probe
from flopstat.doctor import Finding


def test_this_machine_gets_a_verdict_for_everything_and_no_secret_is_shown(root):
    secrets = {"HF_TOKEN": "hf_ThisIsNoToken", "OPENAI_API_KEY": "sk-ThisIsNoKey", "HF_ENDPOINT": "https://user:passphrase@localhost"}
    env = os.environ | {"HF_HUB_OFFLINE": "0", "PYTHONPATH": str(root / "scripts")} | secrets
    done = subprocess.run(
        [sys.executable, "-m", "flopstat.cli", "doctor", "--json"], env=env, cwd=root, capture_output=True, text=True, check=False
    )
    report = json.loads(done.stdout)
    found = {f["name"]: f for f in report["findings"]}
    assert done.returncode == (0 if report["can_run"] else 1)
    assert {
        "python",
        "packages",
        "ladder",
        "memory",
        "disk",
        "device",
        "threads",
        "tex",
        "hub",
        "models",
        "engines",
        "cluster",
    } <= found.keys()
    assert all(f["remedy"] for f in report["findings"] if f["verdict"] != "ok")
    assert "HF_TOKEN, OPENAI_API_KEY set" in found["hub"]["found"]
    assert "localhost not reached" in found["hub"]["found"]
    assert not [s for s in ("ThisIsNo", "passphrase", "user:") if s in done.stdout + done.stderr]


def test_a_tiny_product_in_eight_and_four_bits_is_near_the_exact_one():
    for kind, limit in probe.LIMIT.items():
        assert 0 < probe.product_error(kind) < limit


def test_a_broken_torch_is_a_finding_not_a_crash(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("import os; os.abort()", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (found,) = doctor.check_torch()
    assert (found.name, found.verdict, found.needed) == ("device", "missing", True)
    assert "torch does not work" in found.found


def test_offline_is_fine(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor.check_hub().verdict == "ok"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    found = doctor.check_hub()
    assert found.verdict == "warning"
    assert not found.needed
    assert "fine for the ladder" in found.remedy


@pytest.mark.parametrize("endpoint", ["file:///etc/passwd", "http://[", "nonsense", "https://"])
def test_a_strange_endpoint_is_refused(monkeypatch, endpoint):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert doctor.check_hub().found == "HF_ENDPOINT is no web address"


def test_names_in_the_cache_can_not_steer_the_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--owner--name\x1b[2J" / "snapshots").mkdir(parents=True)
    found = doctor.check_cache().found
    assert "owner/name" in found
    assert found.isprintable()


def test_lock_file_lines_with_and_without_markers():
    text = 'a-b==1.0 \\\n    --hash=sha256:00\nc_d==2.1 ; sys_platform == "nowhere" \\\n    --hash=x\ne==3 ; python_version >= "3.0" \\\n'
    assert doctor.locked_versions(text) == {"a-b": "1.0", "e": "3"}


def test_only_what_is_needed_and_missing_stops_the_default_study():
    fine = [Finding("a", "ok", "x", needed=True), Finding("b", "missing", "x", "get it"), Finding("c", "warning", "x", "y", True)]
    assert doctor.can_run(fine)
    lacking = [*fine, Finding("d", "missing", "x", "buy it", True)]
    assert not doctor.can_run(lacking)
    assert doctor.as_text(lacking).splitlines()[-1] == "The default study can't run here: d"
    assert "missing  d  x  -> buy it" in doctor.as_text(lacking)


def test_a_check_that_breaks_is_a_finding(monkeypatch):
    def check_luck():
        raise OSError("no luck with https://user:hunter2@localhost")

    monkeypatch.setattr(doctor, "CHECKS", (check_luck,))
    assert doctor.examine() == [Finding("luck", "warning", "the check failed: OSError", "report it as a bug")]
