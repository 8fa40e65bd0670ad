"""Every reader of what comes from outside, as a function of bytes: it returns, or raises an error of the project's own.

python -m tests.faults.readers --inputs 20000
python -m tests.faults.readers --inputs 20000 --guided      # by coverage, with `pip install atheris`
"""

import argparse
import gc
import gzip
import io
import json
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isara.build.judges import read_judge
from isara.config import load_config
from isara.converted import card_value
from isara.data import read_rows
from isara.errors import IsaraError
from isara.evaluate.results import read_result, read_results
from isara.files import read_batches, read_json
from isara.judges.labelled import Columns, read_labelled
from isara.models import find_model, weights_hash
from isara.tables import read_table
from isara.yaml_text import YamlError, parse_yaml

Reader = Callable[[Path], Any]
SECONDS = 10
MOST_SHOWN = 2_000  # characters of a message, and the path in it


class Hang(Exception):
    """A reader took longer than anybody waits."""


def _judge(path: Path) -> Any:
    return read_judge(str(path))


def _labelled(path: Path) -> Any:
    return read_labelled(path, "harm", Columns())


def _gguf(path: Path) -> Any:
    return find_model(str(path))


def _weights(path: Path) -> Any:
    """A model folder whose index, config or adapter is this file."""
    folder = path.parent / "model"
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors.index.json", "tokenizer_config.json"):
        (folder / name).write_bytes(path.read_bytes())
    (folder / "model-00001.safetensors").write_bytes(b"\0" * 16)
    return weights_hash(str(folder))


def _adapter(path: Path) -> Any:
    folder = path.parent / "adapter"
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_bytes(path.read_bytes())
    (folder / "adapter_model.safetensors").write_bytes(b"\0" * 16)
    return find_model(str(folder))


def _card(path: Path) -> Any:
    (path.parent / "README.md").write_bytes(path.read_bytes())
    return card_value(path.parent, "license")


def _yaml(path: Path) -> Any:
    try:
        return parse_yaml(path.read_bytes().decode("utf-8", "replace"))
    except YamlError as error:
        raise IsaraError(str(error)) from None


def _batches(path: Path) -> Any:
    path.with_suffix(".sums").write_bytes(path.read_bytes()[::-1])
    return read_batches(path)


def _results(path: Path) -> Any:
    path.with_suffix(".sums").write_bytes(b"")
    path.with_suffix(".key.json").write_bytes(path.read_bytes())
    return read_results(path)


def _summary(path: Path) -> Any:
    for name in ("items.jsonl", "items.key.json", "time.json"):
        (path.parent / name).write_bytes(b"{}\n")
    return read_result(path.parent)


# Whose branches lead the guided form: the readers, and the libraries in Python that they call.
INSTRUMENTED = {"isara", "yaml", "json", "csv", "gzip", "zipfile", "openpyxl"}

PAIRS = [{"question": f"Where is {place}?", "answer": f"Ask in {place}."} for place in ("Kakariko", "Hyrule", "Zora")]
CHAT = [{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Impa."}]}] * 2
SHARE = [{"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Impa."}]}] * 2
ALPACA = [{"instruction": "Say it.", "input": "Aloud", "output": "It.", "context": None}] * 2
LABELLED = [{"question": "How?", "answer": "So.", "label": "harmful", "categories": ["theft"]}] * 2


def _lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _parquet() -> bytes:
    import pyarrow
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(PAIRS), out)
    return out.getvalue()


def _excel() -> bytes:
    from openpyxl import Workbook  # type: ignore[import-untyped, unused-ignore]

    book, out = Workbook(), io.BytesIO()
    for row in (("question", "answer"), *((pair["question"], pair["answer"]) for pair in PAIRS)):
        book.active.append(row)
    book.save(out)
    return out.getvalue()


CSV = b'question,answer\nWho?,Impa.\n"Where\nis it?","In ""Hyrule"""\n'
JUDGE = b"judge: endpoint\nurl: http://localhost:1/v1\nmodel: m\nkind: harm\nsampling: {temperature: 0}\n"
CONFIG = b"model: embedded\nseeds: seeds.jsonl\ntrain:\n  learning_rate: 1e-4\nfilters:\n  novelty: 0.7\n  form: true\n"
FRONT = b"---\nlicense: mit\ndate: 2024-02-30\ntags: [a, &x b, *x]\n---\n# Card\n"
INDEX = json.dumps({"model_type": "llama", "weight_map": {"a": "model-00001.safetensors", "b": "../x"}}).encode()
ADAPTER = json.dumps({"base_model_name_or_path": "../base", "peft_type": "LORA", "r": 8}).encode()
GGUF = (
    b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little") * 2 + b"\x04\0\0\0\0\0\0\0name" + b"\x08\0\0\0" * 9
)


def starts() -> list[tuple[str, str, Reader, bytes]]:
    """Name, file name, reader and a sound file (or nearly) of every kind."""
    texts = {"pairs": _lines(PAIRS), "chat": _lines(CHAT), "share": _lines(SHARE), "alpaca": _lines(ALPACA)}
    found: list[tuple[str, str, Reader, bytes]] = [
        (f"{name}.jsonl", f"{name}.jsonl", read_rows, text) for name, text in texts.items()
    ]
    found += [
        ("list.json", "list.json", read_rows, json.dumps(PAIRS).encode()),
        ("data.json", "data.json", read_rows, json.dumps({"data": CHAT, "test": []}).encode()),
        ("table.csv", "table.csv", read_rows, CSV),
        ("table.tsv", "table.tsv", read_rows, CSV.replace(b",", b"\t")),
        ("utf16.csv", "utf16.csv", read_rows, CSV.decode().encode("utf-16")),
        ("pairs.jsonl.gz", "pairs.jsonl.gz", read_rows, gzip.compress(texts["pairs"], mtime=0)),
        ("pairs.parquet", "pairs.parquet", read_rows, _parquet()),
        ("pairs.xlsx", "pairs.xlsx", read_rows, _excel()),
        ("benchmark.jsonl", "b.jsonl", read_table, _lines(PAIRS)),
        ("benchmark.json", "b.json", read_table, json.dumps(PAIRS).encode()),
        ("benchmark.csv", "b.csv", read_table, CSV),
        ("benchmark.parquet", "b.parquet", read_table, _parquet()),
        ("labelled.jsonl", "l.jsonl", _labelled, _lines(LABELLED)),
        ("config", "isara.yaml", load_config, CONFIG),
        ("judge", "judge.yaml", _judge, JUDGE),
        ("yaml", "y.yaml", _yaml, FRONT),
        ("card", "card.md", _card, FRONT),
        ("gguf", "m.gguf", _gguf, GGUF),
        ("weights", "index.json", _weights, INDEX),
        ("adapter", "a.json", _adapter, ADAPTER),
        ("own json", "o.json", read_json, INDEX),
        ("batches", "c.jsonl", _batches, _lines(PAIRS)),
        ("results", "r.jsonl", _results, _lines(PAIRS)),
        ("summary", "summary.json", _summary, b'{"task": "t", "items": 1, "figures": [], "sha256": "0"}\n'),
    ]
    return found


# What has broken readers elsewhere.
TOKENS = [
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\r\n",
    b"\x1b[31m",
    "\u202e".encode(),
    "\U000e0041".encode(),
    b"\\ud800",
    b"NaN",
    b"1e999",
    b"-0",
    b"9" * 5000,
    b"[" * 2000,
    b'{"a":' * 1500,
    b"null",
    b"true",
    b'""',
    b"'",
    b"&a [*a]",
    b"!!python/object:os.system x",
    b"!!timestamp 2024-99-99",
    b"? [a, b]\n: c",
    b"<<: *x",
    b"{{",
    b"PK\x03\x04",
    b"PAR1",
    b"\x1f\x8b",
    b"version https://git-lfs.github.com/spec/",
    b"<!doctype html>",
    b",,,,,,",
    b'"' * 99,
    b"\xc3",
    b"\x85",
    "\u2028".encode(),
    b"2024-02-30",
    b"0o9",
    b"1_0",
    b"~",
    b"\t",
    b"..",
    b"/etc/passwd",
    b"\xed\xa0\x80",
]


def mutated(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """The bytes with one to eight changes."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        place = rng.randrange(len(out) + 1)
        end = min(len(out), place + rng.choice([0, 1, 2, 4, 16, 64]))
        match rng.randrange(8):
            case 0 if out:
                out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
            case 1:
                del out[place:end]
            case 2:
                out[place:end] = rng.choice(TOKENS)
            case 3:
                out[place:place] = out[place:end] * rng.choice([1, 2, 100])
            case 4:
                out[place:end] = bytes(rng.randrange(256) for _ in range(end - place))
            case 5:
                other = rng.choice(others)
                cut = rng.randrange(len(other) + 1)
                out[place:end] = other[cut : cut + 64]
            case 6 if numbers := list(re.finditer(rb"\d+", bytes(out))):
                found = rng.choice(numbers)
                out[found.start() : found.end()] = rng.choice([b"0", b"-1", b"1e400", b"18446744073709551616", b"null"])
            case _:
                del out[place:]
    return bytes(out)


def fault(reader: Reader, path: Path, data: bytes) -> str:
    """What is wrong with how a reader takes these bytes; "" where nothing is."""
    path.write_bytes(data)
    signal.alarm(SECONDS)
    try:
        reader(path)
    except IsaraError as error:
        said = str(error)
        if "\n" in said or not said.isprintable():
            return f"a message that is not one clean line: {said[:200]!r}"
        return f"a message of {len(said)} characters: {said[:200]!r}" if len(said) > MOST_SHOWN else ""
    except Hang:
        return f"not done within {SECONDS} seconds"
    except Exception as error:
        where = [frame for frame in traceback.extract_tb(error.__traceback__) if "/isara/" in frame.filename][-1]
        return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:100]!r}"
    finally:
        signal.alarm(0)
    return ""


def _ring(number: int, frame: types.FrameType | None) -> None:
    raise Hang


def fuzz(inputs: int, seed: int, place: Path) -> Counter[str]:
    """How often each fault came, in so many inputs; what did not fail is mutated further now and then."""
    signal.signal(signal.SIGALRM, _ring)
    rng, found = random.Random(seed), Counter[str]()
    kinds = starts()
    pools = {name: [data] for name, _, _, data in kinds}
    others = [data for *_, data in kinds]
    slowest = 0.0
    for _ in range(inputs):
        name, file, reader, _ = rng.choice(kinds)
        data = mutated(rng.choice(pools[name]), rng, others)
        begun = time.monotonic()
        wrong = fault(reader, place / file, data)
        slowest = max(slowest, time.monotonic() - begun)
        if wrong:
            found[f"{name}: {wrong}"] += 1
        elif len(data) < 100_000 and rng.random() < 0.2:
            pools[name] = [*pools[name][-30:], data]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{inputs} inputs to {len(kinds)} readers: {sum(found.values())} faults, slowest {slowest:.1f} s, {memory} MB"
    )
    return found


def guided(inputs: int, place: Path) -> None:
    """The same by coverage; ends the process."""
    try:
        import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        sys.exit("expected atheris for --guided, found none: pip install atheris, or leave --guided out")
    signal.signal(signal.SIGALRM, _ring)
    kinds = starts()
    corpus = place / "corpus"
    corpus.mkdir()
    for number, (*_, data) in enumerate(kinds):
        (corpus / str(number)).write_bytes(bytes([number]) + data)

    def one(data: bytes) -> None:
        name, file, reader, _ = kinds[(data[0] if data else 0) % len(kinds)]
        if wrong := fault(reader, place / file, data[1:]):
            raise AssertionError(f"{name}: {wrong}")

    limits = [f"-runs={inputs}", f"-timeout={SECONDS}", "-rss_limit_mb=1024", "-max_len=20000", str(corpus)]
    for each in gc.get_objects():
        if isinstance(each, types.FunctionType) and (each.__module__ or "").partition(".")[0] in INSTRUMENTED:
            atheris.instrument_func(each)
    atheris.Setup([sys.argv[0], *limits], one)
    atheris.Fuzz()


def main() -> None:
    """Reads the arguments, runs the fuzzer and exits with 1 if any reader failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guided", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.guided:
            guided(options.inputs, Path(name))
        found = fuzz(options.inputs, options.seed, Path(name))
    for wrong, count in found.most_common():
        print(f"{count} x {wrong}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
