"""What a doubling of each axis gains on a grid of cells, by every type of the fitted surface."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flopstat.surface import Surface, flags_of, limits_of
from flopstat.surface_types import FULL_BITS, Points

GRID_BITS = (4.0, 8.0, FULL_BITS)
AXES = ("N", "T", "P", "B", "q")
GRADIENT_COLUMNS = ["type", "N", "T", "P", "B", "q", "axis", "gradient", "low", "high", "inside", "flags"]


def _doubled(x: Points, axis: str) -> tuple[Points, Points, float]:
    """The two points whose difference is the gain along an axis, and the doublings between them.

    N, T and q: half a doubling down and up. P: from P to 4P, over two doublings, since a vote of 2 equals one of 1. B: from B to 2B.
    """
    root = np.sqrt(2.0)
    match axis:
        case "N":
            return Points(x.n / root, x.t, x.p, x.b, x.q), Points(x.n * root, x.t, x.p, x.b, x.q), 1.0
        case "T":
            return Points(x.n, x.t / root, x.p, x.b, x.q), Points(x.n, x.t * root, x.p, x.b, x.q), 1.0
        case "q":
            return Points(x.n, x.t, x.p, x.b, x.q / root), Points(x.n, x.t, x.p, x.b, x.q * root), 1.0
        case "P":
            return x, Points(x.n, x.t, 4 * x.p, x.b, x.q), 2.0
        case _:
            return x, Points(x.n, x.t, x.p, 2 * x.b, x.q), 1.0


def gradients(surface: Surface) -> pd.DataFrame:
    """Accuracy gained per doubling of each axis on a grid of cells, by every type's fit on all cells: rows of surface_gradients.csv.

    Grid: the sizes, the smallest, middle and largest T, P of 1 and 4, B of 1 and 2, bits of 4, 8 and 16. Limits by one-step replicates,
    missing where none moves the gradient, as on the surface of a study that answers nothing right.
    `inside` is false where a compared point lies beyond the measured range of its axis: there the type extrapolates.
    """
    x = surface.data.points
    budgets = np.unique(x.t)
    middle = budgets[len(budgets) // 2]
    streams = [p for p in (1, 4) if p <= x.p.max()]
    branches = [b for b in (1, 2) if b <= x.b.max()]
    bits = GRID_BITS if "q" in x.varying else (FULL_BITS,)
    mesh = np.meshgrid(np.unique(x.n), np.unique([budgets[0], middle, budgets[-1]]), streams, branches, bits, indexing="ij")
    n, t, p, b, q = (m.ravel() for m in mesh)
    grid = Points(n, t, p.astype(np.int64), b.astype(np.int64), q)
    rows = []
    for name, fit in surface.fits.items():
        for axis in (a for a in AXES if a in x.varying):
            down, up, doublings = _doubled(grid, axis)
            value = (fit.predict(up) - fit.predict(down)) / doublings
            boot = value + surface.boot[name] @ ((fit.slope(up) - fit.slope(down)) / doublings).T
            low, high = limits_of(boot, surface.data.confidence)
            of = {"N": (down.n, up.n, x.n), "T": (down.t, up.t, x.t), "P": (down.p, up.p, x.p), "B": (down.b, up.b, x.b)}
            of |= {"q": (down.q, np.minimum(up.q, FULL_BITS), x.q)}
            a, z, seen = of[axis]
            inside = (a >= seen.min() - 1e-9) & (z <= seen.max() + 1e-9)
            keys = {"type": name, "N": n, "T": t, "P": p, "B": b, "q": q, "axis": axis}
            rows.append(pd.DataFrame(keys | {"gradient": value, "low": low, "high": high, "flags": flags_of(low), "inside": inside}))
    return pd.concat(rows, ignore_index=True)[GRADIENT_COLUMNS]
