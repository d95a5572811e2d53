"""The reference engine's own steps, taken at a chosen batch and context, so that a calibration times what runs when a study samples."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from flopstat.engine import Account, Request, SamplingSettings
from flopstat.slots import Slots
from flopstat.transformers_engine import TransformersEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHAINS_PER_PROMPT = 16
TOKEN = 1  # id of every token: times do not depend on ids


class Rehearsal(TransformersEngine):
    """An engine whose rows are put in place instead of drawn up to there.

    Half of what a row attends to is its prompt, shared by 16 rows, the other half its own tokens: both lie in the slots as they do when a
    study samples, but hold one prefilled token's keys and values over and over, so that no time goes into making them.

    # ASSUME in the forecast the chains of a prompt decode side by side by 16, and a step costs what its attended tokens cost, prompt or
    # own: on two cores a step of the ladder differs by a quarter between prompts that are not shared at all and prompts that all rows share
    """

    def __init__(self, model: PreTrainedModel, settings: SamplingSettings, batch_rows: int, device: str) -> None:
        super().__init__(model, settings, (), batch_rows, device)
        self._own = 0
        cache = DynamicCache()
        with torch.inference_mode():
            model(input_ids=torch.full((1, 1), TOKEN, device=self.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
        layers = [cast(DynamicLayer, layer) for layer in cache.layers]
        self._token = [(cast(torch.Tensor, k.keys)[0], cast(torch.Tensor, k.values)[0]) for k in layers]

    @torch.inference_mode()
    def seat(self, batch: int, context: int) -> None:
        """Put `batch` rows in place that each see `context` tokens in the next step, the token it feeds included."""
        prompt = max(1, context // 2)
        self._own = max(1, context - prompt)
        room = self._own + 2  # so that no row reaches its limit
        self._start(batch, room, prompt)
        self._slots = Slots(self._n_layers)
        layers = [(keys.expand(-1, prompt, -1), values.expand(-1, prompt, -1)) for keys, values in self._token]
        for _ in range(-(-batch // CHAINS_PER_PROMPT)):
            self._slots.add_prompt(layers, prompt)
        self._slots.reserve(batch, self._own, room)
        requests = [Request(str(r // CHAINS_PER_PROMPT), (TOKEN,) * prompt, r % CHAINS_PER_PROMPT, max_tokens=room) for r in range(batch)]
        self._batch.add(requests, [r // CHAINS_PER_PROMPT for r in range(batch)], self.settings)

    @torch.inference_mode()
    def step(self) -> tuple[float, float]:
        """Take one decoding step as the engine does; returns its seconds, and those of the draw and its bookkeeping among them."""
        begun = time.perf_counter()
        self._batch.length[:] = self._own
        logits = self._decode()
        self._wait()
        decoded = time.perf_counter()
        self._record(np.arange(self._batch.n), logits)
        self._wait()
        ended = time.perf_counter()
        return ended - begun, ended - decoded

    @torch.inference_mode()
    def prefill(self, batch: int, tokens: int) -> float:
        """Prefill `batch` distinct prompts in one pass and store them in the slots; returns the seconds."""
        self._start(0, 0, tokens)
        prompts = [(TOKEN,) * (tokens - 1) + (i,) for i in range(batch)]
        self._wait()
        begun = time.perf_counter()
        self._prefill(prompts)
        self._wait()
        return time.perf_counter() - begun

    def turnover(self, batch: int, tokens: int) -> float:
        """Let `batch` chains of a budget of `tokens` enter, draw their first token and leave; returns the seconds per chain.

        Prefills are left out. A chain leaves at once since every token counts as one that ends it.
        """
        self.account = Account()
        requests = [Request(str(r // CHAINS_PER_PROMPT), (TOKEN,), r % CHAINS_PER_PROMPT, max_tokens=tokens) for r in range(batch)]
        self.eos = np.arange(self._config.vocab_size)
        drawn = sum(len(chains) for chains in self.draw(requests))
        self.eos = self.eos[:0]
        return (self.account.seconds - self.account.prefill_seconds) / drawn

    def _wait(self) -> None:
        """Let the device finish what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        elif self.device.type == "mps":
            torch.mps.synchronize()
