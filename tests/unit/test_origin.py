"""A study's folder holds what was drawn or what one archive held, never both."""

import pytest

from flopstat import origin, stored
from flopstat.errors import InputError

NONE = {"path": None, "url": None, "sha256": None}


@pytest.fixture
def results(tmp_path):
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def archive(results, name):
    return NONE | {"path": str(results.parent / name)}


def test_an_empty_folder_takes_anything(results):
    for wanted in (None, archive(results, "one"), archive(results, "absent")):
        origin.check(wanted, results)


@pytest.mark.parametrize("name", ["problems.parquet", "samples/m@fp32/000.parquet", "imported/m.parquet"])
def test_drawn_results_are_not_mixed_with_an_archives(results, name):
    (results / name).parent.mkdir(parents=True, exist_ok=True)
    (results / name).touch()
    origin.check(None, results)
    origin.check(archive(results, "absent"), results)  # refused where it is read
    with pytest.raises(InputError, match="did not come from an archive, and the config names one; give the study another name"):
        origin.check(archive(results, "one"), results)


def test_a_restore_that_was_killed_goes_on_and_no_other_archive_takes_its_place(results):
    sha256 = stored.digest(results.parent / "one")
    origin.note(results, sha256)  # and then the kill
    for wanted in (archive(results, "one"), NONE | {"url": "https://a/b", "sha256": sha256}):
        origin.check(wanted, results)
    with pytest.raises(InputError, match=f"came from the archive of SHA-256 {sha256}, and that is another one"):
        origin.check(archive(results, "two"), results)
    with pytest.raises(InputError, match=f"came from the archive of SHA-256 {sha256}, and the config names none"):
        origin.check(None, results)


def test_a_damaged_note_is_named_and_once_it_is_set_aside_made_anew(results):
    (results / "problems.parquet").touch()
    origin.note(results, "0" * 64)
    (results / "archive.json").write_text('{"sha256": "1"}')
    with pytest.raises(InputError, match=r"archive.json: damaged"):
        origin.check(archive(results, "one"), results)
    assert stored.set_aside_damaged(results) == [results / "archive.json"]
    origin.check(archive(results, "one"), results)
