"""The transformers engine on real tiny models of seven families: every check is against plain transformers calls."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from isara.build import assemble
from isara.config import load_config
from isara.engines.transformers.cache import RowCache
from isara.engines.transformers.engine import TransformersEngine
from isara.engines.transformers.sampling import draw, stream
from isara.engines.transformers.text import Text
from isara.errors import ModelError
from isara.loop import generate_pairs
from isara.records import Completion, Finish, Prompt, QAPair, Sampling
from isara.render import Renderer, open_renderer
from tests.tiny_models import FAMILIES

TEXTS = [
    "Question: Why is the sky blue at noon?\nAnswer:",
    "Question: Who guards the Triforce of Courage? Link does. Who guards the Triforce of Wisdom?\nAnswer:",
    "Question:",
    "Question: Who guards the Triforce of Courage? Link does. Who guards the Triforce of Wisdom?\nAnswer:",
    "Question: Wie heißt die Hauptstadt von Hyrule? 漢字\nAnswer:",
    "Question:",
]
GREEDY = Sampling(temperature=0, max_new_tokens=16)
SAMPLED = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=16)


@pytest.fixture(params=list(FAMILIES), scope="module")
def engine(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> Iterator[TransformersEngine]:
    # a budget of two or three rows at a time: rows wait, come, go and are moved
    with TransformersEngine(str(tiny_models[request.param]), dtype="float32", tokens_per_batch=200) as opened:
        yield opened


@pytest.fixture(scope="module")
def prompts(engine: TransformersEngine) -> list[Prompt]:
    return asked(engine.name, TEXTS)


def asked(model: str | Path, texts: Sequence[str]) -> list[Prompt]:
    renderer = open_renderer(str(model))
    return [renderer.text(text) for text in texts]


def reference(engine: TransformersEngine) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(engine.name, dtype=torch.float32), AutoTokenizer.from_pretrained(
        engine.name
    )


def test_greedy_completions_are_those_of_generate(engine: TransformersEngine, prompts: list[Prompt]) -> None:
    model, tokenizer = reference(engine)
    beyond = list(range(len(tokenizer), model.config.vocab_size))  # rows of the embedding without a token
    for text, completion in zip(TEXTS, engine.generate(prompts, GREEDY, range(len(prompts))), strict=True):
        ids = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        width = ids["input_ids"].shape[1]
        output = model.generate(
            **ids,
            max_new_tokens=16,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=tokenizer.all_special_ids,  # a row ends at any special token
            suppress_tokens=beyond or None,
        )
        whole = tokenizer.decode(output[0], skip_special_tokens=True)
        before = tokenizer.decode(output[0, :width], skip_special_tokens=True)
        assert completion.text == whole[len(before) :]
        assert completion.tokens == output.shape[1] - width


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_a_completion_depends_on_its_prompt_and_seed_alone(
    engine: TransformersEngine, prompts: list[Prompt], sampling: Sampling
) -> None:
    seeds = [3, 1, 4, 1, 5, 9]
    together = engine.generate(prompts, sampling, seeds)
    assert engine.exact
    assert together == engine.generate(prompts, sampling, seeds)
    assert together == [engine.generate([p], sampling, [s])[0] for p, s in zip(prompts, seeds, strict=True)]
    assert together[::-1] == engine.generate(prompts[::-1], sampling, seeds[::-1])


@pytest.mark.parametrize("count", [1, 3])
def test_prompts_of_one_token_are_completed_as_by_plain_forward_passes(engine: TransformersEngine, count: int) -> None:
    model, tokenizer = reference(engine)
    prompts = [Prompt("", (id,)) for id in (17, 90, 200)]
    found = engine.generate(prompts[:count], GREEDY, range(count))
    for prompt, completion in zip(prompts, found, strict=False):
        ids = list(prompt.ids)
        for _ in range(completion.tokens):
            with torch.inference_mode():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1, : len(tokenizer)].argmax()))
        text = engine._model().text.after(prompt.ids, ids[1:])
        assert text.startswith(completion.text) and (completion.finish == "stop" or text == completion.text)


def test_logprobs_are_those_of_one_plain_forward_pass(engine: TransformersEngine, prompts: list[Prompt]) -> None:
    model, tokenizer = reference(engine)
    renderer = open_renderer(engine.name)
    continuations = [" blue", " Zelda, of course: who else?", " What?", " Link", "", " Hyrule"]
    scores = engine.logprobs(
        prompts, [renderer.continuation(*both) for both in zip(prompts, continuations, strict=True)]
    )
    for text, continuation, score in zip(TEXTS, continuations, scores, strict=True):
        width = len(tokenizer(text)["input_ids"])
        ids = tokenizer(text + continuation, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logits = model(ids).logits[0]  # rows of the embedding without a token included
        expected = torch.log_softmax(logits, -1)[width - 1 : -1].gather(1, ids[0, width:, None]).sum()
        assert score == pytest.approx(float(expected), abs=1e-3)


def test_logprobs_of_tokens_add_up_to_those_of_their_continuation(
    engine: TransformersEngine, prompts: list[Prompt]
) -> None:
    renderer = open_renderer(engine.name)
    texts = [" blue", " Zelda, of course: who else?", " What?", " Link", "", " Hyrule"]
    tails = [renderer.continuation(*both) for both in zip(prompts, texts, strict=True)]
    tokens = engine.token_logprobs(prompts, tails)
    assert [len(row) for row in tokens] == [len(tail) for tail in tails]
    assert [sum(row) for row in tokens] == pytest.approx(engine.logprobs(prompts, tails), abs=1e-4)
    # A token's share is what the continuation costs more with it than without.
    longest = max(range(len(tails)), key=lambda place: len(tails[place]))
    cut = engine.logprobs(
        [prompts[longest]] * len(tails[longest]), [tails[longest][:n] for n in range(len(tails[longest]))]
    )
    whole = [*cut[1:], sum(tokens[longest])]
    assert tokens[longest] == pytest.approx([b - a for a, b in zip(cut, whole, strict=True)], abs=1e-3)
    assert engine.token_logprobs([], []) == []


def test_different_seeds_give_different_texts_and_equal_seeds_equal_ones(tiny_llama: Path) -> None:
    with TransformersEngine(str(tiny_llama), dtype="float32") as engine:
        texts = [row.text for row in engine.generate(asked(tiny_llama, ["Question:"] * 4), SAMPLED, [7, 8, 7, 9])]
    assert texts[0] == texts[2]
    assert len(set(texts)) == 3


def test_equal_prompts_are_read_once(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TransformersEngine(str(tiny_llama), dtype="float32", tokens_per_batch=200) as engine:
        read: list[int] = []
        prefill = type(engine._model())._prefill

        def counted(self: Any, prompts: Any) -> Any:
            read.append(len(prompts))
            return prefill(self, prompts)

        monkeypatch.setattr(type(engine._model()), "_prefill", counted)
        # finish at different times, so that waiting rows join while an equal prompt is being decoded
        engine.generate(asked(tiny_llama, TEXTS[:1] * 12), Sampling(max_new_tokens=16, stop=("e",)), range(12))
    assert read[0] == 1
    assert sum(read) < 4


def test_a_stop_string_ends_the_text_before_it(tiny_llama: Path) -> None:
    prompts = asked(tiny_llama, TEXTS[:1])
    with TransformersEngine(str(tiny_llama), dtype="float32") as engine:
        [whole] = engine.generate(prompts, GREEDY, [0])
        stop = whole.text[5:8]
        [stopped] = engine.generate(prompts, Sampling(0, max_new_tokens=16, stop=("never", stop)), [0])
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert stopped.finish == "stop"
    assert stopped.tokens < whole.tokens == 16
    assert whole.finish == "length"


def test_an_end_of_turn_token_stops_a_chat_model(tiny_chat: Path) -> None:
    renderer = open_renderer(str(tiny_chat))
    assert renderer.format.name == "chat"
    with TransformersEngine(str(tiny_chat), dtype="float32") as engine:
        done = engine.generate([renderer.question(())] * 40, Sampling(2.0, max_new_tokens=60), range(40))
    stopped = [row for row in done if row.finish == "stop"]
    assert stopped  # with 420 tokens and temperature 2, some of 40 rows draw <|im_end|>
    assert not any("<|" in row.text for row in done)


class Dictated:
    """A model's head that has row after row generate the same tokens, whatever was read."""

    def __init__(self, engine: TransformersEngine, ids: Sequence[int]) -> None:
        self.loaded, self.ids, self.steps = engine._model(), list(ids), 0

    def __call__(self, cache: RowCache, ids: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(cache.rows, 1, self.loaded.text.size)
        logits[:, :, self.ids[self.steps]] = 9.0
        self.steps += 1
        cache.end += 1
        return logits


@pytest.mark.parametrize(
    ("generated", "text", "rest", "finish"),
    [
        (" Link does.<s>", " Link does.", " Zelda does.", "stop"),
        ("<unk>", "", " Link does.", "stop"),
        (" Link does.</s>", " Link does.", " Zelda does.", "stop"),
        (" Link\nQuestion", " Link", "<s> Zelda does.", "stop"),
        (" Link does.", " Link does.", "", "length"),
    ],
)
def test_a_completion_ends_before_a_special_token(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, generated: str, text: str, rest: str, finish: Finish
) -> None:
    renderer = open_renderer(str(tiny_llama))
    prompt = renderer.text("Question: Who?\nAnswer:")
    ids, read = (renderer.continuation(prompt, piece) for piece in (generated + rest, generated))
    sampling = Sampling(0, max_new_tokens=len(ids), stop=("\nQuestion",))
    with TransformersEngine(str(tiny_llama), dtype="float32") as engine:
        monkeypatch.setattr(engine._model(), "forward", Dictated(engine, ids))
        assert engine.generate([prompt], sampling, [0]) == [Completion(text, len(read), finish)]


class Dictating(TransformersEngine):
    """The real engine, whose model is made to say the next of its questions, or its answer, to each prompt."""

    questions: Iterator[str]
    answer = " Yes, ask the guide.<s>Answer: No, go away.</s>"

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        made = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            text = self.answer if prompt.text.endswith("Answer:") else next(self.questions)
            ids = open_renderer(self.name).continuation(prompt, text)
            self._model().forward = Dictated(self, ids)  # type: ignore[method-assign]
            made += super().generate([prompt], sampling, [seed])
        return made


def test_a_special_token_glues_no_texts_on_the_whole_way(tiny_llama: Path, tmp_path: Path) -> None:
    """From the model's ids to the pairs that are trained on: what comes after a special token is another text."""
    Dictating.questions = iter(
        [
            " When does the March<s>Question: Who can tell me?</s>",
            " Where is the bell kept<|im_start|>user</s>",
            " May I ring the brass bell?</s>",
            " Who rides the tram<unk>Answer: Nobody.</s>",
        ]
    )
    seeds = [QAPair(f"May I touch tram {n} in hall {n * 7}?", f"Tram {n} may be touched.") for n in range(6)]
    settings = [
        "generate.accept=3",
        "generate.batch=4",
        "questions.demos=2",
        "answers.demos=2",
        "answers.temperature=0",
        "questions.temperature=0",
    ]
    config = load_config(None, settings, out=str(tmp_path / "run"), model=str(tiny_llama))
    made = assemble(config, str(tiny_llama), open_renderer(str(tiny_llama)), seeds, retrieves=False)
    folder = generate_pairs(replace(made, engine=lambda model: Dictating(model, dtype="float32")))
    rows = [json.loads(line) for line in (folder / "candidates.jsonl").read_text().splitlines()]
    assert [(row["question"], row["rejection"] and row["rejection"]["reason"]) for row in rows] == [
        ("When does the March", None),
        ("Where is the bell kept<|im_start|>user", "run_on"),
        ("May I ring the brass bell?", None),
        ("Who rides the tram", None),
    ]
    assert rows[1]["rejection"]["value"] == "<|im_start|>"
    assert {row["answer"] for row in rows if row["accepted"]} == {"Yes, ask the guide."}
    assert {draw["finish"] for row in rows for draw in [row["question_draw"], *row["answer_draws"]]} == {"stop"}


def test_a_special_token_that_is_spelled_out_ends_the_text(tiny_llama: Path) -> None:
    text = Text(AutoTokenizer.from_pretrained(tiny_llama))
    assert text.cut(" Link does.<s> Zelda\ndoes.", ("\n",)) == " Link does."
    assert text.cut(" Link\ndoes.<s> Zelda does.", ("\n",)) == " Link"
    assert text.cut(" Link <b>does</b>.", ("\n",)) is None


def test_special_tokens_are_those_that_are_marked_as_such_too(tiny_llama: Path) -> None:
    from tokenizers import AddedToken

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.add_tokens([AddedToken("<|header|>", special=True), AddedToken("<think>", special=False)])
    assert "<|header|>" not in tokenizer.all_special_tokens
    text = Text(tokenizer)
    assert text.cut(" <think> Link<|header|> does.", ()) == " <think> Link"
    special = [tokenizer.convert_tokens_to_ids(name) for name in ("<unk>", "<s>", "</s>", "<|header|>")]
    assert text.special_ids == set(special)


def test_a_completion_ends_where_the_context_does(tiny_llama: Path) -> None:
    renderer = open_renderer(str(tiny_llama))
    assert renderer.context_length == 1024
    text = "Hyrule " * 1100
    while renderer.count([text])[0] > 1020:
        text = text[7:]
    with TransformersEngine(str(tiny_llama), dtype="float32") as engine:
        [row] = engine.generate([renderer.text(text)], GREEDY, [0])
    assert row == Completion(row.text, 1024 - renderer.count([text])[0], "length")


@pytest.mark.parametrize(
    ("name", "config"),
    [
        (
            "GPTNeo",
            {
                "hidden_size": 64,
                "num_layers": 2,
                "num_heads": 4,
                "attention_types": [[["global", "local"], 1]],
                "window_size": 12,
                "max_position_embeddings": 64,
                "initializer_range": 0.2,
            },
        ),
        (
            "Mpt",
            {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "initializer_range": 0.2},
        ),
    ],
)
def test_models_that_count_from_the_last_column_are_completed_as_by_plain_forward_passes(
    tiny_models: dict[str, Path], tmp_path: Path, name: str, config: dict[str, Any]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["gpt2"])
    ends = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.eos_token_id, "eos_token_id": None}
    torch.manual_seed(1)
    model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**config, **ends))
    model.eval().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    prompts = [Prompt("", tuple(range(10, 10 + length))) for length in (30, 5, 17)]
    with TransformersEngine(str(tmp_path), dtype="float32", tokens_per_batch=130) as engine:
        assert engine._model().context_length == 64
        found = engine.generate(prompts, Sampling(temperature=0, max_new_tokens=60), range(3))
        for prompt, completion in zip(prompts, found, strict=True):
            ids = list(prompt.ids)
            for _ in range(completion.tokens):
                with torch.no_grad():
                    ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            text = engine._model().text.after(prompt.ids, ids[len(prompt.ids) :])
            assert completion.text == (text if completion.finish == "length" else engine._model().text.cut(text, ()))
            assert completion.finish == "stop" or len(ids) == min(64, len(prompt.ids) + 60)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, replace(SAMPLED, top_p=1.0)])
def test_logits_that_are_not_finite_are_told(tiny_llama: Path, tmp_path: Path, sampling: Sampling) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float16)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "up_proj" in key or "down_proj" in key:
                weight.mul_(300)  # of which sums outgrow float16
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path)
    prompts = asked(tiny_llama, TEXTS[:2])
    with TransformersEngine(str(tmp_path), device="cpu", dtype="float16") as engine:
        for ask in (lambda: engine.generate(prompts, sampling, [1, 2]), lambda: engine.logprobs(prompts, [(4,), (5,)])):
            with pytest.raises(ModelError) as error:
                ask()
            assert str(error.value) == (
                "expected finite logits of the model in float16, found NaN or infinity: set engine.dtype to bfloat16 "
                "or float32"
            )


def test_a_prompt_longer_than_the_context_is_refused(tiny_llama: Path) -> None:
    [prompt] = asked(tiny_llama, ["Zelda " * 1200])
    with TransformersEngine(str(tiny_llama)) as engine, pytest.raises(ModelError) as error:
        engine.generate([prompt], GREEDY, [0])
    assert str(error.value) == (
        "expected prompt and completion of at most 1024 tokens, the context of this model, found 6003: "
        "use fewer or shorter demonstrations, or a model with a longer context"
    )


def test_a_continuation_that_outgrows_the_context_is_refused(tiny_llama: Path) -> None:
    with TransformersEngine(str(tiny_llama)) as engine, pytest.raises(ModelError) as error:
        engine.logprobs([Prompt("", (1, 2, 3))], [[4] * 1024])
    assert str(error.value) == (
        "expected prompt and completion of at most 1024 tokens, the context of this model, found 1027: "
        "use fewer or shorter demonstrations, or a model with a longer context"
    )


@pytest.mark.parametrize("method", ["generate", "logprobs"])
def test_an_empty_prompt_is_refused(tiny_llama: Path, method: str) -> None:
    with TransformersEngine(str(tiny_llama)) as engine, pytest.raises(ModelError) as error:
        if method == "generate":
            engine.generate([Prompt("", ())], GREEDY, [0])
        else:
            engine.logprobs([Prompt("", ())], [[4]])
    assert str(error.value) == (
        "expected prompts of at least one token, found an empty one and no BOS token: give it text"
    )


@pytest.mark.parametrize(("prompt", "continuation"), [((1, 9999), (4,)), ((1, 4), (9999,))])
def test_ids_that_the_model_does_not_know_are_refused(
    tiny_llama: Path, prompt: tuple[int, ...], continuation: tuple[int, ...]
) -> None:
    size = len(AutoTokenizer.from_pretrained(tiny_llama))
    with TransformersEngine(str(tiny_llama)) as engine, pytest.raises(ModelError) as error:
        engine.logprobs([Prompt("", prompt)], [continuation])
    assert str(error.value) == (
        f"the tokenizer makes token 9999, and the model knows {size}: use the tokenizer that belongs to the model"
    )


def test_nothing_in_nothing_out(tiny_llama: Path) -> None:
    with TransformersEngine(str(tiny_llama)) as engine:
        assert engine.generate([], GREEDY, []) == []
        assert engine.logprobs([], []) == []


@pytest.mark.parametrize(("dtype", "exact"), [("float32", True), ("bfloat16", False), ("float16", False)])
def test_an_engine_says_what_its_outputs_depend_on(dtype: str, exact: bool) -> None:
    engine = TransformersEngine("any", device="cpu", dtype=dtype, tokens_per_batch=7)
    assert engine.exact is exact
    assert engine.key() == {"kind": "transformers", "device": "cpu", "dtype": dtype, "arithmetic": 2}


def test_the_key_holds_the_dtype_that_auto_stands_for() -> None:
    engine = TransformersEngine("any", device="cpu")
    assert engine.key()["dtype"] == ("float32" if engine.exact else "bfloat16")


def test_the_weights_are_gone_after_the_block(tiny_llama: Path) -> None:
    import gc

    def parameters() -> int:
        return sum(isinstance(thing, torch.nn.Parameter) for thing in gc.get_objects())

    gc.collect()
    before = parameters()
    with TransformersEngine(str(tiny_llama)) as engine:
        assert parameters() > before
    assert parameters() == before
    with engine:  # and can come back
        assert len(engine.generate(asked(tiny_llama, ["Question:"]), GREEDY, [0])) == 1


def test_a_cache_is_gone_with_its_call_and_waits_for_no_garbage_collector(tiny_llama: Path) -> None:
    import gc

    def caches() -> int:
        return sum(type(thing) is RowCache for thing in gc.get_objects())

    prompts = asked(tiny_llama, TEXTS)
    gc.collect()
    gc.disable()
    try:
        with TransformersEngine(str(tiny_llama)) as engine:
            engine.generate(prompts, GREEDY, range(len(prompts)))
            engine.logprobs(prompts, [(5, 6)] * len(prompts))
            assert caches() == 0
    finally:
        gc.enable()


def test_out_of_memory_halves_the_budget_for_good(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, seeds = asked(tiny_llama, TEXTS), range(len(TEXTS))
    tails = [prompt.ids for prompt in prompts]
    with TransformersEngine(str(tiny_llama), dtype="float32", tokens_per_batch=4096) as engine:
        expected = engine.generate(prompts, SAMPLED, seeds)
        scores = engine.logprobs(prompts, tails)
        make_cache = type(engine._model()).cache

        def small_memory(self: Any, rows: int) -> RowCache:
            if rows > 2:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")
            return make_cache(self, rows)

        monkeypatch.setattr(type(engine._model()), "cache", small_memory)
        assert engine.generate(prompts, SAMPLED, seeds) == expected
        assert engine.tokens_per_batch is not None and engine.tokens_per_batch < 300
        assert engine.logprobs(prompts, tails) == pytest.approx(scores, abs=1e-3)


def test_memory_for_less_than_one_row_is_an_error(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TransformersEngine(str(tiny_llama), dtype="float32") as engine:

        def no_memory(self: Any, rows: int) -> RowCache:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(type(engine._model()), "cache", no_memory)
        with pytest.raises(ModelError) as error:
            engine.generate(asked(tiny_llama, ["Question:"] * 5), GREEDY, range(5))
    assert str(error.value) == (
        "the memory of cpu is too small for this model and a row of 18 tokens: "
        "use a smaller model, shorter prompts or a lower max_new_tokens"
    )


def test_progress_counts_tokens_and_rows(tiny_llama: Path) -> None:
    seen: list[tuple[int, int]] = []
    with TransformersEngine(
        str(tiny_llama), tokens_per_batch=100, on_progress=lambda tokens, done: seen.append((tokens, done))
    ) as engine:
        done = engine.generate(asked(tiny_llama, TEXTS), SAMPLED, range(6))
    assert seen[-1] == (sum(row.tokens for row in done), 6)
    assert seen == sorted(seen)
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device 'tpu' is not on this machine, which has cpu: use `device: auto`"),
        (
            {"dtype": "int3"},
            "expected dtype auto, bfloat16, float16, float32, found 'int3': use `dtype: auto`",
        ),
    ],
)
def test_devices_and_dtypes_that_are_not_there(options: dict[str, Any], message: str) -> None:
    if options.get("device") and (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pytest.skip("the message names this machine's devices")
    with pytest.raises(ModelError) as error:
        TransformersEngine("anything", **options)
    assert str(error.value) == message


def test_a_model_with_recurrent_layers_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    MambaForCausalLM(MambaConfig(vocab_size=519, hidden_size=32, num_hidden_layers=1, state_size=4)).save_pretrained(
        tmp_path
    )
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path)
    with pytest.raises(ModelError) as error, TransformersEngine(str(tmp_path)):
        pass
    assert str(error.value) == (
        "expected a model whose layers all keep keys and values, found MambaForCausalLM, which has recurrent layers: "
        "use an attention model"
    )


def test_weights_that_are_torn_are_one_line(tiny_llama: Path, tmp_path: Path) -> None:
    for file in tiny_llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError) as error, TransformersEngine(str(tmp_path)):
        pass
    assert str(error.value) == (
        f"the model {str(tmp_path)!r} can't be loaded (Error while deserializing header: header too small): check its "
        "config.json, tokenizer and weights, or copy or download it again"
    )


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5, 0.1])
def test_draws_follow_the_nucleus_of_transformers(top_p: float) -> None:
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0)) * 2
    count = 200_000
    drawn = draw(logits.expand(count, -1), 0.7, top_p, stream(5, count)).bincount(minlength=50) / count
    warped = TopPLogitsWarper(top_p)(None, TemperatureLogitsWarper(0.7)(None, logits))
    expected = torch.softmax(warped, -1)[0]
    assert (drawn[expected == 0] == 0).all()
    assert torch.allclose(drawn, expected, atol=0.005)


def test_draws_of_neighbouring_seeds_tokens_and_steps_are_independent() -> None:
    logits = torch.zeros(64, 1000)
    rows = torch.stack([draw(logits, 1.0, 1.0, stream(seed, 64)) for seed in range(300)])  # (seeds, steps)
    assert len(set(rows.flatten().tolist())) == 1000
    for one, other in ((rows[:-1], rows[1:]), (rows[:, :-1], rows[:, 1:])):
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]).double())[0, 1]
        assert abs(correlation) < 0.03  # 19,000 pairs: four standard deviations


def test_a_draw_seldom_changes_with_the_errors_of_bfloat16() -> None:
    logits = torch.randn(4000, 1000, generator=torch.Generator().manual_seed(0)) * 2
    keys = stream(0, 4000)
    exact, rounded = draw(logits, 1.0, 0.95, keys), draw(logits.bfloat16().float(), 1.0, 0.95, keys)
    assert (exact != rounded).float().mean() < 0.01


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma"])
def test_ids_become_the_very_text_that_was_split_from_its_prompt(family: str, tiny_models: dict[str, Path]) -> None:
    renderer: Renderer = open_renderer(str(tiny_models[family]))
    text = Text(AutoTokenizer.from_pretrained(tiny_models[family]))
    whole, open_word = renderer.text("Question: Who?\nAnswer:"), renderer.text("Question: Where is Hyr")
    assert text.after(whole.ids, renderer.continuation(whole, " Link")) == " Link"
    # not the token " Hyrule" that the whole text would give
    assert text.after(open_word.ids, renderer.continuation(open_word, "ule? Link")) == "ule? Link"
