"""What `isara init` writes is a config that loads, and says everything there is to say."""

import json
import re
from pathlib import Path

import pytest

from isara.config import Config, fields, load_config, section_of
from isara.data import read_pairs, read_rows
from isara.errors import ConfigError
from isara.scaffold import EXAMPLES, config_text, write_scaffold
from isara.seeds import lint

# Their defaults depend on where the config is.
PLACES = {"seeds", "out"}


def test_the_written_config_gives_the_defaults(tmp_path: Path) -> None:
    write_scaffold(tmp_path / "shop", "embedded")

    config = load_config(tmp_path / "shop")

    assert config.model_dump(exclude=PLACES) == Config().model_dump(exclude=PLACES)
    assert config.seeds == str(tmp_path / "shop" / "seeds.jsonl")


def test_every_key_stands_in_it_and_what_is_commented_out_is_the_default(tmp_path: Path) -> None:
    text = re.sub(r"^( *)#(?=\w)", r"\1", config_text(), flags=re.MULTILINE)
    (tmp_path / "isara.yaml").write_text(text)

    config = load_config(tmp_path)

    assert config.model_dump(exclude=PLACES) == Config().model_dump(exclude=PLACES)
    for key, field in fields():
        section, _, name = key.rpartition(".")
        # A key that is no name in Python, such as `from`, has a line below behind it there.
        assert {name, f"{name}_"} & (getattr(config, section) if section else config).model_fields_set, key
        assert section_of(field) or re.search(rf"^ *{name}: ", text, re.MULTILINE), key


def test_the_comments_say_what_each_key_means_and_takes() -> None:
    words = " ".join(re.sub(r"^ *# ?", "", line) for line in config_text().splitlines())

    for key, field in fields():
        assert field.description and field.description in words, key
    assert "[a whole number of at least 1 or null]" in words
    assert max(map(len, config_text().splitlines())) <= 120


def test_the_examples_are_pairs_without_faults_but_too_few(tmp_path: Path) -> None:
    write_scaffold(tmp_path / "shop", "embedded")
    rows = read_rows(tmp_path / "shop" / "seeds.jsonl")

    assert read_pairs(tmp_path / "shop") == list(EXAMPLES)
    assert [problem.severity for problem in lint(rows, demos_needed=8)] == ["error"]
    first = json.loads((tmp_path / "shop" / "seeds.jsonl").read_text("utf-8").splitlines()[0])
    assert {"question", "answer"} <= set(first)


def test_the_readme_speaks_of_the_folder(tmp_path: Path) -> None:
    write_scaffold(tmp_path / "shop", "embedded")

    readme = (tmp_path / "shop" / "README.md").read_text("utf-8")

    assert readme.startswith("# shop\n")
    assert "`isara run shop --dry-run`" in readme


def test_a_model_folder_is_named_from_the_root_and_a_hub_name_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)

    write_scaffold(Path("a"), "models/mine")
    write_scaffold(Path("b"), "HuggingFaceTB/SmolLM2-135M")

    assert load_config(Path("a")).model == str(tmp_path / "models" / "mine")
    assert load_config(Path("b")).model == "HuggingFaceTB/SmolLM2-135M"


def test_an_empty_folder_is_filled_and_a_full_one_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    write_scaffold(folder, "embedded")
    before = (folder / "isara.yaml").read_bytes()

    with pytest.raises(ConfigError) as caught:
        write_scaffold(folder, "gpt2")

    assert str(caught.value) == f"expected a new or empty folder, found files in {folder}: name another one"
    assert (folder / "isara.yaml").read_bytes() == before


def test_a_file_in_the_way_is_answered_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "shop").touch()

    with pytest.raises(ConfigError) as caught:
        write_scaffold(tmp_path / "shop", "embedded")

    assert str(caught.value) == (
        f"expected a folder that can be written, found {tmp_path}/shop (File exists): name another one"
    )
