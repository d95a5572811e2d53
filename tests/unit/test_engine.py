"""The engine: chains do not depend on batch or order, and are what a plain loop without cache gives."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from flopstat.engine import GREEDY, SAMPLER_VERSION, Request, SamplingSettings, TransformersEngine
from flopstat.randomness import uniforms

ENDS = (1, 20, 21, 22)  # several, so that random models end chains at all lengths
PROMPTS = [tuple(np.random.default_rng(i).integers(2, 68, size=n).tolist()) for i, n in enumerate((3, 11, 7, 11, 1))]
REQUESTS = [Request(f"p{i}", prompt, sample) for i, prompt in enumerate(PROMPTS) for sample in (GREEDY, 0, 1, 2, 3, 9)]


def settings(max_tokens=14, temperature=0.8, top_p=0.95, top_k=30):
    return SamplingSettings(11, temperature, top_p, top_k, max_tokens)


def draw(model, requests=REQUESTS, rows=64, ends=ENDS, **kwargs):
    engine = TransformersEngine(model, settings(**kwargs), ends, rows)
    chains = [chain for batch in engine.draw(requests) for chain in batch]
    assert engine.account.chains == len(chains) == len(requests)
    assert engine.account.new_tokens == sum(len(c.ids) for c in chains)
    return {(c.problem_key, c.sample): c for c in chains}


@pytest.fixture(scope="module")
def chains(random_model):
    return draw(random_model)


def naive(model, request, s, ends):
    """One chain, the whole sequence through the model at every step, probabilities in numpy."""
    ids, stats = list(request.prompt_ids), []
    u = uniforms(s.seed, request.problem_key, max(request.sample, 0), s.max_tokens)
    for t in range(s.max_tokens):
        with torch.no_grad():
            z = model(torch.tensor([ids])).logits[0, -1].numpy()
        log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
        q = np.exp(z / s.temperature - (z / s.temperature).max())
        q /= q.sum()
        order = np.argsort(-q, kind="stable")
        before = np.cumsum(q[order]) - q[order]
        keep = order[(before < s.top_p) & (np.arange(len(q)) < (s.top_k or len(q)))]
        p = np.zeros_like(q)
        p[keep] = q[keep]
        drawn = int(np.searchsorted(np.cumsum(p), u[t] * p.sum(), side="right"))
        token = int(z.argmax()) if request.sample == GREEDY else drawn
        ids.append(token)
        entropy = -(np.exp(log_p) * log_p).sum()
        stats.append([log_p[token], entropy, -log_p.mean() - np.log(len(z)), -np.sort(log_p)[-20:].mean()])
        if token in ends:
            break
    return ids[len(request.prompt_ids) :], np.array(stats)


def test_equals_a_plain_loop_without_cache(random_model, chains):
    for request in REQUESTS:
        chain = chains[request.problem_key, request.sample]
        ids, stats = naive(random_model, request, settings(), ENDS)
        assert chain.ids.tolist() == ids
        got = np.column_stack([chain.logprob, chain.entropy, chain.self_certainty, chain.confidence])
        np.testing.assert_allclose(got, stats, rtol=2e-4, atol=2e-4)
        assert chain.prompt_tokens == len(request.prompt_ids)


@pytest.mark.parametrize("rows", [1, 5])
def test_ids_do_not_depend_on_the_batch(random_model, chains, rows):
    other = draw(random_model, rows=rows)
    assert {k: c.ids.tolist() for k, c in other.items()} == {k: c.ids.tolist() for k, c in chains.items()}


def test_ids_do_not_depend_on_the_order_or_company(random_model, chains):
    shuffled = [REQUESTS[i] for i in np.random.default_rng(0).permutation(len(REQUESTS))]
    for some in (shuffled, shuffled[::3], shuffled[:1]):
        for key, chain in draw(random_model, some, rows=7).items():
            assert chain.ids.tolist() == chains[key].ids.tolist()


def test_a_smaller_budget_gives_the_prefix(random_model, chains):
    for key, short in draw(random_model, max_tokens=5).items():
        assert short.ids.tolist() == chains[key].ids[:5].tolist()
        ended = short.ids[-1] in ENDS
        assert short.finish_reason == ("eos" if ended else "length")
        assert ended or len(short.ids) == 5


def test_chains_end_at_the_first_end_token(chains):
    reasons = [c.finish_reason for c in chains.values()]
    assert {"eos", "length"} == set(reasons)
    for chain in chains.values():
        inner, last = chain.ids[:-1], chain.ids[-1]
        assert not set(inner.tolist()) & set(ENDS)
        assert (chain.finish_reason == "eos") == (int(last) in ENDS)
        assert chain.finish_reason == "eos" or len(chain.ids) == 14
        assert len(chain.ids) == len(chain.logprob) == len(chain.entropy) == len(chain.self_certainty) == len(chain.confidence)


def test_an_end_at_the_last_allowed_token_counts_as_an_end(random_model, chains):
    key, chain = next((k, c) for k, c in chains.items() if c.finish_reason == "eos" and len(c.ids) > 2)
    request = next(r for r in REQUESTS if (r.problem_key, r.sample) == key)
    again = draw(random_model, [request], max_tokens=len(chain.ids))[key]
    assert (again.finish_reason, again.ids.tolist()) == ("eos", chain.ids.tolist())


def test_golden_ids_of_the_shipped_model(root):
    """Ids may only change together with SAMPLER_VERSION (or new weights); then run the script again."""
    path = root / "tests" / "golden" / "make_golden_ids.py"
    spec = importlib.util.spec_from_file_location("make_golden_ids", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    golden = json.loads(script.PATH.read_text(encoding="utf-8"))
    assert golden["sampler_version"] == SAMPLER_VERSION, f"SAMPLER_VERSION was raised: run {path}"
    assert golden["weights_sha256"] == script.describe({"name": "ladder-160k", "source": "ladder"}, root).weights_sha256, f"run {path}"
    for name in script.SETTINGS:
        assert script.draw(name) == golden[name]
    assert any("####" in c["text"] for c in golden["plain"])
