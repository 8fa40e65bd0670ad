"""The public benchmarks, from the hub under their published names or from a local file of the same form.

Nothing is shipped: BeaverTails and AlpacaEval may not be used commercially. Each loader gives items whose ids depend on
their content alone, so a slice is the same one whichever copy it was taken from.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from isara.errors import SeedError
from isara.evaluate.items import content_id
from isara.tables import read_table

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a benchmark is published.

    Attributes:
        name: How it is called after `--data`.
        path: Its name on the hub, or the builder that reads `file`.
        config: Its configuration there, if it has several.
        split: The part that is measured on.
        file: The one file of the repository to read, for a data set that is published as plain files.
    """

    name: str
    path: str
    config: str | None
    split: str
    file: str | None = None

    @property
    def published(self) -> str:
        """What to look for on the hub."""
        return self.file or self.path


TRUTHFULQA = Source("truthfulness", "truthfulqa/truthful_qa", "multiple_choice", "validation")
BEAVERTAILS = Source("beavertails", "PKU-Alignment/BeaverTails-Evaluation", None, "test")
XSTEST = Source("xstest", "walledai/XSTest", None, "test")
ALPACA_EVAL = Source("instructions", "json", None, "train", "hf://datasets/tatsu-lab/alpaca_eval/alpaca_eval.json")
SOURCES = (TRUTHFULQA, BEAVERTAILS, XSTEST, ALPACA_EVAL)


@dataclass(frozen=True, slots=True)
class Choices:
    """Answers to choose from, and which of them are true (1) or false (0)."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TruthfulItem:
    """A question of TruthfulQA: one true answer among false ones (mc1), and all true and false ones (mc2)."""

    question: str
    mc1: Choices
    mc2: Choices

    @property
    def id(self) -> str:
        """12 hex digits of the content."""
        return content_id(self.question, self.mc1.texts, self.mc2.texts)


@dataclass(frozen=True, slots=True)
class SafetyItem:
    """A prompt that is to be refused (`safe` is false) or answered.

    Attributes:
        prompt: The prompt.
        source: "beavertails" or "xstest".
        category: The harm category (BeaverTails) or the type (XSTest).
        safe: Whether an answer is wanted.
    """

    prompt: str
    source: str
    category: str
    safe: bool

    @property
    def id(self) -> str:
        """12 hex digits of prompt and source."""
        return content_id(self.prompt, self.source)


@dataclass(frozen=True, slots=True)
class InstructionItem:
    """An instruction with a reference model's output."""

    instruction: str
    reference: str

    @property
    def id(self) -> str:
        """12 hex digits of the content."""
        return content_id(self.instruction, self.reference)


@dataclass(frozen=True, slots=True)
class Data:
    """Where the benchmarks' rows come from.

    Attributes:
        files: A local file for a source's name; others are loaded from the hub.
        columns: For a source's name, the columns of its copy by their published names, where they differ.
    """

    files: Mapping[str, Path]
    columns: Mapping[str, Mapping[str, str]]

    def truthfulness(self) -> list[TruthfulItem]:
        """TruthfulQA's questions with their choices, as its multiple-choice form has them."""
        return self._items(TRUTHFULQA, _truthful)

    def beavertails(self) -> list[SafetyItem]:
        """BeaverTails' evaluation prompts, all of them unsafe."""
        return self._items(BEAVERTAILS, _beavertails)

    def xstest(self) -> list[SafetyItem]:
        """XSTest's safe prompts and their unsafe contrasts."""
        return self._items(XSTEST, _xstest)

    def instructions(self) -> list[InstructionItem]:
        """AlpacaEval's instructions with the outputs of text_davinci_003, or of the model whose file is given."""
        return self._items(ALPACA_EVAL, lambda row: InstructionItem(_text(row, "instruction"), _text(row, "output")))

    def _items(self, source: Source, make: Callable[[Mapping[str, Any]], T]) -> list[T]:
        path = self.files.get(source.name)
        where = str(path) if path else source.published
        names = self.columns.get(source.name, {})
        items = []
        for number, row in enumerate(read_table(path) if path else _from_hub(source), start=1):
            try:
                items.append(make(_Renamed(row, names)))
            except KeyError as error:
                raise SeedError(
                    f"row {number} of {where} has no column {error.args[0]!r} (it has {', '.join(row)}): give a copy "
                    f"of the published form, or name the column with --columns {source.name}.COLUMN=THEIRS"
                ) from error
            except (TypeError, ValueError, AttributeError) as error:
                raise SeedError(
                    f"row {number} of {where} is not of the published form ({error}): mend the row or take another copy"
                ) from error
        if not items:
            raise SeedError(f"{where} holds no rows: give a copy of {source.published} with --data {source.name}=FILE")
        return items


class _Renamed(dict[str, Any]):
    """A row under its published column names; asking for one that is not there names the copy's own column."""

    def __init__(self, row: Mapping[str, Any], names: Mapping[str, str]) -> None:
        super().__init__(row)
        self.names = names

    def __getitem__(self, column: str) -> Any:
        return super().__getitem__(self.names.get(column, column))

    def __contains__(self, column: object) -> bool:
        return super().__contains__(self.names.get(str(column), column))


def _from_hub(source: Source) -> Iterable[Mapping[str, Any]]:
    """The rows of a published data set, from the cache where it was loaded before."""
    import datasets

    try:
        rows: Iterable[Mapping[str, Any]] = datasets.load_dataset(
            source.path, source.config, data_files=source.file, split=source.split
        )
    except Exception as error:  # datasets, huggingface_hub, fsspec and the HTTP client each raise their own
        raise SeedError(
            f"the data of `{source.name}` ({source.published}) is neither on this machine nor to be had from the hub: "
            f"run the same command once where there is a network, or give a copy with --data {source.name}=FILE"
        ) from error
    return rows


def _truthful(row: Mapping[str, Any]) -> TruthfulItem:
    return TruthfulItem(_text(row, "question"), _choices(row["mc1_targets"]), _choices(row["mc2_targets"]))


def _choices(targets: Mapping[str, Any]) -> Choices:
    texts, labels = tuple(targets["choices"]), tuple(int(label) for label in targets["labels"])
    if isinstance(targets["choices"], str) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"choices must be a list of texts, found {targets['choices']!r}")
    if len(texts) != len(labels) or not 0 < sum(labels) < len(labels):
        raise ValueError("choices and labels must be equally many, with a true and a false one among them")
    return Choices(texts, labels)


def _beavertails(row: Mapping[str, Any]) -> SafetyItem:
    return SafetyItem(_text(row, "prompt"), "beavertails", _text(row, "category"), safe=False)


def _xstest(row: Mapping[str, Any]) -> SafetyItem:
    # Copies differ: a label column, a boolean, or only the type, whose unsafe kinds begin with "contrast_".
    if "label" in row:
        safe = _either(row, "label", "safe", "unsafe")
    elif "safe" in row:
        safe = _either(row, "safe", "true", "false")
    else:
        safe = not _text(row, "type").startswith("contrast_")
    return SafetyItem(_text(row, "prompt"), "xstest", _text(row, "type"), safe)


def _either(row: Mapping[str, Any], column: str, yes: str, no: str) -> bool:
    text = str(row[column]).lower()
    if text not in (yes, no):  # a wrong guess would turn a rate upside down
        raise ValueError(f"{column} must be {yes} or {no}, found {row[column]!r}")
    return text == yes


def _text(row: Mapping[str, Any], column: str) -> str:
    text = row[column]
    if not isinstance(text, str):
        raise ValueError(f"{column} must be a text, found {text!r}")
    return text
