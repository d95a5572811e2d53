"""How the reference engine fills its batch, without a model: how many forward passes of how many rows some chains take.

The queue is sorted as the engine sorts it, rows enter when an eighth of the batch is free, one prefill at a time, and a chain of n tokens
takes n - 1 decoding steps behind its prefill, whose logits give the first token. Between two changes of the batch all steps have the same
rows, so the whole run is a list of stretches: (rows, steps, context).

Left out: a batch that is halved because memory ran out.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flopstat.engine import PREFILL_TOKENS, REFILL

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Schedule:
    """What a run of the engine puts through the model.

    rows, steps, context : (stretches,) rows of each of `steps` decoding passes, and the tokens in the middle of the stretch that the
        longest row attends to: the engine pads to it.
    prompts, longest : (prefills,) prompts of a prefill and the tokens of its longest one, to which it pads.
    """

    rows: Indices
    steps: Indices
    context: Floats
    prompts: Indices
    longest: Indices

    @property
    def row_steps(self) -> int:
        """Tokens that decoding passes drew."""
        return int((self.rows * self.steps).sum())


def simulate(prompt: Indices, problem: Indices, length: Indices, capacity: int) -> Schedule:
    """The schedule of some chains.

    Worked by hand: two rows of capacity and chains of 3, 2 and 2 tokens behind one prompt of 10. Two rows enter; after one step the second
    chain is done and the third enters; it takes one step, beside the first, which ends there: steps (2 rows, 1), (2 rows, 1).

    Parameters
    ----------
    prompt : (chains,) int array
        Tokens of each chain's prompt.
    problem : (chains,) int array
        Which chains share a prompt.
    length : (chains,) int array
        Tokens of each chain, at least 1.
    capacity : int
        Rows of a full batch.
    """
    order = np.lexsort((problem, prompt))
    run = _Run(deque(zip(prompt[order].tolist(), problem[order].tolist(), length[order].tolist(), strict=True)), min(capacity, len(order)))
    while run.queue or run.ends:
        free = run.capacity - len(run.ends)
        if run.queue and (not run.ends or free >= max(1, run.capacity // REFILL)):
            run.admit(free)
        else:
            run.decode()
    rows, steps, context = np.array(run.stretches, dtype=np.float64).reshape(-1, 3).T
    prompts, longest = np.array(run.prefills, dtype=np.int64).reshape(-1, 2).T
    return Schedule(rows.astype(np.int64), steps.astype(np.int64), context, prompts, longest)


@dataclass
class _Run:
    """The engine's loop. Rows that enter by one prefill are a group."""

    queue: deque[tuple[int, int, int]]  # tokens of the prompt, problem, tokens of the chain
    capacity: int
    step: int = 0
    held: int = -1  # problem whose prompt the next prefill finds ready
    oldest: int = 0  # first group with rows in flight
    ends: list[tuple[int, int]] = field(default_factory=list)  # last step and group of each row in flight, the next to end first
    groups: list[tuple[int, int]] = field(default_factory=list)  # step of entry, tokens of the longest prompt
    alive: list[int] = field(default_factory=list)  # rows in flight of each group
    stretches: list[tuple[int, int, float]] = field(default_factory=list)
    prefills: list[tuple[int, int]] = field(default_factory=list)

    def admit(self, free: int) -> None:
        """Fill free rows with one prefill of at most PREFILL_TOKENS."""
        fresh: list[int] = []
        n_prompts, last, longest, entered = 0, -1, 0, 0
        while self.queue and free:
            tokens, problem, n = self.queue[0]
            if problem != last:
                if n_prompts and tokens * (n_prompts + 1) > PREFILL_TOKENS:
                    break
                n_prompts, last = n_prompts + 1, problem
                if problem != self.held:
                    fresh.append(tokens)
            self.queue.popleft()
            free -= 1
            longest = max(longest, tokens)
            if n > 1:  # else the prefill's own logits end it
                heapq.heappush(self.ends, (self.step + n - 1, len(self.groups)))
                entered += 1
        self.groups.append((self.step, longest))
        self.alive.append(entered)
        self.held = last if self.queue and self.queue[0][1] == last else -1
        if fresh:
            self.prefills.append((len(fresh), max(fresh)))

    def decode(self) -> None:
        """All steps up to the next end of a row."""
        while not self.alive[self.oldest]:
            self.oldest += 1
        # ASSUME prompts in flight differ little in length, so that the longest row is one of those that came in first
        begun, prompt = self.groups[self.oldest]
        last = self.ends[0][0]
        self.stretches.append((len(self.ends), last - self.step, prompt + (self.step + last + 1) / 2 - begun))
        self.step = last
        while self.ends and self.ends[0][0] == last:
            self.alive[heapq.heappop(self.ends)[1]] -= 1
