"""The one room where pairs become text and ids: prompts, stops, training rows, token counts, the context.

A prompt is demonstrations and the open question, nothing else: no instruction, no principle, no system message. A chat
model gets the same pairs as turns, between the very markers that its own template writes, without the template's
default system block. A `Renderer` needs a tokenizer and no weights.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from isara.errors import ModelError
from isara.files import value_hash
from isara.loading import check_causal, load_error, reason, silent
from isara.models import find_model
from isara.records import Prompt, QAPair, TrainingRow
from isara.templates import runs_away

FormatChoice: TypeAlias = Literal["auto", "plain", "chat"]


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


class Renderer:
    """Turns pairs into prompts and training rows for one model.

    Args:
        fmt: The pieces of text around questions and answers.
        encode: Ids of each text, without any special token that a tokenizer adds by itself.
        context_length: Most tokens that a prompt and its completion may have together.
        identity: Says which tokenizer this is: a text that changes whenever `encode` does. Called when a key is asked
            for.
        bos: Ids that the model expects before every prompt.
        special_tokens: What the tokenizer takes for a control token wherever it stands in a text.
    """

    def __init__(
        self,
        fmt: PromptFormat,
        encode: Callable[[Sequence[str]], list[list[int]]],
        context_length: int,
        identity: Callable[[], str],
        bos: Sequence[int] = (),
        special_tokens: Sequence[str] = (),
    ) -> None:
        self.format = fmt
        self.context_length = context_length
        self._encode = encode
        self._identity = identity
        self._bos = list(bos)
        self.special_tokens = tuple(special_tokens)

    def key(self) -> dict[str, Any]:
        """What prompts and training rows depend on beside their pairs, JSON-ready."""
        return {
            "format": asdict(self.format),
            "context_length": self.context_length,
            "bos": self._bos,
            "tokenizer": self._identity(),
        }

    def question(self, demos: Sequence[QAPair]) -> Prompt:
        """Demonstrations and an open next question, for the model to go on with."""
        return self.text(self._opened(demos))

    def answer(self, demos: Sequence[QAPair], pair: QAPair) -> Prompt:
        """Demonstrations (nearest last), the pair's earlier turns and its question, and an open answer."""
        fmt = self.format
        shown = self._opened(demos) + "".join(self._turn(*turn) for turn in pair.before)
        return self.text(shown + fmt.lead + pair.question + fmt.to_answer + fmt.before_last)

    def text(self, text: str) -> Prompt:
        """A prompt of any text: a judge's form, or a benchmark's own wording."""
        return Prompt(text, (*self._bos, *self._encode([text])[0]))

    def continuation(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        """Ids of a text after its prompt, split where generation would split them.

        Prompt and text are tokenised in one piece where that leaves the prompt's ids as they are. Where a token would
        reach over the border, the text is tokenised by itself, as the model could only have generated it.
        """
        whole = (*self._bos, *self._encode([prompt.text + text])[0])
        return whole[len(prompt.ids) :] if whole[: len(prompt.ids)] == prompt.ids else self._alone(text)

    def answer_ids(self, prompt: Prompt, answer: str) -> tuple[int, ...]:
        """Ids of an answer as the model is to generate it after `answer`'s prompt."""
        return self.continuation(prompt, self.format.lead + answer)

    def training_rows(self, pair: QAPair) -> list[TrainingRow]:
        """A row for each answer that is trained on: what the model is asked without demonstrations, and the answer.

        The loss is on the answer and its end alone.
        """
        rows = []
        for place, (question, answer) in enumerate(pair.turns):
            if place in pair.untrained:
                continue
            turn = pair if place == len(pair.before) else QAPair(question, answer, before=pair.before[:place])
            prompt = self.answer((), turn)
            rows.append(TrainingRow(turn, prompt.ids, self.continuation(prompt, self.ended(answer))))
        return rows

    def ended(self, answer: str) -> str:
        """The text of an answer with its end, as a training row holds it."""
        return self.format.lead + answer + self.format.end

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a prompt."""
        return [len(self._bos) + len(ids) for ids in self._encode(texts)] if texts else []

    def fit(
        self, render: Callable[[Sequence[QAPair]], Prompt], demos: Sequence[QAPair], most: int
    ) -> tuple[Prompt, Sequence[QAPair]] | None:
        """The prompt of at most `most` tokens, less the first (farthest) demonstrations where they don't fit.

        None where even the prompt without any demonstration is longer.
        """
        for dropped in range(len(demos) + 1):
            prompt = render(demos[dropped:])
            if len(prompt.ids) <= most:
                return prompt, demos[dropped:]
        return None

    def _opened(self, demos: Sequence[QAPair]) -> str:
        return self.format.start + "".join(self._turn(*turn) for demo in demos for turn in demo.turns)

    def _turn(self, question: str, answer: str) -> str:
        fmt = self.format
        return fmt.lead + question + fmt.to_answer + fmt.lead + answer + fmt.to_question

    def _alone(self, text: str) -> tuple[int, ...]:
        # A character in front keeps tokenizers that begin every text with a space from doing so here.
        for anchor in ("\n", ":", "a"):
            alone, both = self._encode([anchor, anchor + text])
            if alone and both[: len(alone)] == alone:
                return tuple(both[len(alone) :])
        return tuple(self._encode([text])[0])


def open_renderer(model: str, prompt_format: FormatChoice = "auto", trust_remote_code: bool = False) -> Renderer:
    """The renderer of a model, from its tokenizer and config; no weights are loaded.

    Raises:
        ModelError: The tokenizer or config can't be loaded, or doesn't fit the format that is asked for.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoConfig, AutoTokenizer

    name = find_model(model)
    try:
        with silent():
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
            config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        check_causal(name, config)
    except ModelError:
        raise
    except Exception as error:  # broken files make the libraries raise anything, such as TypeError or ZeroDivisionError
        raise load_error(name, error) from error
    return tokenizer_renderer(tokenizer, config, prompt_format)


def tokenizer_renderer(tokenizer: Any, config: Any, prompt_format: FormatChoice = "auto") -> Renderer:
    """The renderer of a tokenizer and its model's config that are loaded already.

    Raises:
        ModelError: The tokenizer doesn't fit the format that is asked for.
    """

    def encode(texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    fmt = find_format(tokenizer, prompt_format)
    bos: list[int] = []
    if fmt.adds_special_tokens:
        # A BOS that the tokenizer adds by itself, and never a closing EOS.
        whole = tokenizer("a")["input_ids"]
        bos = whole[: whole.index(encode(["a"])[0][0])]
    return Renderer(
        fmt,
        encode,
        context_length(config, tokenizer),
        lambda: tokenizer_hash(tokenizer),
        bos,
        special_tokens(tokenizer),
    )


def special_tokens(tokenizer: Any) -> list[str]:
    """The texts of all tokens that the tokenizer takes for control tokens, also those only marked so (Llama 3's)."""
    marked = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*tokenizer.all_special_tokens, *marked})


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 in hex over all that decides which ids a text gets."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # written in Python alone: its class is its rules
        vocabulary = sorted(tokenizer.get_vocab().items())
        return value_hash([type(tokenizer).__name__, vocabulary])
    # A tokenizer's file may ask for either, and each call undoes what it isn't asked for.
    backend.no_truncation()
    backend.no_padding()
    return hashlib.sha256(backend.to_str().encode()).hexdigest()


def context_length(config: Any, tokenizer: Any) -> int:
    """Most tokens that the model reads, as its config says, or else its tokenizer."""
    text_config = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len"):
        length = getattr(text_config, name, None)
        if isinstance(length, int) and length > 0:
            return length
    # Tokenizers without a limit say 10^30; 2,048 is what models without any statement (ALiBi) were trained on.
    return int(tokenizer.model_max_length) if tokenizer.model_max_length < 2**24 else 2048


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


def find_format(tokenizer: Any, choice: FormatChoice = "auto") -> PromptFormat:
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
    fmt = chat_format(tokenizer)
    if choice == "auto" and tokenizer.eos_token and _is_plain(fmt, tokenizer):
        return plain_format(tokenizer.eos_token)
    return fmt


def _is_plain(fmt: PromptFormat, tokenizer: Any) -> bool:
    """Whether a template writes the plain format, as the one does that a plain model is exported with."""
    start = fmt.start.removeprefix(tokenizer.bos_token or "").lstrip()
    return replace(fmt, name="plain", start=start, adds_special_tokens=True) == plain_format(tokenizer.eos_token)


def _template_pieces(tokenizer: Any, turns: int) -> list[str]:
    """The text before, between and after the first so many turns of a rendered dialogue."""
    roles = ("user", "assistant")
    messages = [{"role": roles[turn % 2], "content": content} for turn, content in enumerate(_TURNS[:turns])]
    if what := runs_away(tokenizer, messages):
        raise ModelError(f"the tokenizer's chat template {what}: set `prompt_format: plain`")
    try:
        rest = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    except Exception as error:  # jinja2 raises whatever the template's author chose
        raise ModelError(
            f"the tokenizer's chat template can't be rendered ({reason(error)}): set `prompt_format: plain`"
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
