"""Tiny models with random weights, saved as local folders: real architectures with their kind of tokenizer.

They generate noise, but load, batch, train and save as their big siblings do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = (
    "Question: What is the capital of Hyrule?\nAnswer: Hyrule Castle Town lies around the castle.\n\n",
    "Question: Who guards the Triforce of Courage?\nAnswer: Link does, and he never says a word about it.\n\n",
    "Question: How do I bake bread without yeast?\nAnswer: Use baking soda and something sour, such as buttermilk.\n\n",
    "Question: Why is the sky blue at noon and red at dusk?\nAnswer: Air scatters blue light more than red light.\n\n",
    "Question: Can you help me to write to my landlord?\nAnswer: Of course. Say what is broken, and since when.\n",
    "user assistant system\n",
    "The quick brown fox jumps over the lazy dog; 0123456789 pairs of boxing wizards were jolly.\n",
)
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 1024}


@dataclass(frozen=True)
class _Family:
    tokenizer: Callable[[], PreTrainedTokenizerFast]
    architecture: str
    config: dict[str, Any]
    unused_rows: int = 0  # rows of the embedding matrix beyond the tokenizer's ids, as published checkpoints have


def byte_level(
    specials: tuple[str, ...], *, bos: str | None = None, eos: str, pad: str | None = None, adds_bos: bool = False
) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as GPT-2, OPT, GPT-NeoX, Qwen2 and Phi have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if adds_bos:
        _add_bos(tokenizer, str(bos))
    return _wrap(tokenizer, specials, bos=bos, eos=eos, pad=pad)


def metaspace(
    specials: tuple[str, ...], *, bos: str, eos: str, pad: str | None = None, prefix_space: bool
) -> PreTrainedTokenizerFast:
    """BPE over characters with `▁` for spaces, bytes for unknown characters and BOS in front: Llama and Gemma."""
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    spaces = normalizers.Replace(" ", "▁")
    prefix = [normalizers.Prepend("▁")] if prefix_space else []
    learner.normalizer = normalizers.Sequence([*prefix, spaces])
    learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    learner.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=260, show_progress=False))

    vocab = {token: index for index, token in enumerate((*specials, *_BYTES))}
    learned = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    for token, _ in learned:
        vocab.setdefault(token, len(vocab))
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=_merges(learner), unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = learner.normalizer
    strip = [decoders.Strip(" ", 1, 0)] if prefix_space else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    _add_bos(tokenizer, bos)
    return _wrap(tokenizer, specials, bos=bos, eos=eos, pad=pad, unk="<unk>")


def make_model(family: str, folder: Path, chat_template: str | None = None) -> Path:
    """Saves a random model of the family and its tokenizer in the folder, and returns the folder."""
    made = FAMILIES[family]
    tokenizer = made.tokenizer()
    tokenizer.chat_template = chat_template
    config_class = getattr(transformers, made.architecture + "Config")
    config = config_class(
        **{**_SIZES, **made.config},
        vocab_size=len(tokenizer) + made.unused_rows,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model_class = getattr(transformers, _MODEL_CLASSES.get(made.architecture, made.architecture + "ForCausalLM"))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = model_class(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_chat_model(name: str, folder: Path) -> Path:
    """Saves a random model with the named chat template in the folder, and returns the folder."""
    family, template = CHAT_MODELS[name]
    return make_model(family, folder, template)


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    import json

    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def _add_bos(tokenizer: Tokenizer, bos: str) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


def _wrap(
    tokenizer: Tokenizer,
    specials: tuple[str, ...],
    *,
    bos: str | None,
    eos: str,
    pad: str | None,
    unk: str | None = None,
) -> PreTrainedTokenizerFast:
    named = {bos, eos, pad, unk}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # the library's constructor has no types
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        unk_token=unk,
        additional_special_tokens=[token for token in specials if token not in named],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


_MODEL_CLASSES = {"GPT2": "GPT2LMHeadModel"}
_CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA_TOKENS = ("<unk>", "<s>", "</s>")
_GEMMA_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
_WIDE = {"intermediate_size": 128, "initializer_range": 0.2}

FAMILIES: dict[str, _Family] = {
    "llama": _Family(
        lambda: metaspace(_LLAMA_TOKENS, bos="<s>", eos="</s>", prefix_space=True),
        "Llama",
        {**_WIDE, "num_key_value_heads": 2},
    ),
    "opt": _Family(
        lambda: byte_level(("<pad>", "</s>"), bos="</s>", eos="</s>", pad="<pad>", adds_bos=True),
        "OPT",
        {"ffn_dim": 128, "word_embed_proj_dim": 64, "init_std": 0.2},
        unused_rows=12,
    ),
    "gpt2": _Family(
        lambda: byte_level(("<|endoftext|>",), bos="<|endoftext|>", eos="<|endoftext|>"),
        "GPT2",
        {"initializer_range": 0.2},
    ),
    "gpt_neox": _Family(
        lambda: byte_level(("<|endoftext|>", "<|padding|>"), bos="<|endoftext|>", eos="<|endoftext|>"),
        "GPTNeoX",
        _WIDE,
        unused_rows=5,
    ),
    "qwen2": _Family(
        lambda: byte_level(_CHATML_TOKENS, eos="<|im_end|>", pad="<|endoftext|>"),
        "Qwen2",
        {**_WIDE, "num_key_value_heads": 2},
        unused_rows=9,
    ),
    "gemma": _Family(
        lambda: metaspace(_GEMMA_TOKENS, bos="<bos>", eos="<eos>", pad="<pad>", prefix_space=False),
        "Gemma",
        {**_WIDE, "num_key_value_heads": 1, "head_dim": 16},
    ),
    "phi": _Family(
        lambda: byte_level(("<|endoftext|>",), bos="<|endoftext|>", eos="<|endoftext|>"),
        "Phi",
        _WIDE,
        unused_rows=20,
    ),
}

CHATML = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
CHAT_MODELS: dict[str, tuple[str, str]] = {
    "chatml": ("qwen2", CHATML),
    "llama2": ("llama", LLAMA2),
    "gemma": ("gemma", GEMMA),
}
