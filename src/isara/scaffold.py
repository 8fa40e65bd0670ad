"""`isara init`: a folder for a new domain with a commented config, example pairs and a README."""

import textwrap
from pathlib import Path

import yaml
from pydantic.fields import FieldInfo

from isara.config import FILE_NAME, expected, fields, section_of
from isara.data import write_pairs
from isara.errors import ConfigError
from isara.records import QAPair

# Written out; everything else stands in the file as a comment with its default.
_LIVE = {"model", "seeds", "iterations", "heldout", "licence", "generate.accept"}

EXAMPLES = (
    QAPair(
        "My parcel says delivered, but it is not here. What now?",
        "I'm sorry about that. Please ask your neighbours first; if none of them has it, write to us with the parcel "
        "number and we start a search the same day.",
    ),
    QAPair(
        "Can I still change the size of the boots I ordered this morning?",
        "Yes, as long as they have not left our store. Send us the order number and the new size, and we change it.",
    ),
    QAPair(
        "Which of your tents is best for two people and a dog?",
        "The Birch 3: it has room for a third sleeper, and its floor is thick enough for claws.",
    ),
)

_README = """\
# {name}

This folder aligns a model to a domain with ISARA. Run the commands in the folder above it.

1. Put 30 to 100 pairs of your own into `seeds.jsonl`, one JSON object a line with `question` and `answer`; the three
   that are there are only examples. Write the answers just as the model should give them, in tone, length and rules,
   and vary the questions: new ones are made in their likeness.
2. `heldout: 0.2` in `{config}` keeps a fifth of the pairs from the loop, to measure with. Pairs that were written
   independently of the seeds make a stricter test: put them into a file and set `heldout: heldout.jsonl`.
3. Ask which settings the model wants, by nothing but your pairs: `isara tune {name}`. It takes minutes, and says so
   where the model gains nothing from demonstrations and a larger one is needed.
4. Look at a few rows that it would make, and at what the run will take: `isara preview {name}`; the first prompts are
   shown by `isara run {name} --dry-run`.
5. Run it: `isara run {name}`. After a crash the same command goes on.
6. Read what was made and what was dropped, and why: `isara show runs/{name} --read 10`
"""


def write_scaffold(folder: Path, model: str) -> None:
    """Writes isara.yaml, seeds.jsonl and README.md into a new or empty folder.

    Args:
        folder: The folder, named after the domain.
        model: The model's folder or name, or "embedded".

    Raises:
        ConfigError: There is something in the folder, or it can't be written.
    """
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise ConfigError(f"expected a new or empty folder, found files in {folder}: name another one")
        folder.mkdir(parents=True, exist_ok=True)
        # A relative path in the file would start at the file, and this one starts at the working directory.
        local = model != "embedded" and Path(model).expanduser().exists()
        text = config_text(str(Path(model).expanduser().absolute()) if local else model)
        (folder / FILE_NAME).write_text(text, encoding="utf-8")
        write_pairs(folder / "seeds.jsonl", EXAMPLES)
        (folder / "README.md").write_text(_README.format(name=folder.resolve().name, config=FILE_NAME), "utf-8")
    except OSError as error:
        raise ConfigError(
            f"expected a folder that can be written, found {folder} ({error.strerror}): name another one"
        ) from error


def config_text(model: str = "embedded") -> str:
    """A config in which every key stands with what it means and takes; those rarely changed are commented out."""
    lines = [
        "# Settings of ISARA. A key after a bare # shows its default: take the # away to change it, or set it for",
        "# one run alone with --set, such as --set questions.demos=4. `isara tune` on this folder measures which k,",
        "# embedder, prompt format and temperatures the model wants.",
    ]
    for key, field in fields():
        name = key.rpartition(".")[2]
        indent = "  " * key.count(".")
        if section_of(field):
            lines += ["", f"# {field.description}", f"{name}:"]
            continue
        if not indent:
            lines.append("")
        about = f"{field.description} [{expected(field)}]"
        lines += textwrap.wrap(about, 116, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        value = model if key == "model" else _default(key, field)
        lines.append(f"{indent}{'' if key in _LIVE else '#'}{name}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """The table of every key, for docs/configuration.md."""
    rows = ["| key | default | takes | meaning |", "|---|---|---|---|"]
    for key, field in fields():
        if not section_of(field):
            rows.append(f"| `{key}` | `{_flow(_default(key, field))}` | {expected(field)} | {field.description} |")
    return "\n".join(rows) + "\n"


def _default(key: str, field: FieldInfo) -> object:
    if key == "out":
        return "runs/NAME"  # made from the config's place, see `load_config`
    value = field.get_default()
    return list(value) if isinstance(value, tuple) else value


def _flow(value: object) -> str:
    """The value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000).removesuffix("...\n").strip()
