"""Stand-ins for the hub models of a study: small checkpoints with random weights and the real ones' shape, in a hub cache of their own.

A study that needs a GPU and the hub is rehearsed with them anywhere: its config names the same repositories at the same commits, and
transformers finds the stand-ins there. They say nothing about accuracy, which is that of random text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat.config import Config
from flopstat.errors import InputError
from flopstat.plan_inputs import SHAPES
from flopstat.precisions import BLOCK, quiet
from flopstat.problems import ladder_rows
from flopstat.shape import read_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NARROWER = 8  # times: heads of 128 become heads of 16, and there are as many of them
LAYERS = 2
TOKENS = 300  # of the tokenizer, control tokens apart
LISTENING = 8  # times: the layers' matrices, or else a model repeats its last token whatever stands before it
END_LOGIT = 0.2  # mean logit of a token that ends a text, others have 0: texts of some hundred tokens, as worked solutions have
REAL_TOKENS = 151_665  # of Qwen2.5's tokenizer; its models have some hundred ids more, which are no tokens
SHARDS = 4  # files of an untied model, as the 7B has; a tied one has a single file, as the 1.5B
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# Letters, digits one by one, signs, spaces: what Qwen's tokenizer never joins.
WORDS = r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+|\s+"
CHAT_TEMPLATE = """{%- if messages[0]['role'] == 'system' %}
{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}{%- else %}
{{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}{%- endif %}
{%- for message in messages %}{%- if message.role == 'user' or message.role == 'assistant' %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""


def tokenizer_of(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of Qwen2.5's make, learned from some texts: control tokens behind all others, no token that begins a text."""
    import tokenizers
    import transformers

    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.normalizer = tokenizers.normalizers.NFC()
    words = tokenizers.pre_tokenizers.Split(tokenizers.Regex(WORDS), "isolated")
    as_bytes = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([words, as_bytes])
    bpe.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(vocab_size=TOKENS, initial_alphabet=alphabet, show_progress=False))
    bpe.add_special_tokens([END, START, STOP])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=STOP, pad_token=END)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def small_shape(real: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The config.json of a stand-in: heads, their sharing, context and tying as in the real one, all widths an eighth, two layers.

    Of the ids that are no tokens a sixteenth is kept. Widths of the MLP are whole blocks of 64, which four bits need.
    """
    return real | {
        "hidden_size": real["hidden_size"] // NARROWER,
        "intermediate_size": -(-real["intermediate_size"] // (NARROWER * BLOCK)) * BLOCK,
        "num_hidden_layers": LAYERS,
        "vocab_size": tokens + max(0, real["vocab_size"] - REAL_TOKENS) // 16,
    }


def save_standin(folder: Path, shape: dict[str, Any], tokenizer: PreTrainedTokenizerFast, seed: int, dtype: str = "bfloat16") -> None:
    """Write a random Qwen2 with its tokenizer, laid out as Qwen2.5's repositories are.

    Biases are not zero, and an untied model lies in several files behind an index. config.json and generation_config.json have the real
    ones' keys, the older names among them: a window that is switched off, several tokens that end a text, sampling settings that a study
    replaces by its own.
    """
    import torch
    import transformers

    quiet()
    transformers.utils.logging.disable_progress_bar()
    end, stop = (tokenizer.convert_tokens_to_ids(name) for name in (END, STOP))
    config = transformers.Qwen2Config(**{k: v for k, v in shape.items() if k not in ("architectures", "model_type")})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.Qwen2ForCausalLM(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zeros otherwise, which hide a bias that gets lost
                torch.nn.init.normal_(parameter, std=0.1)
            elif "layers" in name and parameter.ndim == 2:
                parameter.data *= LISTENING
        with torch.no_grad():
            mean = model.model(torch.randint(len(tokenizer), (8, 64))).last_hidden_state.mean(dim=(0, 1))
        model.lm_head.weight.data[[end, stop]] = END_LOGIT * mean / mean.square().sum()
    model.to(getattr(torch, dtype))
    n_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    model.save_pretrained(folder, max_shard_size=n_bytes if shape["tie_word_embeddings"] else -(-n_bytes // SHARDS))
    own: dict[str, Any] = {"bos_token_id": end, "eos_token_id": stop, "torch_dtype": dtype, "use_cache": True, "hidden_act": "silu"}
    own |= {"rms_norm_eps": 1e-6, "rope_theta": 1e6, "initializer_range": 0.02, "attention_dropout": 0.0}
    own |= {"sliding_window": shape["max_position_embeddings"], "max_window_layers": LAYERS}
    _write(folder / "config.json", shape | own)
    generation: dict[str, Any] = {"bos_token_id": end, "pad_token_id": end, "eos_token_id": [stop, end], "do_sample": True}
    generation |= {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
    _write(folder / "generation_config.json", generation)
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    named = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    _write(folder / "tokenizer_config.json", named | {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None})


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def build_standins(config: Config, cache: Path) -> list[Path]:
    """Fill a hub cache with stand-ins for every hub model of a study; those that are there already stay.

    Parameters
    ----------
    cache : Path
        To be named by HF_HUB_CACHE, with HF_HUB_OFFLINE=1, so that nothing is downloaded.

    Returns
    -------
    list of Path
        The checkpoints' folders.

    Raises
    ------
    InputError
        If a model is not the hub's, or its shape is neither shipped nor Qwen2's.
    """
    tokenizer, out = None, []
    for number, entry in enumerate(config["models"]):
        if entry["source"] != "hub":
            raise InputError(f"models {entry['name']}: source {entry['source']} needs no stand-in; rehearse a study of hub models")
        shape = SHAPES / f"{entry['shape'] or entry['name']}.json"
        real = read_config(shape) if shape.is_file() else {}
        if real.get("model_type") != "qwen2":
            raise InputError(f"models {entry['name']}: no shape of a Qwen2 at {shape}; only such models have stand-ins")
        folder = cache / f"models--{entry['repo'].replace('/', '--')}" / "snapshots" / entry["revision"]
        if not (folder / "tokenizer_config.json").is_file():  # the last file that is written
            if tokenizer is None:
                rows = ladder_rows((("calibration", 200),), 6, 0, config["seed"])
                tokenizer = tokenizer_of([row["question"] + "\n" + row["answer"] for row in rows])
            folder.mkdir(parents=True, exist_ok=True)
            save_standin(folder, small_shape(real, len(tokenizer)), tokenizer, config["seed"] + number)
        out.append(folder)
    return out


def write_problems(path: Path, n: int, seed: int) -> None:
    """Generated problems in GSM8K's form."""
    rows = ladder_rows((("study", n),), 6, 0, seed)
    lines = [json.dumps({"question": row["question"], "answer": row["answer"]}, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def overlay(config: Config, problems: Path, sizes: tuple[int, int], samples: int, device: str) -> Config:
    """What a rehearsal changes of a study: name, title, problems, K, device, and the models' names; all else is the study's own.

    Parameters
    ----------
    sizes : (int, int)
        Study and calibration problems.
    """
    models = [
        {k: v for k, v in entry.items() if v is not None}
        | {"name": f"Random-{entry['name'].partition('-')[2] or entry['name']}", "shape": entry["shape"] or entry["name"]}
        for entry in config["models"]
    ]
    return {
        "study": f"rehearsal-{config['study']}"[:63],
        "title": f"Rehearsal with random weights: {config['study']}",
        "dataset": {"source": "local", "path": str(problems), "n_study": sizes[0], "n_calibration": sizes[1]},
        "models": models,
        "sampling": {"samples": samples, "device": device},
    }
