"""What the workflow tests share."""

from pathlib import Path

import pytest

NO_NETWORK = """
import socket


def refuse(self, address):
    if self.family != getattr(socket, "AF_UNIX", None):
        raise RuntimeError(f"network: {address}")


socket.socket.connect = refuse
"""


@pytest.fixture(scope="session")
def poison(tmp_path_factory) -> Path:
    """A folder for PYTHONPATH that forbids the network and heavy imports."""
    folder = tmp_path_factory.mktemp("poison")
    for name in ("torch", "transformers", "bitsandbytes", "datasets"):
        (folder / f"{name}.py").write_text(f"raise RuntimeError('{name} was imported')\n", encoding="utf-8")
    (folder / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    return folder
