"""Names in configs and on the command line that are no file's: one InputError, whatever the system raises for them."""

import pytest
import yaml

from flopstat import archive, config, hardware, models, problems
from flopstat.errors import InputError
from flopstat.importers.samples import import_samples

PATHS = {
    "nothing": "",  # costs.prices: '' was a traceback, found by fuzzing
    "this folder": ".",
    "the root": "/",
    "longer than names can be": "a" * 5000,
    "a zero byte": "x\0y",
    "half of a surrogate pair": "\ud800",
}


def with_prices(name, folder):
    shipped = yaml.safe_load((config.ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    config.resolve(shipped | {"costs": {"price_device": "epyc-2vcpu", "prices": name}})


READERS = {
    "prices": with_prices,
    "model": lambda name, folder: models.describe({"name": "m", "source": "local", "path": name}, folder),
    "GGUF model": lambda name, folder: models.describe({"name": "m", "source": "gguf", "path": name}, folder),
    "problems": lambda name, folder: problems.read_jsonl(folder / name),
    "archive": lambda name, folder: archive.source({"path": name, "url": None, "sha256": None}, folder),
    "address": lambda name, folder: archive.source({"path": None, "url": f"file://{name}", "sha256": "0" * 64}, folder),
    "log": lambda name, folder: import_samples("csv", folder / name, folder / "out.parquet"),
    "config": lambda name, folder: config.load(folder / name),
    "hardware": lambda name, folder: hardware.read(folder / name),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("reader", READERS)
def test_a_name_that_is_no_files_is_refused(tmp_path, reader, path):
    with pytest.raises(InputError):
        READERS[reader](path, tmp_path)
    assert not any(tmp_path.iterdir())
