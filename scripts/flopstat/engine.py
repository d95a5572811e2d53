"""The reference engine: transformers models sampled with per-sample randomness.

One prefill per problem; its cache is expanded to the problem's samples; all rows of a batch decode together and finished rows
leave. Prompts of different length are padded on the left, with masks and positions per row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from transformers import DynamicCache

from flopstat.randomness import inverse_cdf, truncated_probabilities, uniforms

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENGINE = "transformers-reference"
SAMPLER_VERSION = 1  # raise it whenever the ids that a seed gives change; the golden-ids test says when
GREEDY = -1  # sample index of the greedy chain
NEAR_TIE = 1e-4  # |u - boundary| below which float32 may draw another token than float64
CONFIDENCE_TOP = 20  # tokens of DeepConf's confidence

FinishReason = Literal["eos", "length"]


@dataclass(frozen=True)
class SamplingSettings:
    """What shapes the distribution of a chain."""

    seed: int
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int


@dataclass(frozen=True)
class Request:
    """One chain to draw: a problem's prompt and the sample's index (-1 is greedy)."""

    problem_key: str
    prompt_ids: tuple[int, ...]
    sample: int


@dataclass(frozen=True)
class Chain:
    """One drawn chain. Arrays have one entry per generated token, the end-of-sequence token included.

    logprob : log p(token), natural log, of the model's own distribution (temperature 1, untruncated).
    entropy : entropy of that distribution in nats.
    self_certainty : KL divergence from the uniform distribution to it, -mean_v log(V p_v), in nats (Kang 2025).
    confidence : minus the mean log-probability of the 20 most probable tokens, in nats (Fu 2025); all tokens if there are fewer.
    """

    problem_key: str
    sample: int
    prompt_tokens: int
    finish_reason: FinishReason
    ids: np.ndarray
    logprob: np.ndarray
    entropy: np.ndarray
    self_certainty: np.ndarray
    confidence: np.ndarray
    near_ties: int


@dataclass
class Account:
    """What a run of the engine cost."""

    seconds: float = 0.0
    prefill_seconds: float = 0.0
    prompt_tokens: int = 0
    new_tokens: int = 0
    chains: int = 0
    near_ties: int = 0


@dataclass(frozen=True)
class Capabilities:
    """What an engine can promise: streams per sample, the same chains whatever the batch, full log-probabilities, ids as input."""

    own_randomness: bool
    batch_invariant: bool
    full_logprobs: bool
    tokens_in: bool


class Engine(Protocol):
    """Anything that draws chains."""

    capabilities: Capabilities
    account: Account

    def draw(self, requests: Sequence[Request]) -> Iterator[list[Chain]]: ...


@dataclass
class _Rows:
    """State of the rows that still decode; index r is a row of the cache."""

    which: np.ndarray  # (rows,) index into the batch's requests
    mask: torch.Tensor  # (rows, length so far) 1 for real tokens
    position: torch.Tensor  # (rows,) position of the next token


class TransformersEngine:
    """Draws chains from a transformers decoder on one device."""

    capabilities = Capabilities(own_randomness=True, batch_invariant=False, full_logprobs=True, tokens_in=True)

    def __init__(self, model: PreTrainedModel, settings: SamplingSettings, eos_ids: Sequence[int], batch_rows: int) -> None:
        self.model = model
        self.settings = settings
        self.device = next(model.parameters()).device
        self.eos = torch.tensor(sorted(set(eos_ids)), device=self.device)
        self.batch_rows = batch_rows
        self.account = Account()

    def draw(self, requests: Sequence[Request]) -> Iterator[list[Chain]]:
        """Draw all chains, yielding them a batch at a time so that the caller can store each batch as it is done."""
        ordered = sorted(requests, key=lambda r: (len(r.prompt_ids), r.problem_key, r.sample))
        for start in range(0, len(ordered), self.batch_rows):
            yield self._batch(ordered[start : start + self.batch_rows])

    @torch.inference_mode()
    def _batch(self, requests: list[Request]) -> list[Chain]:
        begun = time.perf_counter()
        steps = self.settings.max_tokens
        n = len(requests)
        u = torch.full((n, steps), 0.5, dtype=torch.float64)
        for r, request in enumerate(requests):
            if request.sample != GREEDY:
                u[r] = torch.from_numpy(uniforms(self.settings.seed, request.problem_key, request.sample, steps))
        u = u.to(self.device)
        greedy = torch.tensor([r.sample == GREEDY for r in requests], device=self.device)
        ids = np.zeros((n, steps), dtype=np.int32)
        stats = np.zeros((4, n, steps), dtype=np.float32)
        lengths = np.zeros(n, dtype=np.int64)
        finished = np.zeros(n, dtype=bool)
        near = np.zeros(n, dtype=np.int64)

        logits, cache, rows = self._prefill(requests)
        self.account.prefill_seconds += time.perf_counter() - begun
        for t in range(steps):
            live = torch.from_numpy(rows.which).to(self.device)
            tokens, margin, values = self._choose(logits, u[live, t], greedy[live])
            ids[rows.which, t] = tokens.cpu().numpy()
            stats[:, rows.which, t] = values.cpu().numpy()
            near[rows.which] += (margin < NEAR_TIE).cpu().numpy()
            lengths[rows.which] += 1
            ended = torch.isin(tokens, self.eos)
            finished[rows.which[ended.cpu().numpy()]] = True
            if t + 1 == steps or bool(ended.all()):
                break
            if bool(ended.any()):
                keep = torch.nonzero(~ended).squeeze(-1)
                cache.batch_select_indices(keep)
                rows = _Rows(rows.which[keep.cpu().numpy()], rows.mask[keep], rows.position[keep])
                tokens = tokens[keep]
            rows.mask = torch.cat([rows.mask, rows.mask.new_ones(len(rows.mask), 1)], dim=1)
            logits = self._forward(tokens.unsqueeze(1), rows.mask, rows.position.unsqueeze(1), cache)
            rows.position = rows.position + 1

        self.account.seconds += time.perf_counter() - begun
        self.account.new_tokens += int(lengths.sum())
        self.account.chains += n
        self.account.near_ties += int(near.sum())
        return [
            Chain(
                problem_key=request.problem_key,
                sample=request.sample,
                prompt_tokens=len(request.prompt_ids),
                finish_reason="eos" if finished[r] else "length",
                ids=ids[r, : lengths[r]].copy(),
                logprob=stats[0, r, : lengths[r]].copy(),
                entropy=stats[1, r, : lengths[r]].copy(),
                self_certainty=stats[2, r, : lengths[r]].copy(),
                confidence=stats[3, r, : lengths[r]].copy(),
                near_ties=int(near[r]),
            )
            for r, request in enumerate(requests)
        ]

    def _prefill(self, requests: list[Request]) -> tuple[torch.Tensor, Any, _Rows]:
        """Prefill each distinct prompt once and expand logits, cache, mask and positions to the requests' rows."""
        first: dict[str, int] = {}
        prompts: list[tuple[int, ...]] = []
        for request in requests:
            if request.problem_key not in first:
                first[request.problem_key] = len(prompts)
                prompts.append(request.prompt_ids)
        longest = max(len(p) for p in prompts)
        ids = torch.zeros((len(prompts), longest), dtype=torch.long)
        mask = torch.zeros((len(prompts), longest), dtype=torch.long)
        for r, prompt in enumerate(prompts):
            ids[r, longest - len(prompt) :] = torch.tensor(prompt)
            mask[r, longest - len(prompt) :] = 1
        mask = mask.to(self.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache(config=self.model.config)
        logits = self._forward(ids.to(self.device), mask, positions, cache)
        self.account.prompt_tokens += sum(len(p) for p in prompts)
        expand = torch.tensor([first[r.problem_key] for r in requests], device=self.device)
        cache.batch_select_indices(expand)
        return logits[expand], cache, _Rows(np.arange(len(requests)), mask[expand], positions[expand, -1] + 1)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
        """Logits of the last position, (rows, vocabulary)."""
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def _choose(self, logits: torch.Tensor, u: torch.Tensor, greedy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens, margins of the draws and the four statistics (4, rows) of one step.

        Raises
        ------
        FloatingPointError
            If a row's logits are not finite: the chain cannot go on and must not be counted as a wrong answer.
        """
        if not bool(torch.isfinite(logits).all()):
            raise FloatingPointError("the model gave logits that are not finite; use another precision or compute_dtype")
        s = self.settings
        log_p = torch.log_softmax(logits.float(), dim=-1)
        best = logits.argmax(-1)
        drawn, margin = inverse_cdf(truncated_probabilities(logits, s.temperature, s.top_p, s.top_k), u)
        tokens = torch.where(greedy, best, drawn)
        top = log_p.topk(min(CONFIDENCE_TOP, log_p.shape[-1]), dim=-1).values
        values = torch.stack(
            [
                log_p.gather(-1, tokens.unsqueeze(-1)).squeeze(-1),
                -(log_p.exp() * log_p).sum(-1),
                -log_p.mean(-1) - float(np.log(log_p.shape[-1])),
                -top.mean(-1),
            ]
        )
        return tokens, torch.where(greedy, torch.ones_like(margin), margin), values
