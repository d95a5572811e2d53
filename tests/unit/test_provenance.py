"""Hashes of code: unmoved by comments and formatting, moved by code, and standing on everything that is really imported."""

import ast
import json
import os
import shutil
import subprocess
import sys

import pytest

from flopstat import provenance
from flopstat.provenance import PACKAGE, _without_docstrings, code_hash, import_closure

MODULES = sorted(".".join(p.relative_to(PACKAGE).with_suffix("").parts) for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")
CODE = '''"""Module."""
import os  # a comment


def area(r: float) -> float:
    """Area."""
    return 3 * r ** 2
'''


def dump(source):
    return ast.dump(_without_docstrings(ast.parse(source)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Module."""', ""),
        ("  # a comment", "  # another"),
        ('"""Area."""', "'''It is\n    longer.'''"),
        ("3 * r ** 2", "(3 * r**2)"),
        ("\n\n\n", "\n"),
    ],
)
def test_comments_docstrings_and_format_do_not_count(old, new):
    assert old in CODE
    assert dump(CODE.replace(old, new)) == dump(CODE)


@pytest.mark.parametrize(
    ("old", "new"), [("3 *", "4 *"), ("r: float", "r: int"), ("area", "circle"), ("import os", "import re"), ("return ", "")]
)
def test_code_counts(old, new):
    assert dump(CODE.replace(old, new)) != dump(CODE)


def hashes_of(copy, *modules):
    code = f"import json; from flopstat.provenance import code_hash; print(json.dumps([code_hash(m) for m in {list(modules)!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_hash_of_a_copied_package(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "flopstat", ignore=shutil.ignore_patterns("__pycache__"))
    names = ("cells", "figures", "ladder.generator")
    before = hashes_of(tmp_path, *names)
    assert before == [code_hash(n) for n in names]
    bootstrap = tmp_path / "flopstat" / "bootstrap.py"
    text = bootstrap.read_text(encoding="utf-8")
    bootstrap.write_text("# more\n" + text.replace("Wilson score interval", "The score interval"), encoding="utf-8")
    assert hashes_of(tmp_path, *names) == before
    bootstrap.write_text(text.replace("SMALL_COUNT = 5.0", "SMALL_COUNT = 6.0"), encoding="utf-8")
    after = hashes_of(tmp_path, *names)
    assert [a == b for a, b in zip(after, before, strict=True)] == [False, True, True]  # cells stand on bootstrap, figures do not


@pytest.mark.slow
def test_closure_holds_every_module_that_is_really_imported():
    """One process imports each module afresh and says which of the package's modules came with it."""
    code = f"""
import importlib, json, sys
found = {{}}
for module in {MODULES!r}:
    for name in [m for m in sys.modules if m.split(".")[0] == "flopstat"]:
        del sys.modules[name]
    importlib.import_module("flopstat." + module)
    found[module] = [m for m in sys.modules if m.startswith("flopstat.")]
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for module, loaded in json.loads(done.stdout.splitlines()[-1]).items():
        missing = {m for m in loaded if m != "flopstat.ladder"} - import_closure(module).keys()
        assert not missing, f"{module} stands on {missing}"


def test_closure_follows_imports_inside_functions_but_not_those_for_types():
    assert "flopstat.sampling" in import_closure("cli")
    assert "flopstat.ladder.generator" in import_closure("problems")
    assert "flopstat.engine" not in import_closure("pool")  # only named in annotations


def test_every_rule_with_a_script_hashes_the_modules_its_script_imports(root):
    """A library change must reach every rule that stands on it."""
    lacking = {}
    for path in sorted((root / "workflow" / "rules").glob("*.smk")):
        for rule in path.read_text(encoding="utf-8").split("\nrule ")[1:]:
            if "script:" not in rule:
                continue
            script = root / "scripts" / rule.split("../../scripts/")[1].split('"')[0]
            hashed = rule.split("code_hash(")[1].split(")")[0].replace('"', "").split(", ")
            imports = provenance._Imports()
            imports.visit(ast.parse(script.read_text(encoding="utf-8")))
            needed = {m.removeprefix("flopstat.") for m in imports.found} & set(MODULES)
            lacking[script.name] = needed - {m.removeprefix("flopstat.") for m in import_closure(*hashed)}
    assert len(lacking) >= 9
    assert not {name: modules for name, modules in lacking.items() if modules}
