"""A GGUF file asked by llama.cpp, in a process of its own, and its answers beside the model's own.

A process of its own, because llama.cpp writes to stderr as it likes and ends its process where something doesn't fit.
"""

import http.client
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isara.errors import RunError
from isara.records import Prompt

INSTALL = "pip install xllamacpp"
_MOST_SAID = 300  # characters of what llama.cpp says
_RESULT = "isara answer: "  # before the line that holds one: llama.cpp may print others


@dataclass(frozen=True, slots=True)
class Said:
    """What llama.cpp made of a prompt.

    Attributes:
        ids: The prompt's tokens as it cut them.
        text: What it said, up to an end token.
        ended: Whether an end token closed it, rather than the limit of its length.
    """

    ids: tuple[int, ...]
    text: str
    ended: bool


@dataclass(frozen=True, slots=True)
class Agreement:
    """How llama.cpp's greedy answers compare with the model's own.

    Attributes:
        asked: How many questions.
        same_tokens: Of their prompts: how many were cut into the tokens of the training.
        same: How many answers are the same text.
        ended: How many ended with an end token.
        first: The first question that was answered otherwise, with the model's answer and llama.cpp's; or None.
    """

    asked: int
    same_tokens: int
    same: int
    ended: int
    first: tuple[str, str, str] | None

    def __str__(self) -> str:
        return (
            f"llama.cpp: of {self.asked} greedy answers {self.same} are the model's own to the letter "
            f"({self.same / self.asked:.0%}), {self.ended} end with the end token; {self.same_tokens} of the prompts "
            "have the training's tokens"
        )


def has_llamacpp() -> bool:
    """Whether llama.cpp can be asked here."""
    return importlib.util.find_spec("xllamacpp") is not None


def ask(
    gguf: Path, texts: Sequence[str], most: int, context: int, on_answer: Callable[[int], None] | None = None
) -> list[Said]:
    """llama.cpp's greedy completions of prompts, in order, which nothing but an end token or `most` tokens end.

    Args:
        gguf: The file.
        texts: The prompts' texts, without the BOS that the file adds.
        most: Most tokens of a completion.
        context: Most tokens of a prompt and its completion.
        on_answer: Called with how many are answered.

    Raises:
        RunError: llama.cpp isn't installed, or could not load the file.
    """
    if not has_llamacpp():
        raise RunError(f"asking a GGUF file takes llama.cpp, which is not installed: run `{INSTALL}`")
    asked = json.dumps({"gguf": str(gguf), "texts": list(texts), "most": most, "context": context})
    command = [sys.executable, "-m", "isara.export.llamacpp"]
    rows: list[Said] = []
    with (
        tempfile.TemporaryFile() as errors,  # a pipe that nobody reads while rows come would fill up
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace"
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError), process.stdin:  # one that ends at once is told of below
            process.stdin.write(asked)
        for line in process.stdout:
            if line.startswith(_RESULT):
                row = json.loads(line.removeprefix(_RESULT))
                rows.append(Said(tuple(row["ids"]), row["text"], row["ended"]))
                if on_answer is not None:
                    on_answer(len(rows))
        if process.wait() or len(rows) < len(texts):
            errors.seek(0)
            said = " ".join(errors.read().decode(errors="replace").split())[-_MOST_SAID:]
            raise RunError(f"llama.cpp could not be asked with {gguf} (it ended with {process.returncode}: …{said})")
    return rows


def compare(
    gguf: Path,
    prompts: Sequence[Prompt],
    answers: Sequence[str],
    bos: str,
    stops: Sequence[str],
    most: int,
    on_answer: Callable[[int], None] | None = None,
) -> Agreement:
    """llama.cpp's greedy answers beside the model's own.

    Args:
        gguf: The file.
        prompts: What both are asked, one at least.
        answers: The model's own greedy answers, without spaces around them.
        bos: What the file adds before a prompt by itself.
        stops: Where the model's own answers were cut; llama.cpp's are cut there afterwards.
        most: Most tokens of an answer.
        on_answer: As of `ask`.

    Raises:
        RunError: As `ask`.
    """
    texts = [prompt.text.removeprefix(bos) for prompt in prompts]
    said = ask(gguf, texts, most, max(len(prompt.ids) for prompt in prompts) + most + 8, on_answer)
    given = [_cut(each.text, stops) for each in said]
    differ = [place for place, (one, two) in enumerate(zip(answers, given, strict=True)) if one != two]
    return Agreement(
        asked=len(prompts),
        same_tokens=sum(prompt.ids == each.ids for prompt, each in zip(prompts, said, strict=True)),
        same=len(prompts) - len(differ),
        ended=sum(each.ended for each in said),
        first=(texts[differ[0]], answers[differ[0]], given[differ[0]]) if differ else None,
    )


def _cut(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.split(stop)[0]
    return text.strip()


def _answer(asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The work of the process: loads the file and completes each prompt."""
    import xllamacpp

    options = xllamacpp.CommonParams()
    options.model.path = asked["gguf"]
    options.n_ctx, options.n_parallel, options.warmup = asked["context"], 1, False
    # Threads that spin for each other are many times slower than one where the cores are shared.
    options.cpuparams.n_threads, options.cpuparams.poll = 1, 0
    options.verbosity = 0
    server = xllamacpp.Server(options)
    for text in asked["texts"]:
        # Greedy, and no penalty: whatever else the sampler's defaults are, the most likely token is taken.
        settings = {"temperature": 0.0, "repeat_penalty": 1.0, "cache_prompt": False}
        done = server.handle_completions({"prompt": text, "max_tokens": asked["most"], **settings})
        choice = done["choices"][0]
        ids = _tokens(server.listening_address, text)
        yield {"ids": ids, "text": choice["text"], "ended": choice["finish_reason"] == "stop"}


def _tokens(address: str, text: str) -> list[int]:
    """The tokens that the server cuts a prompt into."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    body = json.dumps({"content": text, "add_special": True, "parse_special": True})
    connection.request("POST", "/tokenize", body, {"Content-Type": "application/json"})
    tokens: list[int] = json.loads(connection.getresponse().read())["tokens"]
    return tokens


if __name__ == "__main__":
    for answered in _answer(json.load(sys.stdin)):
        print(_RESULT + json.dumps(answered), flush=True)  # noqa: T201  # the process's result
