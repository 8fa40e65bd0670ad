"""Prompts: demonstrations and the open question, in the very text that a model's own chat template writes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer, BloomConfig, ByT5Tokenizer, GPT2Config, LlamaConfig

from isara.errors import ModelError
from isara.records import Prompt, QAPair, TrainingRow
from isara.render import (
    PromptFormat,
    Renderer,
    chat_format,
    context_length,
    find_format,
    open_renderer,
    plain_format,
    tokenizer_hash,
    tokenizer_renderer,
)
from isara.testing import word_renderer
from tests.tiny_models import CHATML, GEMMA, LLAMA2, byte_level

DEMOS = [QAPair("Who saves Hyrule?", "Link does."), QAPair("Who is Ganondorf?", "A thief, then a king.")]
ZELDA = QAPair("Who is Zelda?", "A princess.")
TALK = QAPair(
    "And after that?",
    "He sails home.",
    before=(("Where does Link wake up?", "On a beach."), ("Who finds him there?", "Marin does.")),
)
PLAIN = plain_format("</s>")

# The templates as their models publish them, in the parts that a dialogue without tools and system message reaches.
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim "
    "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA31 = (
    "{{- bos_token }}{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\n<|eot_id|>' }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
QWEN3 = (
    "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}"
    "{%- for message in messages[::-1] %}"
    "{%- set index = (messages|length - 1) - loop.index0 %}"
    "{%- if ns.multi_step_tool and message.role == 'user' %}"
    "{%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- elif message.role == 'assistant' %}"
    "{%- if loop.index0 > ns.last_query_index and loop.last %}"
    "{{- '<|im_start|>' + message.role + '\n<think>\n\n</think>\n\n' + message.content.lstrip('\n') }}"
    "{%- else %}{{- '<|im_start|>' + message.role + '\n' + message.content }}{%- endif %}"
    "{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)
MISTRAL1 = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL3 = (
    "{{- bos_token }}{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{{- '[INST] ' + message['content'] + '[/INST]' }}"
    "{%- else %}{{- ' ' + message['content'] | trim + eos_token }}{%- endif %}{%- endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
    "{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
DEEPSEEK = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'User: ' + message['content'] + '\n\n' }}{% elif message['role'] == 'assistant' %}"
    "{{ 'Assistant: ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
ALPACA = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '### User:\n' + message['content'] + '\n\n' }}"
    "{% else %}{{ '### Assistant:\n' + message['content'] + '\n\n' }}{% endif %}{% endfor %}"
)

# template, BOS, EOS, and a system block of the template's own that has no place in our prompts
TEMPLATES = {
    "qwen2.5": (
        CHATML,
        None,
        "<|im_end|>",
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n",
    ),
    "llama2": (LLAMA2, "<s>", "</s>", ""),
    "gemma": (GEMMA, "<bos>", "<eos>", ""),
    "llama3": (LLAMA3, "<|begin_of_text|>", "<|eot_id|>", ""),
    "llama3.1": (
        LLAMA31,
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|>",
    ),
    "qwen3": (QWEN3, None, "<|im_end|>", ""),
    "mistral1": (MISTRAL1, "<s>", "</s>", ""),
    "mistral3": (MISTRAL3, "<s>", "</s>", ""),
    "zephyr": (ZEPHYR, "<s>", "</s>", ""),
    "phi3": (PHI3, "<s>", "<|endoftext|>", ""),
    "deepseek": (DEEPSEEK, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", ""),
    "alpaca": (ALPACA, None, "</s>", ""),
}
NAMES = list(TEMPLATES)


def tokenizer_for(name: str) -> Any:
    template, bos, eos, _ = TEMPLATES[name]
    tokenizer = byte_level(tuple(token for token in (bos, eos) if token), bos=bos, eos=eos)
    tokenizer.chat_template = template
    return tokenizer


def rendered(name: str, texts: Sequence[str]) -> str:
    """What the template writes for alternating turns, without its own system block."""
    dialogue = [{"role": "assistant" if turn % 2 else "user", "content": text} for turn, text in enumerate(texts)]
    whole: str = tokenizer_for(name).apply_chat_template(dialogue, tokenize=False)
    system = TEMPLATES[name][3]
    assert system in whole
    return whole.replace(system, "", 1)


def renderer_for(name: str) -> Renderer:
    return tokenizer_renderer(tokenizer_for(name), LlamaConfig())


def turns(*pairs: QAPair) -> list[str]:
    return [text for pair in pairs for turn in pair.turns for text in turn]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("demos", [DEMOS, [TALK, DEMOS[0]], []])
@pytest.mark.parametrize("pair", [ZELDA, TALK])
def test_an_answer_prompt_is_what_the_template_writes(name: str, demos: list[QAPair], pair: QAPair) -> None:
    renderer = renderer_for(name)
    prompt = renderer.answer(demos, pair)
    assert rendered(name, turns(*demos, pair)).startswith(prompt.text + renderer.format.lead + pair.answer)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("demos", [DEMOS, [DEMOS[0], TALK]])
def test_a_question_prompt_is_what_the_template_writes(name: str, demos: list[QAPair]) -> None:
    renderer = renderer_for(name)
    prompt = renderer.question(demos)
    assert rendered(name, [*turns(*demos), "Who is Zelda?"]).startswith(
        prompt.text + renderer.format.lead + "Who is Zelda?"
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pair", [ZELDA, TALK])
def test_a_training_row_is_what_the_template_writes_for_each_answer(name: str, pair: QAPair) -> None:
    renderer, tokenizer = renderer_for(name), tokenizer_for(name)
    # Phi-3's template adds an EOS, and Alpaca's never writes the one that lets an answer end.
    extra = {"phi3": ("<|endoftext|>", ""), "alpaca": ("\n\n", "</s>")}.get(name, ("", ""))
    rows = renderer.training_rows(pair)
    assert len(rows) == len(pair.turns)
    for count, row in enumerate(rows, 1):
        whole = rendered(name, turns(pair)[: 2 * count])
        answer = renderer.format.lead + pair.turns[count - 1][1] + renderer.format.end
        assert tokenizer.decode(row.ids) == whole.removesuffix(extra[0]) + extra[1]
        assert tokenizer.decode(row.answer) == answer


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_holds_an_instruction(name: str) -> None:
    renderer = renderer_for(name)
    for prompt in (renderer.question(DEMOS), renderer.answer(DEMOS, ZELDA), renderer.answer((), TALK)):
        assert "system" not in prompt.text
        assert "helpful" not in prompt.text
        assert "Knowledge" not in prompt.text
    for text in turns(*DEMOS, ZELDA):
        prompted = renderer.answer(DEMOS, ZELDA).text
        assert prompted.count(text) == (text != ZELDA.answer)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("demos", [DEMOS, []])
def test_no_prompt_ends_in_a_space(name: str, demos: list[QAPair]) -> None:
    renderer = renderer_for(name)
    for prompt in (renderer.question(demos), renderer.answer(demos, ZELDA), renderer.answer(demos, TALK)):
        assert not prompt.text.endswith(" ")


@pytest.mark.parametrize("name", NAMES)
def test_what_goes_on_stops_at_the_end_of_a_turn(name: str) -> None:
    fmt = chat_format(tokenizer_for(name))
    assert cut(fmt, f"{fmt.lead}Who is Zelda?{fmt.to_answer}{fmt.lead}A princess.") == "Who is Zelda?"
    assert cut(fmt, f"{fmt.lead}A princess.{fmt.to_question}{fmt.lead}Who?", answer=True) == "A princess."
    assert cut(fmt, f"{fmt.lead}A princess.{fmt.end}", answer=True) == "A princess."


def cut(fmt: PromptFormat, text: str, answer: bool = False) -> str:
    for stop in fmt.answer_stops if answer else fmt.question_stops:
        assert stop
        text = text.split(stop)[0]
    return text.strip()


def test_empty_thoughts_stand_before_the_last_answer_alone() -> None:
    renderer = renderer_for("qwen3")
    assert renderer.format.before_last == "<think>\n\n</think>\n\n"
    for prompt in (renderer.answer(DEMOS, ZELDA).text, renderer.answer([TALK], TALK).text):
        assert prompt.count("<think>") == 1
        assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_plain_prompt_is_demonstrations_and_the_open_question() -> None:
    renderer = word_renderer()
    assert renderer.answer(DEMOS, ZELDA).text == (
        "Question: Who saves Hyrule?\nAnswer: Link does.\n\n"
        "Question: Who is Ganondorf?\nAnswer: A thief, then a king.\n\n"
        "Question: Who is Zelda?\nAnswer:"
    )
    assert renderer.question(DEMOS[:1]).text == "Question: Who saves Hyrule?\nAnswer: Link does.\n\nQuestion:"
    assert renderer.ended("Link does.") == " Link does.</s>"


def test_a_dialogue_is_shown_turn_by_turn() -> None:
    renderer = word_renderer()
    earlier = (
        "Question: Where does Link wake up?\nAnswer: On a beach.\n\n"
        "Question: Who finds him there?\nAnswer: Marin does.\n\n"
        "Question: And after that?\nAnswer:"
    )
    assert renderer.answer((), TALK).text == earlier
    assert renderer.answer([TALK], ZELDA).text == earlier + " He sails home.\n\nQuestion: Who is Zelda?\nAnswer:"
    assert renderer.question([TALK]).text == earlier + " He sails home.\n\nQuestion:"


def test_each_answer_of_a_dialogue_is_a_training_row_of_its_own() -> None:
    renderer = word_renderer()
    (where, beach), (who, marin) = TALK.before
    first, second, last = renderer.training_rows(TALK)
    assert [row.pair for row in (first, second, last)] == [
        QAPair(where, beach),
        QAPair(who, marin, before=((where, beach),)),
        TALK,
    ]
    for row in (first, second, last):
        prompt = renderer.answer((), row.pair)
        assert row.prompt == prompt.ids
        assert row.answer == renderer.continuation(prompt, f" {row.pair.answer}</s>")
    assert renderer.training_rows(replace(TALK, untrained=(1,))) == [
        first,
        replace(last, pair=replace(TALK, untrained=(1,))),
    ]
    assert renderer.training_rows(ZELDA) == [
        TrainingRow(ZELDA, renderer.answer((), ZELDA).ids, renderer.text(" A princess.</s>").ids)
    ]


@pytest.mark.parametrize(
    ("generated", "answer", "kept"),
    [
        (" Who is Zelda?\nAnswer: A princess.", False, "Who is Zelda?"),
        (" A princess.\n\nQuestion: Who?", True, "A princess."),
        (" A princess.\nQuestion: Who?", True, "A princess."),
        (" A princess.</s>", True, "A princess."),
        (" The Answer: is a Question: of taste.", True, "The Answer: is a Question: of taste."),
    ],
)
def test_where_plain_text_stops(generated: str, answer: bool, kept: str) -> None:
    assert cut(PLAIN, generated, answer) == kept


def test_a_tokenizer_without_a_template_is_plain() -> None:
    tokenizer = byte_level(("</s>",), eos="</s>")
    assert find_format(tokenizer) == PLAIN
    assert find_format(tokenizer_for("qwen2.5")).name == "chat"
    assert find_format(tokenizer_for("qwen2.5"), "plain") == plain_format("<|im_end|>")


@pytest.mark.parametrize(
    ("template", "eos", "choice", "message"),
    [
        (
            None,
            "</s>",
            "chat",
            "`prompt_format: chat` needs a tokenizer with a chat template, and this one has none: "
            "set `prompt_format: plain`",
        ),
        (
            None,
            None,
            "auto",
            "the tokenizer has no end-of-sequence token, so no answer could learn to end: set one",
        ),
        (
            "{{ raise_exception('no dialogue, please') }}",
            "</s>",
            "auto",
            "the tokenizer's chat template can't be rendered (no dialogue, please): set `prompt_format: plain`",
        ),
        (
            "{% for message in messages %}{{ '<turn>' + message['content'] | upper }}{% endfor %}",
            "</s>",
            "auto",
            "the chat template does not keep the text of every turn: set `prompt_format: plain`",
        ),
        (
            "{% for message in messages %}{{ loop.index ~ ': ' + message['content'] }}{% endfor %}",
            "</s>",
            "auto",
            "expected a chat template that writes every turn between the same markers, found one that doesn't (before "
            "a question it wrote '1: ', then '3: '): set `prompt_format: plain`",
        ),
        (
            ALPACA,
            None,
            "auto",
            "the chat template closes no answer, so none could learn to end: set `prompt_format: plain`",
        ),
    ],
)
def test_formats_that_can_not_be_found(template: str | None, eos: str | None, choice: Any, message: str) -> None:
    tokenizer = byte_level(("</s>",), eos="</s>")
    tokenizer.chat_template, tokenizer.eos_token = template, eos
    with pytest.raises(ModelError) as error:
        find_format(tokenizer, choice)
    assert str(error.value) == message


@pytest.mark.parametrize(("room", "kept"), [(100, 2), (22, 2), (21, 1), (15, 1), (14, 0), (5, 0)])
def test_the_farthest_demonstrations_make_room_first(room: int, kept: int) -> None:
    renderer = word_renderer()
    fitted = renderer.fit(lambda demos: renderer.answer(demos, ZELDA), DEMOS, room)
    shown = DEMOS[len(DEMOS) - kept :]
    assert fitted == (renderer.answer(shown, ZELDA), shown)


def test_a_question_that_leaves_no_room_does_not_fit() -> None:
    renderer = word_renderer()
    assert renderer.fit(lambda demos: renderer.answer(demos, ZELDA), DEMOS, 4) is None


def test_tokens_are_counted_as_prompts_have_them(tiny_models: dict[str, Path]) -> None:
    renderer = open_renderer(str(tiny_models["llama"]))
    texts = ["", "Who saves Hyrule?", "漢字 and more"]
    assert renderer.count(texts) == [len(renderer.text(text).ids) for text in texts]
    assert renderer.count(texts)[0] == 1  # the BOS
    assert renderer.count([]) == []


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2", "gpt_neox", "qwen2", "gemma", "phi"])
def test_plain_prompts_have_the_ids_that_the_tokenizer_gives_them(family: str, tiny_models: dict[str, Path]) -> None:
    renderer = open_renderer(str(tiny_models[family]))
    tokenizer = AutoTokenizer.from_pretrained(tiny_models[family])
    adds_bos = family in {"llama", "opt", "gemma"}
    for prompt in (renderer.question(()), renderer.question(DEMOS), renderer.answer([TALK], TALK)):
        assert list(prompt.ids) == tokenizer(prompt.text)["input_ids"]
        assert (prompt.ids[0] == tokenizer.bos_token_id) is adds_bos
        assert prompt.ids.count(tokenizer.bos_token_id) == adds_bos
    # the split of a training row leaves the prompt as it is, and the answer is read back as it was written
    [row] = renderer.training_rows(ZELDA)
    assert row.prompt == renderer.answer((), ZELDA).ids
    assert row.answer[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(list(row.ids), skip_special_tokens=True) == "Question: Who is Zelda?\nAnswer: A princess."


@pytest.mark.parametrize(("name", "starts"), [("chatml", 0), ("gemma", 1), ("llama2", 3)])
def test_a_chat_prompt_has_the_bos_of_its_template_and_no_other(
    name: str, starts: int, tiny_chats: dict[str, Path]
) -> None:
    renderer = open_renderer(str(tiny_chats[name]))
    tokenizer = AutoTokenizer.from_pretrained(tiny_chats[name])
    prompt = renderer.answer(DEMOS, ZELDA)  # Llama-2's template opens each question with a BOS
    assert prompt.ids.count(tokenizer.bos_token_id) == starts
    assert list(prompt.ids) == tokenizer(prompt.text, add_special_tokens=False)["input_ids"]


def test_a_closing_token_that_a_tokenizer_adds_never_ends_a_prompt() -> None:
    from tokenizers import processors

    tokenizer = byte_level(("<s>", "</s>"), bos="<s>", eos="</s>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    assert tokenizer("Who?")["input_ids"][-1] == 1
    renderer = tokenizer_renderer(tokenizer, LlamaConfig())
    assert list(renderer.text("Who?").ids) == tokenizer("Who?")["input_ids"][:-1]


def test_a_continuation_is_split_from_its_prompt_where_generation_would(tiny_models: dict[str, Path]) -> None:
    for family in ("llama", "gpt2", "gemma"):
        renderer = open_renderer(str(tiny_models[family]))
        whole, cut = renderer.text("Question: Who?\nAnswer:"), renderer.text("Question: Where is Hyr")
        assert whole.ids + renderer.continuation(whole, " Link") == renderer.text(whole.text + " Link").ids
        assert renderer.continuation(whole, "") == ()
        assert renderer.answer_ids(whole, "Link") == renderer.continuation(whole, " Link")
        joined = cut.ids + renderer.continuation(cut, "ule?")
        # not the token " Hyrule" that the whole text would give, and no space that the tokenizer puts before a text
        assert joined != renderer.text("Question: Where is Hyrule?").ids
        tokenizer = AutoTokenizer.from_pretrained(tiny_models[family])
        assert tokenizer.decode(list(joined), skip_special_tokens=True) == "Question: Where is Hyrule?"


def test_words_are_split_from_their_prompt_too() -> None:
    renderer = word_renderer()
    open_word = renderer.text("Question: Wh")
    assert renderer.continuation(open_word, "o is Link?") == renderer.text("o is Link?").ids


def test_the_key_changes_with_every_piece_of_the_format() -> None:
    base = word_renderer().key()
    assert json.loads(json.dumps(base)) == base
    assert base == word_renderer().key()
    for field in fields(PromptFormat):
        value: Any = {"name": "chat", "adds_special_tokens": False}.get(field.name, f"{getattr(PLAIN, field.name)}!")
        assert word_renderer(fmt=replace(PLAIN, **{field.name: value})).key() != base, field.name
    assert word_renderer(context_length=100).key() != base


def test_the_key_changes_with_the_tokenizer_and_not_with_how_it_was_used(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    renderer = open_renderer(str(tiny_models["qwen2"]))
    key = renderer.key()
    assert key["tokenizer"] != open_renderer(str(tiny_models["gpt2"])).key()["tokenizer"]

    config = AutoConfig.from_pretrained(tiny_models["qwen2"])
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2"])
    tokenizer(["Who?", "Who is Zelda?"], padding=True, truncation=True, max_length=2)
    assert tokenizer_renderer(tokenizer, config).key() == key
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_renderer(AutoTokenizer.from_pretrained(tmp_path), config).key() == key

    merges = json.loads((tmp_path / "tokenizer.json").read_text())
    merges["model"]["merges"].pop()  # the vocabulary is the same, and some texts get other ids
    (tmp_path / "tokenizer.json").write_text(json.dumps(merges))
    assert tokenizer_renderer(AutoTokenizer.from_pretrained(tmp_path), config).key() != key
    tokenizer.add_tokens(["Triforce"])
    assert tokenizer_renderer(tokenizer, config).key() != key


def test_the_hash_of_a_tokenizer_without_a_backend_is_that_of_its_vocabulary() -> None:
    assert tokenizer_hash(ByT5Tokenizer()) == tokenizer_hash(ByT5Tokenizer())
    assert tokenizer_hash(ByT5Tokenizer(extra_ids=10)) != tokenizer_hash(ByT5Tokenizer(extra_ids=20))


def test_the_context_is_what_the_config_says_or_else_the_tokenizer() -> None:
    tokenizer = byte_level(("</s>",), eos="</s>")
    silent = BloomConfig()
    assert context_length(LlamaConfig(max_position_embeddings=77), tokenizer) == 77
    assert context_length(GPT2Config(n_positions=88), tokenizer) == 88
    assert context_length(silent, tokenizer) == 1024
    tokenizer.model_max_length = 10**30  # what a tokenizer without a limit says
    assert context_length(silent, tokenizer) == 2048


def test_a_renderer_follows_the_format_that_is_asked_for(tiny_chat: Path) -> None:
    assert open_renderer(str(tiny_chat)).format.name == "chat"
    assert open_renderer(str(tiny_chat), "plain").answer((), ZELDA).text == "Question: Who is Zelda?\nAnswer:"


def test_a_broken_tokenizer_is_one_line(tiny_llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError) as error:
        open_renderer(str(folder))
    assert str(error.value).startswith(f"the model {str(folder)!r} can't be loaded (")
    assert str(error.value).endswith("): check its config.json, tokenizer and weights, or copy or download it again")
    assert "\n" not in str(error.value)


def test_a_prompt_of_any_text_is_not_changed() -> None:
    text = "Rate the answer from 1 to 5.\n\nRating:"
    prompt = word_renderer().text(text)
    assert isinstance(prompt, Prompt)
    assert prompt.text == text
    assert len(prompt.ids) == 8


def test_no_library_of_models_is_loaded_to_read_prompts() -> None:
    code = "import sys, isara.render; print(sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
