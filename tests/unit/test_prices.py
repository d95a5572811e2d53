"""Prices: the shipped table, what is refused, and worked cases."""

import datetime

import pytest
import yaml

from flopstat import prices
from flopstat.errors import InputError

DAY = datetime.date


@pytest.fixture
def table(root):
    return yaml.safe_load((root / "config" / "prices.yaml").read_text())


@pytest.fixture
def written(tmp_path):
    def write(content) -> prices.Prices:
        (tmp_path / "prices.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return prices.Prices.read(tmp_path / "prices.yaml")

    return write


def test_shipped_table_prices_what_the_studies_run_on(root):
    shipped = prices.Prices.read(root / "config" / "prices.yaml")
    for device in ("epyc-2vcpu", "T4", "L4", "A10", "A100-40GB", "A100-80GB", "H100", "RTX-4090"):
        assert 0.01 < shipped.usd_per_hour(device) < 20
        shipped.check(device, shipped.valid_until)
    assert shipped.usd_per_hour("abacus") is None
    assert shipped.usd_per_million("Qwen2.5-7B-Instruct").generated > 0
    assert shipped.usd_per_million("abacus") is None
    assert "# ASSUME" in (root / "config" / "prices.yaml").read_text()


def test_worked_token_price():
    assert prices.TokenPrice(0.1, 0.4).usd(2000, 1000) == pytest.approx(0.0006)


def test_an_out_of_date_table_is_refused(written, table):
    read = written(table | {"valid_until": DAY(2026, 1, 31)})
    read.check("T4", DAY(2026, 1, 31))
    read.check("T4", None)
    with pytest.raises(InputError, match=r"prices.yaml: valid until 2026-01-31, but costs.prices_as_of is 2026-02-01"):
        read.check("T4", DAY(2026, 2, 1))


def test_an_unknown_device_is_refused_with_the_known_ones(written, table):
    with pytest.raises(InputError, match=r"price_device 'abacus': not in .*prices.yaml; it has A10, .*T4"):
        written(table).check("abacus", None)


@pytest.mark.parametrize("part", ["as_of", "valid_until", "devices", "tokens"])
@pytest.mark.parametrize("value", [None, "soon", 3])
def test_a_table_that_lacks_a_part_is_refused_by_name(written, table, part, value):
    with pytest.raises(InputError, match=rf"{part} is missing or not"):
        written(table | {part: value})


@pytest.mark.parametrize("price", [0, -1, "1", None, float("inf"), float("nan"), True, 10**400])
def test_a_price_that_is_no_positive_number_is_refused(written, table, price):
    with pytest.raises(InputError, match=r"devices.T4: usd_per_hour is .*positive"):
        written(table | {"devices": {"T4": {"usd_per_hour": price, "source": "s"}}})
    with pytest.raises(InputError, match=r"tokens.m: usd_per_million_generated is .*positive"):
        written(table | {"tokens": {"m": {"usd_per_million_prompt": 1, "usd_per_million_generated": price, "source": "s"}}})


def test_a_price_without_source_and_files_that_are_no_tables_are_refused(written, table, tmp_path):
    with pytest.raises(InputError, match=r"devices.T4: has no source"):
        written(table | {"devices": {"T4": {"usd_per_hour": 1.0}}})
    with pytest.raises(InputError, match=r"not YAML"):
        written("a: [")
    with pytest.raises(InputError, match=r"as_of is missing"):
        written("just text")
    with pytest.raises(InputError, match=r"no such price table"):
        prices.Prices.read(tmp_path / "none.yaml")
