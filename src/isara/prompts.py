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
        before_last: Stands before the last answer alone: the empty thoughts that a template like Qwen3's writes there.
    """

    name: Literal["plain", "chat"]
    start: str
    to_answer: str
    to_question: str
    lead: str
    end: str
    adds_special_tokens: bool
    before_last: str = ""

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
    return question_prompt(fmt, demos) + fmt.lead + question + fmt.to_answer + fmt.before_last


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
_TURNS = ("first-question", "first-answer", "second-question", "second-answer", "third-question", "third-answer")


def chat_format(tokenizer: Any) -> PromptFormat:
    """The turn markers of a tokenizer's own chat template, found by rendering it.

    What the template puts before the first question beyond the BOS token and the user's header (a default system
    prompt, a date) is left out: it would be an instruction.

    Raises:
        ModelError: The template does not write questions and answers as turns around unchanged text.
    """
    bos, eos = tokenizer.bos_token or "", tokenizer.eos_token or ""
    head, to_answer, to_question, *more = _template_pieces(tokenizer, 5)[:-1]
    last_answer, tail = _template_pieces(tokenizer, 6)[-2:]
    # Some templates (Phi-3's) close the whole dialogue with an EOS that does not stand between turns.
    end = tail if to_question.startswith(tail) else tail.removesuffix(eos)
    opening = to_question.removeprefix(end).removeprefix(bos)  # Llama-2's template opens every question with BOS
    header = _common_suffix(head.removeprefix(bos), opening)
    if not opening.strip() or header.strip() != opening.strip() or more != [to_answer, to_question]:
        raise ModelError(
            "expected a chat template that writes every turn between the same markers, found one that doesn't "
            f"(before a question it wrote {head!r}, then {to_question!r}): set `prompt_format: plain`"
        )
    if not (end.strip() or eos):
        raise ModelError("the chat template closes no answer, so none could learn to end: set `prompt_format: plain`")
    start = bos + header if head.startswith(bos) else header
    # Llama-2's and Mistral's templates put a space before every turn: the model generates it, as in a plain prompt.
    lead = " " if all(piece.endswith(" ") for piece in (start, to_answer, to_question)) else ""
    return PromptFormat(
        name="chat",
        start=start.removesuffix(lead),
        to_answer=to_answer.removesuffix(lead),
        to_question=to_question.removesuffix(lead),
        lead=lead,
        end=end if end.strip() else eos,
        adds_special_tokens=False,
        before_last=last_answer.removeprefix(to_answer) if last_answer.startswith(to_answer) else "",
    )


def find_format(tokenizer: Any, choice: Literal["auto", "plain", "chat"] = "auto") -> PromptFormat:
    """The prompt format for a tokenizer: chat where it has a chat template, else plain; or the one that is asked for.

    Raises:
        ModelError: "chat" is asked of a tokenizer without a template, or there is no end-of-sequence token.
    """
    if choice == "chat" and not tokenizer.chat_template:
        raise ModelError(
            "`prompt_format: chat` needs a tokenizer with a chat template, and this one has none: "
            "set `prompt_format: plain`"
        )
    if choice == "plain" or not tokenizer.chat_template:
        if not tokenizer.eos_token:
            raise ModelError("the tokenizer has no end-of-sequence token, so no answer could learn to end: set one")
        return plain_format(tokenizer.eos_token)
    return chat_format(tokenizer)


def _template_pieces(tokenizer: Any, turns: int) -> list[str]:
    """The text before, between and after the first so many turns of a rendered dialogue."""
    roles = ("user", "assistant")
    messages = [{"role": roles[turn % 2], "content": content} for turn, content in enumerate(_TURNS[:turns])]
    try:
        rest = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    except Exception as error:  # jinja2 raises whatever the template's author chose
        raise ModelError(
            f"the tokenizer's chat template can't be rendered ({error}): set `prompt_format: plain`"
        ) from error
    pieces = []
    for content in _TURNS[:turns]:
        before, found, rest = rest.partition(content)
        if not found:
            raise ModelError("the chat template does not keep the text of every turn: set `prompt_format: plain`")
        pieces.append(before)
    return [*pieces, rest]


def _common_suffix(one: str, other: str) -> str:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return one[len(one) - length :]
