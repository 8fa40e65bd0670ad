"""The public doubles: small, but true to what the protocols promise."""

import numpy as np
import pytest

from isara.asking import Asker
from isara.protocols import Engine
from isara.records import Completion, QAPair, Sampling
from isara.render import plain_format
from isara.testing import HashEmbedder, ScriptedEngine, word_renderer

ROWS = Sampling(max_new_tokens=5, stop=("\n",))


def epona(prompt: str, seed: int) -> str:
    return f" Call her with song {seed}.\nAnswer: She comes."


def test_a_word_is_a_token() -> None:
    renderer = word_renderer(context_length=30)
    prompt = renderer.text("Question: Where is Epona?\nAnswer:")
    assert len(prompt.ids) == 5
    assert renderer.count(["", "Where is Epona?", "Where is\n\nEpona? "]) == [0, 3, 3]
    assert renderer.continuation(prompt, " In the field.") == renderer.text(" In the field.").ids
    assert renderer.context_length == 30
    assert renderer.format == plain_format("</s>")


def test_words_have_the_same_ids_in_every_process() -> None:
    assert word_renderer().text("Where is Epona?").ids == (3696147522, 3124719514, 521857878)


def test_a_scripted_engine_is_cut_as_a_real_one() -> None:
    prompts = [word_renderer().text("Question:"), word_renderer().text("Question: And then?")]
    with ScriptedEngine(epona) as engine:
        assert engine.generate(prompts, ROWS, [1, 2]) == [
            Completion(" Call her with song 1.", 6, "stop"),
            Completion(" Call her with song 2.", 6, "stop"),
        ]
        assert engine.generate(prompts[:1], Sampling(max_new_tokens=3), [1]) == [
            Completion(" Call her with", 3, "length")
        ]
    assert engine.prompts == ["Question:", "Question: And then?", "Question:"]


def test_a_scripted_engine_scores_one_bit_a_word() -> None:
    renderer = word_renderer()
    prompt = renderer.text("Question: Where is Epona?\nAnswer:")
    tails = [renderer.answer_ids(prompt, answer) for answer in ("In the field.", "")]
    assert ScriptedEngine(epona).logprobs([prompt, prompt], tails) == pytest.approx([-3 * np.log(2), 0.0])


def test_the_key_of_a_scripted_engine_is_its_function() -> None:
    def other(prompt: str, seed: int) -> str:
        return " No."

    engine: Engine = ScriptedEngine(epona)
    assert engine.exact
    assert ScriptedEngine(epona).key() == ScriptedEngine(epona).key()
    assert ScriptedEngine(epona).key() != ScriptedEngine(other).key()


def test_an_asker_works_with_the_doubles() -> None:
    with Asker(lambda model, /: ScriptedEngine(epona), "any", word_renderer()) as asker:
        [draw] = asker.answers([QAPair("Where is Epona?", "")], ROWS, [7])
    assert draw is not None
    assert (draw.text, draw.prompt) == ("Call her with song 7.", "Question: Where is Epona?\nAnswer:")


def test_texts_that_share_words_are_near() -> None:
    embedder = HashEmbedder()
    horse, mare, moon, nothing = embedder.encode(["call the horse", "call the mare", "red moon", "?!"])
    assert horse @ mare > 0.5 > horse @ moon
    assert np.linalg.norm(horse) == pytest.approx(1.0)
    assert not nothing.any()
    assert (embedder.name, HashEmbedder(64).name) == ("hash-256", "hash-64")
