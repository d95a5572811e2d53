"""Make ids.json: chains of the shipped ladder-160k in float64, greedy and sampled. Run it after raising SAMPLER_VERSION or new weights.

python tests/golden/make_golden_ids.py
"""

import json
import re
import tempfile
from pathlib import Path

import torch

from flopstat.engine import SAMPLER_VERSION, Request, SamplingSettings
from flopstat.models import describe, load_tokenizer
from flopstat.precisions import load
from flopstat.sampling import library_versions, prompt_ids
from flopstat.transformers_engine import TransformersEngine

PATH = Path(__file__).with_name("ids.json")
QUESTIONS = (
    "Mia has 7 more pencils than Ben. Ben has 25 pencils. How many pencils does Mia have?",
    "Eve has 3 times as many eggs as Tom. Zoe has 12 eggs. Tom has half as many eggs as Zoe. How many eggs does Eve have?",
    "Sam has 2 fewer books than Kai. Kai has 9 books. Ada has a third as many books as Zoe. Zoe has 5 more books than Sam. "
    "How many books does Ada have?",
)
SAMPLES = (-1, 0, 1, 2, 31)
SETTINGS = {"plain": SamplingSettings(20261121, 1.0, 1.0, 0, 48), "truncated": SamplingSettings(7, 1.3, 0.9, 20, 48)}


def draw(name: str) -> list[dict]:
    """Chains of one setting, problem by problem."""
    card = describe({"name": "ladder-160k", "source": "ladder"}, Path(tempfile.gettempdir()))
    tokenizer = load_tokenizer(card)
    prompts = [prompt_ids(tokenizer, [{"role": "user", "content": q}]) for q in QUESTIONS]
    torch.set_num_threads(1)
    engine = TransformersEngine(load(card, "fp32", "float64", "cpu"), SETTINGS[name], [tokenizer.eos_token_id], 8)
    chains = engine.draw([Request(f"golden-{q}", p, i) for q, p in enumerate(prompts) for i in SAMPLES])
    found = {(c.problem_key, c.sample): c for batch in chains for c in batch}
    return [
        {
            "problem": key,
            "sample": i,
            "finish": c.finish_reason,
            "ids": c.ids.tolist(),
            "text": tokenizer.decode(c.ids, skip_special_tokens=True),
        }
        for (key, i), c in sorted(found.items())
    ]


if __name__ == "__main__":
    card = describe({"name": "ladder-160k", "source": "ladder"}, Path(tempfile.gettempdir()))
    made = {"sampler_version": SAMPLER_VERSION, "weights_sha256": card.weights_sha256, "libraries": library_versions()}
    text = json.dumps(made | {name: draw(name) for name in SETTINGS}, indent=1)
    PATH.write_text(re.sub(r",\s+(?=\d)|(?<=\[)\s+(?=\d)|(?<=\d)\s+(?=\])", lambda m: m[0].rstrip(), text) + "\n", encoding="utf-8")
