"""YAML from outside: a value or one error, whatever stands in it."""

import pytest
import yaml

from flopstat import config, prices
from flopstat.errors import InputError
from flopstat.importers.reading import yaml_object
from flopstat.plain_yaml import MAX_DEPTH, parse

BROKEN = {
    "a day that is none": "study: 2026-99-99",
    "a truth that is none": "study: !!bool x",
    "a number that is none": 'study: !!int ""',
    "a time that is none": "study: !!timestamp x",
    "an object": "study: !!python/object/apply:os.system [id]",
    "a list as a key": "? [1]\n: 1",
    "a bracket too many": "study: [",
    "lists in one another": "study: " + "[" * 3000 + "]" * 3000,
    "mappings in one another": "{a: " * 3000 + "}" * 3000,
    # libyaml's reader ended the process here: its stack overflowed.
    "lists that overflow the stack": "study: " + "[" * 100_000 + "]" * 100_000,
    "a value inside of itself": "&a [*a]",
    "values without end": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 4)}]\n" for i in range(1, 31)),
    "merges without end": "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 4)}]}}\n" for i in range(1, 31)),
    "dashes that overflow the stack": "- " * 100_000 + "x",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_broken_yaml_is_one_error(tmp_path, text):
    with pytest.raises(yaml.YAMLError):
        parse(text)
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    for read, words in ((config.load, "not YAML"), (prices.Prices.read, "not YAML"), (yaml_object, "not plain YAML")):
        with pytest.raises(InputError, match=words) as refused:
            read(path)
        assert len(str(refused.value)) < 1000


def test_values_keep_their_types_up_to_a_depth():
    assert parse("a: [1, 2.5, x, null, true]\nb: &c {d: 1}\ne: *c") == {"a": [1, 2.5, "x", None, True], "b": {"d": 1}, "e": {"d": 1}}
    assert parse(b"") is None
    parse("[" * MAX_DEPTH + "]" * MAX_DEPTH)


def test_aliases_are_refused_where_a_small_file_must_stay_small():
    with pytest.raises(yaml.YAMLError, match=r"an alias \(\*c\); write the value out"):
        parse("b: &c {d: 1}\ne: *c", aliases=False)
