"""Graders side by side: which chains they judge differently, and how far each moves the accuracy curves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from flopstat import bootstrap
from flopstat.columns import TABLES
from flopstat.graders import GRADERS

_CHAIN = ["problem_id", "sample", "T"]


def disagreements(verdicts: dict[str, pd.DataFrame], graders: Sequence[str]) -> pd.DataFrame:
    """Rows of grader_disagreements.csv: every chain at every T, and pair of graders, whose verdicts differ.

    Parameters
    ----------
    verdicts : table `verdicts` by arm
    graders : names in the order of the config
    """
    out: list[pd.DataFrame] = []
    for arm, table in verdicts.items():
        of = {name: table[table["grader"] == name].set_index(_CHAIN) for name in graders}
        for a, b in itertools.combinations(graders, 2):
            left, right = of[a], of[b].reindex(of[a].index)
            differ = (left["correct"] != right["correct"]).to_numpy()
            pair = {"arm": arm, "gold": left["gold"], "grader_a": a, "grader_b": b, "excerpt": left["excerpt"]}
            pair |= {f"{key}_{side}": rows[key] for key in ("answer", "state", "correct") for side, rows in (("a", left), ("b", right))}
            out.append(pd.DataFrame(pair, index=left.index)[differ].reset_index())
    return pd.concat(out, ignore_index=True)[list(TABLES["grader_disagreements"])]


def grader_shift(verdicts: dict[str, pd.DataFrame], graders: Sequence[str], problems: pd.DataFrame, config: dict[str, Any]) -> pd.DataFrame:
    """Rows of grader_shift.csv: accuracy of single samples under each grader, and its paired difference to the first one.

    Parameters
    ----------
    verdicts : table `verdicts` by arm
    graders : names in the order of the config; the first one is the reference
    problems : with problem_id, split and difficulty
    config : with seed and statistics

    Leaves out: votes, whose shift depends on what the wrong answers are; greedy chains.
    """
    chosen = problems[problems["split"] == "study"]
    statistics = config["statistics"]
    rng = np.random.default_rng([config["seed"], 3, True])  # the weights of the study's cells
    w = bootstrap.weights(chosen["difficulty"].to_numpy(), statistics["replicates"], rng)
    rows: list[dict[str, Any]] = []
    for arm, table in verdicts.items():
        sampled = table[(table["split"] == "study") & (table["sample"] >= 0)]
        for t, at in sampled.groupby("T"):
            wide = at.pivot(index=["problem_id", "sample"], columns="grader", values="correct")[list(graders)].astype(float)
            mean = wide.groupby("problem_id").mean().reindex(chosen["problem_id"]).to_numpy()
            alone = bootstrap.proportion_interval(mean, w, statistics["confidence"])
            shift = mean - mean[:, :1]
            paired = bootstrap.paired_interval(shift, w, statistics["confidence"])
            for i, name in enumerate(graders):
                rows.append(
                    {
                        "arm": arm,
                        "T": t,
                        "grader": name,
                        "reference": graders[0],
                        "foreign": GRADERS[name].foreign,
                        "n_problems": len(mean),
                        "n_asked": len(wide),
                        "n_differ": int((wide[name] != wide[graders[0]]).sum()),
                        "accuracy": float(mean[:, i].mean()),
                        "accuracy_low": float(alone.low[i]),
                        "accuracy_high": float(alone.high[i]),
                        "difference": float(shift[:, i].mean()),
                        # The reference differs from itself by nothing, and that is known.
                        "difference_low": float(paired.low[i]) if i else 0.0,
                        "difference_high": float(paired.high[i]) if i else 0.0,
                        "estimand": bootstrap.ESTIMAND,
                    }
                )
    return pd.DataFrame(rows, columns=list(TABLES["grader_shift"]))
