"""`kill -9` of the real sampling command at random moments: a rerun ends with the ids of an undisturbed run, finished chains stay."""

import collections
import fcntl
import json
import os
import pty
import random
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flopstat import models, tables
from flopstat.config import section
from flopstat.engine import GREEDY, NEAR_TIE
from flopstat.forcing import Plan, answer_key, cuts
from flopstat.problems import messages_of, select_problems
from flopstat.randomness import uniforms
from flopstat.sampling import draw_samples, open_arm, prompt_ids, write_view
from flopstat.validation import plain_chain

SEED = 20261122
KILLS = 60
ROWS = 8
SAMPLES = 8
DATASET = {"source": "ladder", "max_steps": 3, "distractors": 0, "n_study": 6, "n_calibration": 0}
PROMPT = {"system": "", "instruction": "{question}", "answer_cue": ""}
BUDGETS = {"T": [8, 16, 64], "forcing": "force_answer", "answer_prompt": " ####", "answer_tokens": 6}
IDENTITY = ["problem_key", "sample", "budget"]
SAME = [*IDENTITY, "variant", "prompt_tokens", "n_tokens", "finish_reason", "inserted", "ids"]
# When a run is killed: some time after its start; after its first append; at a share of the bytes that it still has to append; after it
# began to write the view. One run after the other, so that each group of kills sees the whole run.
MOMENTS = ("start", "first append", "bytes", "bytes", "view")
LONGEST = {"start": 4.0, "first append": 0.05, "bytes": 0.0, "view": 0.05}  # delay behind such a moment, in seconds


@dataclass
class Study:
    """The command's files, and what an undisturbed run in this process gave."""

    folder: Path
    compute_dtype: str
    settings: dict = field(init=False)

    def __post_init__(self):
        sampling = {"samples": SAMPLES, "device": "cpu", "batch_rows": ROWS, "compute_dtype": self.compute_dtype, "shard_problems": 100}
        self.settings = {"sampling": section("sampling", sampling), "budgets": section("budgets", BUDGETS), "seed": 5}
        self.card = models.describe({"name": "ladder-160k", "source": "ladder"}, self.folder)
        (self.folder / "card.json").write_text(self.card.to_json(), encoding="utf-8")
        self.problems = select_problems(DATASET, [PROMPT], 3).problems
        tables.write(self.problems, "problems", self.folder / "problems.parquet")
        self.arm = self.open(self.folder / "undisturbed")
        draw_samples(self.problems, self.arm)
        write_view(self.arm, self.problems, self.folder / "undisturbed.parquet")
        self.view = pq.read_table(self.folder / "undisturbed.parquet")
        self.bytes = appended(self.folder / "undisturbed")
        chains = self.view.filter(pq.filters_to_expression([("budget", "=", 0)]))
        self.chains = list(zip(*(chains[name].to_pylist() for name in IDENTITY), strict=True))
        self.answers = [(answer_key(key, ids), sample, t) for key, sample, _, t, ids in cuts(chains, BUDGETS["T"])]
        assert len(self.chains) == len(self.problems) * (SAMPLES + 1)
        assert len(self.answers) > len(self.chains)

    def open(self, store):
        plan = Plan.of(self.settings["sampling"], self.settings["budgets"], self.settings["seed"])
        return open_arm(self.card, "fp32", self.settings["sampling"], plan, store)

    def command(self, work):
        named = {
            "problems": self.folder / "problems.parquet",
            "card": self.folder / "card.json",
            "precision": "fp32",
            "settings": json.dumps(self.settings),
            "shard": 0,
            "store": work / "pools",
            "out": work / "view.parquet",
            "summary": work / "summary.json",
        }
        return [sys.executable, "-m", "flopstat.cli", "sample", *(str(v) for k, value in named.items() for v in (f"--{k}", value))]

    def stored(self, work):
        """Chains and forced answers in the pools, as a fresh reader finds them."""
        arm = self.open(work / "pools")
        lacking = (arm.pool.missing(self.chains, max(BUDGETS["T"])), arm.answers.missing(self.answers, 0))
        return len(self.chains) - len(lacking[0]), len(self.answers) - len(lacking[1])


def appended(store):
    """Bytes in all logs."""
    return sum(path.stat().st_size for path in store.glob("*/chains-*.log"))


def newest(work):
    """When the view was last written to, whole or half."""
    times = [0]
    for name in (".view.parquet.tmp", "view.parquet"):
        with suppress(FileNotFoundError):  # the one becomes the other
            times.append((work / name).stat().st_mtime_ns)
    return max(times)


class Terminal:
    """A terminal for a process's stderr: there the progress bar says after each append how many chains are stored."""

    def __init__(self):
        self._master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 250, 0, 0))
        self._parts = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        try:
            while part := os.read(self._master, 1 << 16):
                self._parts.append(part)
        except OSError:  # the last process that held the other side is gone
            pass

    def text(self):
        """All that was said, once the process is gone."""
        self._thread.join()
        os.close(self._master)
        return b"".join(self._parts).decode()


def start(command):
    terminal = Terminal()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal.slave, env=os.environ | {"OMP_NUM_THREADS": "1"})
    os.close(terminal.slave)
    return process, terminal


def said(text):
    """(chains, answers) that the bars said were appended."""
    return tuple(max((int(n) for n in re.findall(rf"{what}: .*?(\d+)/\d+ \[", text)), default=0) for what in ("chains", "answers"))


def killed(study, work, kind, rng):
    """Run the command and kill it at a random moment of some kind; returns what is known of it."""
    store = work / "pools"
    before, stored_before = appended(store), study.stored(work) if store.exists() else (0, 0)
    old = newest(work)
    delay, share = rng.random() * LONGEST[kind], rng.random()
    wanted = before + share * max(0, study.bytes - before)

    def viewing():
        return newest(work) > old

    ready = {
        "start": lambda: True,
        "first append": lambda: appended(store) > before,
        "bytes": lambda: appended(store) > before and appended(store) >= wanted,
        "view": viewing,
    }[kind]
    process, terminal = start(study.command(work))
    while process.poll() is None and not ready() and not (kind != "view" and viewing()):
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    code = process.wait()
    text = terminal.text()
    chains, answers = study.stored(work)
    gained = chains - stored_before[0], answers - stored_before[1]
    phase = "view" if viewing() else "answers" if gained[1] else "chains" if gained[0] else "loading"
    if code == 0:
        phase = "over"
    reported = said(text)
    lacking = len(study.chains) - chains or len(study.answers) - answers
    redone = min(ROWS, lacking) if phase in ("chains", "answers") else 0
    note = f"{kind} +{delay:.3f} s, share {share:.2f}: killed in {phase}, {chains} chains and {answers} answers stored, bar {reported}"
    return {"note": note, "phase": phase, "code": code, "stored": (chains, answers), "gained": gained, "said": reported, "redone": redone}


def finished(study, work, history):
    """Run the command to its end, and compare with the undisturbed run."""
    chains, answers = study.stored(work)
    process, terminal = start(study.command(work))
    code, text = process.wait(), terminal.text()
    assert code == 0, f"{history}\n{text[-2000:]}"
    assert "waiting" not in text, history  # no lock outlives its holder
    assert "Traceback" not in text, history
    summary = json.loads((work / "summary.json").read_text(encoding="utf-8"))
    asked = len(study.chains), len(study.answers)
    assert (summary["chains_stored"], summary["answers_stored"]) == (chains, answers), history
    assert (summary["chains_asked"], summary["chains_drawn"]) == (asked[0], asked[0] - chains), history
    assert summary["answers_asked"] == asked[1], history
    assert summary.get("batch_rows", 0) <= ROWS, history
    assert study.stored(work) == asked, history
    assert sorted(p.name for p in work.iterdir() if not p.name.startswith(".")) == ["pools", "summary.json", "view.parquet"], history
    assert not (work / ".view.parquet.tmp").exists(), history
    return pq.read_table(work / "view.parquet")


def kill_and_resume(study, work, seed):
    """Kill the command and all its reruns but the last, check all but the ids; returns the view and what is known of the kills."""
    work.mkdir()
    rng = random.Random(seed)
    history = [f"seed {seed}"]
    attempts = []
    for kind in MOMENTS:
        one = killed(study, work, kind, rng)
        history.append(one["note"])
        if one["code"] != 0:  # else it was over a moment before
            assert one["code"] == -9, history
            attempts.append(one)
        # A chain that was said to be finished is stored: only those in flight are drawn again.
        for gained, reported in zip(one["gained"], one["said"], strict=True):
            assert gained >= reported, history
            assert gained - reported <= ROWS, history  # and the bar counts each append
    return finished(study, work, history), attempts, history


def first_divergences(study, table):
    """Margin of the plain loop's draw at the first token in which each changed chain differs."""
    ids = {name: dict(zip(study.chains, t["ids"].to_pylist(), strict=True)) for name, t in (("old", study.view), ("new", table))}
    settings, model = study.arm.plan.settings, study.arm.ready().model
    messages = dict(zip(study.problems["problem_key"], study.problems["messages"], strict=True))
    margins = []
    for (key, sample, budget), new in ids["new"].items():
        if new != (old := ids["old"][key, sample, budget]):
            u = None if sample == GREEDY else uniforms(settings.seed, key, sample, settings.max_tokens)
            plain = plain_chain(model, prompt_ids(study.arm.tokenizer, messages_of(messages[key])[0]), u, settings, study.arm.ends)
            first = next(i for i, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1])
            margins.append(plain.margin[first])
    return margins


@pytest.mark.slow
def test_sixty_kills(tmp_path, capsys):
    begun = time.monotonic()
    study = Study(tmp_path, "float64")
    attempts = []
    number = 0
    while len(attempts) < KILLS:
        view, some, history = kill_and_resume(study, tmp_path / f"work-{number}", SEED + number)
        number += 1
        assert view.select(SAME).equals(study.view.select(SAME)), history
        attempts += some
        with capsys.disabled():
            print("", *history, sep="\n  ", flush=True)
    phases = collections.Counter(one["phase"] for one in attempts)
    assert set(phases) == {"loading", "chains", "answers", "view"}
    redone = [one["redone"] for one in attempts]
    seconds = time.monotonic() - begun
    with capsys.disabled():
        print(f"\n{len(attempts)} kills in {seconds:.0f} s: {dict(phases)}; redone at most {max(redone)} per kill, {sum(redone)} in all")


def test_kills_in_float32_change_ids_at_near_ties_only(tmp_path):
    study = Study(tmp_path, "float32")
    view, _, history = kill_and_resume(study, tmp_path / "work", SEED)
    chains = [table.filter(pq.filters_to_expression([("budget", "=", 0)])) for table in (study.view, view)]
    study.view = chains[0]
    margins = first_divergences(study, chains[1])
    assert all(margin < NEAR_TIE for margin in margins), (margins, history)
    if not margins:
        assert len(view) == len(study.answers) + len(study.chains)
