"""`kill -9` of the training of the smallest ladder model at random moments: the same weights, byte for byte, as undisturbed."""

import random
import signal
import subprocess
import sys
import time

from flopstat.ladder.sizes import SIZES

SEED = 20261122
KILLS = 5
BRANCHES = 3  # of the smallest size's schedule: minutes instead of a quarter of an hour

TRAIN = """
import dataclasses, pathlib, sys
from flopstat.ladder import training
from flopstat.ladder.sizes import SIZES
training.CHECKPOINT_EVERY_S = 5.0
size = SIZES["ladder-30k"]
size = dataclasses.replace(size, branches=size.branches[:int(sys.argv[1])], shipped=-1)
training.train(size, pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
"""


def start(folder):
    command = [sys.executable, "-c", TRAIN, str(BRANCHES), str(folder / "work"), str(folder / "out")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(folder):
    process = start(folder)
    _, error = process.communicate()
    assert process.returncode == 0, error.decode()[-2000:]


def test_killed_training_ends_in_the_same_bytes(tmp_path):
    assert SIZES["ladder-30k"].branches[:BRANCHES] == (500_000, 1_000_000, 2_000_000)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    begun = time.monotonic()
    finish(undisturbed)
    whole = time.monotonic() - begun
    rng = random.Random(SEED)
    for _ in range(KILLS):
        process = start(killed)
        time.sleep(rng.uniform(0.1, 0.4) * whole)
        running = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        if not running:
            break
    finish(killed)
    for branch in range(BRANCHES):
        name = f"work/branch-{branch}/model.safetensors"
        assert (undisturbed / name).read_bytes() == (killed / name).read_bytes()
    assert (undisturbed / "out/model.safetensors").read_bytes() == (killed / "out/model.safetensors").read_bytes()
