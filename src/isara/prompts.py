"""Few-shot prompts: demonstrations and the open question, nothing else.

Functions of text. A prompt never holds an instruction, a principle or a system message; a chat model gets the same
pairs as turns, between the very markers that its own template writes, without the template's default system block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from isara.data import QAPair
from isara.errors import ModelError


@dataclass(frozen=True, slots=True)
class PromptFormat:
    r"""The pieces of text that stand around questions and answers.

    Attributes:
        name: "plain" for base models, "chat" for a model with a chat template.
        start: Opens the first question.
        to_answer: Stands between a question and its answer.
        to_question: Stands between an answer and the next question.
        lead: Stands before each question and answer. It is part of what the model generates, so that no prompt ends
            in a space, which tokenizers would split off from the next word.
        end: Closes the answer in a training row: the end-of-sequence token or the template's end of turn.
        adds_special_tokens: Whether the tokenizer is to add its own special tokens (BOS) to a prompt.
    """

    name: Literal["plain", "chat"]
    start: str
    to_answer: str
    to_question: str
    lead: str
    end: str
    adds_special_tokens: bool

    @property
    def question_stops(self) -> tuple[str, ...]:
        """Where a generated question ends: its answer begins, or the next question does."""
        return _stops(self.to_answer, self.to_question, self.end)

    @property
    def answer_stops(self) -> tuple[str, ...]:
        """Where a generated answer ends: the next question begins."""
        return _stops(self.to_question, self.end)


def _stops(*pieces: str) -> tuple[str, ...]:
    # "\n\nQuestion:" also stops at one newline: models that were not trained on the blank line leave it out.
    return tuple(dict.fromkeys("\n" + piece.strip() if piece.startswith("\n") else piece.strip() for piece in pieces))


def plain_format(eos: str) -> PromptFormat:
    """The format for base models: `Question: …`, `Answer: …`, a blank line between pairs."""
    return PromptFormat(
        name="plain",
        start="Question:",
        to_answer="\nAnswer:",
        to_question="\n\nQuestion:",
        lead=" ",
        end=eos,
        adds_special_tokens=True,
    )


def question_prompt(fmt: PromptFormat, demos: Sequence[QAPair]) -> str:
    """Demonstrations and an open next question, for the model to go on with."""
    return fmt.start + "".join(_shown(fmt, demo) for demo in demos)


def answer_prompt(fmt: PromptFormat, demos: Sequence[QAPair], question: str) -> str:
    """Demonstrations (nearest last), the question, and an open answer."""
    return question_prompt(fmt, demos) + fmt.lead + question + fmt.to_answer


def answer_text(fmt: PromptFormat, answer: str) -> str:
    """The answer as the model is to generate it after `answer_prompt`."""
    return fmt.lead + answer


def training_text(fmt: PromptFormat, pair: QAPair) -> tuple[str, str]:
    """Prompt and completion of one training row: what the model is asked zero-shot, and the answer with its end."""
    return answer_prompt(fmt, (), pair.question), answer_text(fmt, pair.answer) + fmt.end


def fit_demos(
    render: Callable[[Sequence[QAPair]], str],
    demos: Sequence[QAPair],
    count_tokens: Callable[[Sequence[str]], list[int]],
    max_tokens: int,
) -> Sequence[QAPair]:
    """The demonstrations less the first (farthest) ones, so that the rendered prompt has at most `max_tokens` tokens.

    Raises:
        ModelError: The prompt is too long even without any demonstration.
    """
    for dropped in range(len(demos) + 1):
        tokens = count_tokens([render(demos[dropped:])])[0]
        if tokens <= max_tokens:
            return demos[dropped:]
    raise ModelError(
        f"a prompt without demonstrations has {tokens} tokens and {max_tokens} fit beside the completion: "
        "shorten the question, lower max_new_tokens, or take a model with a longer context"
    )


def _shown(fmt: PromptFormat, demo: QAPair) -> str:
    return fmt.lead + demo.question + fmt.to_answer + fmt.lead + demo.answer + fmt.to_question


# A template writes its markers around these; anything it adds between them is the format.
_TURNS = ("first-question", "first-answer", "second-question", "second-answer", "third-question")


def chat_format(tokenizer: Any) -> PromptFormat:
    """The turn markers of a tokenizer's own chat template, found by rendering it.

    What the template puts before the first question beyond the BOS token and the user's header (a default system
    prompt, a date) is left out: it would be an instruction.

    Raises:
        ModelError: The template does not write questions and answers as turns around unchanged text.
    """
    bos = tokenizer.bos_token or ""
    pieces = _template_pieces(tokenizer)
    head, to_answer, to_question = pieces[0], pieces[1], pieces[2]
    header = _common_suffix(head, to_question)
    end = to_question.removesuffix(header)
    if not end.strip() or pieces[3] != to_answer or pieces[4] != to_question:
        raise ModelError(
            "expected a chat template that writes every turn between the same markers, found one that doesn't "
            f"(after an answer it wrote {to_question!r}): set `format: plain`"
        )
    start = (bos if head.startswith(bos) else "") + header
    return PromptFormat("chat", start, to_answer, to_question, "", end, adds_special_tokens=False)


def find_format(tokenizer: Any, choice: Literal["auto", "plain", "chat"] = "auto") -> PromptFormat:
    """The prompt format for a tokenizer: chat where it has a chat template, else plain; or the one that is asked for.

    Raises:
        ModelError: "chat" is asked of a tokenizer without a template, or there is no end-of-sequence token.
    """
    if choice == "chat" and not tokenizer.chat_template:
        raise ModelError(
            "`format: chat` needs a tokenizer with a chat template, and this one has none: set `format: plain`"
        )
    if choice == "plain" or not tokenizer.chat_template:
        if not tokenizer.eos_token:
            raise ModelError("the tokenizer has no end-of-sequence token, so no answer could learn to end: set one")
        return plain_format(tokenizer.eos_token)
    return chat_format(tokenizer)


def _template_pieces(tokenizer: Any) -> list[str]:
    """The text before, between and after the turns of a rendered dialogue."""
    turns = [{"role": "assistant" if turn % 2 else "user", "content": content} for turn, content in enumerate(_TURNS)]
    try:
        rest = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=False)
    except Exception as error:  # jinja2 raises whatever the template's author chose
        raise ModelError(f"the tokenizer's chat template can't be rendered ({error}): set `format: plain`") from error
    pieces = []
    for content in _TURNS:
        before, found, rest = rest.partition(content)
        if not found:
            raise ModelError("the chat template does not keep the text of every turn: set `format: plain`")
        pieces.append(before)
    return pieces


def _common_suffix(one: str, other: str) -> str:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return one[len(one) - length :]
