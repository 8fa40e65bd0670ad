"""A Modelfile that asks as the training did: the same text to the byte, the same stops, greedy, without a system text.

The template is one of Go's text/template, as Ollama reads it. BOS is left to the GGUF file, which says whether it is
added.
"""

import json

from isara.render import PromptFormat


def modelfile(gguf: str, fmt: PromptFormat, bos: str, context: int, most: int) -> str:
    """The Modelfile of a GGUF file beside it.

    Args:
        gguf: The file's name.
        fmt: The format that the model was trained in.
        bos: What the GGUF file adds before a prompt by itself; "" for nothing.
        context: Most tokens that prompt and answer may have together.
        most: Most tokens of an answer.
    """
    stops = "".join(f"PARAMETER stop {_quoted(stop)}\n" for stop in fmt.answer_stops)
    return (
        "# Asks as the model was trained: without a system text, greedy. `ollama create NAME -f Modelfile`, then\n"
        "# `ollama run NAME`.\n"
        f"FROM ./{gguf}\n"
        f'TEMPLATE """{go_template(fmt, bos)}"""\n'
        f"{stops}"
        "PARAMETER temperature 0\n"
        "PARAMETER repeat_penalty 1\n"
        f"PARAMETER num_ctx {context}\n"
        f"PARAMETER num_predict {most}\n"
    )


def go_template(fmt: PromptFormat, bos: str = "") -> str:
    """The Go template that writes a dialogue up to its open answer as `fmt` does, without messages of other roles."""
    # An answer that the model gave comes back with the lead at its head, one of somebody else's without.
    answer = f'{{{{- if ne (printf "%.1s" .Content) {_go(fmt.lead)} -}}}}{_put(fmt.lead)}{{{{- end -}}}}'
    last = f"{{{{- if eq (len (slice $.Messages $i)) 1 -}}}}{_put(fmt.before_last)}{{{{- end -}}}}"
    return (
        f"{_put(fmt.start.removeprefix(bos))}"
        "{{- range $i, $message := .Messages -}}"
        '{{- if eq .Role "user" -}}'
        f"{_put(fmt.lead)}{{{{- .Content -}}}}{_put(fmt.to_answer)}{last if fmt.before_last else ''}"
        '{{- else if eq .Role "assistant" -}}'
        f"{answer if fmt.lead else ''}{{{{- .Content -}}}}{_put(fmt.to_question)}"
        "{{- end -}}"
        "{{- end -}}"
    )


def _put(text: str) -> str:
    """The action that writes a text."""
    return f"{{{{- {_go(text)} -}}}}" if text else ""


def _go(text: str) -> str:
    """A text as Go writes it, in which JSON's escapes mean the same."""
    return json.dumps(text, ensure_ascii=False)


def _quoted(text: str) -> str:
    """A parameter's value: a Modelfile knows no escapes, and new lines stand between quotes as they are."""
    return f'"""{text}"""' if '"' in text else f'"{text}"'
