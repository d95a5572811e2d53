"""What a result was made from: hashes of code, versions, revision, hardware."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from flopstat.stored import digest

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parents[1]
VERSIONS = (
    "torch",
    "transformers",
    "bitsandbytes",
    "optimum-quanto",
    "torchao",
    "math-verify",
    "sympy",
    "snakemake",
    "numpy",
    "pandas",
    "scipy",
)


def _file_of(module: str) -> Path | None:
    """Source file of a module inside the package, None for anything else."""
    parts = module.split(".")
    if parts[0] != "flopstat":
        return None
    base = PACKAGE.joinpath(*parts[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


class _Imports(ast.NodeVisitor):
    """Modules that a source imports at run time, at any depth."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if not _is_type_checking(node):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module:
            self.found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


@functools.cache
def _read(source: str) -> tuple[frozenset[str], str]:
    """Modules that a source imports, and its code as text, docstrings left out: read once, for many hashes stand on the same modules."""
    tree = ast.parse(source)
    imports = _Imports()
    imports.visit(tree)
    return frozenset(imports.found), ast.dump(_without_docstrings(tree))


def import_closure(*modules: str) -> dict[str, Path]:
    """Library modules that these stand on, themselves included, with their files; by static reading."""
    todo = [f"flopstat.{m}" for m in modules]
    out: dict[str, Path] = {}
    while todo:
        module = todo.pop()
        path = _file_of(module)
        if path is None or module in out:
            continue
        out[module] = path
        imports, _ = _read(path.read_text(encoding="utf-8"))
        todo += [m for m in imports if m.startswith("flopstat.")]
        if module.count(".") > 1:  # the package's __init__ runs as well
            todo.append(module.rpartition(".")[0])
    return out


@functools.cache
def code_hash(*modules: str) -> str:
    """Hash of the code that modules stand on: comments, formatting and docstrings do not count."""
    total = hashlib.sha256()
    for module, path in sorted(import_closure(*modules).items()):
        _, code = _read(path.read_text(encoding="utf-8"))
        total.update(f"{module}\0{code}\0".encode())
    return total.hexdigest()[:16]


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def revision_date(revision: str) -> str:
    """Day of a commit, such as 2026-11-22; the first day of 1970 where it is not known here."""
    known = len(revision) == 40 and set(revision) <= set("0123456789abcdef")
    return (_git("show", "-s", "--format=%cs", revision) if known else "") or "1970-01-01"


def _version(name: str) -> str:
    """Version of a package; a study restored from an archive needs no torch, so it may be absent."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def record(config: dict[str, Any], tables: dict[str, Path], calibrations: list[dict[str, Any]]) -> str:
    """The text of run.json: merged config, versions, revision, hardware, hashes of the tables."""
    fingerprints = [dict(c["identity"]["fingerprint"]) for c in calibrations]
    unique = [f for i, f in enumerate(fingerprints) if f not in fingerprints[:i]]
    revision = _git("rev-parse", "HEAD") or "unknown"
    out = {
        "config": config,
        "versions": {name: _version(name) for name in VERSIONS} | {"python": platform.python_version()},
        "revision": revision,
        "revision_date": revision_date(revision),  # here, where the commit is known
        "modified": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "hardware": unique,
        "sha256": {name: digest(path) for name, path in sorted(tables.items())},
    }
    return json.dumps(out, indent=1, ensure_ascii=False) + "\n"
