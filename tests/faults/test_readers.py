"""Readers of what comes from outside hold for anything: they return, or raise one clean line of the project's own."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isara.build.judges import read_judge
from isara.config import FILE_NAME, load_config
from isara.data import as_pairs, read_pairs, read_rows, write_pairs
from isara.errors import IsaraError, RunError
from isara.files import append_batch, read_batches, read_json, read_sealed, sums_file, write_json, write_sealed
from isara.marks import clean
from isara.records import QAPair
from isara.tables import read_table
from isara.yaml_text import YamlError, parse_yaml
from tests.faults.readers import Reader, _ring, fault, fuzz, starts

MANY = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# What a JSON file can hold.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = ["question", "answer", "prompt", "completion", "messages", "conversations", "role", "content", "from", "value"]
ROLES = ["user", "assistant", "system", "human", "gpt", "tool", ""]
# Rows that look like somebody's: the usual names with anything below them.
ROWS = st.dictionaries(
    st.sampled_from(NAMES),
    VALUES | st.lists(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(ROLES) | VALUES, max_size=3), max_size=4),
    max_size=4,
)
VISIBLE = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=40)
KINDS = {name: (file, reader) for name, file, reader, _ in starts()}


@pytest.fixture(autouse=True)
def bell() -> None:
    signal.signal(signal.SIGALRM, _ring)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISARA_CACHE", str(tmp_path / "cache"))


def test_mutated_files_of_every_kind(tmp_path: Path) -> None:
    assert fuzz(600, 3, tmp_path) == {}


@pytest.mark.parametrize("name", sorted(KINDS))
@settings(MANY, max_examples=12)
@given(data=st.binary(max_size=200) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes(tmp_path: Path, name: str, data: bytes) -> None:
    file, reader = KINDS[name]
    assert fault(reader, tmp_path / file, data) == ""


@MANY
@given(rows=st.lists(ROWS, min_size=1, max_size=3))
def test_any_rows(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    readers: list[Reader] = [read_rows, read_table]
    for reader in readers:
        assert fault(reader, tmp_path / "rows.jsonl", text) == ""
    try:
        as_pairs(rows)
    except IsaraError as error:
        assert str(error).isprintable()


@MANY
@given(value=VALUES)
def test_any_config_and_any_judge(tmp_path: Path, value: Any) -> None:
    for name, tree in (("isara.yaml", value), ("judge.yaml", {"judge": value, "model": value})):
        path = tmp_path / name
        path.write_text(json.dumps(tree))
        try:
            load_config(path) if name == FILE_NAME else read_judge(str(path))
        except IsaraError as error:
            assert str(error).isprintable() and len(str(error)) < 3000


@MANY
@given(texts=st.lists(st.tuples(VISIBLE, VISIBLE), min_size=1, max_size=5))
def test_pairs_are_read_as_they_were_written(tmp_path: Path, texts: list[tuple[str, str]]) -> None:
    pairs = [QAPair(question.strip(), answer.strip()) for question, answer in texts]
    pairs = [pair for pair in pairs if pair.question and pair.answer] or [QAPair("Who?", "Impa.")]
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs


@MANY
@given(tree=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), st.integers() | st.text(
    st.characters(codec="utf-8"), max_size=9), max_size=4), place=st.integers(0), bit=st.integers(0, 7))  # fmt: skip
def test_a_sealed_file_is_read_as_it_was_written_or_not_at_all(
    tmp_path: Path, tree: dict[str, Any], place: int, bit: int
) -> None:
    path = tmp_path / "sealed.json"
    tree.pop("sha256", None)
    write_sealed(path, tree)
    assert read_sealed(path) == tree
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(RunError):
        read_sealed(path)
    write_json(path, tree)
    assert read_json(path) == tree


@MANY
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), cut=st.integers(0), torn=st.integers(0))
def test_of_a_file_that_a_kill_has_cut_whole_batches_are_read(
    tmp_path: Path, sizes: list[int], cut: int, torn: int
) -> None:
    path = tmp_path / "rows.jsonl"
    path.unlink(missing_ok=True)
    sums_file(path).unlink(missing_ok=True)
    ends = [(0, 0)]
    for number, size in enumerate(sizes):
        append_batch(path, [{"batch": number}] * size, "key")
        ends.append((path.stat().st_size, sums_file(path).stat().st_size))
    # A kill leaves all earlier batches, and of the last its sum in part, or no sum and the rows in part.
    (before, sums), (end, last) = ends[cut % len(sizes)], ends[cut % len(sizes) + 1]
    path.write_bytes(path.read_bytes()[: before + torn % (end - before + 1)])
    whole = path.stat().st_size == end
    sums_file(path).write_bytes(sums_file(path).read_bytes()[: sums + (torn % (last - sums) if whole else 0)])
    rows, size, noted = read_batches(path, "key")
    assert (size, noted) == (before, sums)
    assert len(rows) == sum(sizes[: cut % len(sizes)])


@pytest.mark.parametrize("size", ["9{}", "0{}", "+{}", " {}", "{}0", "{}_0"])
def test_a_size_that_only_reaches_beyond_the_end_is_damage(tmp_path: Path, size: str) -> None:
    path = tmp_path / "rows.jsonl"
    append_batch(path, [{"batch": 0}], "key")
    noted = sums_file(path).read_text()
    sums_file(path).write_text(size.format(noted.partition(" ")[0]) + " " + noted.partition(" ")[2])
    with pytest.raises(RunError, match=re.escape(str(path))):
        read_batches(path, "key")


@given(text=st.text(), limit=st.integers(1, 50))
def test_what_is_shown_is_one_short_line_that_can_be_seen(text: str, limit: int) -> None:
    shown = clean(text, limit)
    assert shown.isprintable() and len(shown) <= limit and clean(shown, limit) == shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "expected the node content"),
        ("born: 2024-02-30", "day is out of range"),
        ("? [a, b]\n: c", "found unhashable key"),
        ("a: &a [*a]", "a part of itself"),
        ("[" * 1000, "nested too deep"),
        ("n: " + "9" * 5000, "Exceeds the limit"),
        ("a: \x1b[31mred", "special characters are not allowed"),
        ("!!python/object:os.system x", "could not determine a constructor"),
        ("x" * 1_000_001, "more than 1,000,000 characters"),
        ("a0: &a0 [" + "x, " * 9 + "x]\n" + "".join(
            f"a{n}: &a{n} [" + f"*a{n - 1}, " * 9 + f"*a{n - 1}]\n" for n in range(1, 9)), "its aliases written out"),
    ],
)  # fmt: skip
def test_yaml_that_no_one_should_read(text: str, said: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert said in str(caught.value) and str(caught.value).isprintable()
