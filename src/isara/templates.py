"""Chat templates are programs of whoever made the model: one that never ends, or writes without end, is found out."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

SECONDS = 10  # of the processor; a busy machine may take far longer by the clock
_PATIENCE = 12  # times as long by the clock, where the processor's time is not limited
_MOST_MEMORY = 2**30  # bytes
_MOST_CHARACTERS = 1_000_000
_RAN_OUT = 3
# A process of its own, since nothing else stops a loop in Python, or a text that doubles, for certain. It knows the
# template language alone. Whatever else is wrong with a template, the tokenizer's library will say.
_SCRIPT = f"""
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({_MOST_MEMORY}, {_MOST_MEMORY}))
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]), int(sys.argv[1])))
except (ImportError, ValueError, OSError):
    pass
def refuse(message):
    raise ValueError(message)
try:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    given = json.load(sys.stdin)
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False)
    env.globals.update(raise_exception=refuse, strftime_now=lambda form: "")
    text = re.sub(r"{{%-?\\s*(end)?generation\\s*-?%}}", "", given["template"])
    size = 0
    for piece in env.from_string(text).generate(**given["context"]):
        size += len(piece)
        if size > {_MOST_CHARACTERS}:
            sys.exit({_RAN_OUT})
except MemoryError:
    sys.exit({_RAN_OUT})
except Exception:
    pass
"""


def runs_away(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str | None:
    """What a tokenizer's own chat template does beyond all bounds when it writes a few short messages, or None."""
    if not isinstance(tokenizer.chat_template, str):
        return None
    tokens = {name: text for name, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
    context = {"messages": list(messages), "add_generation_prompt": False, **tokens}
    return _runs_away(json.dumps({"template": tokenizer.chat_template, "context": context}))


@lru_cache(maxsize=64)
def _runs_away(given: str) -> str | None:
    command, endless = [sys.executable, "-P", "-c", _SCRIPT, str(SECONDS)], f"does not end within {SECONDS} seconds"
    limit = SECONDS * _PATIENCE
    try:
        done = subprocess.run(command, input=given.encode(), capture_output=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return endless
    if done.returncode < 0:  # killed, as it is when its time has run out
        return endless
    return "writes without end" if done.returncode == _RAN_OUT else None
