"""Config files, overrides, and what is said of wrong ones."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from isara.config import Config, changes, dump_config, expected, fields, load_config, section_of
from isara.errors import ConfigError
from isara.scaffold import reference

KEYS = "model, seeds, out, seed, iterations, prompt_format, columns, heldout, licence, track, questions, answers, "
KEYS += "retrieve, generate, filters, review, train, prefer, evaluate, engine, select, budget"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with an empty folder `shop` for a config."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").mkdir()
    return tmp_path


def load(text: str, *overrides: str, **values: Any) -> Config:
    Path("shop/isara.yaml").write_text(text, encoding="utf-8")
    return load_config(Path("shop/isara.yaml"), overrides, **values)


def settings(config: Config) -> dict[str, Any]:
    """Every value but the paths that depend on where the file is."""
    return config.model_dump(exclude={"seeds", "out"})


@pytest.mark.parametrize("text", ["", "\n# nothing set\n", "train:\n  # method: full\n", "train: {}\n"])
def test_a_file_without_values_gives_the_defaults(here: Path, text: str) -> None:
    assert settings(load(text)) == settings(Config())


def test_values_of_the_file_then_of_the_caller_then_of_set(here: Path) -> None:
    config = load(
        "iterations: 1\ngenerate: {accept: 10, batch: 5}\ntrain: {start: last, method: full}",
        "generate.batch=6",
        "train.learning_rate=1e-4",
        "filters.drop_matching=['as an AI']",
        iterations=2,
        train={"method": "lora"},
        model=None,
    )

    assert (config.iterations, config.model) == (2, "embedded")
    assert (config.generate.accept, config.generate.batch) == (10, 6)
    assert (config.train.start, config.train.method, config.train.learning_rate) == ("last", "lora", 1e-4)
    assert config.filters.drop_matching == ("as an AI",)


@pytest.mark.parametrize("written", ["1e-4", "1E-4", "1.0e-4", "0.0001", ".1e-3"])
def test_numbers_with_exponents_are_numbers(here: Path, written: str) -> None:
    assert load(f"train: {{learning_rate: {written}}}").train.learning_rate == 1e-4


def test_paths_of_the_file_start_at_the_file(here: Path) -> None:
    (here / "shop" / "mymodel").mkdir()
    config = load(
        "model: mymodel\nseeds: data/pairs.csv\nheldout: ../heldout.jsonl\nout: runs/x\n"
        "retrieve: {embedder: ./minilm}\nfilters: {contamination: [bench.jsonl]}"
    )

    assert config.model == str(here / "shop" / "mymodel")
    assert config.seeds == str(here / "shop" / "data" / "pairs.csv")
    assert config.heldout == str(here / "heldout.jsonl")
    assert config.out == str(here / "shop" / "runs" / "x")
    assert config.retrieve.embedder == str(here / "shop" / "minilm")
    assert config.filters.contamination == (str(here / "shop" / "bench.jsonl"),)


def test_paths_of_the_caller_and_of_set_start_at_the_working_directory(here: Path) -> None:
    config = load("seeds: other.jsonl", "out=there", seeds="mine.jsonl", model=Path("./m"), heldout=0.5)

    assert config.seeds == str(here / "mine.jsonl")
    assert config.model == str(here / "m")
    assert config.out == str(here / "there")
    assert config.heldout == 0.5


def test_a_home_that_nobody_has_is_a_folder_like_others(here: Path) -> None:
    assert load("out: ~ganondorf/runs").out == str(here / "shop" / "~ganondorf" / "runs")


@pytest.mark.parametrize("name", ["HuggingFaceTB/SmolLM2-135M", "gpt2", "embedded"])
def test_names_that_are_no_files_stay(here: Path, name: str) -> None:
    (here / "shop" / "embedded").mkdir()
    config = load(f"model: {name}\nseeds: hyrule/lore:castle/train")

    assert (config.model, config.seeds) == (name, "hyrule/lore:castle/train")


def test_the_run_is_named_after_the_configs_folder_or_file(here: Path) -> None:
    assert load("").out == str(here / "runs" / "shop")
    assert load_config(Path("shop")).out == str(here / "runs" / "shop")
    (here / "shop" / "quick test.yaml").touch()
    assert load_config(Path("shop/quick test.yaml")).out == str(here / "runs" / "quick-test")
    assert load_config(None, seeds="recipes/safety/seeds.jsonl").out == str(here / "runs" / "safety")
    assert load_config(None, seeds="faq.csv").out == str(here / "runs" / "faq")


def test_without_a_file_everything_starts_at_the_working_directory(here: Path) -> None:
    assert load_config(None).seeds == str(here / "seeds.jsonl")


def test_a_dumped_config_loads_again_from_anywhere(here: Path) -> None:
    config = load(
        "model: ./m\nlicence: CC-BY-4.0\ntrain: {learning_rate: 2e-5, lora_target_modules: [q_proj]}\n"
        "filters: {drop_matching: ['été|海', \"it's\"], novelty: null}\nengine: {child_process: false}"
    )
    text = dump_config(config)
    (here / "elsewhere.yaml").write_text(text, encoding="utf-8")

    assert load_config(here / "elsewhere.yaml") == config
    assert dump_config(load_config(here / "elsewhere.yaml")) == text
    keys = [key for key, _ in fields()]
    assert [line.split(":")[0].strip() for line in text.splitlines() if ":" in line] == [
        key.rpartition(".")[2] for key in keys
    ]


def test_a_config_cant_be_changed_and_the_callers_values_stay_as_they_are(here: Path) -> None:
    given = {"lora_target_modules": ["q_proj"]}
    config = load("", "train.lora_r=4", train=given)

    assert given == {"lora_target_modules": ["q_proj"]}
    with pytest.raises(ValueError, match="frozen"):
        config.train.lora_r = 8  # type: ignore[misc]  # that it can't be done is what is tested


@pytest.mark.parametrize(
    ("key", "free"),
    [
        ("engine.tokens_per_batch", True),
        ("generate.max_batches", True),
        ("model", True),
        ("engine.dtype", False),
        ("retrieve.embedder", True),
        ("engine.use", True),
        ("filters.novelty", False),
        ("filters.own_pairs", True),
        ("filters.contamination", True),
    ],
)
def test_what_a_run_may_be_resumed_with_stands_on_the_field(here: Path, key: str, free: bool) -> None:
    old = load("").model_dump(mode="json")
    *sections, name = key.split(".")
    whole = load("").model_dump(mode="json")
    target = whole
    for section in sections:
        target = target[section]
    was, target[name] = target[name], "another"
    assert changes(old, whole) == ([] if free else [(key, was, "another")])


def test_a_key_that_is_younger_than_a_run_changes_it_only_where_it_is_on(here: Path) -> None:
    old = load("").model_dump(mode="json")
    del old["filters"]["kind"], old["budget"]
    assert changes(old, load("", "filters.kind=false").model_dump(mode="json")) == []
    assert changes(old, load("", "filters.kind=false", "engine.options.seed=0").model_dump(mode="json")) == [
        ("engine.options.seed", None, 0)
    ]
    assert changes(old, load("", "filters.kind=true").model_dump(mode="json")) == [("filters.kind", None, True)]


def test_an_engine_option_called_like_a_free_key_is_not_free(here: Path) -> None:
    old, new = (load("", f"engine.options.out={value}").model_dump(mode="json") for value in ("a", "b"))
    assert changes(old, new) == [("engine.options.out", "a", "b")]


def test_a_path_may_be_text(here: Path) -> None:
    (here / "my-domain").mkdir()
    (here / "my-domain/isara.yaml").write_text("iterations: 2\n")
    assert load_config("my-domain").iterations == load_config(str(here / "my-domain/isara.yaml")).iterations == 2


def test_a_part_of_ones_own_is_found_beside_the_config(here: Path) -> None:
    (here / "my-domain").mkdir()
    (here / "my-domain/my_filters.py").write_text("def no_prices(candidate, kept):\n    return None\n")
    (here / "my-domain/isara.yaml").write_text("filters:\n  own_pairs:\n    - use: my_filters:no_prices\n")
    [own] = load_config("my-domain").filters.own_pairs
    assert own.use == f"{here / 'my-domain/my_filters.py'}:no_prices"


def test_every_key_says_what_it_means_and_takes() -> None:
    for key, field in fields():
        assert field.description, key
        assert section_of(field) or "section" not in expected(field), key


def test_the_documented_table_is_the_one_made_from_the_fields() -> None:
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text(encoding="utf-8")

    assert reference() in page, (
        "paste the output of: python -c 'from isara.scaffold import reference; print(reference())'"
    )


FILE = "shop/isara.yaml"
WRONG = {
    "unknown key": ("generate: {acept: 3}", f"{FILE}: unknown key `generate.acept`: did you mean `generate.accept`?"),
    "unknown section": ("trian: {method: full}", f"{FILE}: unknown key `trian`: did you mean `train`?"),
    "key of another section": (
        "learning_rate: 1",
        f"{FILE}: unknown key `learning_rate`: did you mean `train.learning_rate`?",
    ),
    "key like no other": ("zzz: 1", f"{FILE}: unknown key `zzz`: known here are {KEYS}"),
    "key like no other in a section": (
        "retrieve: {zzz: 1}",
        f"{FILE}: unknown key `retrieve.zzz`: known here are embedder, pool",
    ),
    "number as a key": ("1: 2", f"{FILE}: unknown key `1`: known here are {KEYS}"),
    "value for a section": ("train: lora", f'{FILE}: `train`: expected a section of keys, found "lora"'),
    "text for a number": (
        "generate: {accept: many}",
        f'{FILE}: `generate.accept`: expected a whole number of at least 0, found "many"',
    ),
    "quoted number": ('iterations: "3"', f'{FILE}: `iterations`: expected a whole number of at least 0, found "3"'),
    "fraction for a whole number": (
        "iterations: 2.5",
        f"{FILE}: `iterations`: expected a whole number of at least 0, found 2.5",
    ),
    "truth value for a number": (
        "iterations: yes",
        f"{FILE}: `iterations`: expected a whole number of at least 0, found true",
    ),
    "number for a truth value": ("train: {packing: 1}", f"{FILE}: `train.packing`: expected true or false, found 1"),
    "null where a value is needed": (
        "seed:",
        f"{FILE}: `seed`: expected a whole number in [0, 4294967295], found null",
    ),
    "seed that numpy can't take": (
        "seed: 4294967296",
        f"{FILE}: `seed`: expected a whole number in [0, 4294967295], found 4294967296",
    ),
    "empty model": ("model: ''", f'{FILE}: `model`: expected a name or path, not empty and without NUL, found ""'),
    "empty seeds": ("seeds: ''", f'{FILE}: `seeds`: expected a name or path, not empty and without NUL, found ""'),
    "blank run folder": ("out: ' '", f'{FILE}: `out`: expected a name or path, not empty and without NUL, found " "'),
    "NUL in the run folder": (
        'out: "a\\0b"',
        f'{FILE}: `out`: expected a name or path, not empty and without NUL, found "a\\u0000b"',
    ),
    "NUL in the file of seeds": (
        'seeds: "a\\0.jsonl"',
        f'{FILE}: `seeds`: expected a name or path, not empty and without NUL, found "a\\u0000.jsonl"',
    ),
    "empty file of held-out pairs": (
        "heldout: ''",
        f'{FILE}: `heldout`: expected a share in [0, 1) or a file, found ""',
    ),
    "empty embedder": (
        "retrieve: {embedder: ''}",
        f'{FILE}: `retrieve.embedder`: expected a name or path, not empty and without NUL, found ""',
    ),
    "empty benchmark file": (
        "filters: {contamination: ['']}",
        f'{FILE}: `filters.contamination`: expected a name or path, not empty and without NUL, found [""]',
    ),
    "date as a key of a value": (
        "generate: {accept: {2024-01-01: 1}}",
        f"{FILE}: `generate.accept`: expected a whole number of at least 0, found {{datetime.date(2024, 1, 1): 1}}",
    ),
    "number for a name": ("model: 7", f"{FILE}: `model`: expected text, found 7"),
    "below the range": (
        "answers: {temperature: -1}",
        f"{FILE}: `answers.temperature`: expected a number of at least 0 or null, found -1",
    ),
    "at the open end": ("questions: {top_p: 0}", f"{FILE}: `questions.top_p`: expected a number in (0, 1], found 0"),
    "above the range": (
        "filters: {novelty: 1.1}",
        f"{FILE}: `filters.novelty`: expected a number in (0, 1] or null, found 1.1",
    ),
    "not a number": (
        "train: {learning_rate: .nan}",
        f"{FILE}: `train.learning_rate`: expected a number above 0 or null, found NaN",
    ),
    "no such choice": ("train: {method: qlora}", f'{FILE}: `train.method`: expected lora, full or null, found "qlora"'),
    "choice or truth value": (
        "engine: {child_process: never}",
        f'{FILE}: `engine.child_process`: expected auto, true or false, found "never"',
    ),
    "no such device": (
        "engine: {device: tpu}",
        f'{FILE}: `engine.device`: expected auto, cpu, mps, cuda or cuda:N, found "tpu"',
    ),
    "all pairs held out": ("heldout: 1.0", f"{FILE}: `heldout`: expected a share in [0, 1) or a file, found 1.0"),
    "truth value for a share": (
        "heldout: true",
        f"{FILE}: `heldout`: expected a share in [0, 1) or a file, found true",
    ),
    "text for a list": (
        "filters: {contamination: bench.jsonl}",
        f'{FILE}: `filters.contamination`: expected a list of texts, found "bench.jsonl"',
    ),
    "number in a list": (
        "filters: {contamination: [3]}",
        f"{FILE}: `filters.contamination`: expected a list of texts, found 3",
    ),
    "broken regular expression": (
        "filters: {drop_matching: ['(']}",
        f"{FILE}: `filters.drop_matching`: expected regular expressions "
        "(missing ), unterminated subpattern at position 0 in '('), found [\"(\"]",
    ),
    "two things wrong": (
        "iterations: -1\nengine: {device: tpu}",
        f"{FILE}: `iterations`: expected a whole number of at least 0, found -1 (and 1 more)",
    ),
    "broken YAML": (
        "model: a\ntrain: {method: full\n",
        f"{FILE}:3: not valid YAML: expected ',' or '}}', but got '<stream end>'",
    ),
    "key twice": ("seed: 1\nmodel: a\nseed: 2", f"{FILE}:3: not valid YAML: the key `seed` stands twice, keep one"),
    "list": ("- seed", f'{FILE}: expected `key: value` lines, found ["seed"]: `isara init` writes an example'),
    "list as a key": ("? [1, 2]\n: 3", f"{FILE}:1: not valid YAML: found unhashable key"),
    "Python object": (
        "model: !!python/name:os.system ''",
        f"{FILE}:1: not valid YAML: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/name:os.system'",
    ),
    "control character": (
        "model: a\x07",
        f'{FILE}: not valid YAML: unacceptable character #x0007: special characters are not allowed in "<unicode '
        'string>", position 8',
    ),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_answered_in_one_line(here: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train", "--set: expected KEY=VALUE, found 'train': write it like --set generate.accept=64"),
        ("=3", "--set: expected KEY=VALUE, found '=3': write it like --set generate.accept=64"),
        ("train.metod=full", "--set: unknown key `train.metod`: did you mean `train.method`?"),
        ("train.method=qlora", '--set: `train.method`: expected lora, full or null, found "qlora"'),
        ("model.size=7", '--set: `model`: expected text, found {"size": 7}'),
        ("seeds=", "--set: `seeds`: expected text, found null"),
        ("heldout=", "--set: `heldout`: expected a share in [0, 1) or a file, found null"),
        ("train=3", "--set: `train`: expected a section of keys, found 3"),
        ("seed=[1", "--set seed:1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
    ],
)
def test_a_wrong_override_is_answered_in_one_line(here: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("", override)

    assert str(caught.value) == message


def test_a_wrong_value_of_the_caller_does_not_blame_the_file(here: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load("", iterations=-1)
    assert str(caught.value) == "configuration: `iterations`: expected a whole number of at least 0, found -1"


def test_a_missing_file_and_a_folder_without_one(here: Path) -> None:
    for path, message in {
        "no.yaml": "no.yaml: expected a config file, found nothing: `isara init` writes one",
        "shop": "shop/isara.yaml: expected a config file, found nothing: `isara init` writes one",
    }.items():
        with pytest.raises(ConfigError) as caught:
            load_config(Path(path))
        assert str(caught.value) == message


def test_a_file_that_is_not_utf8(here: Path) -> None:
    Path(FILE).write_bytes("licence: für alle".encode("latin1"))
    with pytest.raises(ConfigError) as caught:
        load_config(Path(FILE))
    assert str(caught.value) == f"{FILE}: expected UTF-8, found byte 0xfc: save it as UTF-8"


def test_importing_the_config_loads_no_heavy_library() -> None:
    code = "import isara.config, sys; print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
