"""Chat templates: programs that come with a model, rendered by transformers' sandbox in a child process with limits of time and memory.

A template may ask for the date or draw at random: both are the same in every run, so that a pool's prompts are.
"""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any

from flopstat.children import Child, serve
from flopstat.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TIMEOUT_S = 10.0  # for one prompt
MEMORY_BYTES = 4 * 2**30
MAX_PROMPT = 10_000_000  # characters
# ASSUME a chat template that asks for today's date is told 26 July 2024, as Llama 3.x's say where they can't ask
TODAY = datetime.datetime(2024, 7, 26)

_child = Child("flopstat.templates", "chat templates can't be rendered; are transformers and jinja2 installed? run flopstat doctor")


class _Clock(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> _Clock:
        return cls(*TODAY.timetuple()[:6], tzinfo=tz)


def render(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]]) -> str:
    """The text that a tokenizer's chat template makes of messages, with the generation prompt.

    Raises
    ------
    InputError
        If the template refuses them, fails, or takes more time or memory than any prompt needs.
    """
    whose = f"the chat template of {tokenizer.name_or_path}"
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        raise InputError(f"{whose}: {' '.join(str(error).split())[:200]}") from None
    line = _child.put([template, {k: str(v) for k, v in tokenizer.special_tokens_map.items()}, messages], TIMEOUT_S)
    if not line:
        limit = f"takes more than {TIMEOUT_S:g} s" if line is None else f"dies within {MEMORY_BYTES >> 30} GiB of memory"
        raise InputError(f"{whose} {limit} for a prompt; check its chat_template")
    text, why = json.loads(line)
    if why is not None:
        raise InputError(f"{whose} refuses the prompt ({why}); check prompt and template")
    return str(text)


def _rendered(question: list[Any]) -> tuple[str | None, str | None]:
    """The text, or what went wrong, in the child."""
    import random

    from transformers.utils import chat_template_utils

    chat_template_utils.datetime = _Clock  # type: ignore[attr-defined]  # its name for the class
    random.seed(0)
    template, tokens, messages = question
    try:
        made = chat_template_utils.render_jinja_template([messages], chat_template=template, add_generation_prompt=True, **tokens)
        text = made[0][0]
        if len(text) > MAX_PROMPT:
            raise ValueError(f"a prompt of {len(text)} characters")
        text.encode()  # no half of a pair
    except Exception as error:  # of a program that others wrote: any
        name = "" if type(error).__name__ == "TemplateError" else f"{type(error).__name__}: "
        return None, name + " ".join(str(error).split())[:200]
    return text, None


if __name__ == "__main__":
    _rendered(["", {}, [{"role": "user", "content": ""}]])
    serve(_rendered, MEMORY_BYTES)
