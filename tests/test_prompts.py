"""Prompts: demonstrations and the open question, in the very text that a model's own chat template writes."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from isara.data import QAPair
from isara.errors import ModelError
from isara.prompts import (
    PromptFormat,
    answer_prompt,
    answer_text,
    chat_format,
    find_format,
    fit_demos,
    plain_format,
    question_prompt,
    training_text,
)
from tests.tiny_models import CHATML, GEMMA, LLAMA2, byte_level

DEMOS = [QAPair("Who saves Hyrule?", "Link does."), QAPair("Who is Ganondorf?", "A thief, then a king.")]
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
    turns = [{"role": "assistant" if turn % 2 else "user", "content": text} for turn, text in enumerate(texts)]
    whole: str = tokenizer_for(name).apply_chat_template(turns, tokenize=False)
    system = TEMPLATES[name][3]
    assert system in whole
    return whole.replace(system, "", 1)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_prompt_is_what_the_template_writes(name: str) -> None:
    fmt = chat_format(tokenizer_for(name))
    prompt = answer_prompt(fmt, DEMOS, "Who is Zelda?")
    turns = [text for demo in DEMOS for text in (demo.question, demo.answer)]
    assert rendered(name, [*turns, "Who is Zelda?", "A princess."]).startswith(prompt + answer_text(fmt, "A princess."))


@pytest.mark.parametrize("name", NAMES)
def test_a_question_prompt_is_what_the_template_writes(name: str) -> None:
    fmt = chat_format(tokenizer_for(name))
    turns = [text for demo in DEMOS for text in (demo.question, demo.answer)]
    assert rendered(name, [*turns, "Who is Zelda?"]).startswith(
        question_prompt(fmt, DEMOS) + fmt.lead + "Who is Zelda?"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_training_row_is_what_the_template_writes_for_one_pair(name: str) -> None:
    fmt = chat_format(tokenizer_for(name))
    prompt, completion = training_text(fmt, DEMOS[0])
    whole = rendered(name, [DEMOS[0].question, DEMOS[0].answer])
    # Phi-3's template adds an EOS, and Alpaca's never writes the one that lets an answer end.
    extra = {"phi3": ("<|endoftext|>", ""), "alpaca": ("\n\n", "</s>")}.get(name, ("", ""))
    assert prompt + completion == whole.removesuffix(extra[0]) + extra[1]


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_holds_an_instruction(name: str) -> None:
    fmt = chat_format(tokenizer_for(name))
    for prompt in (question_prompt(fmt, DEMOS), answer_prompt(fmt, DEMOS, "Who is Zelda?")):
        assert "system" not in prompt
        assert "helpful" not in prompt
        assert "Knowledge" not in prompt


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_ends_in_a_space(name: str) -> None:
    fmt = chat_format(tokenizer_for(name))
    for prompt in (
        question_prompt(fmt, ()),
        question_prompt(fmt, DEMOS),
        answer_prompt(fmt, (), "Who?"),
        answer_prompt(fmt, DEMOS, "Who?"),
    ):
        assert not prompt.endswith(" ")


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
    fmt = chat_format(tokenizer_for("qwen3"))
    prompt = answer_prompt(fmt, DEMOS, "Who is Zelda?")
    assert fmt.before_last == "<think>\n\n</think>\n\n"
    assert prompt.count("<think>") == 1
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_plain_prompt_is_demonstrations_and_the_open_question() -> None:
    assert answer_prompt(PLAIN, DEMOS, "Who is Zelda?") == (
        "Question: Who saves Hyrule?\nAnswer: Link does.\n\n"
        "Question: Who is Ganondorf?\nAnswer: A thief, then a king.\n\n"
        "Question: Who is Zelda?\nAnswer:"
    )
    assert question_prompt(PLAIN, DEMOS[:1]) == "Question: Who saves Hyrule?\nAnswer: Link does.\n\nQuestion:"
    assert training_text(PLAIN, DEMOS[0]) == ("Question: Who saves Hyrule?\nAnswer:", " Link does.</s>")


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


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


@pytest.mark.parametrize(("room", "kept"), [(100, 2), (22, 2), (21, 1), (15, 1), (14, 0), (5, 0)])
def test_the_farthest_demonstrations_make_room_first(room: int, kept: int) -> None:
    fitted = fit_demos(lambda demos: answer_prompt(PLAIN, demos, "Who is Zelda?"), DEMOS, words, room)
    assert list(fitted) == DEMOS[len(DEMOS) - kept :]


def test_a_question_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ModelError) as error:
        fit_demos(lambda demos: answer_prompt(PLAIN, demos, "Who is Zelda?"), DEMOS, words, 4)
    assert str(error.value) == (
        "a prompt without demonstrations has 5 tokens and 4 fit beside the completion: "
        "shorten the question, lower max_new_tokens, or take a model with a longer context"
    )


def test_prompts_are_functions_of_text_alone() -> None:
    """No library of models is imported: prompts can be read, and tested, without one."""
    source = Path(__file__).parents[1] / "src" / "isara" / "prompts.py"
    imported = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {"collections.abc", "dataclasses", "typing", "isara.data", "isara.errors"}
