"""The workflow's rules in this process: what a rule's script or command does with a config, without a Snakemake of its own for each."""

import io
import os
import runpy
import shlex
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from snakemake import api
from snakemake.iocontainers import Wildcards
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings
from snakemake.workflow import parse

from flopstat import cli
from flopstat.errors import InputError

_parsed: dict[str, tuple[str, int]] = {}


def parse_once(path, *arguments, rulecount=0, linemap=None, **more):
    """Snakemake's parser; the rule files do not change between two configs."""
    name = str(path.get_path_or_uri(secret_free=True))
    if name not in _parsed:
        code, after = parse(path, *arguments, rulecount=rulecount, linemap=linemap, **more)
        _parsed[name] = code, after - rulecount
    code, rules = _parsed[name]
    return code, rulecount + rules


class Rules:
    """All rules under one config."""

    def __init__(self, config: dict) -> None:
        said = io.StringIO()
        settings = ConfigSettings(config=config), ResourceSettings(cores=2)
        try:
            with redirect_stderr(said), api.SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as opened:
                made = opened.workflow(config_settings=settings[0], resource_settings=settings[1], snakefile=Path("workflow/Snakefile"))
                self._rules = {rule.name: rule for rule in made._workflow.rules}
        except SystemExit:
            lines = [line for line in said.getvalue().splitlines() if line.startswith("flopstat: ")]
            raise InputError(lines[0]) from None

    def job(self, name: str, **wildcards: str) -> SimpleNamespace:
        """One job of a rule, with what a script finds in `snakemake`."""
        rule = self._rules[name]
        chosen = Wildcards(fromdict=wildcards)
        files = rule.expand_input(chosen)[0]
        output = rule.expand_output(chosen)[0]
        log = [line.replace("{", "").replace("}", "") for line in map(str, rule.log)]
        params = rule.expand_params(chosen, files, output, None)[0]
        return SimpleNamespace(
            rule=rule, input=files, output=output, params=params, wildcards=chosen, log=log, threads=1, command=rule.shellcmd
        )


def moved(path: str, into: Path | None) -> str:
    return path if into is None else str(into / path)


def run(job: SimpleNamespace, into: Path | None = None) -> list[Path]:
    """Run a job; with `into`, its files are written below that folder, and those that are there already are read there."""
    for where in job.output:
        Path(moved(where, into)).parent.mkdir(parents=True, exist_ok=True)
    for kind in (job.input, job.output):
        for i, path in enumerate(list(kind)):
            if kind is job.output or (into is not None and (into / path).is_file()):
                kind[i] = moved(path, into)
        renew_names(kind)
    if job.command is None:
        job.log = [moved(path, into) for path in job.log]
        for path in job.log:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        script = Path("workflow/rules") / job.rule.script
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            runpy.run_path(str(script), init_globals={"snakemake": job}, run_name="__main__")
    else:
        command(job, into)
    return [Path(path) for path in job.output]


def renew_names(files) -> None:
    """Snakemake's named lists keep a second reference to each item under its name."""
    for name, (start, end) in list(files._names.items()):
        setattr(files, name, files[start] if end is None else type(files)(files[start:end]))


def command(job: SimpleNamespace, into: Path | None) -> None:
    """Run a rule that calls the command line."""
    folder = {name: moved(job.params.get(name), into) for name in ("folder", "results") if name in dict(job.params.items())}
    params = SimpleNamespace(**(dict(job.params.items()) | folder))
    for name, value in vars(params).items():
        setattr(params, name, Quoted(value))
    named = {"input": Files(job.input), "output": Files(job.output), "params": params, "wildcards": job.wildcards}
    line = job.command.format(**named, threads=1, log="log")
    words = shlex.split(line.split(" 2> ")[0])
    arguments = words[words.index("flopstat") + 1 :]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        cli.app(arguments, standalone_mode=False)


class Quoted:
    """A param as Snakemake formats it: lists by spaces, `:q` quoted."""

    def __init__(self, value) -> None:
        self.value = value

    def __format__(self, how: str) -> str:
        text = " ".join(map(str, self.value)) if isinstance(self.value, list) else str(self.value)
        return shlex.quote(text) if how == "q" else text


class Files:
    """Named files as Snakemake formats them."""

    def __init__(self, files) -> None:
        self._files = files

    def __getattr__(self, name: str) -> str:
        value = getattr(self._files, name)
        return value if isinstance(value, str) else " ".join(value)


def content(path: Path) -> str:
    """What a file says: a table's values, or bytes."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path).to_csv(index=False)
    return path.read_bytes().hex() if path.suffix in (".png", ".pdf") else path.read_text(encoding="utf-8")


def folder_for(root: Path, work: Path) -> None:
    """A working directory in which the rules find the repository's files."""
    for name in ("config", "workflow", "paper", "scripts"):
        os.symlink(root / name, work / name)
