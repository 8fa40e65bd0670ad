"""The transformers engine on real tiny models of seven families: every check is against plain transformers calls."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from isara.engines.cache import RowCache
from isara.engines.sampling import draw, stream
from isara.engines.text import Text
from isara.engines.transformers import TransformersEngine
from isara.errors import ModelError
from isara.prompts import plain_format
from isara.protocols import Completion, Sampling
from tests.tiny_models import FAMILIES

PROMPTS = [
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


def reference(engine: TransformersEngine) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(engine.name, dtype=torch.float32), AutoTokenizer.from_pretrained(
        engine.name
    )


def test_greedy_completions_are_those_of_generate(engine: TransformersEngine) -> None:
    model, tokenizer = reference(engine)
    beyond = list(range(len(tokenizer), model.config.vocab_size))  # rows of the embedding without a token
    for prompt, completion in zip(PROMPTS, engine.generate(PROMPTS, GREEDY, range(len(PROMPTS))), strict=True):
        ids = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        width = ids["input_ids"].shape[1]
        output = model.generate(
            **ids, max_new_tokens=16, do_sample=False, pad_token_id=0, suppress_tokens=beyond or None
        )
        whole = tokenizer.decode(output[0], skip_special_tokens=True)
        before = tokenizer.decode(output[0, :width], skip_special_tokens=True)
        assert completion.text == whole[len(before) :]
        assert completion.tokens == output.shape[1] - width


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_a_completion_depends_on_its_prompt_and_seed_alone(engine: TransformersEngine, sampling: Sampling) -> None:
    seeds = [3, 1, 4, 1, 5, 9]
    together = engine.generate(PROMPTS, sampling, seeds)
    assert together == engine.generate(PROMPTS, sampling, seeds)
    assert together == [engine.generate([p], sampling, [s])[0] for p, s in zip(PROMPTS, seeds, strict=True)]
    assert together[::-1] == engine.generate(PROMPTS[::-1], sampling, seeds[::-1])


def test_logprobs_are_those_of_one_plain_forward_pass(engine: TransformersEngine) -> None:
    model, tokenizer = reference(engine)
    continuations = [" blue", " Zelda, of course: who else?", " What?", " Link", "", " Hyrule"]
    for prompt, continuation, score in zip(
        PROMPTS, continuations, engine.logprobs(PROMPTS, continuations), strict=True
    ):
        width = len(tokenizer(prompt)["input_ids"])
        ids = tokenizer(prompt + continuation, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logits = model(ids).logits[0, :, : len(tokenizer)]
        expected = torch.log_softmax(logits, -1)[width - 1 : -1].gather(1, ids[0, width:, None]).sum()
        assert score == pytest.approx(float(expected), abs=1e-3)


def test_different_seeds_give_different_texts_and_equal_seeds_equal_ones(tiny_llama: Path) -> None:
    with TransformersEngine(str(tiny_llama), dtype="float32") as engine:
        texts = [row.text for row in engine.generate(["Question:"] * 4, SAMPLED, [7, 8, 7, 9])]
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
        engine.generate([PROMPTS[0]] * 12, Sampling(max_new_tokens=16, stop=("e",)), range(12))
    assert read[0] == 1
    assert sum(read) < 4


def test_a_stop_string_ends_the_text_before_it(tiny_llama: Path) -> None:
    with TransformersEngine(str(tiny_llama), dtype="float32") as engine:
        [whole] = engine.generate(PROMPTS[:1], GREEDY, [0])
        stop = whole.text[5:8]
        [stopped] = engine.generate(PROMPTS[:1], Sampling(0, max_new_tokens=16, stop=("never", stop)), [0])
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert stopped.finish == "stop"
    assert stopped.tokens < whole.tokens == 16
    assert whole.finish == "length"


def test_an_end_of_turn_token_stops_a_chat_model(tiny_chat: Path) -> None:
    with TransformersEngine(str(tiny_chat), dtype="float32") as engine:
        assert engine.format.name == "chat"
        seeds = range(40)
        done = engine.generate([engine.format.start] * 40, Sampling(2.0, max_new_tokens=60), seeds)
    stopped = [row for row in done if row.finish == "stop"]
    assert stopped  # with 420 tokens and temperature 2, some of 40 rows draw <|im_end|>
    assert not any("<|" in row.text for row in done)


def test_a_completion_ends_where_the_context_does(tiny_llama: Path) -> None:
    with TransformersEngine(str(tiny_llama), dtype="float32") as engine:
        assert engine.context_length == 1024
        prompt = "Hyrule " * 1100
        while engine.count_tokens([prompt])[0] > 1020:
            prompt = prompt[7:]
        [row] = engine.generate([prompt], GREEDY, [0])
        assert row == Completion(row.text, 1024 - engine.count_tokens([prompt])[0], "length")


def test_a_prompt_longer_than_the_context_is_refused(tiny_llama: Path) -> None:
    with TransformersEngine(str(tiny_llama)) as engine, pytest.raises(ModelError) as error:
        engine.generate(["Zelda " * 1200], GREEDY, [0])
    assert str(error.value) == (
        "expected prompt and completion of at most 1024 tokens, the context of this model, found 6003: "
        "use fewer or shorter demonstrations, or a model with a longer context"
    )


def test_nothing_in_nothing_out(tiny_llama: Path) -> None:
    with TransformersEngine(str(tiny_llama)) as engine:
        assert engine.generate([], GREEDY, []) == []
        assert engine.logprobs([], []) == []
        assert engine.count_tokens([]) == []


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
        assert len(engine.generate(["Question:"], GREEDY, [0])) == 1


def test_out_of_memory_halves_the_budget_for_good(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TransformersEngine(str(tiny_llama), dtype="float32", tokens_per_batch=4096) as engine:
        seeds = range(len(PROMPTS))
        expected = engine.generate(PROMPTS, SAMPLED, seeds)
        scores = engine.logprobs(PROMPTS, PROMPTS)
        make_cache = type(engine._model()).cache

        def small_memory(self: Any, rows: int) -> RowCache:
            if rows > 2:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")
            return make_cache(self, rows)

        monkeypatch.setattr(type(engine._model()), "cache", small_memory)
        assert engine.generate(PROMPTS, SAMPLED, seeds) == expected
        assert engine.tokens_per_batch is not None and engine.tokens_per_batch < 300
        assert engine.logprobs(PROMPTS, PROMPTS) == pytest.approx(scores, abs=1e-3)


def test_memory_for_less_than_one_row_is_an_error(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TransformersEngine(str(tiny_llama), dtype="float32") as engine:

        def no_memory(self: Any, rows: int) -> RowCache:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(type(engine._model()), "cache", no_memory)
        with pytest.raises(ModelError) as error:
            engine.generate(["Question:"] * 5, GREEDY, range(5))
    assert str(error.value) == (
        "the memory of cpu is too small for this model and a row of 18 tokens: "
        "use a smaller model, shorter prompts or a lower max_new_tokens"
    )


def test_progress_counts_tokens_and_rows(tiny_llama: Path) -> None:
    seen: list[tuple[int, int]] = []
    with TransformersEngine(
        str(tiny_llama), tokens_per_batch=100, on_progress=lambda tokens, done: seen.append((tokens, done))
    ) as engine:
        done = engine.generate(PROMPTS, SAMPLED, range(6))
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


def test_a_continuation_is_split_from_its_prompt_where_generation_would(tiny_models: dict[str, Path]) -> None:
    for family in ("llama", "gpt2", "gemma"):
        tokenizer = AutoTokenizer.from_pretrained(tiny_models[family])
        text = Text(tokenizer, plain_format(tokenizer.eos_token))
        prompts = ["Question: Who?\nAnswer:", "Question: Wh"]
        heads = text.encode(prompts)
        spaced, joined = text.continuations(prompts, [" Link", "o is Link"], heads)
        assert text.after(heads[0], spaced) == " Link"
        assert text.after(heads[1], joined) == "o is Link"  # not the token "Who" that the whole text would give
