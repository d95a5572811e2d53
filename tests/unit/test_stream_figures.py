"""Costs by the number of streams: planted minima and log laws are found, bent curves are told from them, and curves equal the cells'."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from flopstat import bootstrap, tables
from flopstat.cells import ArmFacts
from flopstat.latency import Decode, Device, Latency, Prefill
from flopstat.stream_figures import plot_cost, plot_latency
from flopstat.streams import MOST_STREAMS, SHARES, THROUGHPUT, boot_waiting, cheapest, fit_log, streams_of
from flopstat.waiting import Clock, vote_latency

LOG = np.log(np.arange(1, 9))


def weights(n: int, replicates: int, rng) -> np.ndarray:
    return bootstrap.weights(np.zeros(n, dtype=int), replicates, rng)


def test_worked_minimum():
    flops, accuracy = np.array([[12.0, 20, 30]]), np.array([[0.25, 0.5, 0.625]])
    found = cheapest(flops, accuracy, np.ones((200, 1)), 0.95)
    assert (found.streams, found.streams_low, found.streams_high) == (2, 2, 2)
    assert (found.value, found.low, found.high) == (40, 40, 40)


def test_the_fewest_of_equal_streams_is_the_minimum():
    assert cheapest(np.array([[10.0, 20]]), np.array([[0.4, 0.8]]), np.ones((200, 1)), 0.95).streams == 1


def test_nothing_right_has_no_minimum_and_rare_answers_an_open_interval():
    rng = np.random.default_rng(0)
    flops = np.tile([10.0, 20], (40, 1))
    assert cheapest(flops, np.zeros((40, 2)), weights(40, 200, rng), 0.95) is None
    accuracy = np.zeros((40, 2))
    accuracy[0] = 0.5, 0.6
    found = cheapest(flops, accuracy, weights(40, 400, rng), 0.95)
    assert found.streams == 1
    assert found.value == pytest.approx(10 / (0.5 / 40))
    assert np.isinf(found.high)  # a third of the replicates miss the one problem


def _study(rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A prompt as dear as four chains, and votes that turn up to a bound: mean FLOP per right answer is lowest at P = 3."""
    skill = rng.beta(2, 3, size=(n, 1))
    p = np.arange(1, 9)
    flops = 40 * rng.uniform(0.8, 1.2, size=(n, 1)) + 10 * p
    accuracy = skill * np.array([0.5, 0.75, 0.95, 1.0, 1.0, 1.0, 1.0, 1.0])
    return flops, np.clip(accuracy + rng.uniform(-0.15, 0.15, size=(n, 8)) * accuracy, 0, 1)


def test_interval_of_the_minimum_covers():
    """The true minimum, and the P it lies at, near the stated rate in 300 studies."""
    rng = np.random.default_rng(3)
    flops, accuracy = _study(rng, 400_000)
    curve = flops.mean(axis=0) / accuracy.mean(axis=0)
    best, truth = int(np.argmin(curve)) + 1, float(curve.min())
    assert best == 3
    hits = np.zeros(2)
    for _ in range(300):
        found = cheapest(*_study(rng, 80), weights(80, 300, rng), 0.95)
        hits += found.streams_low <= best <= found.streams_high, found.low <= truth <= found.high
    assert hits[0] >= 0.95 * 300
    assert 0.9 * 300 <= hits[1] <= 0.99 * 300


def test_worked_fit():
    values = 1 + LOG
    fit = fit_log(values, np.tile(values, (200, 1)), 0.95)
    assert (fit.intercept, fit.slope) == pytest.approx((1, 1))
    assert np.isnan([fit.slope_low, fit.slope_high, fit.p]).all()  # nothing varies: no limits rather than some of width zero
    assert fit.verdict == "not tested"
    shaken = fit_log(values, values + np.linspace(-0.1, 0.1, 201)[:, None] * LOG, 0.95)
    assert (shaken.slope_low, shaken.slope_high) == pytest.approx((1 - 0.095, 1 + 0.095))


def _curves(rng, n: int, bend: float) -> np.ndarray:
    """(problems, 8) values of 3 + 0.5 ln P + bend·(P - 1), with a level and a slope of each problem's own, and noise of each point."""
    own = rng.normal(3, 1, size=(n, 1)) + rng.normal(0.5, 0.2, size=(n, 1)) * LOG
    return own + bend * np.arange(8) + rng.normal(0, 0.2, size=(n, 8))


def test_planted_log_law_is_recovered_and_not_rejected():
    rng = np.random.default_rng(1)
    covered = rejected = 0
    for _ in range(200):
        each = _curves(rng, 60, bend=0.0)
        fit = fit_log(each.mean(axis=0), weights(60, 300, rng) @ each, 0.95)
        covered += fit.slope_low <= 0.5 <= fit.slope_high
        rejected += fit.verdict == "rejected"
    assert 0.9 * 200 <= covered <= 0.99 * 200
    assert rejected <= 0.1 * 200  # 5% are asked for


def test_lack_of_fit_detects_a_bent_curve():
    rng = np.random.default_rng(2)
    fits = []
    for _ in range(20):
        each = _curves(rng, 60, bend=0.2)
        fits.append(fit_log(each.mean(axis=0), weights(60, 300, rng) @ each, 0.95))
    assert all(fit.verdict == "rejected" and fit.p < 0.01 for fit in fits)


def test_few_points_have_no_fit_or_no_test():
    one = fit_log(np.array([2.0]), np.full((200, 1), 2.0), 0.95)
    assert (one.intercept, one.verdict) == (2.0, "one point: no fit")
    assert np.isnan(one.slope)
    two = fit_log(np.array([2.0, 3.0]), np.random.default_rng(0).normal([2, 3], 0.1, size=(200, 2)), 0.95)
    assert two.slope == pytest.approx(1 / np.log(2))
    assert (two.verdict, np.isnan(two.p)) == ("not tested", True)


def test_bootstrap_of_waiting_is_the_mixture_that_vote_latency_takes():
    """With even weights every replicate is the study itself; with a problem left out it is that of the others."""
    model = Latency(Device("d", 1e9, 1e8, "f"), Prefill(0.5, 0, 0.25, 0), Decode(1.0, 0.1, 0.0, 0.01), 0.0, 16, "line", chain_s=0.3)
    rng = np.random.default_rng(5)
    tokens, prompt = rng.integers(1, 60, size=(12, 8)).astype(float), rng.integers(5, 40, size=12).astype(float)
    clock = Clock(model, prompt, tokens.max())
    even, without = np.full(12, 1 / 12), np.r_[0, np.full(11, 1 / 11)]
    shares = np.array(list(SHARES.values()))
    for k in (1, 3, 8):
        found = boot_waiting(clock, tokens, k, np.vstack([even, without]))
        assert np.array_equal(found[0], vote_latency(clock, tokens, k, shares, even[None], 0.95)[:, 0])
        others = Clock(model, prompt[1:], tokens.max())
        assert np.array_equal(found[1], vote_latency(others, tokens[1:], k, shares, np.full((1, 11), 1 / 11), 0.95)[:, 0])


@pytest.fixture(scope="module")
def streams(study, study_config, latency_model):
    cards = {card.name: card for card in study["cards"]}
    out = {}
    for arm, grades in study["grades"].items():
        card, precision = cards[arm.split("@")[0]], arm.split("@")[1]
        facts = ArmFacts(card, precision, 16.0, 2.1, (3.0, 2.5, 3.5), latency_model)
        out[arm] = streams_of(facts, grades, study["tables"]["problems"], study_config)
    return out


@pytest.mark.parametrize("p", [1, 2, 4])
def test_curves_equal_the_cells_at_the_grid(streams, study, p):
    cells = study["judged"].cells
    for arm, found in streams.items():
        top = cells[(cells["arm"] == arm) & (cells["T"] == 64) & (cells["B"] == 1)]
        cell = top[(top["strategy"] == ("single" if p == 1 else "majority")) & (top["P"] == p)].iloc[0]
        point = found.curve[found.curve["P"] == p].iloc[0]
        for end, name in (("", "value"), ("_low", "low"), ("_high", "high")):
            assert point[name] == pytest.approx(cell[f"flops_per_correct{end}"])
        speed = found.speed[found.speed["P"] == p].set_index("metric")
        for metric in SHARES:
            assert tuple(speed.loc[metric, ["value", "low", "high"]]) == tuple(cell[[metric, f"{metric}_low", f"{metric}_high"]])
        assert speed.loc[THROUGHPUT, "value"] == pytest.approx(1 / cell["device_s"])


def test_tables_hold_together(streams):
    speed = tables.validate(pd.concat([one.speed for one in streams.values()], ignore_index=True), "latency_by_streams")
    minima = tables.validate(pd.DataFrame([one.minimum for one in streams.values()]), "cost_per_correct")
    assert len(speed) == len(streams) * 3 * min(MOST_STREAMS, 8)
    assert (speed["low"] <= speed["value"]).all()
    assert (speed["value"] <= speed["high"]).all()
    assert set(speed["verdict"]) <= {"rejected", "not rejected"}
    for _, own in speed.groupby(["arm", "metric"]):
        assert own["P"].tolist() == list(range(1, 9))
        rising = own["metric"].iloc[0] != THROUGHPUT
        assert (np.diff(own["value"]) * (1 if rising else -1) >= 0).all()
    for (arm, found), (_, row) in zip(streams.items(), minima.iterrows(), strict=True):
        assert row["arm"] == arm
        assert row["value"] == found.curve["value"].min()
        assert found.curve.loc[found.curve["P"] == row["P"], "value"].iloc[0] == row["value"]
        assert row["P_low"] <= row["P"] <= row["P_high"] <= row["n_samples"] == 8
        assert row["low"] <= row["value"] <= row["high"]


def test_minimum_has_a_width_where_no_replicate_differs(study, study_config, latency_model):
    """A stratum per problem leaves nothing to resample: the accuracy's own limits speak."""
    arm, problems = "ladder-160k@fp32", study["tables"]["problems"].copy()
    problems["difficulty"] = np.arange(len(problems))
    facts = ArmFacts(study["cards"][1], "fp32", 16.0, 2.1, (3.0, 2.5, 3.5), latency_model)
    found = streams_of(facts, study["grades"][arm], problems, study_config)
    assert found.minimum["low"] < found.minimum["value"] < found.minimum["high"]
    assert found.speed["slope_low"].isna().all()
    tables.validate(found.speed, "latency_by_streams")


def test_figures_draw_their_tables(streams, tmp_path):
    references = dict.fromkeys(("ladder-30k", "ladder-160k"), "fp32")
    curve = pd.concat([one.curve for one in streams.values()], ignore_index=True)
    minima = pd.DataFrame([one.minimum for one in streams.values()])
    speed = pd.concat([one.speed for one in streams.values()], ignore_index=True)
    paths = [tmp_path / "a.png", tmp_path / "a.pdf"]
    assert plot_cost(curve, minima, references, 0.95, "50% of $5", paths).equals(curve)
    assert all(path.stat().st_size > 5000 for path in paths)
    data = plot_latency(speed, references, 0.95, "50% of $5", None, paths)
    assert set(data["arm"]) == {"ladder-30k@fp32", "ladder-160k@fp32"}
    first = data.iloc[3]
    assert first["fitted"] == pytest.approx(first["intercept"] + first["slope"] * np.log(4))
    plain = paths[0].read_bytes()
    plot_latency(speed, references, 0.95, "50% of $5", "Times come from 2 devices", paths[:1])
    assert paths[0].read_bytes() != plain


@pytest.fixture
def texts(monkeypatch):
    """All texts of every figure that is saved, one string each."""
    seen = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda fig, *a, **k: (seen.append(_words(fig)), save(fig, *a, **k)))
    return seen


def _words(fig):
    return "\n".join(t.get_text() for t in fig.findobj(Text))


def test_an_arm_that_is_never_right_is_drawn_around_and_named(streams, texts, tmp_path):
    curve = streams["ladder-30k@fp32"].curve
    hopeless = curve.assign(arm="m@fp32", model="m", value=np.inf, low=np.inf, high=np.inf)
    minima = pd.DataFrame([streams["ladder-30k@fp32"].minimum])
    path = tmp_path / "a.png"
    references = {"ladder-30k": "fp32", "m": "fp32"}
    plot_cost(pd.concat([curve, hopeless], ignore_index=True), minima, references, 0.95, "t", [path])
    assert path.stat().st_size > 5000
    assert "Never right, so without a cost per right answer: m@fp32." in texts[-1]
    assert "no reference" not in texts[-1]
    plot_cost(hopeless, minima.iloc[:0], references, 0.95, "t", [path])
    assert "no arm has a right answer" in texts[-1]


def test_a_quantised_first_precision_is_not_called_a_reference(streams, texts, tmp_path):
    found = streams["ladder-30k@fp32"]
    as_int8 = {"arm": "ladder-30k@int8", "precision": "int8"}
    curve = pd.concat([found.curve.assign(**as_int8), streams["ladder-160k@fp32"].curve, streams["ladder-160k@rtn3"].curve])
    minima = pd.DataFrame([found.minimum | as_int8])
    references = {"ladder-30k": "int8", "ladder-160k": "fp32"}
    plot_cost(curve, minima, references, 0.95, "t", [tmp_path / "a.png"])
    speed = pd.concat([found.speed.assign(**as_int8), streams["ladder-160k@fp32"].speed], ignore_index=True)
    plot_latency(speed, references, 0.95, "t", None, [tmp_path / "a.png"])
    for words in texts:
        assert "The first precision is quantised, and so no reference: ladder-30k@int8." in words
        assert "eference precision" not in words
    assert "ladder-30k@int8" in texts[0].splitlines()


@pytest.mark.parametrize(("times", "unit", "label"), [(1e-3, "ms", "milliseconds"), (1e3, "s", "seconds")])
def test_changes_per_doubling_are_in_the_unit_of_the_axis(streams, texts, tmp_path, times, unit, label):
    speed = streams["ladder-30k@fp32"].speed
    waits = speed["unit"] == "s"
    columns = ["value", "low", "high", "intercept", "slope", "slope_low", "slope_high"]
    scale = times / speed.loc[waits, "value"].max()
    speed = speed.assign(**{c: speed[c].where(~waits, speed[c] * scale) for c in columns})
    data = plot_latency(speed, {"ladder-30k": "fp32"}, 0.95, "t", None, [tmp_path / "a.png"])
    assert data.loc[data["unit"] == "s", "value"].max() == pytest.approx(times)  # the points stay in seconds
    slope = float(speed.loc[speed["metric"] == "latency_p50_s", "slope"].iloc[0]) * np.log(2) * (1e3 if unit == "ms" else 1)
    lines = texts[-1].splitlines()
    assert lines.count(label) == 2
    assert any(line.startswith(f"{float(f'{slope:.3g}'):+,g} [") and f"] {unit}: " in line for line in lines)
    assert "e+0" not in texts[-1]
