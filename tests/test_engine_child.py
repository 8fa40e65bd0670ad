"""The engine in a child process: same results, same errors, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isara.engines.child import ChildEngine
from isara.engines.transformers import TransformersEngine
from isara.errors import ModelError
from isara.protocols import Sampling

SAMPLING = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=8, stop=("\n",))
PROMPTS = ["Question: Wer schläft in Hyrule?", "Question:"]


def test_a_child_engine_answers_as_the_engine_itself(tiny_llama: Path) -> None:
    progress: list[tuple[int, int]] = []
    options = {"dtype": "float32", "device": "cpu"}
    with TransformersEngine(str(tiny_llama), **options) as here:  # type: ignore[arg-type]  # all values are str
        expected = here.generate(PROMPTS, SAMPLING, [1, 2])
        scores = here.logprobs(PROMPTS, [" Zelda", " Link"])
        counts, fmt = here.count_tokens(PROMPTS), here.format
    with ChildEngine(
        str(tiny_llama), dtype="float32", device="cpu", on_progress=lambda *seen: progress.append(seen)
    ) as child:
        assert child.generate(PROMPTS, SAMPLING, [1, 2]) == expected
        assert child.logprobs(PROMPTS, [" Zelda", " Link"]) == pytest.approx(scores, abs=1e-4)
        assert child.count_tokens(PROMPTS) == counts
        assert child.format == fmt
        assert child.context_length == 1024
        with pytest.raises(ModelError) as error:
            child.generate(["Zelda " * 1200], SAMPLING, [0])
        assert str(error.value) == (
            "expected prompt and completion of at most 1024 tokens, the context of this model, found 6003: "
            "use fewer or shorter demonstrations, or a model with a longer context"
        )
        assert child._child is not None
        process = child._child.process
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ModelError) as error:
            child.generate(PROMPTS, SAMPLING, [1, 2])
        assert str(error.value) == (
            "the engine's process was killed by signal 9, as a system does when memory runs out; it last wrote: nothing"
        )
    assert process.returncode == -9
    assert progress[-1] == (sum(row.tokens for row in expected), 2)


def test_a_model_that_is_not_there_is_the_same_error_as_without_a_child(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error, ChildEngine(str(tmp_path)):
        pass
    assert (
        str(error.value) == f"expected a model folder with config.json, found none in {tmp_path}: name another folder"
    )


def test_the_child_ends_with_its_parent(tiny_llama: Path) -> None:
    parent = (
        "import sys, threading, time\n"
        "from isara.engines.child import ChildEngine\n"
        "engine = ChildEngine(sys.argv[1], device='cpu')\n"
        "threading.Thread(target=engine.__enter__, daemon=True).start()\n"
        "while engine._child is None:\n"
        "    time.sleep(0.01)\n"
        "print(engine._child.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent, str(tiny_llama)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert _alive(child)
        process.kill()
    for _ in range(100):
        if not _alive(child):
            break
        time.sleep(0.1)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
