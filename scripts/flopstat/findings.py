"""What a study found about size, votes and bits, a sentence each, from its tables."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pandas as pd

from flopstat import tables
from flopstat.costs import COST_NAMES


def findings(study: Path, configurations: pd.DataFrame, crossovers: pd.DataFrame, cost: str) -> list[str]:
    """Sentences on size, votes and bits, each with intervals; none where a table has no row to tell of.

    Parameters
    ----------
    study : folder of a finished study, whose tables of laws are read if it has any
    cost : column that the crossovers are told in
    """
    arms = configurations[["arm", "model", "n_params", "precision"]].drop_duplicates("arm")
    out = [_size(crossovers, arms, cost)]
    if (study / "vote_gains.csv").is_file():
        laws = tables.read("laws", study / "laws.csv")
        streams = configurations.loc[configurations["strategy"] == "majority", "P"]
        most = int(streams.max()) if len(streams) else 1
        choices = tables.read("law_sensitivity", study / "law_sensitivity.csv")
        out += [_votes(tables.read("vote_gains", study / "vote_gains.csv"), laws, choices, arms, most)]
        out += [_bits(tables.read("weight_bits", study / "weight_bits.csv"), laws)]
    return [text for text in out if text]


def _points(row: pd.Series, value: str) -> str:
    return f"{100 * row[value]:.1f} points [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _size(crossovers: pd.DataFrame, arms: pd.DataFrame, cost: str) -> str:
    models = arms.sort_values("n_params", kind="stable")["model"].unique()
    told = crossovers[(crossovers["cost"] == cost) & (crossovers["kind"] == "single") & (crossovers["status"] == "found")]
    told = told.set_index(["small", "large"])
    parts = [
        f"{large} beats the best cell of {small} from {row['at']:.2e} [{row['at_low']:.2e}, {row['at_high']:.2e}] on"
        for small, large in pairwise(models)
        if (small, large) in told.index
        for row in [told.loc[(small, large)]]
    ]
    return f"Size, in {COST_NAMES[cost]}: a single pass of " + "; of ".join(parts) + "." if parts else ""


def _votes(gains: pd.DataFrame, laws: pd.DataFrame, choices: pd.DataFrame, arms: pd.DataFrame, most: int) -> str:
    top = gains[(gains["T"] == gains["T"].max()) & gains["arm"].isin(arms.drop_duplicates("model")["arm"]) & (gains["P"] == most)]
    if top.empty or most == 1:
        return ""
    kappa = laws[(laws["parameter"] == "kappa") & (laws["T"] == laws["T"].max())]
    rejected = int(kappa["verdict"].str.contains("log law rejected").sum())
    told = "; ".join(f"{row['arm']} {_points(row, 'gain')}" for _, row in top.iterrows())
    flips = choices[(choices["parameter"] == "lack_of_fit_p") & (choices["T"] == choices["T"].max()) & choices["fragile"]]["arm"].nunique()
    form = f"The form κ ln P is rejected at the 5% level in {rejected} of {len(kappa)} arms"
    form += f"; in {flips} the verdict changes with the P that are fitted." if flips else ", whichever P are fitted."
    return f"Votes: {most} of them add to one chain: {told}. {form}"


def _bits(weight_bits: pd.DataFrame, laws: pd.DataFrame) -> str:
    alpha = laws[(laws["parameter"] == "alpha") & (laws["T"] == laws["T"].max())].set_index("arm")
    parts = []
    for _, row in weight_bits[weight_bits["four_bit_nominal"]].iterrows():
        text = f"{row['arm']} {100 * row['p_on_frontier']:.0f}%"
        law = alpha.loc[row["arm"]] if row["arm"] in alpha.index else None
        if law is not None and pd.notna(law["estimate"]):
            limits = [f"{law[end]:.2f}" if pd.notna(law[end]) else "open" for end in ("low", "high")]
            text += f", α {law['estimate']:.2f} [{limits[0]}, {limits[1]}]"
        parts.append(text)
    frontier = "Bits: share of resamples in which an arm of 4 bits is on the frontier of accuracy over weight bits: "
    return frontier + "; ".join(parts) + "." if parts else ""
