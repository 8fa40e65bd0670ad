"""The options of a run, a section for each part; defaults that the paper does not state are marked "our choice"."""

import math
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from isara.config.values import (
    BY_CONTENT,
    COMMAND,
    DEVICE,
    FREE,
    MOST_SEED,
    NAME,
    OWN,
    PLACE,
    SCORE,
    SCORE_NAMES,
    SHARE_OR_FILE,
    SHARES,
    TABLE,
    WEIGHTS,
    AnswerScore,
    Command,
    Device,
    Name,
    Names,
    Patterns,
    Place,
    Score,
    ScoreName,
    Section,
    ShareOrFile,
)
from isara.records import Sampling
from isara.sizes import settings_for

LEAST_PREFERENCES = 8  # the rows of one optimiser step (our choice)


class OwnPart(Section):
    """A part of the user's own."""

    use: Place = Field(
        title=PLACE, description="where it is: a module, or a file beside the config, and its name in it"
    )
    options: dict[str, Any] = Field(
        {}, description="what it is called with, by name; without any it is the part itself"
    )


class ColumnsConfig(Section):
    """Which columns of a data file hold the pairs."""

    question: str | None = Field(None, description="column with the questions; null finds it under its usual names")
    answer: str | None = Field(None, description="column with the answers; null finds it under its usual names")


class QuestionsConfig(Section):
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
    focus: Literal["uniform", "worst", "balanced", "kinds"] = Field(
        "uniform",
        description="what questions are drawn around: any pair, the seeds that the model finds hardest, the seeds' "
        "clusters in turn, or seeds of one kind of answer, which answers then follow, too",
    )

    @property
    def sampling(self) -> Sampling:
        """How they are drawn."""
        usual = settings_for(None).question_temperature
        return Sampling(usual if self.temperature is None else self.temperature, self.top_p, self.max_new_tokens)


class AnswersConfig(Section):
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


class RetrieveConfig(Section):
    """How the nearest pairs are found."""

    embedder: Name = Field(
        "auto",
        description="auto, lexical, minilm (a package), or the folder or name of a sentence-transformers model "
        "(our choice)",
        json_schema_extra=BY_CONTENT,
    )
    pool: Literal["seeds", "all"] = Field(
        "seeds",
        description="pairs that answers retrieve from: the seeds, or all pairs accepted so far too (our choice)",
    )


class GenerateConfig(Section):
    """How many pairs an iteration makes, and when it gives up."""

    accept: int = Field(
        256, ge=0, description="N, pairs to accept in an iteration; 0 trains on the seeds alone (our choice)"
    )
    batch: int = Field(64, ge=1, description="questions made at a time; the run folder grows by whole batches")
    max_batches: int | None = Field(
        None,
        ge=1,
        description="full batches before an iteration gives up; null is 12 times what would do if all passed",
        json_schema_extra=FREE,
    )
    min_yield: float = Field(
        0.02,
        ge=0,
        le=1,
        description="share of accepted pairs, after two batches, below which an iteration gives up",
        json_schema_extra=FREE,
    )

    @property
    def most_batches(self) -> int:
        """Batches after which an iteration gives up."""
        return self.max_batches or 12 * math.ceil(self.accept / self.batch)


class SelectConfig(Section):
    """Which of several answers is kept, and how good it has to be."""

    answers: int = Field(1, ge=1, description="n, answers drawn for each question")
    rule: Literal["first", AnswerScore] = Field(
        "first",
        title=f"first, {', '.join(get_args(AnswerScore))}",
        description="of the answers that pass the filters the first one made, or the one with the highest score",
    )
    weights: dict[AnswerScore, float] = Field(
        {}, title=WEIGHTS, description="instead of a rule: weights of a sum of scores, each in the seeds' own spread"
    )
    keep: dict[Score, Annotated[float, Field(gt=0, le=1)]] = Field(
        {}, title=SHARES, description="drop an answer that falls short of what this share of the seeds reach"
    )
    scores: tuple[Score, ...] = Field(
        (), title=SCORE_NAMES, description="scores to store with each answer, beside those that are needed"
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


class FiltersConfig(Section):
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
    drop_matching: Patterns = Field(
        (), description="drop a pair in which one of these regular expressions is found, upper or lower case"
    )
    contamination: Names = Field(
        (),
        description="benchmark files; drop a pair that shares a run of words with one of them",
        json_schema_extra=BY_CONTENT,
    )
    contamination_ngram: int = Field(8, ge=1, description="words in a row that count as contamination (our choice)")
    own_questions: tuple[OwnPart, ...] = Field(
        (), title=OWN, description="filters of your own for questions, after the others", json_schema_extra=BY_CONTENT
    )
    own_pairs: tuple[OwnPart, ...] = Field(
        (), title=OWN, description="filters of your own for pairs, after the others", json_schema_extra=BY_CONTENT
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
    kind: Literal["auto"] | bool = Field(
        "auto",
        description="drop an answer of another kind (refusal, help, a rule) than the seeds' answers to such questions; "
        "auto does for models of 20 M to 200 M weights where half of the seeds' answers say what another one says and "
        "their questions tell which, unless `agreement` is set (our choice)",
    )
    agreement: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] | None = Field(
        "auto",
        description="drop an answer that has less than this share of its content in common with a second one "
        "(`agreement_with`); null asks once; auto is 0.5 where half of the seeds' answers say what another one says "
        "and `kind` is off, else null (our choice)",
    )
    agreement_with: Literal["demonstrations", "seeds"] = Field(
        "seeds",
        description="who gives the second answer of `agreement`: the same model after other demonstrations, or the "
        "base model tuned on the seeds alone, after none (our choice)",
        json_schema_extra=FREE,  # where it counts, it is a part of the run's key
    )

    @property
    def least_agreement(self) -> float | None:
        """`agreement` as a number; None where no second answer is asked for, or the seeds have not decided yet."""
        return None if self.agreement == "auto" else self.agreement

    @property
    def checked_by_seeds(self) -> bool:
        """Whether the base model fine-tuned on the seeds answers each question, too."""
        return self.least_agreement is not None and self.agreement_with == "seeds"


class ReviewConfig(Section):
    """Where a person reads before anything is trained."""

    before_training: int = Field(
        0,
        ge=0,
        description="accepted rows of iteration 1, drawn at random, on which a person decides before it is trained "
        "(`isara review`); 0 trains without a stop",
        json_schema_extra=FREE,
    )


class BudgetConfig(Section):
    """What one command may take; it then stops at the end of a batch or before a stage."""

    minutes: float | None = Field(None, gt=0, description="minutes; null is no limit", json_schema_extra=FREE)
    tokens: int | None = Field(
        None,
        ge=1,
        description="tokens of generated questions and answers, those for preferences included; null is no limit",
        json_schema_extra=FREE,
    )


class TrainConfig(Section):
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
    load_in_4bit: bool = Field(
        False,
        description="hold frozen weights in 4 bits while an adapter is trained (QLoRA, bitsandbytes): less memory",
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
        json_schema_extra=FREE,
    )
    processes: int = Field(
        1,
        ge=1,
        description="of a training; they share the rows of each optimiser step",
        json_schema_extra=FREE,
    )
    fsdp: bool = Field(
        False,
        description="each of the `processes` holds its share of the weights while they are trained, and not all",
        json_schema_extra=FREE,
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
        if self.fsdp and (self.processes == 1 or self.load_in_4bit):
            raise ValueError(
                "`load_in_4bit: false` beside `fsdp`: weights of 4 bits are not shared out"
                if self.load_in_4bit
                else "`processes: 2` or more and a `launcher` beside `fsdp`, which shares weights out"
            )
        if rows % self.processes:
            raise ValueError(
                f"`per_device_train_batch_size` x `gradient_accumulation_steps` (it is {rows}) to be a multiple of "
                f"`processes: {self.processes}`, which share the rows of a step"
            )
        return self

    def steps(self, rows: int) -> int:
        """Optimiser steps of a training on so many rows, one at the least, each of which is one of a batch.

        Epochs that follow the model's size and aren't settled yet are those of an unknown size.
        """
        size = self.per_device_train_batch_size * self.gradient_accumulation_steps
        epochs = self.num_train_epochs or settings_for(None).num_train_epochs
        return self.max_steps or math.ceil(epochs * math.ceil(rows / size))


class PreferConfig(Section):
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


class EvaluateConfig(Section):
    """What is measured on the held-out pairs after each iteration."""

    demos: int = Field(
        5, ge=0, description="demonstrations when held-out answers are scored with retrieval (our choice)"
    )
    patience: int | None = Field(
        1,
        ge=1,
        description="iterations without a gain before the run stops; null never stops early (our choice)",
        json_schema_extra=FREE,
    )
    score: ScoreName | None = Field(
        None,
        title=SCORE,
        description="what held-out answers are scored by; null is their likelihood",
        json_schema_extra=BY_CONTENT,
    )
    score_options: dict[str, Any] = Field({}, title=TABLE, description="what the score is called with, by name")
    seeds_only: bool = Field(
        True,
        description="measure the base model fine-tuned on the seeds alone, too, with the steps of iteration 1",
        json_schema_extra=FREE,
    )
    reader: bool = Field(
        True,
        description="measure the reader after demonstrations, too, where a run has one (questions.from, answers.from)",
        json_schema_extra=FREE,
    )
    answers: int = Field(
        48, ge=0, description="most held-out questions that each model answers, chosen by hash (our choice)"
    )
    select: Literal["likelihood", "score", "auto"] = Field(
        "auto",
        description="what chooses the iteration and stops the run; auto is the score where there is one, else the "
        "likelihood of content where that can be weighed, else of all",
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


class EngineConfig(Section):
    """How a model is run."""

    device: Device = Field("auto", title=DEVICE, description="where the model runs")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="number format of the weights; auto is bfloat16 where that is the faster"
    )
    use: Place | None = Field(
        None,
        title=f"{PLACE}, or null",
        description="an engine of your own; null is that of transformers",
        json_schema_extra=BY_CONTENT,
    )
    options: dict[str, Any] = Field(
        {}, title=TABLE, description="what an engine of your own or vLLM's LLM is called with, beside the model"
    )
    tokens_per_batch: int | None = Field(
        None,
        ge=1,
        description="tokens of prompts and completions held at once; null fits them to the memory",
        json_schema_extra=FREE,
    )
    child_process: Literal["auto"] | bool = Field(
        "auto",
        description="run each stage in a process of its own; auto does so on a GPU",
        json_schema_extra=FREE,
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the model")
    kind: Literal["transformers", "server", "vllm"] = Field(
        "transformers",
        description="what completes prompts: transformers, servers of the OpenAI protocol, or vLLM in a process of "
        "its own",
    )
    python: Name | None = Field(
        None,
        title=f"{NAME}, or null",
        description="the Python of the environment that vLLM is in, for `kind: vllm`; null is this one",
        json_schema_extra=FREE,
    )
    url: Names = Field((), description="servers of the base model's weights, one or several", json_schema_extra=FREE)
    load: bool = Field(
        False,
        description="have the servers of `url` load the adapter of each of the run's models, as vLLM does",
        json_schema_extra=FREE,
    )
    serve: Command | None = Field(
        None, title=COMMAND, description="starts a server of {model} (a folder) or {gguf}, for each model once"
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
        json_schema_extra=FREE,
    )
    launcher: Literal["ray"] | None = Field(
        None,
        description="what starts the workers: Ray does on the nodes of a cluster; null starts them on this machine",
        json_schema_extra=FREE,
    )
    address: Name | None = Field(
        None,
        title=f"{NAME}, or null",
        description="the Ray cluster's host:port, or local for one of this machine alone; null is RAY_ADDRESS, or the "
        "cluster that this machine is a node of",
        json_schema_extra=FREE,
    )
    evaluate_with: Literal["transformers", "server", "vllm"] = Field(
        "transformers",
        description="what evaluations ask where `kind` is another; a server has to score texts for it",
    )
    check_weights: bool = Field(
        True,
        description="compare a server's greedy texts with the run's own weights before a row is kept",
        json_schema_extra=FREE,
    )
    concurrency: int = Field(8, ge=1, description="requests under way at each server", json_schema_extra=FREE)
    timeout: float = Field(300.0, gt=0, description="seconds that one request may take", json_schema_extra=FREE)
    start_timeout: float = Field(
        600.0,
        gt=0,
        description="seconds until a server of `serve` has to answer, or a worker to have its place on a Ray cluster",
        json_schema_extra=FREE,
    )
    key_env: str | None = Field(
        None, description="environment variable with the servers' key; null is none", json_schema_extra=FREE
    )

    @model_validator(mode="after")
    def _serves(self) -> Self:
        named = [name for name, value in (("url", self.url), ("serve", self.serve)) if value]
        if self.kind != "server" and named:
            raise ValueError(f"`kind: server` beside `{named[0]}` (it is {self.kind})")
        if self.kind == "server" and len(named) != 1:
            raise ValueError("`url` or `serve`, one of them, for `kind: server`")
        if self.load and not self.url:
            raise ValueError("`url` beside `load`, whose servers run already")
        if self.kind != "transformers" and self.use:
            raise ValueError(f"`use: null` for `kind: {self.kind}`, which is an engine itself")
        if self.evaluate_with not in ("transformers", self.kind):
            raise ValueError(f"`evaluate_with` transformers or `kind`, which is {self.kind}")
        if self.python and self.kind != "vllm":
            raise ValueError(f"`kind: vllm` beside `python` (it is {self.kind})")
        return self

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.kind == "server" or self.use:
            named = "workers: 1" if self.workers > 1 else "launcher: null" if self.launcher else None
            other = "which has `concurrency`" if self.kind == "server" else "which is opened in this process"
            if named:
                raise ValueError(f"`{named}` for {'an engine of your own' if self.use else '`kind: server`'}, {other}")
        if self.address and not self.launcher:
            raise ValueError("`launcher: ray` beside `address`")
        if self.launcher and self.kind != self.evaluate_with:
            raise ValueError(
                f"`evaluate_with: {self.kind}` for `launcher: ray`, where each worker has its GPUs for itself (it is "
                f"{self.evaluate_with})"
            )
        return self


class Config(Section):
    """One run: what `isara.yaml` holds."""

    model: Name = Field(
        "embedded",
        description="a model's folder or hub name; embedded is the one in the package",
        json_schema_extra=BY_CONTENT,
    )
    seeds: Name = Field(
        "seeds.jsonl", description="the seed pairs: a data file, a folder, or a hub name", json_schema_extra=BY_CONTENT
    )
    out: Name = Field(
        "runs/isara",
        description="the run folder; by default runs/ in the working directory and the name of the config's folder",
        json_schema_extra=FREE,
    )
    seed: int = Field(0, ge=0, le=MOST_SEED, description="the run's random seed")
    iterations: int = Field(
        3,
        ge=0,
        description="T, rounds of generate, filter, train and evaluate; 0 measures the base model (our choice)",
        json_schema_extra=FREE,
    )
    prompt_format: Literal["auto", "plain", "chat"] = Field(
        "auto", description="plain text or chat turns; auto is chat where the tokenizer has a chat template"
    )
    columns: ColumnsConfig = Field(ColumnsConfig(), description="which columns of the data hold the pairs")
    heldout: ShareOrFile = Field(
        0.2,
        title=SHARE_OR_FILE,
        description="share of the seeds kept from the loop for evaluation, or a file of pairs (our choice)",
        json_schema_extra=BY_CONTENT,
    )
    licence: str | None = Field(None, description="licence of the seeds; goes into the model card and the data card")
    track: Literal["tensorboard", "trackio", "wandb", "mlflow"] | None = Field(
        None,
        description="a tracker that is sent the run's figures; its package is not installed with this one",
        json_schema_extra=FREE,
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
    def _gains(self) -> Self:
        uses = {
            "select.rule": self.select.rule == "icl_gain",
            "select.weights": "icl_gain" in self.select.weights,
            "select.keep": "icl_gain" in self.select.keep,
            "train.weights": self.train.weights == "icl_gain",
        }
        if any(uses.values()) and (self.answers.retrieve == "none" or not self.answers.demos):
            raise ValueError(
                "`answers.demos` above 0 and `answers.retrieve` nearest or random for icl_gain as "
                f"`{next(key for key, used in uses.items() if used)}`, or it is 0 for every answer"
            )
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
        if self.prefer.method == "dpo" and 0 < self.generate.accept < LEAST_PREFERENCES:
            raise ValueError(
                f"`generate.accept` of at least {LEAST_PREFERENCES} for `prefer.method: dpo`, whose optimiser step has "
                f"as many rows (it is {self.generate.accept})"
            )
        return self

    @model_validator(mode="after")
    def _served(self) -> Self:
        """Servers at `engine.url` hold the base model's weights and no others."""
        if not self.engine.url or self.iterations == 0:
            return self
        if self.engine.load:
            if self.train.method == "full" or self.train.start == "last":
                raise ValueError("`train.method: lora` and `train.start: base` for `engine.load`: it loads adapters")
            return self
        other = self.answers.from_ == "reader" or self.questions.from_ == "seeds" or self.prefer.method == "spin"
        other = other or self.filters.checked_by_seeds
        if self.iterations > 1 or other or self.engine.evaluate_with == "server":
            raise ValueError(
                "`engine.serve` or `engine.load`, as a server of `engine.url` has the base model's weights alone, for "
                "more than one of `iterations`, `answers.from: reader`, `questions.from: seeds`, "
                "`filters.agreement_with: seeds`, `prefer.method: spin` or `engine.evaluate_with: server`"
            )
        return self
