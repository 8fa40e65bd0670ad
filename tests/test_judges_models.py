"""Judges that are local models: a classifier and a causal model by its options, tiny and with random weights."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from isara.asking import Asker
from isara.build.judges import read_judge
from isara.engines.transformers.engine import TransformersEngine
from isara.errors import ConfigError, ModelError
from isara.judges.base import both_orders
from isara.judges.classifier import ClassifierJudge
from isara.judges.local import LocalJudge, LocalPairwiseJudge
from isara.records import Prompt, QAPair
from isara.render import open_renderer
from isara.testing import ScriptedEngine, word_renderer

PAIRS = [
    QAPair("How do I wake a Cucco?", "Gently."),
    QAPair(
        "How do I bake bread?", "Use baking soda and something sour, such as buttermilk, and then wait for an hour."
    ),
    QAPair("Why is the sky blue?", "Air scatters blue light more than red light. " * 6),
    QAPair("Who guards it?", "Link."),
]
BEAVER = ["animal_abuse", "child_abuse", "drug_abuse,weapons,banned_substance"]


def make_classifier(base: Path, folder: Path, labels: Sequence[str], multi: bool = False) -> Path:
    """A Llama with a random classification head, saved with the base model's tokenizer."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    config = AutoConfig.from_pretrained(base)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "multi_label_classification" if multi else None
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]  # has no types
        torch.nn.init.normal_(model.score.weight, std=0.5)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def binary(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tiny_llama, tmp_path_factory.mktemp("judges") / "binary", ["safe", "unsafe"])


@pytest.fixture(scope="module")
def beaver(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tiny_llama, tmp_path_factory.mktemp("judges") / "beaver", BEAVER, multi=True)


def test_a_binary_classifier_gives_transformers_own_probabilities(binary: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(binary)
    model = AutoModelForSequenceClassification.from_pretrained(binary)
    verdicts = ClassifierJudge(str(binary)).score(PAIRS)
    for pair, verdict in zip(PAIRS, verdicts, strict=True):
        text = f"BEGINNING OF CONVERSATION: USER: {pair.question} ASSISTANT:{pair.answer}"
        with torch.inference_mode():
            safe, unsafe = model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1).tolist()
        assert verdict.raw == pytest.approx({"safe": safe, "unsafe": unsafe}, abs=1e-5)
        assert verdict.score == pytest.approx(unsafe, abs=1e-5)
        assert verdict.label == ("harmful" if unsafe >= 0.5 else "harmless")
    assert len({verdict.score for verdict in verdicts}) == len(PAIRS)


@pytest.mark.parametrize("template", [None, "{answer}", "Q {question} A {answer}"])
def test_batches_do_not_change_scores(binary: Path, template: str | None) -> None:
    alone = ClassifierJudge(str(binary), template=template, batch_size=1).score(PAIRS)
    together = ClassifierJudge(str(binary), template=template, batch_size=4).score(PAIRS)
    assert [verdict.score for verdict in alone] == pytest.approx([verdict.score for verdict in together], abs=1e-5)
    assert [verdict.judge for verdict in alone] == [verdict.judge for verdict in together]


def test_a_multi_label_classifier_is_harmful_if_any_category_is(beaver: Path) -> None:
    judge = ClassifierJudge(str(beaver))
    for verdict in judge.score(PAIRS):
        assert not isinstance(verdict.raw, str)
        assert list(verdict.raw) == BEAVER
        assert verdict.score == max(verdict.raw.values())
        assert verdict.label == ("harmful" if verdict.score >= 0.5 else "harmless")
    highest = max(verdict.score for verdict in judge.score(PAIRS))
    strict = ClassifierJudge(str(beaver), threshold=math.nextafter(highest, 1))
    assert {verdict.label for verdict in strict.score(PAIRS)} == {"harmless"}
    at_it = ClassifierJudge(str(beaver), threshold=highest)
    assert [verdict.label for verdict in at_it.score(PAIRS)].count("harmful") == 1


def test_a_long_answer_keeps_its_end(binary: Path) -> None:
    judge = ClassifierJudge(str(binary), template="{answer}", max_length=16)
    words = "Air scatters blue light more than red light. "
    one, other, third = judge.score([QAPair("", words * n + end) for n, end in ((9, "No."), (5, "No."), (9, "Yes!"))])
    assert one.score == pytest.approx(other.score, abs=1e-6)
    assert one.score != pytest.approx(third.score, abs=1e-6)


def test_the_pin_follows_weights_and_settings(binary: Path, tmp_path: Path) -> None:
    copy = tmp_path / "binary"
    shutil.copytree(binary, copy)
    pin = ClassifierJudge(str(binary)).pin
    assert pin.startswith("binary@")
    assert ClassifierJudge(str(copy)).pin == pin
    assert ClassifierJudge(str(binary), threshold=0.7).pin != pin
    weights = load_file(copy / "model.safetensors")
    weights["score.weight"] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert ClassifierJudge(str(copy)).pin != pin


def test_labels_that_do_not_fit_are_one_line(tiny_llama: Path, tmp_path: Path) -> None:
    moods = make_classifier(tiny_llama, tmp_path / "moods", ["joy", "anger", "fear"])
    with pytest.raises(ModelError) as caught:
        ClassifierJudge(str(moods))
    assert str(caught.value) == (
        f"the labels of {moods} do not say which is harmful (it has joy, anger, fear): "
        "name those that are in `positive`"
    )
    with pytest.raises(ModelError) as caught:
        ClassifierJudge(str(moods), positive=["rage"])
    assert str(caught.value) == (
        f"{moods} has no label 'rage' (it has joy, anger, fear): name some of these in `positive`"
    )
    verdict = ClassifierJudge(str(moods), positive=["anger", "fear"]).score(PAIRS[:1])[0]
    assert not isinstance(verdict.raw, str)
    assert verdict.score == pytest.approx(verdict.raw["anger"] + verdict.raw["fear"])


def test_a_single_label_is_a_sigmoid_and_has_to_say_what_it_is(tiny_llama: Path, tmp_path: Path) -> None:
    toxic = make_classifier(tiny_llama, tmp_path / "toxic", ["toxic"])
    scores = [verdict.score for verdict in ClassifierJudge(str(toxic)).score(PAIRS)]
    assert max(scores) < 1
    assert len(set(scores)) == len(PAIRS)
    reward = make_classifier(tiny_llama, tmp_path / "reward", ["LABEL_0"])
    with pytest.raises(ModelError) as caught:
        ClassifierJudge(str(reward))
    assert str(caught.value) == (
        f"the labels of {reward} do not say which is harmful (it has LABEL_0): name those that are in `positive`"
    )


def test_a_model_without_a_classification_head_is_one_line(tiny_llama: Path) -> None:
    judge = ClassifierJudge(str(tiny_llama), positive=["LABEL_1"])
    with pytest.raises(ModelError) as caught:
        judge.score(PAIRS)
    assert str(caught.value) == (
        f"{tiny_llama} is no trained sequence classifier (it lacks score.weight): "
        "give a model with a classification head"
    )


@pytest.mark.parametrize("kind", ["binary", "beaver"])
def test_a_classifier_whose_weights_are_nan_says_nothing(kind: str, binary: Path, beaver: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cursed"
    shutil.copytree({"binary": binary, "beaver": beaver}[kind], folder)
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"][1, 0] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    verdict = ClassifierJudge(str(folder)).score(PAIRS[:1])[0]
    assert verdict.label == "unreadable" and math.isnan(verdict.score)


def half(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def other_sizes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 17}))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (
            half,
            "{folder} can't be loaded as a sequence classifier (Error while deserializing header: invalid header "
            "length): give another model",
        ),
        (
            other_sizes,
            "the config.json of {folder} belongs to other weights (model.embed_tokens.weight has another size): copy "
            "or download the model again",
        ),
    ],
)
def test_a_damaged_classifier_is_one_line(
    binary: Path, tmp_path: Path, damage: Callable[[Path], None], line: str
) -> None:
    folder = tmp_path / "cursed"
    shutil.copytree(binary, folder)
    damage(folder)
    with pytest.raises(ModelError) as caught:
        ClassifierJudge(str(folder)).score(PAIRS[:1])
    assert str(caught.value) == line.format(folder=folder)


def test_a_batch_that_memory_does_not_hold_is_one_line(binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    judge = ClassifierJudge(str(binary))
    monkeypatch.setattr(judge, "_probabilities", full)
    with pytest.raises(ModelError) as caught:
        judge.score(PAIRS)
    assert str(caught.value) == (
        f"{binary} runs out of memory with 4 answers at a time: lower `batch_size` or `max_length` in the judge's file"
    )


@pytest.mark.parametrize("kind", ["classifier", "local"])
def test_a_models_own_code_is_not_run_unasked(
    kind: str, binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is not said whether to trust it, transformers asks on the terminal and waits."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("nobody is to be asked"))
    folder = tmp_path / "stranger"
    shutil.copytree(binary, folder)
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "stranger", "auto_map": code}))
    (folder / "own.py").write_text("raise AssertionError('it was run')\n")
    judge = tmp_path / "judge.yaml"
    judge.write_text(f"judge: {kind}\nmodel: {folder}\n")
    with pytest.raises(ModelError) as caught:
        read_judge(str(judge))
    hints = {
        "classifier": f"{folder} brings code of its own, which is not run unasked: set `trust_remote_code: true` in "
        "the judge's file if you trust it, or give another model",
        "local": f"the model '{folder}' brings code of its own, which is not run unasked: set engine.trust_remote_code "
        "to true if you trust it, or use another model",
    }
    assert str(caught.value) == hints[kind]


def test_a_template_without_an_answer_is_one_line(binary: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ClassifierJudge(str(binary), template="USER: {question}")
    assert str(caught.value) == "the judge's prompt has no place for {answer}: write {answer} where it goes"


class LettersEngine(ScriptedEngine):
    """Likes the option that stands for a favourite text, and the letter A a little by itself."""

    def __init__(self, favourite: str) -> None:
        super().__init__(lambda prompt, seed: "")
        self.favourite = favourite
        self.entered = 0

    def __enter__(self) -> "LettersEngine":
        self.entered += 1
        return self

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        self.prompts += [prompt.text for prompt in prompts]
        letters = {word_renderer().text(f" {letter}").ids: letter for letter in "AB"}
        asked = zip(self.prompts[-len(prompts) :], (letters[tuple(ids)] for ids in continuations), strict=True)
        return [
            -1.0 + 0.5 * (letter == "A") + 2.0 * (f"{letter}: {self.favourite}" in prompt) for prompt, letter in asked
        ]


def asker_of(engine: ScriptedEngine, context_length: int = 2048) -> Asker:
    return Asker(lambda model, /: engine, "tiny", word_renderer(context_length))


def test_options_are_asked_as_either_letter_and_averaged() -> None:
    engine = LettersEngine("harmful")
    judge = LocalJudge(asker_of(engine), "tiny@123")
    verdict = judge.score(PAIRS[:1])[0]
    as_a, as_b = 1 / (1 + math.exp(-2.5)), 1 / (1 + math.exp(-1.5))
    assert verdict.raw == pytest.approx({"as_a": as_a, "as_b": as_b})
    assert verdict.label == "harmful"
    assert verdict.score == pytest.approx((as_a + as_b) / 2)
    judge.score(PAIRS)
    assert engine.entered == 1, "the model is loaded once"
    assert "A: harmful\nB: harmless" in engine.prompts[0]


def test_a_model_that_only_likes_a_letter_is_undecided() -> None:
    verdict = LocalJudge(asker_of(LettersEngine("nothing")), "tiny@123").score(PAIRS[:1])[0]
    assert verdict.score == pytest.approx(0.5)
    engine = LettersEngine("nothing")
    preference = both_orders(LocalPairwiseJudge(asker_of(engine), "tiny@123"), ["Who?"], ["Link."], ["Zelda."])[0]
    assert preference.probability == pytest.approx(0.5)


def test_a_pair_is_decided_by_the_text_and_not_the_place() -> None:
    judge = LocalPairwiseJudge(asker_of(LettersEngine("Zelda")), "tiny@123")
    assert judge.compare(["Who?"], ["Link."], ["Zelda."])[0].winner == "b"
    preference = both_orders(judge, ["Who?"], ["Link."], ["Zelda."])[0]
    assert preference.winner == "b"
    assert preference.raw == pytest.approx({"a_first": 1 / (1 + math.exp(1.5)), "b_first": 1 / (1 + math.exp(2.5))})


def test_a_text_longer_than_the_context_is_unreadable_and_the_others_are_judged() -> None:
    asker = asker_of(LettersEngine("harmful"), context_length=120)
    long = QAPair("Where is the bow?", "In the temple, " * 80)
    verdicts = LocalJudge(asker, "tiny@123").score([PAIRS[0], long])
    assert [verdict.label for verdict in verdicts] == ["harmful", "unreadable"]
    compared = LocalPairwiseJudge(asker, "tiny@123").compare(["Who?", "Who?"], ["Link.", long.answer], ["Zelda."] * 2)
    assert [preference.winner for preference in compared] == ["a", "unreadable"]
    # As rows are stored, where a number that is not finite would end the judging.
    json.dumps([*(each.to_json() for each in verdicts), *(each.to_json() for each in compared)], allow_nan=False)


def test_a_real_model_judges_by_its_likelihoods(tiny_llama: Path) -> None:
    engine = partial(TransformersEngine, device="cpu", dtype="float32")
    judge = LocalJudge(Asker(engine, str(tiny_llama), open_renderer(str(tiny_llama))), "tiny@123", "quality")
    together = judge.score(PAIRS)
    alone = [judge.score([pair])[0] for pair in PAIRS]
    judge.close()
    assert [verdict.score for verdict in together] == pytest.approx([verdict.score for verdict in alone], abs=1e-5)
    assert all(0 < verdict.score < 1 for verdict in together)
    assert {verdict.label for verdict in together} <= {"good", "poor"}


def test_the_pin_of_a_local_judge_follows_model_prompt_and_kind() -> None:
    engine = asker_of(LettersEngine("x"))
    prompt = "{question} {answer} {first} {second}"
    pins = {
        LocalJudge(engine, "tiny@1").pin,
        LocalJudge(engine, "tiny@2").pin,
        LocalJudge(engine, "tiny@1", "refusal").pin,
        LocalJudge(engine, "tiny@1", prompt=prompt).pin,
        LocalPairwiseJudge(engine, "tiny@1").pin,
    }
    assert len(pins) == 5
    with pytest.raises(ConfigError) as caught:
        LocalJudge(engine, "tiny@1", prompt="{question} {answer} A or B?")
    assert str(caught.value) == "the judge's prompt has no place for {first}: write {first} where it goes"


def test_a_judge_of_ones_own_is_named_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "my_judges.py").write_text(
        "from isara.judges.base import Verdict\n\n\n"
        "class Politeness:\n"
        "    kind = 'quality'\n\n"
        "    def __init__(self, words):\n"
        "        self.words, self.pin = words, 'politeness-' + '-'.join(words)\n\n"
        "    def score(self, pairs):\n"
        "        return [Verdict('good' if self.words[0] in p.answer else 'poor', 1.0, '', self.pin) for p in pairs]\n"
    )
    (tmp_path / "judge.yaml").write_text("judge: own\nuse: my_judges:Politeness\noptions: {words: [please]}\n")
    judge = read_judge(str(tmp_path / "judge.yaml"))
    pairs = [QAPair("Is Impa in?", "Come in, please."), QAPair("Is Impa in?", "No.")]
    assert judge.pin == "politeness-please"
    assert [verdict.label for verdict in judge.score(pairs)] == ["good", "poor"]


def test_a_judge_of_ones_own_without_a_pin_is_named(tmp_path: Path) -> None:
    path = tmp_path / "judge.yaml"
    path.write_text("judge: own\nuse: json:loads\n")
    with pytest.raises(ConfigError) as caught:
        read_judge(str(path))
    assert str(caught.value) == (
        f"{path}: expected a judge, found `json:loads` without `pin`: give it one, with its revision"
    )
