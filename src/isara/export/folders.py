"""Folders to take home: a model's files, its adapter, a GGUF file, or one with a Modelfile for Ollama."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from isara.errors import RunError
from isara.export.gguf import adds_bos, check_room, write_gguf
from isara.export.ollama import modelfile
from isara.export.quantize import KINDS
from isara.files import disk_errors, make_folder, remove, write_text
from isara.loading import silent
from isara.render import open_renderer

FORMS = ("safetensors", "adapter", "gguf", "ollama")
DEFAULT_KIND = "q8_0"
_CARDS = ("README.md", "data_card.md")
_MOST_CONTEXT = 4096  # tokens that Ollama is told to hold: memory grows with them, and rows of training are far shorter


def find_form(text: str) -> tuple[str, str]:
    """The form and the kind of GGUF file of a text such as "gguf:q8_0"; the kind is "" where there is none.

    Raises:
        RunError: There is no such form.
    """
    form, _, kind = text.partition(":")
    if form not in FORMS or (kind and form not in ("gguf", "ollama")):
        raise RunError(f"--to: expected {', '.join(FORMS)}, the last two also with :KIND, found {text!r}: choose one")
    if kind and kind not in KINDS:
        raise RunError(f"--to {form}: expected one of the kinds {', '.join(KINDS)}, found {kind!r}: choose one")
    return form, (kind or DEFAULT_KIND) if form in ("gguf", "ollama") else ""


def check_new(out: Path) -> None:
    """Raises RunError where there is something in a folder, or a file, or it is the one that the command runs in."""
    if out.resolve() == Path.cwd():  # it is replaced, and the shell would stand in a folder that is gone
        raise RunError(f"expected a folder that this command does not run in for the export, found {out}: name another")
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise RunError(f"expected a new or empty folder for the export, found {out}: give another --out")


def write_folder(final: Path, out: Path, form: str, kind: str, name: str, most: int) -> Path:
    """Writes an exported model in another form, the whole folder or none; the GGUF file, or the folder without one.

    Args:
        final: The run's final/.
        out: The folder, new or empty.
        form: One of `FORMS`.
        kind: Of the GGUF file.
        name: The GGUF file's name without its ending.
        most: Most tokens of an answer.

    Raises:
        RunError: There is something in `out`, the model has no adapter, or the disk is full or can't be written.
        ModelError: The model can't be written as a GGUF file.
    """
    check_new(out)
    place = out.resolve()  # of a link, the folder that it names
    aside = place.with_name(f".{place.name}.isara-export")  # removed first, so nothing of anybody else's has its name
    file = f"{name}-{kind}.gguf"
    try:
        remove(aside)
        make_folder(aside)
        with disk_errors(out):
            if form in ("safetensors", "adapter"):
                _copy(final, aside, form)
            else:
                write_gguf(final, aside / file, kind)
                _copy_files((final / card for card in _CARDS), aside)
            if form == "ollama":
                write_text(aside / "Modelfile", _modelfile(final, file, most))
            if place.is_dir():
                place.rmdir()
            aside.rename(place)
    finally:
        remove(aside)
    return out if form in ("safetensors", "adapter") else out / file


def bos_text(final: Path) -> str:
    """What a GGUF file of the model adds before a prompt by itself; "" for nothing."""
    from transformers import AutoTokenizer

    with silent():
        tokenizer = AutoTokenizer.from_pretrained(final)
    return str(tokenizer.bos_token) if adds_bos(tokenizer, open_renderer(str(final))) else ""


def _copy(final: Path, out: Path, form: str) -> None:
    source = final / "adapter" if form == "adapter" else final
    if not (source / ("adapter_config.json" if form == "adapter" else "config.json")).is_file():
        raise RunError(
            f"{final} has no adapter, since its model is the base model or was trained whole: export it as safetensors"
        )
    check_room(out, sum(path.stat().st_size for path in source.rglob("*") if path.is_file()))
    leave = shutil.ignore_patterns("isara.json", "merge.json", *(["adapter"] if form == "safetensors" else []))
    shutil.copytree(source, out, ignore=leave, copy_function=shutil.copyfile, dirs_exist_ok=True)
    if form == "adapter":  # with the tokenizer and the template it was trained in
        _copy_files((*final.glob("*token*"), *final.glob("*.jinja"), *(final / card for card in _CARDS)), out)


def _copy_files(files: Iterable[Path], out: Path) -> None:
    for path in files:
        if path.is_file():
            shutil.copyfile(path, out / path.name)


def _modelfile(final: Path, file: str, most: int) -> str:
    renderer = open_renderer(str(final))
    return modelfile(file, renderer.format, bos_text(final), min(renderer.context_length, _MOST_CONTEXT), most)
