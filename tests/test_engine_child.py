"""The engine in a child process: same results, same errors, and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isara.engines.child import ChildEngine
from isara.engines.transformers.engine import TransformersEngine
from isara.errors import ModelError
from isara.process import Child
from isara.records import Prompt, Sampling
from isara.render import open_renderer

SAMPLING = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=8, stop=("\n",))
TEXTS = ["Question: Wer schläft in Hyrule?", "Question:"]


def test_a_child_engine_answers_as_the_engine_itself(tiny_llama: Path) -> None:
    progress: list[tuple[int, int]] = []
    renderer = open_renderer(str(tiny_llama))
    prompts = [renderer.text(text) for text in TEXTS]
    tails = [renderer.continuation(*both) for both in zip(prompts, [" Zelda", " Link"], strict=True)]
    with TransformersEngine(str(tiny_llama), dtype="float32", device="cpu") as here:
        expected = here.generate(prompts, SAMPLING, [1, 2])
        scores, tokens = here.logprobs(prompts, tails), here.token_logprobs(prompts, tails)
    with ChildEngine(
        str(tiny_llama), dtype="float32", device="cpu", on_progress=lambda *seen: progress.append(seen)
    ) as child:
        assert child.generate(prompts, SAMPLING, [1, 2]) == expected
        assert child.logprobs(prompts, tails) == pytest.approx(scores, abs=1e-4)
        assert sum(child.token_logprobs(prompts, tails), []) == pytest.approx(sum(tokens, []), abs=1e-4)
        with pytest.raises(ModelError) as error:
            child.generate([renderer.text("Zelda " * 1200)], SAMPLING, [0])
        assert str(error.value) == (
            "expected prompt and completion of at most 1024 tokens, the context of this model, found 6003: "
            "use fewer or shorter demonstrations, or a model with a longer context"
        )
        assert isinstance(child._child, Child)
        process = child._child.process
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ModelError) as error:
            child.generate(prompts, SAMPLING, [1, 2])
        assert str(error.value) == (
            "the engine's process was killed by signal 9, as a system does when memory runs out; it last wrote: nothing"
        )
    assert process.returncode == -9
    assert progress[-1] == (sum(row.tokens for row in expected), 2)


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_what_outputs_depend_on_is_known_without_a_process(dtype: str) -> None:
    here, child = TransformersEngine("any", device="cpu", dtype=dtype), ChildEngine("any", device="cpu", dtype=dtype)
    assert child.exact is here.exact
    assert child.key() == here.key()
    assert child._child is None


def test_texts_of_prompts_stay_with_the_parent(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    ask = Child.ask

    def watched(self: Child, **request: Any) -> Iterator[dict[str, Any]]:
        asked.append(request)
        return ask(self, **request)

    monkeypatch.setattr(Child, "ask", watched)
    with ChildEngine(str(tiny_llama), device="cpu", dtype="float32") as child:
        child.generate([Prompt("Who guards the Triforce?", (1, 300, 301))], SAMPLING, [0])
        child.logprobs([Prompt("Who guards the Triforce?", (1, 300))], [(301, 302)])
    assert asked[1]["prompts"] == [[1, 300, 301]]
    assert asked[2] == {"method": "logprobs", "prompts": [[1, 300]], "continuations": [[301, 302]]}
    assert "Triforce" not in str(asked)


def test_a_model_that_is_not_there_is_the_same_error_as_without_a_child(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error, ChildEngine(str(tmp_path)):
        pass
    assert (
        str(error.value) == f"expected a model folder with config.json, found none in {tmp_path}: name another folder"
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="of other processes only Linux tells")
def test_a_child_that_ends_leaves_its_peak_memory_in_the_log(
    tiny_llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="isara"), ChildEngine(str(tiny_llama), device="cpu"):
        pass
    found = re.search(r"the engine's process had at most (\d+\.\d\d) GiB of memory", caplog.text)
    assert found is not None
    assert 0.1 < float(found[1]) < 8  # torch and transformers alone are more than the first


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


def test_a_message_that_the_childs_end_has_cut_is_its_end() -> None:
    talking = "import sys; sys.stdout.write('{\"a\": 1}\\n{\"b'); sys.stderr.write('no hearts left'); sys.exit(3)"
    child = Child([sys.executable, "-c", talking], "the child", ModelError)
    messages = child.ask(what="next")
    assert next(messages) == {"a": 1}
    with pytest.raises(ModelError, match="^the child ended with exit code 3; it last wrote: no hearts left$"):
        next(messages)
    child.close()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "[rank1]: ValueError: no hearts left\n[rank0]: RuntimeError: [gloo/pair.cc:5] Connection closed by peer\n",
            "the group ended with exit code 1; it last wrote: ValueError: no hearts left",
        ),
        (
            "[rank0]: RuntimeError: Broken pipe\n",
            "the group ended with exit code 1; it last wrote: RuntimeError: Broken pipe",
        ),
        (
            "traceback : Signal 15 (SIGTERM) received by PID 6\ntraceback : Signal 9 (SIGKILL) received by PID 7\n",
            "the group was killed by signal 9, as a system does when memory runs out; it last wrote: traceback : ",
        ),
        ("traceback : Signal 15 (SIGTERM) received by PID 6\n", "the group ended with exit code 1; it last wrote: tra"),
    ],
)
def test_of_a_group_that_ended_the_cause_is_told(tmp_path: Path, written: str, said: str) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    talking = f"import sys; sys.stderr.write({written!r}); sys.exit(1)"
    command = [sys.executable, "-c", talking]
    child = Child(command, "the group", ModelError, starts_others=True, folder=str(folder))
    with pytest.raises(ModelError) as caught:
        next(child.ask(what="next"))
    child.close()
    assert str(caught.value).startswith(said)
    assert not folder.exists()  # whoever started it may be gone by then


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
