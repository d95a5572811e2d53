"""Three forms of the surface A(N, T, P, B, q): in logs, through latent problems, and with broken power laws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from flopstat.latent_votes import best_of, beta_nodes, vote, win_table

Floats = NDArray[np.float64]

N0, T0 = 1e5, 32.0  # parameters, tokens: where offsets are read; a change of units changes b_0 only
FULL_BITS = 16.0


@dataclass(frozen=True)
class Points:
    """Where the surface is asked for: arrays of one length. q in bits_effective, 16 or more for unquantised weights."""

    n: Floats
    t: Floats
    p: NDArray[np.int64]
    b: NDArray[np.int64]
    q: Floats

    def __len__(self) -> int:
        return len(self.n)

    def at(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Points:
        return Points(self.n[rows], self.t[rows], self.p[rows], self.b[rows], self.q[rows])

    @property
    def varying(self) -> set[str]:
        """Axes with more than one value; with one size left, what N does can't be told."""
        full = np.minimum(self.q, FULL_BITS)
        axes = {"N": self.n, "T": self.t, "P": self.p, "B": self.b, "q": full}
        return {name for name, values in axes.items() if len(np.unique(values)) > 1}


@dataclass(frozen=True)
class Free:
    """A parameter: where a fit starts, its scale of plausible change, and the axis that must vary for it to be fitted."""

    name: str
    start: float
    scale: float
    axis: str  # "" for always


Accuracy = Callable[[dict[str, float], Points], Floats]


@dataclass(frozen=True)
class SurfaceType:
    """A form: its parameters, and accuracy as a function of them and of points."""

    name: str
    free: tuple[Free, ...]
    accuracy: Accuracy
    meaning: str
    own_slopes: Callable[[dict[str, float], Points, list[str]], Floats] | None = None

    def slopes(self, theta: dict[str, float], x: Points, names: list[str]) -> Floats:
        """d accuracy / d parameter, (cells, names)."""
        return differences(self.accuracy, theta, x, names) if self.own_slopes is None else self.own_slopes(theta, x, names)


def _log_size(theta: dict[str, float], x: Points) -> Floats:
    """ln(α(q, N)·N / N0) with ln α = -e^(g - g_q q) (N/N0)^(-g_N), and 0 from 16 bits on.

    The post-training term of Kumar et al. 2024 (bits in the exponent of an exponential, larger models bear fewer bits), read as a factor
    of N. The normalised curve (1 - e^(-q/γ)) of α(q) is not used here: it is too flat for arms that lose little at 4 and most at 3 bits.
    """
    log_n = np.log(x.n / N0)
    loss = np.exp(np.clip(theta["g"] - theta["g_q"] * x.q - theta["g_N"] * log_n, -50, 5))
    return np.asarray(log_n - np.where(x.q < FULL_BITS, loss, 0.0))


def _saturating_log(x: Floats, s: float) -> Floats:
    """(1 - x^(-s)) / s: ln x for s = 0, bounded by 1/s for s > 0."""
    u = np.log(x)
    return np.asarray(u if abs(s) < 1e-6 else -np.expm1(-s * u) / s)


def _in_logs(theta: dict[str, float], x: Points) -> Floats:
    level = theta["b_0"] + theta["b_N"] * _log_size(theta, x) + theta["b_T"] * _saturating_log(x.t / T0, theta["s_T"])
    votes = theta["b_P"] * _saturating_log(x.p.astype(float), theta["s_P"]) + theta["b_B"] * np.log(x.b)
    return np.asarray(expit(level + votes))


def _broken(theta: dict[str, float], x: Points) -> Floats:
    top = expit(theta["b_0"] + theta["b_N"] * _log_size(theta, x))
    power, sharp = np.exp(theta["ln_c"]), np.exp(theta["ln_r"])
    # (T/d)^c up to the break where it meets the model's own ceiling, flat beyond: a smoothly broken power law of one break
    single = top * np.exp(-np.logaddexp(0.0, sharp * (np.log(top) + power * (theta["ln_d"] - np.log(x.t)))) / sharp)
    streams = x.p.astype(float)
    bend = np.exp(theta["ln_P_break"])
    votes = theta["b_P"] * (np.log(streams) - np.log((streams + bend) / (1 + bend)))
    single = np.clip(single, 1e-9, 1 - 1e-9)
    return np.asarray(expit(np.log(single / (1 - single)) + votes + theta["b_B"] * np.log(x.b)))


@dataclass(frozen=True)
class _Groups:
    """Cells that share (N, T, q), and so the distribution of p; all their votes follow from it."""

    base: Points  # one point per group
    of: NDArray[np.int64]  # (cells,) group of each cell
    x: Points


def _groups(x: Points) -> _Groups:
    unique, of = np.unique(np.column_stack([x.n, x.t, x.q]), axis=0, return_inverse=True)
    one = np.ones(len(unique), dtype=np.int64)
    return _Groups(Points(unique[:, 0], unique[:, 1], one, one, unique[:, 2]), of.ravel(), x)


def _latent_state(theta: dict[str, float], base: Points) -> Floats:
    """Mean of p, ln of its concentration, and silent share of the chains that are not right: (3, groups)."""
    log_odds = theta["b_0"] + theta["b_N"] * _log_size(theta, base)
    power, sharp = np.exp(theta["ln_c"]), np.exp(theta["ln_r"])
    ended = -np.expm1(-np.exp(np.clip(power * (np.log(base.t) - theta["ln_d"]), -50, 50)))  # share of chains that end within T
    ended = np.maximum(ended, 1e-9)
    log_top = -np.logaddexp(0.0, -log_odds)
    # a smooth minimum of what the model can solve and what ends in time
    mean = np.clip(np.exp(-np.logaddexp(-sharp * log_top, -sharp * np.log(ended)) / sharp), 1e-6, 1 - 1e-6)
    spread = np.clip(theta["ln_spread"] + theta["spread_T"] * np.log(ended) + theta["spread_N"] * log_odds, -5, 6)
    silent = np.clip(expit(theta["silence"]) * (1 - ended) / (1 - mean), 0.0, 1.0)
    return np.stack([mean, spread, silent])


def _rule(state: Floats) -> tuple[Floats, Floats]:
    """Nodes and weights over p of each group."""
    return beta_nodes(state[0], np.exp(state[1]))


def _wins(ln_theta: float, x: Points) -> Floats:
    return win_table(float(np.exp(np.clip(ln_theta, -7, 7))), int(x.p.max()))


def _latent_votes(rule: tuple[Floats, Floats], silent: Floats, wins: Floats, ln_odds: float, groups: _Groups) -> Floats:
    """Accuracy of votes over P streams, each the best of B chains, over problems with p ~ Beta: (cells,).

    Exact up to rounding: the integrand is a polynomial in p of degree P·B for B = 1; for B > 1 too, as long as P·B is below 2·NODES.

    Parameters
    ----------
    rule, silent : beta_nodes, and share of the chains without the right answer that are silent, of each group
    wins, ln_odds : win_table of θ, and ln λ of the score
    """
    (nodes, weights), x = rule, groups.x
    out = np.empty(len(x))
    odds = float(np.exp(np.clip(ln_odds, -7, 7)))
    quiet = np.broadcast_to(silent[:, None], nodes.shape)
    for b in np.unique(x.b):
        right, none = best_of(nodes, quiet, odds, int(b))
        for p in np.unique(x.p[x.b == b]):
            rows = np.flatnonzero((x.b == b) & (x.p == p))
            here, place = np.unique(groups.of[rows], return_inverse=True)
            out[rows] = (vote(right[here], none[here], int(p), wins) * weights[here]).sum(axis=1)[place]
    return np.clip(out, 0.0, 1.0)


def _latent(theta: dict[str, float], x: Points) -> Floats:
    groups = _groups(x)
    state = _latent_state(theta, groups.base)
    return _latent_votes(_rule(state), state[2], _wins(theta["ln_theta"], x), theta["ln_odds"], groups)


_STEP = 1e-5


def _latent_slopes(theta: dict[str, float], x: Points, names: list[str]) -> Floats:
    """d accuracy / d parameter, (cells, names): votes depend on the parameters of a group through three numbers, so five differences do."""
    groups = _groups(x)
    state = _latent_state(theta, groups.base)
    rule, wins, ln_odds = _rule(state), _wins(theta["ln_theta"], x), theta["ln_odds"]
    through = []
    for i in range(3):
        side = np.where(state[i] > 0.5, -_STEP, _STEP) if i != 1 else np.full(state.shape[1], _STEP)  # stay inside [0, 1]
        up, down = state.copy(), state.copy()
        up[i] += side
        if i == 1:
            down[i] -= side
        both = [_latent_votes(rule if i == 2 else _rule(s), s[2], wins, ln_odds, groups) for s in (up, down)]
        through.append((both[0] - both[1]) / (up[i] - down[i])[groups.of])
    columns = []
    for name in names:
        if name in ("ln_theta", "ln_odds"):
            both = []
            for moved in (theta[name] + _STEP, theta[name] - _STEP):
                tables = (_wins(moved, x), ln_odds) if name == "ln_theta" else (wins, moved)
                both.append(_latent_votes(rule, state[2], *tables, groups))
            column = (both[0] - both[1]) / (2 * _STEP)
        else:
            up_theta, down_theta = theta | {name: theta[name] + _STEP}, theta | {name: theta[name] - _STEP}
            slopes = (_latent_state(up_theta, groups.base) - _latent_state(down_theta, groups.base)) / (2 * _STEP)
            column = sum(t * slope[groups.of] for t, slope in zip(through, slopes, strict=True))
        columns.append(column)
    return np.column_stack(columns)


def differences(accuracy: Accuracy, theta: dict[str, float], x: Points, names: list[str]) -> Floats:
    """d accuracy / d parameter by central differences, (cells, names)."""
    columns = [
        (accuracy(theta | {name: theta[name] + _STEP}, x) - accuracy(theta | {name: theta[name] - _STEP}, x)) / (2 * _STEP)
        for name in names
    ]
    return np.column_stack(columns)


_SIZE = (
    Free("b_0", 0.0, 1.0, ""),
    Free("b_N", 0.5, 0.3, "N"),
    Free("g", 5.0, 1.0, "q"),
    Free("g_q", 1.2, 0.3, "q"),
    Free("g_N", 0.5, 0.3, "q"),
)
_BREAK = (Free("ln_d", np.log(45.0), 0.3, "T"), Free("ln_c", 0.5, 0.3, "T"), Free("ln_r", 0.7, 0.4, "T"))
TYPES = {
    kind.name: kind
    for kind in (
        SurfaceType(
            "logs",
            (
                *_SIZE,
                Free("b_T", 1.0, 0.5, "T"),
                Free("s_T", 1.0, 0.7, "T"),
                Free("b_P", 0.2, 0.2, "P"),
                Free("s_P", 0.1, 0.3, "P"),
                Free("b_B", 0.2, 0.2, "B"),
            ),
            _in_logs,
            "logit A = b_0 + b_N ln(αN/N0) + b_T h(T/T0; s_T) + b_P h(P; s_P) + b_B ln B, h(x; s) = (1 - x^-s)/s",
        ),
        SurfaceType(
            "latent",
            (
                *_SIZE,
                *_BREAK,
                Free("ln_spread", 0.3, 0.5, ""),
                Free("spread_T", 0.5, 0.5, "T"),
                Free("spread_N", 0.0, 0.3, "N"),
                Free("ln_theta", 1.0, 0.7, "P"),
                Free("silence", 0.0, 1.0, "T"),
                Free("ln_odds", 0.5, 0.5, "B"),
            ),
            _latent,
            "p ~ Beta over problems, wrong answers from a Dirichlet process, votes and the best of B exactly",
            _latent_slopes,
        ),
        SurfaceType(
            "bnsl",
            (*_SIZE, *_BREAK, Free("b_P", 0.3, 0.2, "P"), Free("ln_P_break", 2.0, 0.7, "P"), Free("b_B", 0.2, 0.2, "B")),
            _broken,
            "a broken power law in T up to the ceiling expit(b_0 + b_N ln(αN/N0)), odds times a broken power of P and a power of B",
        ),
    )
}
