"""The accuracy figure: what it draws, and what it says of times that come from several devices."""

import pytest
from matplotlib.figure import Figure

from flopstat.figures import plot_accuracy

NOTE = "Times come from 2 devices"


@pytest.fixture
def texts(monkeypatch):
    """Texts of every figure that is saved."""
    seen = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda fig, *a, **k: (seen.extend(t.get_text() for t in fig.texts), save(fig, *a, **k)))
    return seen


@pytest.mark.parametrize(("cost", "noted"), [("device_s", True), ("flops", False)])
def test_a_note_on_devices_stands_only_beside_measured_costs(study, texts, tmp_path, cost, noted):
    tables = study["tables"]
    configurations = tables["configurations"]
    references = dict.fromkeys(configurations["model"].unique(), "fp32")
    drawn = plot_accuracy(configurations, tables["frontier"], tables["crossovers"], references, "t", [tmp_path / "f.png"], cost, NOTE)
    assert any(NOTE in text for text in texts) == noted
    greedy = drawn[drawn["series"] == "greedy"].set_index("arm")
    of_study = configurations[(configurations["split"] == "study") & (configurations["strategy"] == "greedy")]
    wanted = of_study[of_study["T"] == of_study["T"].max()].set_index("arm")[cost]
    assert len(greedy) == len(references)
    assert greedy["cost"].to_dict() == wanted[greedy.index].to_dict()
