"""How errors are said: one line in a rule's script, and nothing changed in a process that only imports the library."""

import http.server
import os
import subprocess
import sys
import threading

import pytest

from flopstat import errors

SCRIPT = """
from pathlib import Path

from flopstat import tables

{body}
"""
SNAKEFILE = 'rule read:\n    output: "done"\n    script: "script.py"\n'


def test_importing_the_library_leaves_the_hook_of_the_process():
    code = "import sys; before = sys.excepthook; from flopstat import cli, errors, tables; assert sys.excepthook is before"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("body", "said", "traced"),
    [
        ('tables.read("laws", Path("absent.csv"))', "flopstat: absent.csv: ", False),
        ('raise KeyError("a defect")', "KeyError: 'a defect'", True),
    ],
)
def test_a_rule_s_script_says_what_a_user_can_mend_in_one_line(tmp_path, body, said, traced):
    (tmp_path / "script.py").write_text(SCRIPT.format(body=body), encoding="utf-8")
    (tmp_path / "Snakefile").write_text(SNAKEFILE, encoding="utf-8")
    run = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    told = done.stdout + done.stderr
    assert said in told
    assert ("Traceback (most recent call last)" in told) == traced


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Client error '401' for url 'http://user:hunter2@host/a/b?x=1'", "Client error '401' for url 'http://host/a/b"),
        ("nonnumeric port: 'hunter2@host'", "nonnumeric port: 'host'"),
        ("url: /api/models/a/b?token=hunter2 (Caused by X)", "url: /api/models/a/b (Caused by X)"),
        ("Bearer hf_hunter2 is not valid", "Bearer ... is not valid"),
    ],
)
def test_addresses_and_tokens_are_told_without_their_secrets(monkeypatch, said, left):
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2")
    assert errors.without_secrets(said) == left


class Refuses(http.server.BaseHTTPRequestHandler):
    """A hub that wants a password, and sends elsewhere with a key."""

    def do_HEAD(self):
        self.send_response(302 if "?" not in self.path else 401)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/signed?X-Key=hunter2")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize(
    "asks", ['models._snapshot("a/b", "0" * 40)', 'problems._from_hub({"repo": "a/b", "subset": "m", "split": "t", "revision": "0" * 40})']
)
@pytest.mark.parametrize(("login", "said"), [("user:hunter2@", "HF_ENDPOINT: holds"), ("", "neither in the hub's cache")])
def test_no_secret_of_the_hubs_address_is_said(tmp_path, asks, login, said):
    code = f"import sys; from flopstat import errors, models, problems; errors.say_in_one_line(); {asks}"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = {"HF_ENDPOINT": f"http://{login}127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | there, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        server.shutdown()
    assert said in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
