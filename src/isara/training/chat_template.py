"""The chat template of an exported model: it asks as the training did, so that every program that reads it does.

Training leaves out the system text that some templates add by themselves, and shows a base model `Question: …` and
`Answer: …`. A program that knows nothing of that gets the same text from the template in the model's folder.
"""

import json
import logging
from dataclasses import asdict
from string import Template
from typing import Any

from isara.records import QAPair
from isara.render import PromptFormat, Renderer
from isara.templates import runs_away

log = logging.getLogger("isara")

_PROBES = (
    QAPair("Which way is north?", ""),
    QAPair("And south?", "", before=(("Which way is north?", "Away from the sun at noon."),)),
)
_REFUSED = """{{ raise_exception('this model was trained without system messages and tools: leave them out') }}"""
_THOUGHTS = Template("{% if add_generation_prompt and enable_thinking is not defined %}{{ $before_last }}{% endif %}")
# What stands for `$special` keeps its new lines, so nothing around it may strip them. Elsewhere every tag does.
_TEMPLATE = Template("""\
{% if messages[0]['role'] == 'system' or tools %}$special{% else %}
{{- $start -}}
{%- for message in messages -%}
    {%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}
        {{- raise_exception('expected messages of user and assistant in turn, the first of the user') -}}
    {%- endif -%}
    {%- if message['role'] == 'user' -%}
        {{- $lead + message['content'] -}}
        {%- if not loop.last or add_generation_prompt -%}
            {{- $to_answer -}}
        {%- endif -%}
        {%- if loop.revindex0 == 1 or loop.last and add_generation_prompt -%}
            {{- $before_last -}}
        {%- endif -%}
    {%- else -%}
        {{- $lead + ($answer) -}}
        {{- $end if loop.last else $to_question -}}
    {%- endif -%}
{%- endfor -%}
{% endif %}
""")


def chat_template(fmt: PromptFormat, bos: str = "", original: str = "") -> str:
    """A Jinja template that writes a dialogue as `fmt` does.

    Args:
        fmt: The format that the model was trained in.
        bos: What the tokenizer puts before a prompt by itself; it puts nothing before what a template wrote.
        original: A template that writes a dialogue with a system message or tools, which training never saw; without
            one, they are refused.
    """
    pieces = {
        name: json.dumps(text, ensure_ascii=False)  # as Jinja writes a string
        for name, text in (*asdict(fmt).items(), ("start", bos + fmt.start))
        if isinstance(text, str)
    }
    special = _REFUSED
    if original:
        # A new line after a block tag is not part of a template's text.
        thoughts = _THOUGHTS.substitute(pieces) if fmt.before_last else ""
        special = "\n" + original.removesuffix("\n") + thoughts
    # A model that writes the lead itself has it at the head of the answers that come back to it.
    answer = "message['content'] | trim" if fmt.lead else "message['content']"
    return _TEMPLATE.substitute(pieces, special=special, answer=answer)


def exported_template(tokenizer: Any, renderer: Renderer) -> str | None:
    """The template for the export of a model; None where the tokenizer's own asks as the renderer does already."""
    if _asks_alike(tokenizer, renderer, None):
        return None
    fmt = renderer.format
    bos = "".join(tokenizer.convert_ids_to_tokens(list(renderer.text("").ids)))
    original = tokenizer.get_chat_template() if fmt.name == "chat" else ""
    # Some tokenizers begin a text with a space of their own, but not the text that follows a BOS which is written out.
    templates = [chat_template(fmt, bos + space, original) for space in ("", " ")]
    for template in templates:
        if _asks_alike(tokenizer, renderer, template):
            return template
    log.warning("the exported chat template gives other tokens than training did: the tokenizer splits its text anew")
    return templates[0]


def messages_of(pair: QAPair) -> list[dict[str, str]]:
    """A pair's question and the turns before it, as chat messages."""
    turns = [*pair.before, (pair.question, "")]
    roles = ("user", "assistant")
    messages = [{"role": role, "content": text} for turn in turns for role, text in zip(roles, turn, strict=True)]
    return messages[:-1]


def _asks_alike(tokenizer: Any, renderer: Renderer, template: str | None) -> bool:
    """Whether a template (None is the tokenizer's own) gives the very tokens of the renderer's prompts."""
    for pair in _PROBES:
        if template is None and runs_away(tokenizer, messages_of(pair)):
            return False
        try:
            ids = tokenizer.apply_chat_template(
                messages_of(pair), chat_template=template, add_generation_prompt=True, tokenize=True, return_dict=False
            )
        except Exception:  # jinja2 raises whatever the template's author chose, and there may be no template
            return False
        if tuple(ids) != renderer.answer((), pair).ids:
            return False
    return True
