"""A loaded model that generates and scores, with plain transformers: the figures do not depend on our own engine."""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

Pair = tuple[str, str]
ANSWER_STOP, QUESTION_STOP = "\n\nQuestion:", "\nAnswer:"


def question_prompt(demos: Sequence[Pair]) -> str:
    """Demonstrations and an open next question."""
    return "Question:" + "".join(f" {q}\nAnswer: {a}\n\nQuestion:" for q, a in demos)


def answer_prompt(demos: Sequence[Pair], question: str) -> str:
    """Demonstrations, the question, and an open answer."""
    return f"{question_prompt(demos)} {question}\nAnswer:"


class LM:
    """The model of a folder; prompts are sorted by length and run in batches."""

    def __init__(self, folder: Path, batch: int = 48) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        self.model = model.eval()
        self.batch = batch

    def generate(
        self, prompts: Sequence[str], stop: str, max_new_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[tuple[str, bool]]:
        """For each prompt the continuation up to the stop string, and whether it ended by itself.

        Greedy at temperature 0, else sampled with top-p 0.95.
        """
        torch.manual_seed(seed)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        found: dict[int, tuple[str, bool]] = {}
        for start in range(0, len(order), self.batch):
            chosen = order[start : start + self.batch]
            texts = self._batch([prompts[i] for i in chosen], stop, max_new_tokens, temperature)
            for index, text in zip(chosen, texts, strict=True):
                head, stopped, _ = text.partition(stop)
                head, ended, _ = head.partition(self.tokenizer.eos_token)
                found[index] = (head.strip(), bool(stopped or ended))
        return [found[i] for i in range(len(prompts))]

    @torch.no_grad()
    def _batch(self, prompts: list[str], stop: str, max_new_tokens: int, temperature: float) -> list[str]:
        inputs = self.tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
        options: dict[str, Any] = {"do_sample": False}
        if temperature:
            options = {"do_sample": True, "temperature": temperature, "top_p": 0.95, "top_k": 0}
        output = self.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            # Each marker of the format is one token, so stopping needs no search in strings, which is slow.
            eos_token_id=[self.tokenizer.eos_token_id, *self.tokenizer(stop, add_special_tokens=False)["input_ids"]],
            **options,
        )
        new = output[:, inputs["input_ids"].shape[1] :]
        # Pads stand only after the end; EOS is kept, since it says that the answer ended by itself.
        rows = [[token for token in row.tolist() if token != self.tokenizer.pad_token_id] for row in new]
        return [str(text) for text in self.tokenizer.batch_decode(rows)]

    @torch.no_grad()
    def bits(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        """The continuation's negative log2-likelihood in bits per UTF-8 byte."""
        scores = []
        for prompt, text in zip(prompts, continuations, strict=True):
            head = self.tokenizer(prompt)["input_ids"]
            tail = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            logits = self.model(input_ids=torch.tensor([head + tail])).logits[0, len(head) - 1 : -1].float()
            nats = torch.nn.functional.cross_entropy(logits, torch.tensor(tail), reduction="sum").item()
            scores.append(nats / math.log(2) / len(text.encode()))
        return scores


def sample_demos(rng: random.Random, pool: Sequence[Pair], count: int) -> list[Pair]:
    """Demonstrations drawn at random."""
    return rng.sample(list(pool), min(count, len(pool)))


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and half a 95 % interval of it (normal approximation)."""
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return mean, 1.96 * math.sqrt(spread / len(values))
