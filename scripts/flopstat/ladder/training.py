"""Training of the ladder: one warm-up-stable-decay trunk per size with short decay branches.

The trunk runs at a constant learning rate. At each token count of `branches` a copy leaves the trunk and decays linearly to
zero over `decay_fraction` of the tokens seen so far; its held-out loss is one point (N, D) of the training log that laws are
fitted to. One branch, the last unless `sizes` says otherwise, is the shipped model. In-schedule losses are logged beside them and
never fitted.

The batch of step s is a function of (seed, s) alone and both optimisers are deterministic on one thread, so a run that
was killed and resumed ends in the same weights as an undisturbed one.

Loss: mean cross-entropy (nats) per solution token. The question's tokens are context only: their entropy is that of the generator.

Source of the schedule: Hu et al. 2024 (MiniCPM), Hägele et al. 2024; of the optimiser for matrices: Jordan et al. 2024 (Muon).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from flopstat.errors import InputError
from flopstat.ladder.generator import Problem, generate
from flopstat.ladder.sizes import Size
from flopstat.ladder.tokenizer import ASSISTANT, EOS, PAD, USER, VOCABULARY, build_tokenizer, encode_fast

if TYPE_CHECKING:
    from transformers import Qwen2Config, Qwen2ForCausalLM

_PAD, _EOS, _USER, _ASSISTANT = (VOCABULARY.index(t) for t in (PAD, EOS, USER, ASSISTANT))
_IGNORE = -100
HELDOUT_PROBLEMS = 2048
CHECKPOINT_EVERY_S = 120.0


def _config(size: Size) -> Qwen2Config:
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=len(VOCABULARY),
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        pad_token_id=_PAD,
        eos_token_id=_EOS,
        bos_token_id=None,
    )


def build_model(size: Size) -> Qwen2ForCausalLM:
    """A freshly initialised model of one size; the initialisation is a function of `size.seed`."""
    from transformers import Qwen2ForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(size.seed)
        return Qwen2ForCausalLM(_config(size)).float()


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids and targets, (problems, length); targets of question and padding are -100."""

    ids: Tensor
    targets: Tensor
    n_tokens: int
    n_targets: int


def collate(problems: list[Problem]) -> Batch:
    """Pad problems to one rectangle. Right padding needs no attention mask under causal attention."""
    rows = []
    for problem in problems:
        question = [_USER, *encode_fast(problem.question), _ASSISTANT]
        rows.append((question, [*encode_fast(problem.solution), _EOS]))
    length = max(len(q) + len(s) for q, s in rows) - 1
    ids = np.full((len(rows), length), _PAD, dtype=np.int64)
    targets = np.full((len(rows), length), _IGNORE, dtype=np.int64)
    n_tokens = n_targets = 0
    for r, (question, solution) in enumerate(rows):
        sequence = question + solution
        ids[r, : len(sequence) - 1] = sequence[:-1]
        targets[r, len(question) - 1 : len(sequence) - 1] = solution
        n_tokens += len(sequence) - 1
        n_targets += len(solution)
    return Batch(torch.from_numpy(ids), torch.from_numpy(targets), n_tokens, n_targets)


def _batches(problems: list[Problem], micro: int) -> list[Batch]:
    """Micro-batches of similar length: together they give the full batch's gradient with little padding."""
    ordered = sorted(problems, key=lambda p: (p.difficulty, len(p.question)))
    return [collate(ordered[i : i + micro]) for i in range(0, len(ordered), micro)]


def batch_of_step(size: Size, step: int) -> list[Batch]:
    """Training batches of step `step`: a function of the seed and the step only."""
    rng = np.random.default_rng([size.seed, step])
    stream = generate(rng, "training", block=size.batch_problems * 2)
    return _batches([next(stream) for _ in range(size.batch_problems)], 32)


def _loss_sum(model: Qwen2ForCausalLM, batch: Batch) -> Tensor:
    """Summed cross-entropy of the target tokens, logits computed at their positions only."""
    hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    wanted = batch.targets != _IGNORE
    logits = model.lm_head(hidden[wanted])
    return nn.functional.cross_entropy(logits, batch.targets[wanted], reduction="sum")


@torch.no_grad()
def heldout_loss(model: Qwen2ForCausalLM, seed: int, n_problems: int = HELDOUT_PROBLEMS) -> float:
    """Mean cross-entropy per solution token (nats) on fixed problems of the held-out split."""
    stream = generate(np.random.default_rng([seed, 1 << 32]), "heldout")
    total, count = 0.0, 0
    for batch in _batches([next(stream) for _ in range(n_problems)], 64):
        total += float(_loss_sum(model, batch))
        count += batch.n_targets
    return total / count


class Optimizers:
    """Muon for the hidden matrices, AdamW for the rest, as one object with a flat state."""

    def __init__(self, model: nn.Module, size: Size) -> None:
        named = list(model.named_parameters())
        self.names = {id(p): n for n, p in named}
        matrices = [p for n, p in named if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
        others = [p for n, p in named if not (p.ndim == 2 and "embed" not in n and "lm_head" not in n)]
        self.base = (size.lr_matrix, size.lr_other)
        self.parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=size.lr_matrix, momentum=size.momentum, weight_decay=size.weight_decay),
            torch.optim.AdamW(others, lr=size.lr_other, betas=(0.9, 0.98), weight_decay=0.0),
        )

    def step(self, scale: float) -> None:
        for part, base in zip(self.parts, self.base, strict=True):
            for group in part.param_groups:
                group["lr"] = base * scale
            part.step()
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Optimiser tensors by parameter name."""
        return {
            f"{self.names[id(p)]}::{key}": torch.as_tensor(value).clone()
            for part in self.parts
            for p, values in part.state.items()
            for key, value in values.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        by_name = {self.names[id(p)]: (part, p) for part in self.parts for g in part.param_groups for p in g["params"]}
        for key, value in tensors.items():
            name, field_name = key.split("::")
            part, parameter = by_name[name]
            part.state[parameter][field_name] = value.clone()


@dataclass
class Progress:
    """Where a run stands; `branch` is the index of the decay branch it is on, or -1 on the trunk."""

    step: int = 0
    tokens: int = 0
    branch: int = -1
    branch_start: int = 0
    next_branch: int = 0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)


class Run:
    """A resumable training run of one size in folder `path`."""

    def __init__(self, size: Size, path: Path) -> None:
        self.size, self.path = size, path
        path.mkdir(parents=True, exist_ok=True)
        self.model = build_model(size)
        self.optimizers = Optimizers(self.model, size)
        self.progress = Progress()
        recipe = json.loads(json.dumps({k: v for k, v in asdict(size).items() if k != "shipped"}))
        if (path / "recipe.json").exists():
            held = json.loads((path / "recipe.json").read_text())
            longer = recipe["branches"][: len(held["branches"])] == held["branches"]  # the trunk does not depend on later branches
            if not longer or held | {"branches": recipe["branches"]} != recipe:
                raise InputError(f"{path}: holds a run of another recipe; remove the folder or give another one")
        (path / "recipe.json").write_text(json.dumps(recipe, sort_keys=True))
        if (path / "state.json").exists():
            self._load("state")

    def _save(self, name: str) -> None:
        """Write weights, optimiser and progress; the JSON is renamed last and names the tensor file, so a kill leaves a whole pair."""
        tensors = {f"model::{k}": v.detach().clone() for k, v in self.model.named_parameters()}
        tensors |= {f"optimizer::{k}": v for k, v in self.optimizers.state().items()}
        file = f"{name}-{self.progress.branch}-{self.progress.step}.safetensors"
        save_file(tensors, self.path / file)
        text = json.dumps({"tensors": file, "progress": asdict(self.progress)})
        (self.path / f"{name}.tmp").write_text(text)
        os.replace(self.path / f"{name}.tmp", self.path / f"{name}.json")
        for old in self.path.glob(f"{name}-*.safetensors"):
            if old.name != file:
                old.unlink()

    def _load(self, name: str) -> None:
        saved = json.loads((self.path / f"{name}.json").read_text())
        tensors = load_file(self.path / saved["tensors"])
        with torch.no_grad():
            for key, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model::{key}"])
        self.optimizers = Optimizers(self.model, self.size)
        self.optimizers.load({k.removeprefix("optimizer::"): v for k, v in tensors.items() if k.startswith("optimizer::")})
        self.progress = Progress(**saved["progress"])

    def _scale(self) -> float:
        """Learning rate as a share of its peak: linear warm-up, constant, linear decay to zero on a branch."""
        p = self.progress
        if p.branch >= 0:
            span = self.size.decay_fraction * p.branch_start
            return max(0.0, 1.0 - (p.tokens - p.branch_start) / span)
        return min(1.0, (p.step + 1) / self.size.warmup_steps)

    def _train_step(self) -> float:
        batches = batch_of_step(self.size, self.progress.step)
        targets = sum(b.n_targets for b in batches)
        total = 0.0
        for batch in batches:
            loss = _loss_sum(self.model, batch) / targets
            loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizers.step(self._scale())
        self.progress.step += 1
        self.progress.tokens += sum(b.n_tokens for b in batches)
        return total

    def _record(self, kind: str, loss: float) -> dict[str, Any]:
        p = self.progress
        row = {
            "model": self.size.name,
            "kind": kind,
            "n_params": sum(q.numel() for q in self.model.parameters()),
            "tokens": p.tokens,
            "branch_tokens": p.branch_start if p.branch >= 0 else 0,
            "step": p.step,
            "loss": loss,
            "seconds": round(p.seconds, 1),
        }
        p.log.append(row)
        return row

    def steps(self) -> Iterator[dict[str, Any]]:
        """Train to the end of the last branch, yielding each row of the log as it is made."""
        size, p = self.size, self.progress
        saved = clock = time.monotonic()
        while p.next_branch < len(size.branches) or p.branch >= 0:
            if p.branch < 0 and p.tokens >= size.branches[p.next_branch]:
                self._save("trunk")
                p.branch, p.branch_start = p.next_branch, p.tokens
                self._save("state")
            loss = self._train_step()
            p = self.progress
            now = time.monotonic()
            p.seconds += now - clock
            clock = now
            if p.step % 100 == 0:
                yield self._record("in_schedule", loss)
            if p.branch >= 0 and self._scale() == 0.0:
                row = self._record("branch", heldout_loss(self.model, size.seed))
                log, branch, seconds = p.log, p.branch, p.seconds
                self.model.save_pretrained(self.path / f"branch-{branch}")
                self._load("trunk")
                p = self.progress
                p.log, p.next_branch, p.branch, p.seconds = log, branch + 1, -1, seconds
                self._save("state")
                clock = time.monotonic()
                yield row
            elif now - saved > CHECKPOINT_EVERY_S:
                self._save("state")
                saved = now


def train(size: Size, work: Path, out: Path) -> None:
    """Train one size to its last branch in `work` (resumes there) and write the shipped folder `out`.

    `out` holds the weights of the shipped branch as float32 safetensors, config and tokenizer, and `training_log.csv`.
    """
    torch.set_num_threads(1)  # the order of sums, and so the weights, depends on the number of threads
    run = Run(size, work)
    with tqdm(total=size.branches[-1], initial=run.progress.tokens, unit="tok", unit_scale=True, desc=size.name, disable=None) as bar:
        for row in run.steps():
            bar.update(max(0, run.progress.tokens - bar.n))
            bar.set_postfix(loss=f"{row['loss']:.4f}")
            if row["kind"] == "branch":
                print(f"{size.name}: branch at {row['branch_tokens']:,} tokens, held-out loss {row['loss']:.4f} nats/token", flush=True)
    ship(run, out)


def ship(run: Run, out: Path) -> None:
    """Copy the branch of a run that is shipped, with tokenizer and training log, to `out`.

    Raises
    ------
    InputError
        If that branch is not finished yet.
    """
    from transformers import Qwen2ForCausalLM

    branch = run.size.shipped % len(run.size.branches)
    if run.progress.next_branch <= branch:
        raise InputError(f"{run.path}: decay branch {branch} is not finished yet; train on")
    model = Qwen2ForCausalLM.from_pretrained(run.path / f"branch-{branch}", dtype=torch.float32)
    model.save_pretrained(out)
    build_tokenizer().save_pretrained(out)
    pd.DataFrame(run.progress.log).to_csv(out / "training_log.csv", index=False)
