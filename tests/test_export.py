"""What a run is taken home as: read back by the project's own readers, and asked by llama.cpp where it is installed."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from typer.testing import CliRunner

from isara.cli import main as cli
from isara.cli.export import compare_answers
from isara.config import load_config
from isara.data import read_pairs
from isara.decisions import Decision, review_file, write_decisions
from isara.errors import IsaraError, ModelError, RunError
from isara.export import llamacpp
from isara.export.folders import bos_text, find_form, write_folder
from isara.export.gguf import write_gguf
from isara.export.hub import push
from isara.export.ollama import go_template, modelfile
from isara.export.quantize import packed, stored_as
from isara.export.rows import FORMATS, to_rows
from isara.files import json_lines
from isara.loading import load_model
from isara.loop import run
from isara.models import find_model
from isara.parts import Parts
from isara.records import QAPair
from isara.render import PromptFormat, open_renderer, plain_format
from isara.report.facts import read_run
from isara.testing import HashEmbedder, word_renderer
from tests.doubles import SEEDS, CountingTrainer, hyrule
from tests.test_gguf import tiny
from tests.tiny_models import CHATML

gguf = pytest.importorskip("gguf")

PROBES = (
    "Who guards the Triforce of Courage?",
    "It costs 1,250 rupees.\n\n1. Pay  now\n\t2. or later…",
    "<|im_start|>user\nWo ist Zürich? 你好<|im_end|>\n",
    "Question: Why?\nAnswer: I don't know 007.",
)
DIALOGUE = QAPair("And now?", "Rest.", before=(("Where am I?", "In Kakariko."), ("Who are you?", "Impa.")))
PAIRS = [QAPair("Who are you?", "The hero\nof Time."), QAPair('Say "Hyaa" – twice', "Hyaa, 2× Hyaa!"), DIALOGUE]
needs_llamacpp = pytest.mark.skipif(not llamacpp.has_llamacpp(), reason=f"needs `{llamacpp.INSTALL}`")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ISARA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture(scope="module")
def zelda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with ChatML turns."""
    folder = tmp_path_factory.mktemp("zelda")
    model, tokenizer = tiny()
    tokenizer.chat_template = CHATML
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def read_back(path: Path) -> tuple[Any, Any]:
    return load_model(find_model(str(path)), torch.float32, False)


def tokens(tokenizer: Any) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(list(PROBES))["input_ids"]
    return ids


def test_a_gguf_file_holds_the_model_that_was_written(zelda: Path, tmp_path: Path, cache: Path) -> None:
    model, tokenizer = load_model(str(zelda), torch.float32, False)
    for kind, most in (("f32", 1e-7), ("f16", 1e-3), ("bf16", 1e-2), ("q8_0", 1e-2), ("q4_0", 0.2)):
        write_gguf(zelda, tmp_path / f"{kind}.gguf", kind)
        found, other = read_back(tmp_path / f"{kind}.gguf")
        for (name, one), two in zip(model.named_parameters(), found.parameters(), strict=True):
            assert (one - two).norm() <= most * one.norm(), (kind, name)
        assert tokens(other) == tokens(tokenizer)
        assert (other.eos_token, other.chat_template) == ("<|im_end|>", CHATML)
    assert sorted(path.name for path in tmp_path.glob("*.tmp")) == []


def test_qwen2(tiny_models: dict[str, Path], tmp_path: Path, cache: Path) -> None:
    check_logits(tiny_models["qwen2"], tmp_path)


def test_qwen3(tiny_models: dict[str, Path], tmp_path: Path, cache: Path) -> None:
    _, tokenizer = load_model(str(tiny_models["qwen2"]), torch.float32, False)
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    # 128 in all that were published, and what transformers takes of a GGUF file whatever it says.
    sizes |= {"head_dim": 128, "intermediate_size": 128, "vocab_size": len(tokenizer), "initializer_range": 0.2}
    Qwen3ForCausalLM(Qwen3Config(**sizes)).save_pretrained(tmp_path / "qwen3")
    tokenizer.save_pretrained(tmp_path / "qwen3")
    check_logits(tmp_path / "qwen3", tmp_path)


def check_logits(folder: Path, tmp_path: Path) -> None:
    write_gguf(folder, tmp_path / "other.gguf", "f32")
    model, tokenizer = load_model(str(folder), torch.float32, False)
    found, other = read_back(tmp_path / "other.gguf")
    ids = tokenizer(PROBES[0], return_tensors="pt")["input_ids"]
    torch.testing.assert_close(found(ids).logits, model(ids).logits)
    assert tokens(other) == tokens(tokenizer)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("gpt2", "expected a model of the architecture llama, qwen2, qwen3, gemma3_text for a GGUF file, found gpt2: "
                 "export it as safetensors, and convert that with llama.cpp's convert_hf_to_gguf.py"),
        ("llama", "expected a tokenizer that llama.cpp has (one that is), found one whose merges are not those of a "
                  "SentencePiece vocabulary, so that a GGUF file's tokens would be others than in training: export it "
                  "as safetensors"),
    ],
)  # fmt: skip
def test_what_llamacpp_has_no_place_for(
    tiny_models: dict[str, Path], tmp_path: Path, family: str, message: str
) -> None:
    with pytest.raises(ModelError) as error:
        write_gguf(tiny_models[family], tmp_path / "no.gguf", "f16")
    assert str(error.value) == message
    assert list(tmp_path.iterdir()) == []


def test_scaled_positions_are_refused(zelda: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scaled"
    shutil.copytree(zelda, folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] |= {"rope_type": "linear", "factor": 2.0}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="^expected plain rotary positions for a GGUF file, found linear: export it "):
        write_gguf(folder, tmp_path / "no.gguf", "f16")


def test_the_embedded_model_cuts_words_in_its_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # nobody has to install a package to hear it
    with pytest.raises(ModelError, match="found one that cuts text into words in a way of its own, so that"):
        write_gguf(Path(find_model("embedded")), tmp_path / "no.gguf", "f16")


def test_a_mixture_without_its_tool(zelda: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "xllamacpp" else 1)
    with pytest.raises(RunError) as error:
        write_gguf(zelda, tmp_path / "no.gguf", "q4_k_m")
    assert str(error.value) == (
        "writing q4_k_m takes llama.cpp's quantiser, which is not installed: run `pip install xllamacpp`, or choose "
        "q8_0 or q4_0, which do without"
    )


def test_a_full_disk(zelda: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(RunError) as error:
        write_folder(zelda, tmp_path / "out", "gguf", "f16", "zelda", 32)
    assert re.fullmatch(
        rf"expected 50 MB of room for {tmp_path}/.out.isara-export, found 1 MB: free some, or give another folder with "
        "--out",
        str(error.value),
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_a_like_name_is_nobodys_to_remove(zelda: Path, tmp_path: Path) -> None:
    (tmp_path / "out.tmp").mkdir()
    (tmp_path / "out.tmp" / "letter.txt").write_text("Dear Zelda")
    write_folder(zelda, tmp_path / "out", "safetensors", "", "zelda", 32)
    assert (tmp_path / "out.tmp" / "letter.txt").read_text() == "Dear Zelda"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.tmp"]


def test_a_link_to_an_empty_folder(zelda: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "out").symlink_to("there")
    write_folder(zelda, tmp_path / "out", "safetensors", "", "zelda", 32)
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "there" / "config.json").is_file()


def test_the_folder_that_the_command_runs_in(zelda: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError) as error:
        write_folder(zelda, Path("."), "safetensors", "", "zelda", 32)
    assert str(error.value) == (
        "expected a folder that this command does not run in for the export, found .: name another"
    )
    assert list(tmp_path.iterdir()) == []


def test_which_tensors_get_more_bits() -> None:
    kinds = {
        name: stored_as(name, shape, "q4_k_m", 16).name
        for name, shape in {
            "blk.0.attn_norm.weight": (512,),
            "blk.0.attn_q.weight": (512, 512),
            "blk.0.attn_v.weight": (512, 512),  # the first eighth of the layers
            "blk.3.ffn_down.weight": (512, 512),
            "blk.4.ffn_down.weight": (512, 512),  # each third
            "blk.15.attn_v.weight": (512, 576),  # no block of 256 divides 576
            "blk.3.attn_q.weight": (512, 576),
            "token_embd.weight": (100, 512),
        }.items()
    }
    assert list(kinds.values()) == ["F32", "Q4_K", "Q6_K", "Q4_K", "Q6_K", "Q8_0", "Q5_0", "Q6_K"]
    assert stored_as("blk.0.attn_q.weight", (8, 40), "q8_0", 2).name == "F16"
    assert stored_as("token_embd.weight", (8, 64), "q4_0", 2).name == "Q8_0"


@needs_llamacpp
@pytest.mark.parametrize(("kind", "most"), [("Q4_K", 0.1), ("Q5_K", 0.05), ("Q6_K", 0.03)])
def test_k_quants_are_near_what_they_pack(kind: str, most: float) -> None:
    data = np.random.default_rng(7).normal(size=(6, 512)).astype(np.float32)
    which = gguf.GGMLQuantizationType[kind]
    unpacked = gguf.dequantize(packed(data, which), which)
    assert 0 < np.linalg.norm(unpacked - data) / np.linalg.norm(data) < most


# Ollama


class Go:
    """As much of Go's text/template as the Modelfiles use: strings, fields, range, if, eq, ne, len, slice, printf."""

    def __init__(self, template: str) -> None:
        parts = re.split(r"\{\{-\s(.*?)\s-\}\}", template, flags=re.DOTALL)
        assert all(not text for text in parts[::2]), "text between actions"
        self.actions = parts[1::2]

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        text, end = self._block(0, {"messages": messages})
        assert end == len(self.actions)
        return text

    def _block(self, at: int, dot: dict[str, Any]) -> tuple[str, int]:
        text = ""
        while at < len(self.actions):
            action = self.actions[at]
            if action == "end" or action.startswith("else"):
                return text, at
            if action.startswith("range"):
                assert action == "range $i, $message := .Messages"
                end = at
                for number, message in enumerate(dot["messages"]):
                    more, end = self._block(at + 1, {**dot, "i": number, **message})
                    text += more
                assert self.actions[end] == "end"
                at = end + 1
            elif action.startswith("if "):
                more, at = self._if(at, dot)
                text += more
            else:
                text += str(self._value(action, dot))
                at += 1
        return text, at

    def _if(self, at: int, dot: dict[str, Any]) -> tuple[str, int]:
        text, taken = "", False
        while (action := self.actions[at]) != "end":
            holds = not taken and self._value(action.removeprefix("else ").removeprefix("if "), dot)
            more, at = self._block(at + 1, dot)
            text, taken = (more, True) if holds else (text, taken)
        return text, at + 1

    def _value(self, code: str, dot: dict[str, Any]) -> Any:
        words = [word for word in re.findall(r'"(?:[^"\\]|\\.)*"|\((?:[^()]|\([^()]*\))*\)|\S+', code)]
        if len(words) > 1:
            name, *rest = words
            values = [self._value(word, dot) for word in rest]
            calls: dict[str, Callable[..., Any]] = {
                "eq": lambda one, two: one == two,
                "ne": lambda one, two: one != two,
                "len": len,
                "slice": lambda items, start: items[start:],
                "printf": lambda form, text: {"%.1s": text[:1]}[form],
            }
            return calls[name](*values)
        (word,) = words
        if word.startswith("("):
            return self._value(word[1:-1], dot)
        if word.startswith('"'):
            return json.loads(word)
        names = {".Role": "role", ".Content": "content", "$i": "i", "$.Messages": "messages"}
        return int(word) if word.isdecimal() else dot[names[word]]


def messages(pair: QAPair, lead: str = "") -> list[dict[str, str]]:
    turns = [
        {"role": role, "content": content}
        for question, answer in pair.turns
        for role, content in (("user", question), ("assistant", lead + answer))
    ]
    return turns[:-1]


THOUGHTS = PromptFormat("chat", "<u>", "</u>\n<a>", "</a>\n<u>", "", "</a>", False, before_last="<think>\n</think>\n")


@pytest.mark.parametrize("fmt", [plain_format("</s>"), THOUGHTS], ids=["plain", "thoughts"])
def test_the_template_writes_what_training_read(fmt: PromptFormat) -> None:
    renderer, go = word_renderer(fmt=fmt), Go(go_template(fmt))
    for pair in PAIRS:
        assert go.render(messages(pair)) == renderer.answer((), pair).text
        # What the model itself gave has the lead at its head, and what nobody was trained on is left out.
        assert go.render(messages(pair, fmt.lead)) == renderer.answer((), pair).text
        assert go.render([{"role": "system", "content": "Be kind."}, *messages(pair)]) == renderer.answer((), pair).text


@pytest.mark.parametrize("name", ["chatml", "llama2", "gemma"])
def test_so_do_the_templates_of_chat_models(tiny_chats: dict[str, Path], name: str) -> None:
    renderer, bos = open_renderer(str(tiny_chats[name])), bos_text(tiny_chats[name])
    assert bos == {"chatml": "", "llama2": "<s>", "gemma": "<bos>"}[name]
    go = Go(go_template(renderer.format, bos))
    asked = [pair for pair in PAIRS if not pair.before or name != "llama2"]  # whose turns each begin with BOS
    for pair in asked:
        assert bos + go.render(messages(pair)) == renderer.answer((), pair).text
        assert renderer.training_rows(pair)[-1].prompt == renderer.text(bos + go.render(messages(pair))).ids


def test_the_modelfile_says_all_that_decides() -> None:
    assert modelfile("zelda-f16.gguf", plain_format("</s>"), "", 1024, 96).splitlines()[2:] == [
        "FROM ./zelda-f16.gguf",
        'TEMPLATE """{{- "Question:" -}}{{- range $i, $message := .Messages -}}{{- if eq .Role "user" -}}{{- " " -}}'
        '{{- .Content -}}{{- "\\nAnswer:" -}}{{- else if eq .Role "assistant" -}}'
        '{{- if ne (printf "%.1s" .Content) " " -}}{{- " " -}}{{- end -}}{{- .Content -}}{{- "\\n\\nQuestion:" -}}'
        '{{- end -}}{{- end -}}"""',
        'PARAMETER stop "',
        'Question:"',
        'PARAMETER stop "</s>"',
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        "PARAMETER num_ctx 1024",
        "PARAMETER num_predict 96",
    ]


# Rows


@pytest.mark.parametrize("form", FORMATS)
def test_rows_are_read_back_as_the_same_pairs(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"{form}.jsonl"
    path.write_text(json_lines(to_rows(PAIRS, form)))
    assert [pair.turns for pair in read_pairs(path)] == [pair.turns for pair in PAIRS]


def test_the_openai_form_keeps_the_weight_0_of_a_turn(tmp_path: Path) -> None:
    pair = QAPair("And then?", "A boat.", before=(("Where?", "Here."), ("Who?", "Me.")), untrained=(1,))
    path = tmp_path / "rows.jsonl"
    path.write_text(json_lines(to_rows([pair], "openai")))
    assert read_pairs(path) == [pair]


# A run


class TinyTrainer(CountingTrainer):
    """Leaves the tiny model as what it trained, with an adapter's files beside it."""

    def __init__(self, model: Path) -> None:
        super().__init__()
        self.model = model

    def key(self) -> dict[str, Any]:
        return {"trainer": "tiny"}

    def fit(self, pairs: Sequence[QAPair], start: str, out: Path) -> Any:
        stats = super().fit(pairs, start, out)
        shutil.copytree(self.model, out, dirs_exist_ok=True)
        (out / "adapter").mkdir()
        (out / "adapter/adapter_config.json").write_text('{"base_model_name_or_path": "smollm2-135m"}')
        (out / "adapter/adapter_model.safetensors").write_bytes(b"8")
        return stats


@pytest.fixture(scope="module")
def finished(zelda: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model is the tiny Llama."""
    out = tmp_path_factory.mktemp("runs") / "hyrule"
    small = ["generate.accept=6", "generate.batch=8", "questions.demos=3", "answers.demos=2", "iterations=1"]
    settings = [*small, "evaluate.seeds_only=false", "answers.max_new_tokens=12", "retrieve.embedder=lexical"]
    parts = Parts(
        config=load_config(None, settings, out=str(out), model=str(zelda)),
        seeds=SEEDS,
        model=str(zelda),
        renderer=word_renderer(),
        engine=hyrule,
        embedder=HashEmbedder(),
        trainer=TinyTrainer(zelda),
        question_filters=[],
        pair_filters=[],
        weights=lambda model: "3d5a",
        cards=lambda out, best: {"README.md": "# Hyrule\n", "data_card.md": "# Rows of Hyrule\n"},
    )
    run(parts)
    return out


def exported(*arguments: object) -> str:
    done = CliRunner().invoke(cli.app, ["export", *map(str, arguments)])
    if done.exception is not None and isinstance(done.exception, IsaraError):
        return f"refused: {done.exception}"
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


def test_safetensors_and_the_adapter(finished: Path, tmp_path: Path) -> None:
    assert exported(finished, "--to", "safetensors", "--out", tmp_path / "st") == f"{tmp_path}/st holds the model\n"
    names = {path.name for path in (tmp_path / "st").iterdir()}
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= names and not names & {"adapter", "isara.json"}
    load_model(str(tmp_path / "st"), "auto", False)
    exported(finished, "--to", "adapter", "--out", tmp_path / "lora")
    names = {path.name for path in (tmp_path / "lora").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert "model.safetensors" not in names


def test_a_gguf_file_that_nobody_checked(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(llamacpp, "has_llamacpp", lambda: False)
    said = exported(finished, "--to", "ollama:q4_0", "--out", tmp_path / "home")
    assert said.splitlines()[1] == (
        "not checked with llama.cpp, which is not installed here: `pip install xllamacpp`, and export once more"
    )
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == [
        *("Modelfile", "README.md", "data_card.md", "hyrule-q4_0.gguf")
    ]
    find_model(str(tmp_path / "home/hyrule-q4_0.gguf"))
    assert "FROM ./hyrule-q4_0.gguf\n" in (tmp_path / "home/Modelfile").read_text()


@needs_llamacpp
def test_llamacpp_answers_as_the_model_does(finished: Path, tmp_path: Path) -> None:
    said = exported(finished, "--to", "gguf:f32", "--out", tmp_path / "home", "--questions", 3).splitlines()
    assert said[1] == "the run holds no pairs out, so its seeds are asked"
    # Of noise the most likely token leads by little, and llama.cpp's cache has 16 bits: one answer may turn.
    assert re.fullmatch(
        r"llama.cpp: of 3 greedy answers [23] are the model's own to the letter \(\d+%\), 0 end with the end token; 3 "
        r"of the prompts have the training's tokens",
        said[2],
    )


@needs_llamacpp
def test_a_file_that_llamacpp_can_not_load(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF")
    with pytest.raises(RunError, match=f"^llama.cpp could not be asked with {tmp_path}/no.gguf .it ended with "):
        llamacpp.ask(tmp_path / "no.gguf", ["Question:"], 4, 64)


def test_rows_of_a_run(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert exported(finished, "--rows", "sharegpt", "--with-seeds", "--out", path) == f"10 pairs are in {path}\n"
    assert [pair.question for pair in read_pairs(path)][:4] == [pair.question for pair in SEEDS]


def test_what_a_model_does_not_know_of_the_rows_is_said(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    row = read_run(tmp_path / "run").iterations[0].accepted[0]
    write_decisions(review_file(tmp_path / "run", 1), [Decision(row.id, "reject", reason="wrong")])
    said = exported(tmp_path / "run", "--rows", "sharegpt", "--out", tmp_path / "rows.jsonl")
    assert "iteration 1 was trained before 1 of its rows were decided about: its model knows nothing of that" in said
    write_decisions(review_file(tmp_path / "run", 1), [Decision(row.id, "undo")])
    assert "iteration 1" not in exported(tmp_path / "run", "--rows", "alpaca", "--out", tmp_path / "other.jsonl")
    shutil.rmtree(tmp_path / "run/iteration-01/train")
    said = exported(tmp_path / "run", "--rows", "openai", "--out", tmp_path / "third.jsonl")
    assert "iteration 1 is not trained yet: its rows are those so far" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "OUT"], "expected one of --to and --rows: --to takes the model, --rows its pairs"),
        (["--to", "onnx", "--out", "OUT"],
         "--to: expected safetensors, adapter, gguf, ollama, the last two also with :KIND, found 'onnx': choose one"),
        (["--to", "gguf:q3", "--out", "OUT"],
         "--to gguf: expected one of the kinds f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, q4_k_m, q5_k_m, q6_k, "
         "found 'q3': choose one"),
        (["--to", "gguf", "--out", "RUN"],
         "expected a new or empty folder for the export, found RUN: give another --out"),
        (["--rows", "csv", "--out", "OUT"],
         "--rows: expected one of trl-prompt-completion, trl-messages, sharegpt, alpaca, openai, found 'csv': choose "
         "one"),
        (["--rows", "alpaca", "--out", "RUN"], "expected a new file for the rows, found RUN: give another --out"),
        (["--rows", "alpaca", "--push-to-hub", "zelda/hyrule", "--out", "OUT"],
         "expected --to beside --push-to-hub, which means nothing without it: give both or none"),
        (["--to", "safetensors", "--with-seeds", "--out", "OUT"],
         "expected --rows beside --with-seeds, which means nothing without it: give both or none"),
        (["--to", "safetensors", "--questions", "3", "--out", "OUT"],
         "expected --to gguf or ollama beside --questions, which means nothing without it: give both or none"),
        (["--to", "safetensors", "--public", "--out", "OUT"],
         "expected --push-to-hub beside --public, which means nothing without it: give both or none"),
    ],
)  # fmt: skip
def test_refusals(finished: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    places = {"OUT": str(tmp_path / "out"), "RUN": str(finished)}
    said = exported(finished, *(places.get(word, word) for word in arguments))
    assert said.replace(str(finished), "RUN") == f"refused: {message}"
    assert not (tmp_path / "out").exists()


def test_a_run_that_exported_nothing(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "half")
    shutil.rmtree(tmp_path / "half/final")
    assert exported(tmp_path / "half", "--to", "gguf", "--out", tmp_path / "out") == (
        f"refused: {tmp_path}/half has no aligned model yet: finish it with the command that started it"
    )


def test_a_model_without_an_adapter(zelda: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError) as error:
        write_folder(zelda, tmp_path / "out", "adapter", "", "zelda", 32)
    assert str(error.value) == (
        f"{zelda} has no adapter, since its model is the base model or was trained whole: export it as safetensors"
    )
    assert find_form("gguf") == ("gguf", "q8_0")


# The hub


class LocalHub:
    """A hub that is a folder."""

    root: Path

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        (self.root / repo_id / ".private").write_text(str(private))

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> str:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return f"hub/{repo_id}"


def test_pushing(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LocalHub.root = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub, "HfApi", LocalHub)
    out = tmp_path / "st"
    said = exported(finished, "--to", "safetensors", "--out", out, "--push-to-hub", "zelda/hyrule")
    assert said.splitlines()[1] == "pushed to hub/zelda/hyrule"
    assert (tmp_path / "hub/zelda/hyrule/README.md").read_bytes() == (finished / "final/README.md").read_bytes()
    assert (tmp_path / "hub/zelda/hyrule/.private").read_text() == "True"


def test_a_proxy_that_can_not_be_used(zelda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_repo(*_: object, **__: object) -> None:
        raise ValueError("Unknown scheme for proxy URL URL('foo://x')")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    with pytest.raises(RunError) as error:
        push(zelda, "zelda/hyrule")
    assert str(error.value) == (
        "zelda/hyrule could not be pushed to the hub (Unknown scheme for proxy URL URL('foo://x')): log in with "
        "`hf auth login`, check the name and the network, and push the folder that was written with "
        f"`hf upload zelda/hyrule {zelda}`"
    )


def test_an_empty_name_is_not_passed_over(finished: Path, tmp_path: Path) -> None:
    assert exported(finished, "--to", "safetensors", "--out", tmp_path / "st", "--push-to-hub", "") == (
        "refused: expected a name such as owner/model for the hub, found '': mend it"
    )


def test_a_hub_that_can_not_be_reached(finished: Path) -> None:
    # The tests set HF_HUB_OFFLINE, which the client heeds.
    with pytest.raises(RunError, match="^zelda/hyrule could not be pushed to the hub .*: log in with `hf auth login`"):
        push(finished / "final", "zelda/hyrule")
    with pytest.raises(RunError, match="^expected a name such as owner/model for the hub, found 'a/b/c': mend it$"):
        push(finished / "final", "a/b/c")


# Packaged models


@needs_llamacpp
@pytest.mark.parametrize("name", ["smollm2-135m", "gemma-3-270m"])
def test_real_models(tmp_path: Path, name: str) -> None:
    from isara.build import assemble
    from isara.packaged import is_installed, packaged

    model = packaged(name)
    if model is None or not is_installed(model):
        pytest.skip("needs its package")
    folder = Path(find_model(name))
    write_gguf(folder, tmp_path / "real.gguf", "f16")
    config = load_config(None, ["answers.max_new_tokens=12", "engine.dtype=float32"], seeds="none.jsonl")
    parts = assemble(config, str(folder), open_renderer(str(folder)), SEEDS, retrieves=False, generates=False)
    found = compare_answers(parts, tmp_path / "real.gguf", SEEDS[:2])
    assert (found.asked, found.same_tokens, found.same) == (2, 2, 2)
