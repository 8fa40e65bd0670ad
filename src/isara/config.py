"""A run's typed configuration: YAML, overrides, and one-line errors that name file and key.

The sections are the options of the parts: no part says a default a second time. A default that decides results and that
the paper does not state is marked "our choice". `expected` says in words what a field takes; error messages, the
commented file of `isara init` and docs/configuration.md all use it, so they can't disagree. A field says of itself
whether a run may be resumed with another value (`_FREE`) or is compared by what it names (`_NAMES`).
"""

import difflib
import json
import math
import os
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic.fields import FieldInfo

from isara.errors import ConfigError
from isara.keys import leaves
from isara.marks import clean
from isara.own import beside
from isara.records import Sampling
from isara.sizes import settings_for
from isara.yaml_text import YamlError, parse_yaml

FILE_NAME = "isara.yaml"
_MOST_SHOWN = 2000  # characters of an error
_DATA_ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ".ndjson", ".xlsx")
_KEYWORDS = {"auto", "embedded", "lexical", "minilm"}
# What such a field takes, where its type does not say it; kept as the field's title.
_SHARE_OR_FILE = "a share in [0, 1) or a file"
_DEVICE = "auto, cpu, mps, cuda or cuda:N"
_TABLE = "options by name"
_OWN = "a list of {use: module:name, options: {…}}"
_NAME = "a name or path, not empty and without NUL"
_PLACE = "module:name or file.py:name, such as my_filters:no_prices"
# Scores of a generated answer (`isara.selection`); the last is one of its question alone, so it can't choose an answer.
AnswerScore: TypeAlias = Literal["natural", "icl_gain", "question", "agree", "seeds"]
Score: TypeAlias = Literal["natural", "icl_gain", "question", "agree", "seeds", "distance"]
_WEIGHTS = f"numbers by score ({', '.join(get_args(AnswerScore))})"
_SHARES = f"shares of the seeds in (0, 1] by score ({', '.join(get_args(Score))})"
_SCORE_NAMES = f"a list of scores ({', '.join(get_args(Score))})"
SCORES = ("rule", "refusal")  # the exact rules that ship
_SCORE = f"{', '.join(SCORES)}, module:name, file.py:name or null"
_COMMAND = "a command with {port} and {model} or {gguf}, or null"
_MOST_SEED = 2**32 - 1  # of numpy
# Changes nothing that a finished part of a run holds.
_FREE: dict[str, JsonValue] = {"resume": "free"}
# Names something that is compared by its content, so that files may have moved.
_NAMES: dict[str, JsonValue] = {"resume": "by content"}


def _share_or_file(value: float | str) -> float | str:
    if not (_usable(value) if isinstance(value, str) else 0 <= value < 1):
        raise ValueError(_SHARE_OR_FILE)
    return value


def _name(value: str) -> str:
    if not _usable(value):
        raise ValueError(_NAME)
    return value


def _names(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_name, values))


def _usable(name: str) -> bool:
    """Whether the system takes it for a path: an empty one would mean the working directory, and none holds a NUL."""
    return bool(name.strip()) and "\0" not in name


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError(_DEVICE)
    return value


def _patterns(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"regular expressions ({error} in {value!r})") from error
    return values


def _place(value: str) -> str:
    if not _is_place(value):
        raise ValueError(_PLACE)
    return value


def _is_place(value: str) -> bool:
    module, colon, name = value.rpartition(":")
    return bool(module.strip() and colon) and name.isidentifier()


def _score(value: str) -> str:
    if value not in SCORES and not _is_place(value):
        raise ValueError(_SCORE)
    return value


def _command(value: str) -> str:
    """A command that starts a server of one model's weights."""
    if "{port}" not in value or not re.search(r"\{(model|gguf(:\w+)?)\}", value):
        raise ValueError(_COMMAND)
    return value


_Name = Annotated[str, AfterValidator(_name)]
_Place = Annotated[str, AfterValidator(_place)]


class _Section(BaseModel):
    # Strict: `iterations: true` or `packing: 1` is a slip of the pen, not a value.
    # By alias: a key such as `from` is no name in Python.
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, serialize_by_alias=True)


class OwnPart(_Section):
    """A part of the user's own."""

    use: _Place = Field(
        title=_PLACE, description="where it is: a module, or a file beside the config, and its name in it"
    )
    options: dict[str, Any] = Field(
        {}, description="what it is called with, by name; without any it is the part itself"
    )


class ColumnsConfig(_Section):
    """Which columns of a data file hold the pairs."""

    question: str | None = Field(None, description="column with the questions; null finds it under its usual names")
    answer: str | None = Field(None, description="column with the answers; null finds it under its usual names")


class QuestionsConfig(_Section):
    """How new questions are made."""

    demos: int = Field(8, ge=1, description="demonstrations in a prompt for a new question (our choice)")
    choice: Literal["sampled", "neighbours"] = Field(
        "sampled", description="demonstrations drawn at random, or one at random and its nearest (our choice)"
    )
    per_prompt: int = Field(4, ge=1, description="questions sampled from one prompt (our choice)")
    temperature: float | None = Field(
        None, ge=0, description="softmax temperature; 0 is greedy decoding, null follows the model's size (our choice)"
    )
    top_p: float = Field(0.95, gt=0, le=1, description="nucleus mass (our choice)")
    max_new_tokens: int = Field(96, ge=1, description="most tokens of a question (our choice)")
    from_: Literal["last", "base", "reader", "seeds"] | None = Field(
        None,
        alias="from",
        description="the model that asks: the last iteration's, always the base model, the reader of answers.from, "
        "which learns the seeds' questions, too, then, or (seeds) the base model tuned on the seeds to go on with the "
        "next pair, which asks alone; null follows the model's size",
    )
    focus: Literal["uniform", "worst", "balanced"] = Field(
        "uniform",
        description="what questions are drawn around: any pair, the seeds that the model finds hardest, or the seeds' "
        "clusters in turn",
    )

    @property
    def sampling(self) -> Sampling:
        """How they are drawn."""
        usual = settings_for(None).question_temperature
        return Sampling(usual if self.temperature is None else self.temperature, self.top_p, self.max_new_tokens)


class AnswersConfig(_Section):
    """How the questions are answered."""

    demos: int = Field(5, ge=0, description="k, the pairs shown before the question, nearest last (our choice)")
    retrieve: Literal["nearest", "random", "none"] = Field(
        "nearest", description="the nearest pairs are shown, random ones, or none: what a comparison changes"
    )
    temperature: float | None = Field(
        None, ge=0, description="softmax temperature; 0 is greedy decoding, null follows the model's size (our choice)"
    )
    top_p: float = Field(0.95, gt=0, le=1, description="nucleus mass (our choice)")
    max_new_tokens: int = Field(256, ge=1, description="most tokens of an answer (our choice)")
    from_: Literal["last", "reader"] | None = Field(
        None,
        alias="from",
        description="the model that answers: the last iteration's, or the base model tuned on the seeds, each after "
        "its nearest others, so that it reads demonstrations; null follows the model's size",
    )
    reader_epochs: float = Field(
        3.0,
        gt=0,
        description="passes over the seeds that the reader is tuned for, at half of train's rate (our choice)",
    )

    @property
    def sampling(self) -> Sampling:
        """How they are drawn."""
        usual = settings_for(None).answer_temperature
        return Sampling(usual if self.temperature is None else self.temperature, self.top_p, self.max_new_tokens)


class RetrieveConfig(_Section):
    """How the nearest pairs are found."""

    embedder: _Name = Field(
        "auto",
        description="auto, lexical, minilm (a package), or the folder or name of a sentence-transformers model "
        "(our choice)",
        json_schema_extra=_NAMES,
    )
    pool: Literal["seeds", "all"] = Field(
        "seeds",
        description="pairs that answers retrieve from: the seeds, or all pairs accepted so far too (our choice)",
    )


class GenerateConfig(_Section):
    """How many pairs an iteration makes, and when it gives up."""

    accept: int = Field(
        256, ge=0, description="N, pairs to accept in an iteration; 0 trains on the seeds alone (our choice)"
    )
    batch: int = Field(64, ge=1, description="questions made at a time; the run folder grows by whole batches")
    max_batches: int | None = Field(
        None,
        ge=1,
        description="full batches before an iteration gives up; null is 12 times what would do if all passed",
        json_schema_extra=_FREE,
    )
    min_yield: float = Field(
        0.02,
        ge=0,
        le=1,
        description="share of accepted pairs, after two batches, below which an iteration gives up",
        json_schema_extra=_FREE,
    )

    @property
    def most_batches(self) -> int:
        """Batches after which an iteration gives up."""
        return self.max_batches or 12 * math.ceil(self.accept / self.batch)


class SelectConfig(_Section):
    """Which of several answers is kept, and how good it has to be."""

    answers: int = Field(1, ge=1, description="n, answers drawn for each question")
    rule: Literal["first", AnswerScore] = Field(
        "first",
        title=f"first, {', '.join(get_args(AnswerScore))}",
        description="of the answers that pass the filters the first one made, or the one with the highest score",
    )
    weights: dict[AnswerScore, float] = Field(
        {}, title=_WEIGHTS, description="instead of a rule: weights of a sum of scores, each in the seeds' own spread"
    )
    keep: dict[Score, Annotated[float, Field(gt=0, le=1)]] = Field(
        {}, title=_SHARES, description="drop an answer that falls short of what this share of the seeds reach"
    )
    scores: tuple[Score, ...] = Field(
        (), title=_SCORE_NAMES, description="scores to store with each answer, beside those that are needed"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.weights and self.rule != "first":
            raise ValueError(f"`rule: first` beside `weights`, which are a rule themselves (it is {self.rule})")
        choosing = "weights" if self.weights else f"rule: {self.rule}"
        if self.answers == 1 and choosing != "rule: first":
            raise ValueError(f"`answers` of at least 2 for `{choosing}`, which has nothing to choose from 1")
        if self.answers == 1 and "agree" in (*self.keep, *self.scores):
            raise ValueError("`answers` of at least 2 for the score agree, which compares an answer with the others")
        return self

    @property
    def chosen_by(self) -> dict[AnswerScore, float]:
        """The scores that decide between answers, with their weights; empty where the first one is taken."""
        return self.weights or ({} if self.rule == "first" else {self.rule: 1.0})

    @property
    def measured(self) -> tuple[Score, ...]:
        """The scores that are worked out, in the order in which they are stored."""
        asked = {*self.chosen_by, *self.keep, *self.scores}
        return tuple(name for name in get_args(Score) if name in asked)


class FiltersConfig(_Section):
    """What a generated pair must pass."""

    min_question_tokens: int | None = Field(
        4, ge=1, description="fewest tokens of a question, its stop included (our choice)"
    )
    max_question_tokens: int | None = Field(128, ge=1, description="most tokens of a question (our choice)")
    min_answer_tokens: int | None = Field(
        2, ge=1, description="fewest tokens of an answer, its stop included (our choice)"
    )
    max_answer_tokens: int | None = Field(None, ge=1, description="most tokens of an answer")
    novelty: float | None = Field(
        0.7, gt=0, le=1, description="drop a question whose ROUGE-L with a kept one reaches this (0.7 in the paper)"
    )
    near_duplicate: float | None = Field(
        0.95, gt=0, le=1, description="drop a question whose embedding has this cosine with a kept one (our choice)"
    )
    repetition: float | None = Field(
        0.3, gt=0, le=1, description="drop an answer with this share of words in repeated 4-grams (our choice)"
    )
    echo: float | None = Field(
        0.9, gt=0, le=1, description="drop an answer whose ROUGE-L with its question reaches this (our choice)"
    )
    copied: float | None = Field(
        0.9,
        gt=0,
        le=1,
        description="drop an answer whose ROUGE-L with a kept pair's reaches this and that speaks of what only that "
        "pair's question asked (our choice)",
    )
    form: bool = Field(True, description="drop a text that is empty, has no letters or holds control characters")
    truncated: bool = Field(True, description="drop a text that did not end by itself")
    run_on: bool = Field(True, description="drop a text that runs on into the next pair")
    language: bool = Field(True, description="drop a pair in a script that no seed pair is written in (our choice)")
    drop_matching: Annotated[tuple[str, ...], AfterValidator(_patterns)] = Field(
        (), description="drop a pair in which one of these regular expressions is found, upper or lower case"
    )
    contamination: Annotated[tuple[str, ...], AfterValidator(_names)] = Field(
        (),
        description="benchmark files; drop a pair that shares a run of words with one of them",
        json_schema_extra=_NAMES,
    )
    contamination_ngram: int = Field(8, ge=1, description="words in a row that count as contamination (our choice)")
    own_questions: tuple[OwnPart, ...] = Field(
        (), title=_OWN, description="filters of your own for questions, after the others", json_schema_extra=_NAMES
    )
    own_pairs: tuple[OwnPart, ...] = Field(
        (), title=_OWN, description="filters of your own for pairs, after the others", json_schema_extra=_NAMES
    )
    unsupported_numbers: Literal["auto"] | bool = Field(
        "auto",
        description="drop an answer with a number, amount, date or time that no seed has and that was not asked; auto "
        "does where no seed does it (our choice)",
    )
    unsupported_contacts: Literal["auto"] | bool = Field(
        "auto",
        description="drop an answer with a web, e-mail or postal address, telephone number or handle that no seed has "
        "and that was not asked; auto does where no seed does it (our choice)",
    )
    off_domain: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the seeds that are as near to another seed as a question must be to one; null keeps all",
    )
    balance: float | None = Field(
        None,
        gt=0,
        le=1,
        description="what a kind of answer may have beyond its share among the seeds around the questions; null keeps "
        "all",
    )
    agreement: float | None = Field(
        None,
        gt=0,
        le=1,
        description="drop an answer that has less than this share of its content in common with a second one, given "
        "after other demonstrations; null asks once",
    )


class ReviewConfig(_Section):
    """Where a person reads before anything is trained."""

    before_training: int = Field(
        0,
        ge=0,
        description="accepted rows of iteration 1, drawn at random, on which a person decides before it is trained "
        "(`isara review`); 0 trains without a stop",
        json_schema_extra=_FREE,
    )


class BudgetConfig(_Section):
    """What one command may take; it then stops at the end of a batch or before a stage."""

    minutes: float | None = Field(None, gt=0, description="minutes; null is no limit", json_schema_extra=_FREE)
    tokens: int | None = Field(
        None, ge=1, description="tokens of generated questions and answers; null is no limit", json_schema_extra=_FREE
    )


class TrainConfig(_Section):
    """How the model is fine-tuned; names and meanings are those of transformers, trl and peft."""

    method: Literal["lora", "full"] | None = Field(
        None, description="train an adapter, or every weight; null follows the model's size (our choice)"
    )
    start: Literal["base", "last"] = Field(
        "base", description="each iteration trains the base model, or goes on from the last one (our choice)"
    )
    data: Literal["all", "newest", "generated"] = Field(
        "all",
        description="train on the seeds with all accepted pairs, the seeds with the newest, or all accepted pairs "
        "without the seeds (our choice)",
    )
    learning_rate: float | None = Field(
        None, gt=0, description="peak learning rate; null follows the model's size and the method (our choice)"
    )
    num_train_epochs: float | None = Field(
        None,
        gt=0,
        description="passes over the training pairs; null follows the model's size and the method (our choice)",
    )
    max_steps: int | None = Field(
        None, ge=1, description="optimiser steps instead of num_train_epochs: an equal budget for a comparison"
    )
    per_device_train_batch_size: int = Field(
        8, ge=1, description="rows of a forward pass; halved when out of memory (our choice)"
    )
    gradient_accumulation_steps: int = Field(1, ge=1, description="forward passes per optimiser step (our choice)")
    warmup_ratio: float = Field(0.03, ge=0, le=1, description="share of the steps that warm up (our choice)")
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        "cosine", description="course of the learning rate (our choice)"
    )
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay (our choice)")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm (our choice)")
    max_length: int = Field(1024, ge=1, description="most tokens of a training row (our choice)")
    packing: bool = Field(False, description="put several rows into one sequence, where that is safe")
    gradient_checkpointing: bool = Field(
        False, description="compute activations twice instead of keeping them: less memory, slower"
    )
    lora_r: int = Field(16, ge=1, description="rank of the adapter (our choice)")
    lora_alpha: int = Field(32, ge=1, description="scale of the adapter (our choice)")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="dropout before the adapter (our choice)")
    lora_target_modules: str | tuple[str, ...] = Field(
        "all-linear", description="layers that get an adapter: all-linear, or a list of their names (our choice)"
    )
    loss: Literal["sft", "distil"] = Field(
        "sft",
        description="learn the generated answers, or what the start model says of their tokens after answers.demos "
        "demonstrations (our choice)",
    )
    seed_weight: float = Field(
        1.0, gt=0, description="loss of a seed's tokens where a generated pair's count once (our choice)"
    )
    weights: Literal["none", AnswerScore] = Field(
        "none",
        title=f"none, {', '.join(get_args(AnswerScore))}",
        description="the score by which generated pairs count more or less in the loss; it has to be stored by select "
        "(our choice)",
    )
    anchors: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of training rows that are the start model's own answers to everyday questions, at most 64 "
        "(our choice)",
    )
    launcher: Literal["torchrun", "accelerate"] | None = Field(
        None,
        description="what starts several processes of a training on this machine; null trains in one",
        json_schema_extra=_FREE,
    )
    processes: int = Field(
        1,
        ge=1,
        description="of a training; they share the rows of each optimiser step",
        json_schema_extra=_FREE,
    )
    demos: int = Field(
        0,
        ge=0,
        description="demonstrations before the question of each training row, retrieved from the seeds as "
        "answers.retrieve says; 0 trains zero-shot (our choice)",
    )

    @model_validator(mode="after")
    def _launches(self) -> Self:
        rows = self.per_device_train_batch_size * self.gradient_accumulation_steps
        if self.processes > 1 and self.launcher is None:
            raise ValueError(f"`launcher` torchrun or accelerate for `processes: {self.processes}`")
        if self.launcher and self.packing:
            raise ValueError("`packing: false` beside `launcher`: processes share out rows, and not packed ones")
        if rows % self.processes:
            raise ValueError(
                f"`per_device_train_batch_size` x `gradient_accumulation_steps` (it is {rows}) to be a multiple of "
                f"`processes: {self.processes}`, which share the rows of a step"
            )
        return self


class PreferConfig(_Section):
    """Whether and how the model learns to prefer good answers to those that it gives by itself."""

    method: Literal["none", "dpo", "spin"] = Field(
        "none",
        description="dpo: after each fine-tuning, accepted answers are preferred to those that the same model gave "
        "without demonstrations; spin: after the first one, in every iteration the seeds' answers to the model's own",
    )
    beta: float = Field(0.1, gt=0, description="how strongly the model is held to the one that it starts from")
    learning_rate: float | None = Field(
        None, gt=0, description="peak learning rate; null is 5e-5 for lora and 5e-6 for full (our choice)"
    )
    num_train_epochs: float = Field(1.0, gt=0, description="passes over the preferences (our choice)")


class EvaluateConfig(_Section):
    """What is measured on the held-out pairs after each iteration."""

    demos: int = Field(
        5, ge=0, description="demonstrations when held-out answers are scored with retrieval (our choice)"
    )
    patience: int | None = Field(
        1,
        ge=1,
        description="iterations without a gain before the run stops; null never stops early (our choice)",
        json_schema_extra=_FREE,
    )
    score: Annotated[str, AfterValidator(_score)] | None = Field(
        None,
        title=_SCORE,
        description="what held-out answers are scored by; null is their likelihood",
        json_schema_extra=_NAMES,
    )
    score_options: dict[str, Any] = Field({}, title=_TABLE, description="what the score is called with, by name")
    seeds_only: bool = Field(
        True,
        description="measure the base model fine-tuned on the seeds alone, too, with the steps of iteration 1",
        json_schema_extra=_FREE,
    )
    answers: int = Field(
        48, ge=0, description="most held-out questions that each model answers, chosen by hash (our choice)"
    )
    select: Literal["likelihood", "score", "auto"] = Field(
        "auto", description="what chooses the iteration and stops the run; auto is the score where there is one"
    )
    select_share: float = Field(
        0.33,
        gt=0,
        lt=1,
        description="share of the answered held-out pairs that choose by score; the verdict is on the others "
        "(our choice)",
    )

    @property
    def by_score(self) -> bool:
        """Whether the iteration is to be chosen by the score."""
        return self.select == "score" or self.select == "auto" and self.score is not None


class EngineConfig(_Section):
    """How a model is run."""

    device: Annotated[str, AfterValidator(_device)] = Field("auto", title=_DEVICE, description="where the model runs")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="number format of the weights; auto is bfloat16 where the hardware has it"
    )
    use: _Place | None = Field(
        None,
        title=f"{_PLACE}, or null",
        description="an engine of your own; null is that of transformers",
        json_schema_extra=_NAMES,
    )
    options: dict[str, Any] = Field(
        {}, title=_TABLE, description="what an engine of your own or vLLM's LLM is called with, beside the model"
    )
    tokens_per_batch: int | None = Field(
        None,
        ge=1,
        description="tokens of prompts and completions held at once; null fits them to the memory",
        json_schema_extra=_FREE,
    )
    child_process: Literal["auto"] | bool = Field(
        "auto",
        description="run each stage in a process of its own; auto does so on a GPU",
        json_schema_extra=_FREE,
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the model")
    kind: Literal["transformers", "server", "vllm"] = Field(
        "transformers",
        description="what completes prompts: transformers, servers of the OpenAI protocol, or vLLM in a process of "
        "its own",
    )
    python: _Name | None = Field(
        None,
        title=f"{_NAME}, or null",
        description="the Python of the environment that vLLM is in, for `kind: vllm`; null is this one",
        json_schema_extra=_FREE,
    )
    url: Annotated[tuple[str, ...], AfterValidator(_names)] = Field(
        (), description="servers of the base model's weights, one or several", json_schema_extra=_FREE
    )
    serve: Annotated[str, AfterValidator(_command)] | None = Field(
        None, title=_COMMAND, description="starts a server of {model} (a folder) or {gguf}, for each model once"
    )
    served_model: str | None = Field(
        None, description="the model's name at the server; null is the only one that it names"
    )
    prompt: Literal["auto", "ids", "text"] = Field(
        "auto", description="how a server gets a prompt; auto is as ids where it takes these"
    )
    workers: int = Field(
        1,
        ge=1,
        description="processes of the engine that share the rows of a batch, on the GPUs in turn",
        json_schema_extra=_FREE,
    )
    evaluate_with: Literal["transformers", "server", "vllm"] = Field(
        "transformers",
        description="what evaluations ask where `kind` is another; a server has to score texts for it",
    )
    check_weights: bool = Field(
        True,
        description="compare a server's greedy texts with the run's own weights before a row is kept",
        json_schema_extra=_FREE,
    )
    concurrency: int = Field(8, ge=1, description="requests under way at each server", json_schema_extra=_FREE)
    timeout: float = Field(300.0, gt=0, description="seconds that one request may take", json_schema_extra=_FREE)
    start_timeout: float = Field(
        600.0, gt=0, description="seconds until a server of `serve` has to answer", json_schema_extra=_FREE
    )
    key_env: str | None = Field(
        None, description="environment variable with the servers' key; null is none", json_schema_extra=_FREE
    )

    @model_validator(mode="after")
    def _serves(self) -> Self:
        named = [name for name, value in (("url", self.url), ("serve", self.serve)) if value]
        if self.kind != "server" and named:
            raise ValueError(f"`kind: server` beside `{named[0]}` (it is {self.kind})")
        if self.kind == "server" and len(named) != 1:
            raise ValueError("`url` or `serve`, one of them, for `kind: server`")
        if self.kind != "transformers" and self.use:
            raise ValueError(f"`use: null` for `kind: {self.kind}`, which is an engine itself")
        if self.evaluate_with not in ("transformers", self.kind):
            raise ValueError(f"`evaluate_with` transformers or `kind`, which is {self.kind}")
        if self.workers > 1 and (self.kind == "server" or self.use):
            other = "which has `concurrency`" if self.kind == "server" else "which is opened in this process"
            raise ValueError(f"`workers: 1` for {'an engine of your own' if self.use else '`kind: server`'}, {other}")
        if self.python and self.kind != "vllm":
            raise ValueError(f"`kind: vllm` beside `python` (it is {self.kind})")
        return self


class Config(_Section):
    """One run: what `isara.yaml` holds."""

    model: _Name = Field(
        "embedded",
        description="a model's folder or hub name; embedded is the one in the package",
        json_schema_extra=_NAMES,
    )
    seeds: _Name = Field(
        "seeds.jsonl", description="the seed pairs: a data file, a folder, or a hub name", json_schema_extra=_NAMES
    )
    out: _Name = Field(
        "runs/isara",
        description="the run folder; by default runs/ in the working directory and the name of the config's folder",
        json_schema_extra=_FREE,
    )
    seed: int = Field(0, ge=0, le=_MOST_SEED, description="the run's random seed")
    iterations: int = Field(
        3,
        ge=0,
        description="T, rounds of generate, filter, train and evaluate; 0 measures the base model (our choice)",
        json_schema_extra=_FREE,
    )
    prompt_format: Literal["auto", "plain", "chat"] = Field(
        "auto", description="plain text or chat turns; auto is chat where the tokenizer has a chat template"
    )
    columns: ColumnsConfig = Field(ColumnsConfig(), description="which columns of the data hold the pairs")
    heldout: Annotated[float | str, AfterValidator(_share_or_file)] = Field(
        0.2,
        title=_SHARE_OR_FILE,
        description="share of the seeds kept from the loop for evaluation, or a file of pairs (our choice)",
        json_schema_extra=_NAMES,
    )
    licence: str | None = Field(None, description="licence of the seeds; goes into the model card and the data card")
    track: Literal["tensorboard", "trackio", "wandb", "mlflow"] | None = Field(
        None,
        description="a tracker that is sent the run's figures; its package is not installed with this one",
        json_schema_extra=_FREE,
    )
    questions: QuestionsConfig = Field(QuestionsConfig(), description="how new questions are made")
    answers: AnswersConfig = Field(AnswersConfig(), description="how they are answered")
    retrieve: RetrieveConfig = Field(RetrieveConfig(), description="how the nearest pairs are found")
    generate: GenerateConfig = Field(GenerateConfig(), description="how many pairs an iteration makes")
    filters: FiltersConfig = Field(FiltersConfig(), description="what a pair must pass; null turns a filter off")
    review: ReviewConfig = Field(ReviewConfig(), description="what a person reads before training")
    train: TrainConfig = Field(TrainConfig(), description="how the model is fine-tuned")
    prefer: PreferConfig = Field(PreferConfig(), description="what the fine-tuned model is to prefer")
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="what is measured after each iteration")
    engine: EngineConfig = Field(EngineConfig(), description="how a model is run")
    select: SelectConfig = Field(SelectConfig(), description="which answers are kept")
    budget: BudgetConfig = Field(BudgetConfig(), description="when `isara run` stops before it is done")

    @model_validator(mode="after")
    def _draws(self) -> Self:
        if self.select.answers > 1 and self.answers.temperature == 0:
            raise ValueError("`answers.temperature` above 0 for `select.answers` above 1, or all answers are the same")
        return self

    @model_validator(mode="after")
    def _weighed(self) -> Self:
        name = self.train.weights
        if name != "none" and name not in self.select.measured:
            raise ValueError(f"{name} among `select.scores` for `train.weights: {name}`, or no pair has that score")
        return self

    @model_validator(mode="after")
    def _preferred(self) -> Self:
        if self.prefer.method == "spin" and (self.generate.accept or self.train.start != "last"):
            raise ValueError(
                "`generate.accept: 0` and `train.start: last` for `prefer.method: spin`, which trains on the seeds "
                "alone and goes on from the last model"
            )
        if self.prefer.method == "dpo" and (self.answers.retrieve == "none" or not self.answers.demos):
            raise ValueError(
                "`answers.demos` above 0 and `answers.retrieve` nearest or random for `prefer.method: dpo`, or both "
                "answers are zero-shot"
            )
        return self

    @model_validator(mode="after")
    def _served(self) -> Self:
        """Servers at `engine.url` hold the base model's weights and no others."""
        if not self.engine.url or self.iterations == 0:
            return self
        other = self.answers.from_ == "reader" or self.questions.from_ == "seeds" or self.prefer.method == "spin"
        if self.iterations > 1 or other or self.engine.evaluate_with == "server":
            raise ValueError(
                "`engine.serve` in the place of `engine.url`, whose server has the base model's weights alone, for "
                "more than one of `iterations`, `answers.from: reader`, `questions.from: seeds`, `prefer.method: spin` "
                "or `engine.evaluate_with: server`"
            )
        return self


# Temperature of several answers to a question, where the rule by size would have them greedy, and so all the same.
SEVERAL = 0.7


def sized(config: Config, weights: int | None) -> tuple[Config, dict[str, Any]]:
    """The config with a value in the place of each null that follows the model's size, and those values by dotted key.

    Args:
        config: The config as it was written.
        weights: How many the model has; None where that can't be counted.
    """
    rule = settings_for(weights, config.train.method)
    sections: dict[str, dict[str, Any]] = {}
    for key, value in rule.by_key().items():
        section, _, name = key.partition(".")
        if getattr(getattr(config, section), _attribute(name)) is None:
            sections.setdefault(section, {})[name] = value
    _settle_readers(config, sections)
    if config.select.answers > 1 and sections.get("answers", {}).get("temperature") == 0:
        sections["answers"]["temperature"] = SEVERAL
    update = {
        section: getattr(config, section).model_copy(update={_attribute(name): value for name, value in values.items()})
        for section, values in sections.items()
    }
    found = {f"{section}.{name}": value for section, values in sections.items() for name, value in values.items()}
    return config.model_copy(update=update), found


def _attribute(key: str) -> str:
    return "from_" if key == "from" else key  # a word of the language


def _settle_readers(config: Config, sections: Mapping[str, dict[str, Any]]) -> None:
    """A reader needs demonstrations to read, and asks only where it answers."""
    answers = sections.get("answers", {})
    if "from" in answers and (config.answers.retrieve == "none" or not config.answers.demos):
        answers["from"] = "last"
    if config.questions.from_ == "reader" and "from" in answers:
        answers["from"] = "reader"
    if "from" in sections.get("questions", {}) and answers.get("from", config.answers.from_) != "reader":
        sections["questions"]["from"] = "last"


def load_config(path: str | Path | None = None, overrides: Sequence[str] = (), **values: Any) -> Config:
    """The configuration of a file, with `values` and then `KEY=VALUE` overrides laid over it.

    Relative paths of the file mean files beside it; those of `values`, overrides and the default of `out` start at the
    working directory. All paths come back absolute, so that a dumped config means the same from anywhere.

    Args:
        path: A YAML file, a folder with an isara.yaml, or None for defaults alone.
        overrides: Dotted keys with YAML values, such as "train.learning_rate=1e-4".
        values: Top-level keys; a None is passed over, a section is merged key by key.

    Raises:
        ConfigError: One line with the file, the dotted key, what was expected and what was found.
    """
    path = None if path is None else Path(path).expanduser()
    if path is not None and path.is_dir():
        path /= FILE_NAME
    here = Path.cwd()
    given = {key: deepcopy(value) for key, value in values.items() if value is not None}
    layers = [("configuration", given), *(("--set", _override(text)) for text in overrides)]
    tree: dict[str, Any] = {"seeds": "seeds.jsonl"} if path is None else {"seeds": "seeds.jsonl", **_read(path)}
    _resolve(tree, here if path is None else path.parent)
    sources: dict[str, str] = {}
    for source, layer in layers:
        _resolve(layer, here)
        _lay_over(tree, layer)
        sources |= dict.fromkeys(_dotted(layer), source)
    named_after = Path(str(tree["seeds"])) if path is None else Path(os.path.abspath(path))
    tree.setdefault("out", str(here / "runs" / _run_name(named_after)))
    try:
        return Config.model_validate(_frozen(tree))
    except ValidationError as error:
        raise ConfigError(clean(_message(error, str(path or "configuration"), sources), _MOST_SHOWN)) from None


def dump_config(config: Config) -> str:
    """Every value as YAML, in the order of the fields; the same config gives the same text, and loads again."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of every setting that differs and may not, of two dumped configs."""
    may = {key for key, field in fields() if (field.json_schema_extra or {}) in (_FREE, _NAMES)}
    was, now = dict(leaves(old)), dict(leaves(new))
    keys = [key for key in {**was, **now} if key not in may]
    return [(key, was.get(key), now.get(key)) for key in keys if was.get(key) != now.get(key)]


def fields(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted key and field of every value and section, in order, a section before its values."""
    for name, field in model.model_fields.items():
        name = field.alias or name
        yield prefix + name, field
        if section := section_of(field):
            yield from fields(section, f"{prefix}{name}.")


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that holds keys of its own; None for a value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def expected(field: FieldInfo) -> str:
    """What a field takes, in words: "a number in (0, 1]", "lora or full", "a whole number of at least 1 or null"."""
    return field.title or _either(_words(field.annotation, _range(field.metadata)))


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice and reads 1e-4 as the number it looks like (YAML 1.2)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(problem=_twice(key.value), problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _read(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; an empty one has none."""
    try:
        tree = _parse(path.read_text(encoding="utf-8-sig"), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: expected a config file, found nothing: `isara init` writes one") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: expected UTF-8, found byte 0x{error.object[error.start]:02x}: save it as UTF-8"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: expected a config file, found one that can't be read ({error.strerror})") from None
    if tree is not None and not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found {_shown(tree)}: `isara init` writes an example")
    # A section whose lines are all commented out reads as null.
    sections = {key for key, field in fields() if section_of(field)}
    return {key: {} if value is None and key in sections else value for key, value in (tree or {}).items()}


def _twice(key: str) -> str:
    return f"the key `{key}` stands twice, keep one"


def _parse(text: str, source: str) -> Any:
    try:
        return parse_yaml(text, _Loader)
    except YamlError as error:
        line = f":{error.line}" if error.line else ""
        raise ConfigError(f"{source}{line}: not valid YAML: {error}") from None


def _override(text: str) -> dict[str, Any]:
    """{"a": {"b": c}} for "a.b=c"."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set: expected KEY=VALUE, found {text!r}: write it like --set generate.accept=64")
    tree = _parse(value, f"--set {key}")
    for part in reversed(key.strip().split(".")):
        tree = {part: tree}
    return dict(tree)


def _lay_over(tree: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Puts the layer's values into the tree, section by section."""
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _lay_over(tree[key], value)
        else:
            tree[key] = value


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")


def _resolve(tree: dict[str, Any], folder: Path) -> None:
    """Makes the tree's relative paths absolute; names that are no files (of models, of hub data) stay."""
    for section, key in ((tree, "model"), (tree, "seeds"), (tree, "heldout"), (tree.get("retrieve"), "embedder")):
        if isinstance(section, dict) and isinstance(section.get(key), str | Path):
            section[key] = _local_or_name(section[key], folder)
    if isinstance(tree.get("out"), str | Path):
        tree["out"] = _absolute(tree["out"], folder)
    for own in _own_parts(tree):
        own["use"] = beside(own["use"], folder)
    engine = tree.get("engine")
    if isinstance(engine, dict) and isinstance(engine.get("python"), str) and os.sep in engine["python"]:
        engine["python"] = _absolute(engine["python"], folder)
    evaluate = tree.get("evaluate")
    if isinstance(evaluate, dict) and isinstance(evaluate.get("score"), str):
        evaluate["score"] = beside(evaluate["score"], folder)
    filters = tree.get("filters")
    if isinstance(filters, dict) and isinstance(filters.get("contamination"), list | tuple):
        files = filters["contamination"]
        filters["contamination"] = [_absolute(file, folder) if isinstance(file, str) else file for file in files]


def _own_parts(tree: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The tables in which a part of the user's own is named."""
    filters = tree.get("filters")
    lists = [filters.get(key) for key in ("own_questions", "own_pairs")] if isinstance(filters, dict) else []
    tables = [table for rows in lists if isinstance(rows, list | tuple) for table in rows]
    yield from (t for t in [*tables, tree.get("engine")] if isinstance(t, dict) and isinstance(t.get("use"), str))


def _local_or_name(value: str | Path, folder: Path) -> str:
    path = _absolute(value, folder)
    if isinstance(value, Path) or value.startswith((".", "/", "~")) or value.endswith((*_DATA_ENDINGS, ".gguf")):
        return path
    return path if value not in _KEYWORDS and os.path.exists(path) else value


def _absolute(value: str | Path, folder: Path) -> str:
    """The absolute path; one that is unusable stays as it is, to be refused with what was written."""
    text = str(value)
    return os.path.abspath(folder / os.path.expanduser(text)) if _usable(text) else text


def _run_name(path: Path) -> str:
    """The file's name, or its folder's where the file is called like any other."""
    name = path.parent.name if path.stem in ("isara", "seeds") and path.parent.name else path.stem
    return re.sub(r"[^\w.-]+", "-", name)


def _frozen(value: Any) -> Any:
    """The value with tuples for lists, which is what the fields hold, and text for paths."""
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    return str(value) if isinstance(value, Path) else value


def _message(error: ValidationError, file: str, sources: Mapping[str, str]) -> str:
    """One line about the first thing that is wrong."""
    known = dict(fields())
    found: dict[str, str] = {}
    for item in error.errors():
        # Beyond a known key the location names a list's row or a union's member: the key's own line says it all.
        parts = [str(part) for part in item["loc"]]
        key = next((key for n in range(len(parts), 0, -1) if (key := ".".join(parts[:n])) in known), "")
        if item["type"] in ("extra_forbidden", "invalid_key"):
            key = ".".join(parts)
            text = f"unknown key `{key}`: {_suggestion(key, list(known))}"
        elif not key and item["type"] != "value_error":  # a key that is no text of Unicode
            text = f"expected known keys, found {_shown(parts[-1] if parts else item['input'])}"
        else:
            wanted = str(item["ctx"]["error"]) if item["type"] == "value_error" else expected(known[key])
            text = f"`{key}`: expected {wanted}, found {_shown(item['input'])}" if key else f"expected {wanted}"
        found.setdefault(key, f"{sources.get(key, file)}: {text}")
    first, *more = found.values()
    return first + (f" (and {len(more)} more)" if more else "")


def _suggestion(key: str, known: Sequence[str]) -> str:
    """The known key that is meant: one of the same section, else one of that name elsewhere; or what there is."""
    section, _, name = key.rpartition(".")
    beside = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
    elsewhere = {other.rpartition(".")[2]: other for other in reversed(known)}
    for names in (beside, elsewhere):
        if near := difflib.get_close_matches(name, names, n=1, cutoff=0.7):
            return f"did you mean `{names[near[0]]}`?"
    return f"known here are {', '.join(beside)}"


def _words(kind: Any, bounds: str) -> list[str]:
    """The alternatives of a type, each in words."""
    origin, members = get_origin(kind), get_args(kind)
    if origin is Literal:
        return list(members)
    if origin is tuple:
        return ["a list of texts"]
    if origin in (Union, types.UnionType):
        return [word for member in members for word in _words(member, bounds)]
    if kind is bool:
        return ["true", "false"]
    names = {int: "a whole number" + bounds, float: "a number" + bounds, str: "text", type(None): "null"}
    return [names.get(kind, "a section of keys")]


def _either(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _range(metadata: Sequence[Any]) -> str:
    """The bounds of a number, as an interval where there are two."""
    low = next((m for m in metadata if isinstance(m, Ge | Gt)), None)
    high = next((m for m in metadata if isinstance(m, Le | Lt)), None)
    if low is None:
        return ""
    least = low.ge if isinstance(low, Ge) else low.gt
    if high is None:
        return f" of at least {least}" if isinstance(low, Ge) else f" above {least}"
    most = high.le if isinstance(high, Le) else high.lt
    return f" in {'[' if isinstance(low, Ge) else '('}{least}, {most}{']' if isinstance(high, Le) else ')'}"


def _shown(value: Any) -> str:
    """The value as JSON on one line, cut where it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except TypeError:  # a key that is no text, such as a date
        text = str(value)
    text = clean(text, 1000)
    return text if len(text) <= 80 else text[:77] + "..."
