"""Write the conda environments of `--sdm conda` from the lock files: python envs/export_conda.py [--check]."""

import argparse
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON = "3.11"

# What every rule's script imports through flopstat.
BASE = (
    "filelock",
    "jinja2",
    "jsonschema",
    "math-verify",
    "numpy",
    "pandas",
    "pandera",
    "psutil",
    "pyarrow",
    "pyyaml",
    "rich",
    "scipy",
    "tqdm",
    "typer",
)
ENVIRONMENTS = {
    "analysis": (*BASE, "moocore", "matplotlib", "seaborn", "sympy"),
    "models": (
        *BASE,
        "accelerate",
        "bitsandbytes",
        "datasets",
        "gguf",
        "optimum-quanto",
        "safetensors",
        "sentencepiece",
        "torch",
        "torchao",
        "transformers",
    ),
}
# Names that differ on conda-forge, and packages that only PyPI has.
CONDA_NAMES = {"torch": "pytorch"}
PIP_ONLY = {"math-verify", "moocore", "optimum-quanto", "torchao"}


def read_pins(*paths: Path) -> dict[str, str]:
    """Name to version, of every `name==version` line; refuses a name with two versions."""
    pins: dict[str, str] = {}
    for path in paths:
        for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", path.read_text(), flags=re.MULTILINE):
            if pins.setdefault(name.lower(), version) != version:
                raise SystemExit(f"{path}: {name} is pinned to {version} and to {pins[name.lower()]}; one version is needed")
    return pins


def render(name: str, packages: tuple[str, ...], pins: dict[str, str]) -> str:
    """The text of one environment file."""
    missing = [package for package in packages if package not in pins]
    if missing:
        raise SystemExit(f"no pin for {', '.join(missing)}; add to envs/requirements.in and run `make locks`")
    by_pip = sorted(PIP_ONLY.intersection(packages))
    by_conda = sorted((CONDA_NAMES.get(p, p), pins[p]) for p in packages if p not in PIP_ONLY)
    if by_pip:
        by_conda.append(("pip", pins["pip"]))
    lines = [
        "# Written by envs/export_conda.py from the lock files (`make locks`): do not edit.",
        f"name: flopstat-{name}",
        "channels:",
        "  - conda-forge",
        "  - nodefaults",
        "dependencies:",
        f"  - python={PYTHON}",
        *(f"  - {package}=={version}" for package, version in by_conda),
    ]
    if by_pip:
        lines += ["  - pip:", *(f"      - {package}=={pins[package]}" for package in by_pip)]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if a file is not up to date")
    check = parser.parse_args().check
    pins = read_pins(HERE / "requirements.lock", HERE / "torch.txt")
    stale = False
    for name, packages in ENVIRONMENTS.items():
        path = HERE / f"{name}.yaml"
        text = render(name, packages, pins)
        if check and (not path.exists() or path.read_text() != text):
            print(f"{path.name} does not match the lock files; run `make locks`", file=sys.stderr)
            stale = True
        elif not check:
            path.write_text(text)
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
