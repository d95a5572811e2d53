"""The engine: chains do not depend on batch, company, order or memory, and are what a plain loop without cache gives."""

import copy
import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from flopstat import transformers_engine
from flopstat.engine import GREEDY, SAMPLER_VERSION, Extension, Request, SamplingSettings
from flopstat.errors import InputError
from flopstat.randomness import uniforms
from flopstat.transformers_engine import TransformersEngine

ENDS = (1, 20, 21, 22)  # several, so that random models end chains at all lengths
PROMPTS = [tuple(np.random.default_rng(i).integers(2, 68, size=n).tolist()) for i, n in enumerate((3, 11, 7, 11, 1))]
REQUESTS = [Request(f"p{i}", prompt, sample) for i, prompt in enumerate(PROMPTS) for sample in (GREEDY, 0, 1, 2, 3, 9)]


def settings(max_tokens=14, temperature=0.8, top_p=0.95, top_k=30, min_p=0.002, extension=None):
    return SamplingSettings(11, temperature, top_p, top_k, max_tokens, min_p, extension)


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
        order = np.argsort(-q, kind="stable")[: s.top_k or len(q)]
        before = np.cumsum(q[order]) - q[order]
        keep = order[(before < s.top_p * q[order].sum()) & (q[order] >= s.min_p * q.max())]
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


@pytest.mark.parametrize("rows", [2, 6])
def test_logits_after_joins_and_leaves_equal_a_lone_run(random_model, rows):
    """In float32, where a row's neighbours change: every draw's logits within 1e-4 of those of the same chain alone."""

    class Traced(TransformersEngine):
        def _choose(self, which, logits):
            for r, row in zip(which, logits, strict=True):
                request = self._batch.requests[r]
                seen[request.problem_key, request.sample, int(self._batch.length[r])] = row.clone()
            return super()._choose(which, logits)

    model = copy.deepcopy(random_model).float()
    runs = []
    for size, requests in ((rows, [REQUESTS]), (1, [[r] for r in REQUESTS])):
        seen = {}
        for some in requests:
            for _ in Traced(model, settings(), ENDS, size).draw(some):
                pass
        runs.append(seen)
    assert runs[0].keys() == runs[1].keys()
    assert len(runs[0]) > 150
    assert max(float((runs[0][k] - runs[1][k]).abs().max()) for k in runs[0]) < 1e-4


ARCHITECTURES = {
    "Llama": {},
    "Mistral": {"sliding_window": 6},
    "Qwen2": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "Qwen3": {"head_dim": 8},
    "Gemma2": {"sliding_window": 6, "head_dim": 8},
    "Cohere2": {"sliding_window": 6},
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_other_architectures_equal_a_plain_loop(saved_model, kind):
    """Grouped queries, sliding windows in all or in some layers, soft-capped attention: slots and masks hold for all of them."""
    model = AutoModelForCausalLM.from_pretrained(saved_model(kind, **ARCHITECTURES[kind]), dtype=torch.float64).eval()
    for parameter in model.parameters():
        parameter.data *= 8 if parameter.ndim == 2 else 1
    got = draw(model, rows=5)
    for request in REQUESTS:
        assert got[request.problem_key, request.sample].ids.tolist() == naive(model, request, settings(), ENDS)[0]


def test_layers_that_are_no_attention_are_refused():
    config = transformers.MambaConfig(vocab_size=69, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(InputError, match=r"mamba: layers of type .* are not supported"):
        TransformersEngine(transformers.MambaForCausalLM(config), settings(), ENDS, 4)


def test_each_prompt_is_prefilled_once_and_rows_are_kept_busy(random_model):
    engine = TransformersEngine(random_model, settings(), ENDS, 4)
    batches = list(engine.draw(REQUESTS))
    assert engine.account.prompt_tokens == sum(map(len, PROMPTS))  # 30 chains of 5 prompts, entering 4 rows one after the other
    assert sum(map(len, batches)) == len(REQUESTS)
    assert len(batches) > 10  # chains come as they finish
    assert list(engine.draw([])) == []


def test_free_memory_sets_the_batch(random_model, monkeypatch):
    engine = TransformersEngine(random_model, settings(), ENDS, None)
    assert engine._capacity(20, 20, 0.5) == transformers_engine.MOST_ROWS
    per_row = 2 * 2 * 2 * 8 * 8 * 30 + 16 * 69  # keys and values: 2 layers, 2 heads of 8, float64, 20 + 20 / 2 tokens; and the logits
    monkeypatch.setattr(transformers_engine, "free_bytes", lambda device: 10 * per_row / transformers_engine.MEMORY_SHARE)
    assert engine._capacity(20, 20, 0.5) == 10
    monkeypatch.setattr(transformers_engine, "free_bytes", lambda device: 0)
    assert engine._capacity(20, 20, 0.5) == 1
    assert {k: c.ids.tolist() for k, c in draw(random_model, REQUESTS[:7], rows=None).items()} == {
        k: c.ids.tolist() for k, c in draw(random_model, REQUESTS[:7]).items()
    }


OUT_OF_MEMORY = """
import resource, sys
import psutil, torch
from transformers import AutoModelForCausalLM
from flopstat.engine import Request, SamplingSettings
from flopstat.transformers_engine import TransformersEngine
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float64)
requests = [Request(f"p{p}", (5, 6 + p), i) for p in range(3) for i in range(20)]
def draw(rows):
    engine = TransformersEngine(model, SamplingSettings(1, 1.0, 1.0, 0, 100), [99], rows)
    return {(c.problem_key, c.sample): c.ids.tolist() for chains in engine.draw(requests) for c in chains}, engine.account
few, _ = draw(20)
size = psutil.Process().memory_info().vms + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
many, account = draw(60)
print(account.halvings, account.lost_tokens, few == many, account.chains)
requests = [Request("long", (5, 6) * 5000, 0)]
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (20 << 20), resource.RLIM_INFINITY))
try:
    draw(1)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_memory_that_runs_out_halves_the_batch_and_loses_no_row(saved_model):
    """For real, in a process of its own whose address space is limited: 60 rows of keys and values do not fit."""
    folder = saved_model(hidden_size=512, num_attention_heads=4, num_key_value_heads=4, intermediate_size=64)
    # 60 rows × 2 layers × 2 × 512 × 8 bytes × 102 tokens = 100 MB
    out = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(folder), str(40 << 20)], capture_output=True, text=True, timeout=300, check=False
    )
    assert out.returncode == 0, out.stderr[-2000:]
    halvings, lost, same, chains = out.stdout.splitlines()[0].split()
    assert int(halvings) >= 1
    assert int(lost) > 0
    assert (same, chains) == ("True", "60")
    assert re.search(r"InputError qwen2: not even one chain of 10100 tokens fits into memory on cpu; lower budgets.T", out.stdout)


@pytest.mark.parametrize("call", [1, 2, 9, 16])
def test_memory_that_runs_out_inside_the_model_changes_no_chain(random_model, chains, call):
    """In the middle of a forward pass, when the first layer has written its keys: the step is taken again with half of the rows."""
    model, calls = copy.deepcopy(random_model), []

    def full(module, inputs):
        calls.append(1)
        if len(calls) == call:
            raise torch.OutOfMemoryError("out of memory")

    model.model.layers[1].register_forward_pre_hook(full)
    engine = TransformersEngine(model, settings(), ENDS, 12)
    drawn = {(c.problem_key, c.sample): c.ids.tolist() for batch in engine.draw(REQUESTS) for c in batch}
    assert engine.account.halvings == 1
    assert drawn == {key: chain.ids.tolist() for key, chain in chains.items()}


def test_logits_that_are_not_finite_fail_one_chain_only(saved_model):
    """A broken embedding: the chain that draws this token fails at the next step, its neighbours go on."""
    model = AutoModelForCausalLM.from_pretrained(saved_model(tie_word_embeddings=False), dtype=torch.float64).eval()
    good = draw(model, rows=7, max_tokens=40)
    token = max(range(69), key=lambda t: sum(t in c.ids[:-1] for c in good.values()) if t not in ENDS else -1)
    model.model.embed_tokens.weight.data[token] = float("nan")
    requests = [r for r in REQUESTS if token not in r.prompt_ids]
    broken = draw(model, requests, rows=7, max_tokens=40)
    failed = {k for k, c in broken.items() if c.finish_reason == "engine_error"}
    assert failed == {k for k, c in good.items() if k in broken and token in c.ids[:-1]}
    assert 0 < len(failed) < len(broken)
    for key, chain in broken.items():
        ids = good[key].ids.tolist()
        assert chain.ids.tolist() == (ids[: ids.index(token) + 1] if key in failed else ids)


def test_a_prompt_that_breaks_the_model_gives_a_chain_without_tokens(saved_model):
    model = AutoModelForCausalLM.from_pretrained(saved_model(tie_word_embeddings=False), dtype=torch.float64).eval()
    model.model.embed_tokens.weight.data[7] = float("nan")
    chain = draw(model, [Request("bad", (3, 7, 4), 0)])["bad", 0]
    assert (chain.finish_reason, len(chain.ids), len(chain.confidence)) == ("engine_error", 0, 0)


def test_an_empty_prompt_is_refused(random_model):
    with pytest.raises(InputError, match="problem nothing: its prompt has no tokens"):
        list(TransformersEngine(random_model, settings(), ENDS, 4).draw([Request("nothing", (), 0)]))


def test_rows_have_temperatures_and_limits_of_their_own(random_model, chains):
    requests = [replace(r, temperature=[0.8, 3.0][i % 2], max_tokens=[14, 4][i % 3 == 0]) for i, r in enumerate(REQUESTS)]
    mixed = draw(random_model, requests, rows=6)
    hot = draw(random_model, temperature=3.0)
    for request in requests:
        key = request.problem_key, request.sample
        expected = (chains if request.temperature == 0.8 else hot)[key].ids[: request.max_tokens]
        assert mixed[key].ids.tolist() == expected.tolist()


def test_a_forced_answer_has_a_stream_of_its_own(random_model):
    request = next(r for r in REQUESTS if r.sample == 0)
    both = [replace(request, budget=b) for b in (0, 16, 32)]
    ids = [tuple(c.ids) for batch in TransformersEngine(random_model, settings(), ENDS, 8).draw(both) for c in batch]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_an_extension_replaces_ends_that_come_too_early(random_model, rows):
    extension = Extension(ids=(60, 61, 62), times=2, minimum=9)
    plain = draw(random_model, max_tokens=30)
    extended = draw(random_model, rows=rows, max_tokens=30, extension=extension)
    grown = 0
    for key, chain in extended.items():
        ids, before = chain.ids.tolist(), plain[key].ids.tolist()
        ends = before[-1] in ENDS
        if not ends or len(before) > extension.minimum:
            assert ids == before
            assert chain.inserted == 0
            continue
        grown += 1
        assert ids[: len(before) - 1] == before[:-1]
        assert ids[len(before) - 1 : len(before) + 2] == [60, 61, 62]
        assert chain.inserted in (3, 6)
        if chain.finish_reason == "eos" and len(ids) <= extension.minimum:
            assert chain.inserted == 6
        prompt = next(r.prompt_ids for r in REQUESTS if (r.problem_key, r.sample) == key)
        with torch.no_grad():
            log_p = torch.log_softmax(random_model(torch.tensor([[*prompt, *ids]])).logits[0], -1)
        exact = log_p[range(len(prompt) - 1, len(prompt) + len(ids) - 1), ids]
        np.testing.assert_allclose(chain.logprob, exact.numpy(), atol=1e-4)  # of inserted tokens too
    assert grown > 5


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
