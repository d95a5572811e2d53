"""Tables: validated when written and read, written whole or not at all, documented."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandera.errors import SchemaError, SchemaErrors

from flopstat import tables
from flopstat.columns import TABLES, documentation
from flopstat.errors import InputError
from flopstat.tables import read, validate, write

WORDS = st.sampled_from(["x", "", None, 1, 1.5, True])
NUMBERS = st.sampled_from([1, -1, 0.5, -1e-13, True, None, float("nan"), float("inf"), "1", "x", 2**63])
TRUTHS = st.sampled_from([True, False, None, 1, 0.5, "x", ""])
LAWS = pd.DataFrame(
    {
        "law": ["kappa-log-p", "alpha-q"],
        "arm": ["m@fp32", "m@rtn3"],
        "T": [64, 64],
        "parameter": ["kappa", "alpha"],
        "estimate": [0.0123456789, np.nan],
        "low": [0.01, np.nan],
        "high": [0.02, 0.5],
        "certified": [True, False],
        "verdict": ["votes gain", 'not identified: a "quoted", comma'],
    }
)


def test_a_valid_table_passes_in_the_columns_order():
    checked = validate(LAWS[LAWS.columns[::-1]], "laws")
    assert list(checked.columns) == list(TABLES["laws"])


@pytest.mark.parametrize(
    "broken",
    [
        LAWS.drop(columns="T"),
        LAWS.assign(extra=1),
        LAWS.assign(T=[64, -1]),
        LAWS.assign(parameter=[None, "x"]),
        LAWS.assign(T=[64, 64.5]),
        LAWS.assign(arm=["m@fp32", None]),
        LAWS.assign(estimate=["a", "b"]),
        LAWS.assign(verdict=[None, "x"]),
    ],
    ids=["missing", "unknown", "out of range", "missing value", "not an integer", "missing text", "wrong type", "missing verdict"],
)
def test_a_broken_table_is_refused_and_the_old_file_stays(tmp_path, broken):
    path = tmp_path / "laws.csv"
    write(LAWS, "laws", path)
    before = path.read_bytes()
    with pytest.raises((SchemaError, SchemaErrors)):
        write(broken, "laws", path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [".laws.csv.sha256", "laws.csv"]


def test_a_table_from_outside_is_refused_in_one_line(tmp_path):
    LAWS.assign(T=[64, -1]).to_csv(tmp_path / "laws.csv", index=False)
    with pytest.raises(InputError, match=r"laws.csv: not a table of laws \(.*; make it again") as refused:
        read("laws", tmp_path / "laws.csv")
    assert len(str(refused.value).splitlines()) == 1
    twice = pd.concat([LAWS, LAWS["T"]], axis=1)
    with pytest.raises(InputError, match="a column stands twice"):
        tables.accept(twice, "laws", "here")


def test_the_quick_check_gives_what_pandera_gives(study):
    """pandera is asked only for what the quick check refuses, so both must take the same tables and make the same of them."""
    blank = {"str": "x", "int": 0, "float": 0.5, "bool": True}
    samples = pd.DataFrame({key: [blank[column.dtype]] for key, column in TABLES["samples"].items()}).assign(ids=[[1, 2]])
    for name, table in (study["tables"] | {"samples": samples}).items():
        for one in (table, table[table.columns[::-1]], table.astype(object), table.set_index(pd.Index([7] * len(table)))):
            quick, slow = tables._as_specified(one, name), tables._explained(one, name)
            pd.testing.assert_frame_equal(quick, slow)
            assert [repr(dtype) for dtype in quick.dtypes] == [repr(dtype) for dtype in slow.dtypes]


@settings(max_examples=200)
@given(
    st.fixed_dictionaries({"law": WORDS, "arm": WORDS, "T": NUMBERS, "parameter": WORDS, "certified": TRUTHS, "verdict": WORDS}),
    st.fixed_dictionaries({"estimate": NUMBERS, "low": NUMBERS, "high": NUMBERS}, optional={"extra": NUMBERS}),
)
def test_the_quick_check_takes_what_pandera_takes(words, numbers):
    table = pd.DataFrame({name: [value] for name, value in (words | numbers).items()})
    try:
        slow = tables._explained(table, "laws")
    except (SchemaError, SchemaErrors):
        assert tables._as_specified(table, "laws") is None
    else:
        pd.testing.assert_frame_equal(tables._as_specified(table, "laws"), slow)


def test_a_share_outside_zero_and_one_is_refused(study):
    cells = study["tables"]["configurations"]
    for column, value in (("accuracy", 1.01), ("accuracy_low", -0.01), ("flops", -1.0), ("accuracy", np.nan), ("n_asked", -1)):
        with pytest.raises((SchemaError, SchemaErrors)):
            validate(cells.assign(**{column: value}), "configurations")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    "name", ["problems", "refusals", "configurations", "configurations_skipped", "calibration", "cells", "laws", "frontier", "crossovers"]
)
def test_round_trip(tmp_path, study, name, suffix):
    path = tmp_path / "deep" / f"{name}{suffix}"
    write(study["tables"][name], name, path)
    again = read(name, path)
    pd.testing.assert_frame_equal(again, validate(study["tables"][name], name), rtol=1e-9, check_dtype=suffix == ".parquet")
    assert b"\r" not in path.read_bytes() or suffix == ".parquet"
    write(again, name, path.with_name(f"again{suffix}"))
    assert path.read_bytes() == path.with_name(f"again{suffix}").read_bytes()


@pytest.mark.parametrize("word", ["NA", "null", "nan", "None"])
def test_words_that_look_like_missing_values_stay_text(tmp_path, word):
    """A study or model may be named so: the config's pattern allows it."""
    table = pd.DataFrame({"reason": [word], "n_problems": [3]})
    write(table, "refusals", tmp_path / "t.csv")
    assert read("refusals", tmp_path / "t.csv")["reason"].tolist() == [word]


def test_documentation_names_every_column():
    text = documentation()
    for name, columns in TABLES.items():
        section = text.split(f"## {name}\n", 1)[1].split("\n## ", 1)[0]
        for key, column in columns.items():
            assert f"| `{key}` | {column.dtype}" in section
            assert column.meaning in section
            assert column.meaning.strip()


def test_the_results_page_is_the_documentation(root):
    assert documentation().strip() in (root / "results" / "README.md").read_text(encoding="utf-8")
