"""A run's typed configuration: YAML, overrides, and one-line errors that name file and key.

The sections are the options of the parts: no part says a default a second time. A default that decides results and that
the paper does not state is marked "our choice". `expected` says in words what a field takes; error messages, the
commented file of `isara init` and docs/configuration.md all use it, so they can't disagree. A field says of itself
whether a run may be resumed with another value (`FREE`) or is compared by what it names (`BY_CONTENT`).
"""

import difflib
import json
import os
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from isara.config.sections import (
    LEAST_PREFERENCES,
    AnswersConfig,
    BudgetConfig,
    ColumnsConfig,
    Config,
    EngineConfig,
    EvaluateConfig,
    FiltersConfig,
    GenerateConfig,
    OwnPart,
    PreferConfig,
    QuestionsConfig,
    RetrieveConfig,
    ReviewConfig,
    SelectConfig,
    TrainConfig,
)
from isara.config.values import BY_CONTENT, FREE, SCORES, AnswerScore, Score, usable
from isara.errors import ConfigError
from isara.keys import leaves
from isara.marks import clean
from isara.own import beside
from isara.sizes import settings_for
from isara.yaml_text import YamlError, parse_yaml

__all__ = [
    "FILE_NAME",
    "LEAST_PREFERENCES",
    "SCORES",
    "SEVERAL",
    "AnswerScore",
    "AnswersConfig",
    "BudgetConfig",
    "ColumnsConfig",
    "Config",
    "EngineConfig",
    "EvaluateConfig",
    "FiltersConfig",
    "GenerateConfig",
    "OwnPart",
    "PreferConfig",
    "QuestionsConfig",
    "RetrieveConfig",
    "ReviewConfig",
    "SelectConfig",
    "TrainConfig",
    "Score",
    "changes",
    "dump_config",
    "expected",
    "fields",
    "load_config",
    "section_of",
    "sized",
]

FILE_NAME = "isara.yaml"
_MOST_SHOWN = 2000  # characters of an error
_DATA_ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ".ndjson", ".xlsx")
_KEYWORDS = {"auto", "embedded", "lexical", "minilm"}
# Temperature of several answers to a question, where the rule by size would have them greedy, and so all the same.
SEVERAL = 0.7


def sized(config: Config, weights: int | None) -> tuple[Config, dict[str, Any]]:
    """The config with a value in the place of each null that follows the model's size, and those values by dotted key.

    Args:
        config: The config as it was written.
        weights: How many the model has; None where that can't be counted.
    """
    rule = settings_for(weights, config.train.method)
    sections: dict[str, dict[str, Any]] = {}
    for key, value in rule.by_key().items():
        section, _, name = key.partition(".")
        if getattr(getattr(config, section), _attribute(name)) is None:
            sections.setdefault(section, {})[name] = value
    _settle_readers(config, sections)
    if config.select.answers > 1 and sections.get("answers", {}).get("temperature") == 0:
        sections["answers"]["temperature"] = SEVERAL
    update = {
        section: getattr(config, section).model_copy(update={_attribute(name): value for name, value in values.items()})
        for section, values in sections.items()
    }
    found = {f"{section}.{name}": value for section, values in sections.items() for name, value in values.items()}
    return config.model_copy(update=update), found


def _attribute(key: str) -> str:
    return "from_" if key == "from" else key  # a word of the language


def _settle_readers(config: Config, sections: Mapping[str, dict[str, Any]]) -> None:
    """A reader needs demonstrations to read, and asks only where it answers."""
    answers = sections.get("answers", {})
    if "from" in answers and (config.answers.retrieve == "none" or not config.answers.demos):
        answers["from"] = "last"
    if config.questions.from_ == "reader" and "from" in answers:
        answers["from"] = "reader"
    if "from" in sections.get("questions", {}) and answers.get("from", config.answers.from_) != "reader":
        sections["questions"]["from"] = "last"


def load_config(path: str | Path | None = None, overrides: Sequence[str] = (), **values: Any) -> Config:
    """The configuration of a file, with `values` and then `KEY=VALUE` overrides laid over it.

    Relative paths of the file mean files beside it; those of `values`, overrides and the default of `out` start at the
    working directory. All paths come back absolute, so that a dumped config means the same from anywhere.

    Args:
        path: A YAML file, a folder with an isara.yaml, or None for defaults alone.
        overrides: Dotted keys with YAML values, such as "train.learning_rate=1e-4".
        values: Top-level keys; a None is passed over, a section is merged key by key.

    Raises:
        ConfigError: One line with the file, the dotted key, what was expected and what was found.
    """
    path = None if path is None else Path(path).expanduser()
    if path is not None and path.is_dir():
        path /= FILE_NAME
    here = Path.cwd()
    given = {key: deepcopy(value) for key, value in values.items() if value is not None}
    layers = [("configuration", given), *(("--set", _override(text)) for text in overrides)]
    tree: dict[str, Any] = {"seeds": "seeds.jsonl"} if path is None else {"seeds": "seeds.jsonl", **_read(path)}
    _resolve(tree, here if path is None else path.parent)
    sources: dict[str, str] = {}
    for source, layer in layers:
        _resolve(layer, here)
        _lay_over(tree, layer)
        sources |= dict.fromkeys(_dotted(layer), source)
    named_after = Path(str(tree["seeds"])) if path is None else Path(os.path.abspath(path))
    tree.setdefault("out", str(here / "runs" / _run_name(named_after)))
    try:
        return Config.model_validate(_frozen(tree))
    except ValidationError as error:
        raise ConfigError(clean(_message(error, str(path or "configuration"), sources), _MOST_SHOWN)) from None


def dump_config(config: Config) -> str:
    """Every value as YAML, in the order of the fields; the same config gives the same text, and loads again."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of every setting that differs and may not, of two dumped configs.

    A key that the old one lacks is younger than what it began: it changes nothing where it is off.
    """
    options = dict(fields())
    may = {key for key, field in options.items() if (field.json_schema_extra or {}) in (FREE, BY_CONTENT)}
    was, now = dict(leaves(old)), dict(leaves(new))
    younger = {key for key in options if key not in was and now.get(key) in (None, False, [])}
    keys = [key for key in {**was, **now} if key not in may | younger]
    return [(key, was.get(key), now.get(key)) for key in keys if was.get(key) != now.get(key)]


def fields(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted key and field of every value and section, in order, a section before its values."""
    for name, field in model.model_fields.items():
        name = field.alias or name
        yield prefix + name, field
        if section := section_of(field):
            yield from fields(section, f"{prefix}{name}.")


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that holds keys of its own; None for a value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def expected(field: FieldInfo) -> str:
    """What a field takes, in words: "a number in (0, 1]", "lora or full", "a whole number of at least 1 or null"."""
    return field.title or _either(_words(field.annotation, _range(field.metadata)))


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice and reads 1e-4 as the number it looks like (YAML 1.2)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(problem=_twice(key.value), problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _read(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; an empty one has none."""
    try:
        tree = _parse(path.read_text(encoding="utf-8-sig"), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: expected a config file, found nothing: `isara init` writes one") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: expected UTF-8, found byte 0x{error.object[error.start]:02x}: save it as UTF-8"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: expected a config file, found one that can't be read ({error.strerror})") from None
    if tree is not None and not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found {_shown(tree)}: `isara init` writes an example")
    # A section whose lines are all commented out reads as null.
    sections = {key for key, field in fields() if section_of(field)}
    return {key: {} if value is None and key in sections else value for key, value in (tree or {}).items()}


def _twice(key: str) -> str:
    return f"the key `{key}` stands twice, keep one"


def _parse(text: str, source: str) -> Any:
    try:
        return parse_yaml(text, _Loader)
    except YamlError as error:
        line = f":{error.line}" if error.line else ""
        raise ConfigError(f"{source}{line}: not valid YAML: {error}") from None


def _override(text: str) -> dict[str, Any]:
    """{"a": {"b": c}} for "a.b=c"."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set: expected KEY=VALUE, found {text!r}: write it like --set generate.accept=64")
    tree = _parse(value, f"--set {key}")
    for part in reversed(key.strip().split(".")):
        tree = {part: tree}
    return dict(tree)


def _lay_over(tree: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Puts the layer's values into the tree, section by section."""
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _lay_over(tree[key], value)
        else:
            tree[key] = value


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")


def _resolve(tree: dict[str, Any], folder: Path) -> None:
    """Makes the tree's relative paths absolute; names that are no files (of models, of hub data) stay."""
    for section, key in ((tree, "model"), (tree, "seeds"), (tree, "heldout"), (tree.get("retrieve"), "embedder")):
        if isinstance(section, dict) and isinstance(section.get(key), str | Path):
            section[key] = _local_or_name(section[key], folder)
    if isinstance(tree.get("out"), str | Path):
        tree["out"] = _absolute(tree["out"], folder)
    for own in _own_parts(tree):
        own["use"] = beside(own["use"], folder)
    engine = tree.get("engine")
    if isinstance(engine, dict) and isinstance(engine.get("python"), str) and os.sep in engine["python"]:
        engine["python"] = _absolute(engine["python"], folder)
    evaluate = tree.get("evaluate")
    if isinstance(evaluate, dict) and isinstance(evaluate.get("score"), str):
        evaluate["score"] = beside(evaluate["score"], folder)
    filters = tree.get("filters")
    if isinstance(filters, dict) and isinstance(filters.get("contamination"), list | tuple):
        files = filters["contamination"]
        filters["contamination"] = [_absolute(file, folder) if isinstance(file, str) else file for file in files]


def _own_parts(tree: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The tables in which a part of the user's own is named."""
    filters = tree.get("filters")
    lists = [filters.get(key) for key in ("own_questions", "own_pairs")] if isinstance(filters, dict) else []
    tables = [table for rows in lists if isinstance(rows, list | tuple) for table in rows]
    yield from (t for t in [*tables, tree.get("engine")] if isinstance(t, dict) and isinstance(t.get("use"), str))


def _local_or_name(value: str | Path, folder: Path) -> str:
    path = _absolute(value, folder)
    if isinstance(value, Path) or value.startswith((".", "/", "~")) or value.endswith((*_DATA_ENDINGS, ".gguf")):
        return path
    return path if value not in _KEYWORDS and os.path.exists(path) else value


def _absolute(value: str | Path, folder: Path) -> str:
    """The absolute path; one that is unusable stays as it is, to be refused with what was written."""
    text = str(value)
    return os.path.abspath(folder / os.path.expanduser(text)) if usable(text) else text


def _run_name(path: Path) -> str:
    """The file's name, or its folder's where the file is called like any other."""
    name = path.parent.name if path.stem in ("isara", "seeds") and path.parent.name else path.stem
    return re.sub(r"[^\w.-]+", "-", name)


def _frozen(value: Any) -> Any:
    """The value with tuples for lists, which is what the fields hold, and text for paths."""
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    return str(value) if isinstance(value, Path) else value


def _message(error: ValidationError, file: str, sources: Mapping[str, str]) -> str:
    """One line about the first thing that is wrong."""
    known = dict(fields())
    found: dict[str, str] = {}
    for item in error.errors():
        # Beyond a known key the location names a list's row or a union's member: the key's own line says it all.
        parts = [str(part) for part in item["loc"]]
        key = next((key for n in range(len(parts), 0, -1) if (key := ".".join(parts[:n])) in known), "")
        if item["type"] in ("extra_forbidden", "invalid_key"):
            key = ".".join(parts)
            text = f"unknown key `{key}`: {_suggestion(key, list(known))}"
        elif not key and item["type"] != "value_error":  # a key that is no text of Unicode
            text = f"expected known keys, found {_shown(parts[-1] if parts else item['input'])}"
        else:
            wanted = str(item["ctx"]["error"]) if item["type"] == "value_error" else expected(known[key])
            text = f"`{key}`: expected {wanted}, found {_shown(item['input'])}" if key else f"expected {wanted}"
        found.setdefault(key, f"{sources.get(key, file)}: {text}")
    first, *more = found.values()
    return first + (f" (and {len(more)} more)" if more else "")


def _suggestion(key: str, known: Sequence[str]) -> str:
    """The known key that is meant: one of the same section, else one of that name elsewhere; or what there is."""
    section, _, name = key.rpartition(".")
    beside = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
    elsewhere = {other.rpartition(".")[2]: other for other in reversed(known)}
    for names in (beside, elsewhere):
        if near := difflib.get_close_matches(name, names, n=1, cutoff=0.7):
            return f"did you mean `{names[near[0]]}`?"
    return f"known here are {', '.join(beside)}"


def _words(kind: Any, bounds: str) -> list[str]:
    """The alternatives of a type, each in words."""
    origin, members = get_origin(kind), get_args(kind)
    if origin is Literal:
        return list(members)
    if origin is tuple:
        return ["a list of texts"]
    if origin is Annotated:
        return _words(members[0], _range([bound for field in members[1:] for bound in field.metadata]))
    if origin in (Union, types.UnionType):
        return [word for member in members for word in _words(member, bounds)]
    if kind is bool:
        return ["true", "false"]
    names = {int: "a whole number" + bounds, float: "a number" + bounds, str: "text", type(None): "null"}
    return [names.get(kind, "a section of keys")]


def _either(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _range(metadata: Sequence[Any]) -> str:
    """The bounds of a number, as an interval where there are two."""
    low = next((m for m in metadata if isinstance(m, Ge | Gt)), None)
    high = next((m for m in metadata if isinstance(m, Le | Lt)), None)
    if low is None:
        return ""
    least = low.ge if isinstance(low, Ge) else low.gt
    if high is None:
        return f" of at least {least}" if isinstance(low, Ge) else f" above {least}"
    most = high.le if isinstance(high, Le) else high.lt
    return f" in {'[' if isinstance(low, Ge) else '('}{least}, {most}{']' if isinstance(high, Le) else ')'}"


def _shown(value: Any) -> str:
    """The value as JSON on one line, cut where it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except TypeError:  # a key that is no text, such as a date
        text = str(value)
    text = clean(text, 1000)
    return text if len(text) <= 80 else text[:77] + "..."
