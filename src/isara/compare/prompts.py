"""Prompts that break ISARA's rule of no instructions, for arms that are marked so: each wraps the model's renderer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from isara.records import Prompt, QAPair
from isara.render import PromptFormat, Renderer

# What URIAL (arXiv 2312.01552) does with a thousand tokens and three written examples; the words are ours.
URIAL = (
    "Below are questions from users, each with the answer of an AI assistant. The assistant is helpful and knows much. "
    "It answers politely and in full, says openly what it doesn't know, and turns a harmful wish down with its reason."
)
# In the manner of the sixteen principles of SELF-ALIGN (arXiv 2305.03047); the words are ours.
PRINCIPLES = """Below are questions, each with the answer of an assistant that holds to these principles:
1. Ethical: it takes no part in anything illegal, dangerous or hurtful, and says why.
2. Helpful: it answers what was asked, to the point, and offers another way where it can't help.
3. Truthful: it invents nothing, and says so where it doesn't know.
4. Careful: it asks for advice from professionals where health, law or money is at stake.
5. Fair: it judges nobody by what he is.
6. Consistent: it answers in the same manner and by the same rules as in the examples."""
# The header of Self-Instruct (arXiv 2212.10560).
TASKS = "Come up with a series of tasks:"


class Like(Renderer):
    """A renderer with the tokenizer, format and context of another.

    Args:
        like: The other.
    """

    def __init__(self, like: Renderer) -> None:
        vars(self).update(vars(like))

    def key(self) -> dict[str, Any]:
        """The other's, and which prompts these are."""
        return {**super().key(), "prompts": type(self).__name__}

    def instructed(self, instructions: str, prompt: str) -> Prompt:
        """A prompt after instructions: before everything in plain text, at the head of the first turn in a chat."""
        fmt = self.format
        if fmt.name == "plain":
            return self.text(f"{instructions}\n\n{prompt}")
        return self.text(f"{fmt.start}{fmt.lead}{instructions}\n\n{prompt.removeprefix(fmt.start).lstrip()}")


class Preamble(Like):
    """Prompts for answers after a text of instructions; questions are asked for as ever.

    Args:
        like: The renderer whose prompts these are.
        preamble: The text.
    """

    def __init__(self, like: Renderer, preamble: str) -> None:
        super().__init__(like)
        self.preamble = preamble

    def key(self) -> dict[str, Any]:
        """With the text."""
        return {**super().key(), "preamble": self.preamble}

    def answer(self, demos: Sequence[QAPair], pair: QAPair) -> Prompt:
        """The instructions, demonstrations, the pair's question, and an open answer."""
        return self.instructed(self.preamble, super().answer(demos, pair).text)


class Tagged(Like):
    """Prompts for answers whose question ends with a tag: how the model is told which kind of pair to go on like.

    Args:
        like: The renderer whose prompts these are.
        tag: The tag.
    """

    def __init__(self, like: Renderer, tag: str) -> None:
        super().__init__(like)
        self.tag = tag

    def key(self) -> dict[str, Any]:
        """With the tag."""
        return {**super().key(), "tag": self.tag}

    def answer(self, demos: Sequence[QAPair], pair: QAPair) -> Prompt:
        """Demonstrations, the pair's question with the tag, and an open answer."""
        return super().answer(demos, tagged(pair, self.tag))


def tagged(pair: QAPair, tag: str) -> QAPair:
    """The pair with the tag after its question."""
    return replace(pair, question=f"{pair.question} {tag}")


@dataclass(frozen=True)  # no slots: super() in a property of such a class finds another class
class _ListFormat(PromptFormat):
    @property
    def question_stops(self) -> tuple[str, ...]:
        """A question ends with its line."""
        return (*dict.fromkeys(("\n", *super().question_stops)),)


class TaskList(Like):
    """Asks for the next question as Self-Instruct does: a header, a numbered list of questions, and the next number."""

    def __init__(self, like: Renderer) -> None:
        super().__init__(like)
        self.format = _ListFormat(**{name: getattr(like.format, name) for name in PromptFormat.__dataclass_fields__})

    def question(self, demos: Sequence[QAPair]) -> Prompt:
        """The questions of the demonstrations, a number each, and the number of the next one."""
        fmt = self.format
        asked = [f"{n}. {' '.join(demo.question.split())}" for n, demo in enumerate(demos, 1)]
        shown = "\n".join([*asked, f"{len(asked) + 1}."])
        if fmt.name == "plain":
            return self.text(f"{TASKS}\n{shown}")
        return self.text(f"{fmt.start}{fmt.lead}{TASKS}{fmt.to_answer}{fmt.before_last}{fmt.lead}{shown}")
