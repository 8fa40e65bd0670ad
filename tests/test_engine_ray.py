"""Workers as Ray actors: the same rows, what becomes of those of a lost actor or node, and what is said of mistakes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no types of its own
import pytest

from isara.build import build_engine, build_parts
from isara.config import load_config
from isara.engines.ray.actor import Actor, versions
from isara.engines.ray.driver import cpus_each, reason
from isara.errors import ConfigError, IsaraError, ModelError
from isara.models import weights_hash
from isara.protocols import EngineFactory
from isara.records import Completion, Prompt, Sampling

TESTS = Path(__file__).parent
SAMPLING = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=12)
PROMPTS = [Prompt("Who sleeps here?", (1, 300 + room)) for room in range(20)]
SEEDS = list(range(100, 120))
EXPECTED = [Completion(f" [1, {300 + room}] by {100 + room}", 2, "stop") for room in range(20)]
HOST = socket.gethostname()


class World:
    """A cluster of the double of Ray, with workers of the double of vLLM in it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.file, self.trace, self.model = folder / "world.json", folder / "trace", str(model)
        self.now(nodes=[{"CPU": 1.0}, {"CPU": 1.0}])

    def now(self, **state: Any) -> None:
        """What is changed in the world."""
        before = json.loads(self.file.read_text()) if self.file.exists() else {}
        aside = self.file.with_suffix(".tmp")
        aside.write_text(json.dumps(before | state))
        aside.rename(self.file)

    def engines(self, *settings: str) -> EngineFactory:
        """What opens models there."""
        own = ["engine.launcher=ray", "engine.workers=2", "engine.kind=vllm", "engine.evaluate_with=vllm"]
        trace = json.dumps({"trace": str(self.trace)})
        return build_engine(load_config(None, [*own, "engine.device=cpu", f"engine.options={trace}", *settings]))

    def connections(self) -> list[Any]:
        """Address, options and process of each connection."""
        return [json.loads(line) for line in self.file.with_suffix(".trace").read_text().splitlines()]

    def gone(self, seconds: float = 30) -> bool:
        """Whether all processes that were started have ended, or do so in time."""
        numbers = [int(number) for line in self.trace.read_text().splitlines() for number in line.split()[:2]]
        numbers += [process for *_, process in self.connections()]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not any(psutil.pid_exists(each) and psutil.Process(each).status() != "zombie" for each in numbers):
                return True
            time.sleep(0.05)
        return False

    def fault(self, *settings: str, kind: type[IsaraError] = ConfigError) -> str:
        """What is said instead of opening a model."""
        with pytest.raises(kind) as caught, self.engines(*settings)(self.model):
            pass
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def world(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, tiny_llama)
    paths = [TESTS / "fake_ray", TESTS / "fake_vllm", TESTS.parent / "src"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
    monkeypatch.setenv("HYRULE_RAY", str(made.file))
    for name in ("OMP_NUM_THREADS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return made


class Nodes:
    """A cluster of Ray's own, each node in processes of this machine."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.nodes: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """One node more, with one CPU; the first one is the head."""
        where = [f"--address={self.address}"] if self.nodes else ["--head", f"--port={self.address.split(':')[1]}"]
        ray = str(Path(sys.executable).with_name("ray"))
        self.nodes.append(
            subprocess.Popen(
                [ray, "start", *where, "--block", "--num-cpus=1", "--include-log-monitor=false"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        output = self.nodes[-1].stdout
        assert output is not None and any("runtime started" in line for line in output)

    def kill(self, number: int) -> None:
        """Ends a node as a power cut does."""
        os.killpg(self.nodes[number].pid, signal.SIGKILL)
        self.nodes[number].wait()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    # The memory is that of all that this machine does; and no token of the user's is made for a test.
    known = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0", "RAY_AUTH_MODE": "disabled"}
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(TESTS.parent / "src"))
    made = Nodes()
    try:
        made.start()
        made.start()
        yield made
    finally:
        for number, node in enumerate(made.nodes):
            if node.poll() is None:
                made.kill(number)


def actors() -> list[psutil.Process]:
    """The processes of all of our actors on this machine."""
    return [each for each in psutil.process_iter(["name"]) if each.info["name"].startswith("ray::Actor")]


def actors_gone() -> bool:
    """Whether all of our actors have ended, or do so in time."""
    until = time.monotonic() + 60
    while actors() and time.monotonic() < until:
        time.sleep(0.1)
    return not actors()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


def test_rows_come_back_in_order_and_nothing_stays(world: World, caplog: pytest.LogCaptureFixture) -> None:
    made: Any = world.engines()
    with caplog.at_level("INFO", logger="isara"), made(world.model) as engine:
        assert engine.generate(PROMPTS, SAMPLING, SEEDS) == EXPECTED
        assert engine.logprobs(PROMPTS[:2], [(8, 16), ()]) == [-3.0, 0.0]
        with made(world.model) as other:  # as a reader beside the last model: in the same places
            assert other.generate(PROMPTS, SAMPLING, SEEDS) == EXPECTED
        assert engine.generate(PROMPTS, SAMPLING, SEEDS) == EXPECTED
    [[address, options, _]] = world.connections()
    assert (address, options) == ("auto", {"log_to_driver": False, "logging_level": "error"})
    said = caplog.text
    assert "Ray: 2 nodes with 1, 1 CPUs; 2 workers with 1 CPU each" in said and f"worker 1 runs on {HOST} as" in said
    assert world.gone()
    plain = build_engine(load_config(None, ["engine.kind=vllm", f"engine.options={made.key()['options']}"]))
    assert plain.key() == made.key()  # type: ignore[attr-defined]  # a factory need have none


def test_a_lost_actor_is_placed_anew(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="isara"), world.engines()(world.model) as engine:
        assert engine.generate(PROMPTS, SAMPLING, SEEDS) == EXPECTED
        world.now(dead_actors=[0])
        assert engine.generate(PROMPTS, SAMPLING, SEEDS) == EXPECTED
        assert engine.generate(PROMPTS, SAMPLING, SEEDS) == EXPECTED
    [said] = warnings(caplog)
    assert said.endswith(" ended: its worker process has died; it starts again, and its rows are made once more")
    assert world.gone()


def test_without_a_node_the_others_go_on(world: World, caplog: pytest.LogCaptureFixture) -> None:
    made = world.engines()
    room = (
        "expected a Ray cluster with room for 2 workers with 1 CPU each, found room for 1 (1 nodes with 1 CPUs): lower "
        "`engine.workers`, or start more nodes"
    )
    with caplog.at_level("WARNING", logger="isara"):
        with made(world.model) as engine:
            assert engine.generate(PROMPTS, SAMPLING, SEEDS) == EXPECTED
            world.now(dead_nodes=[1])
            for _ in range(2):  # the first call may be over before its worker would have started again
                assert engine.generate(PROMPTS, SAMPLING, SEEDS) == EXPECTED
            first, second = warnings(caplog)
            assert " ended: its node has died; it starts again" in first
            assert second.endswith(f"{room}; it ended before, and the others make its rows")
            with made(world.model) as other:
                assert other.generate(PROMPTS, SAMPLING, SEEDS) == EXPECTED
            assert warnings(caplog)[2].endswith(f"{room}; the others make its rows")
        with made(world.model) as engine:  # connected anew: no mistake any more, as it once was whole
            assert engine.generate(PROMPTS, SAMPLING, SEEDS) == EXPECTED
    assert len(warnings(caplog)) == 4 and world.gone()


def test_when_all_are_lost_the_call_ends(world: World) -> None:
    with pytest.raises(ModelError) as caught, world.engines()(world.model) as engine:
        world.now(dead_nodes=[0, 1])
        engine.generate(PROMPTS, SAMPLING, SEEDS)
    assert str(caught.value).startswith(
        "expected a Ray cluster with room for 1 workers with 1 CPU each, found room for 0"
    )
    assert world.gone()


def test_an_end_of_rays_own_process_is_one_line(world: World) -> None:
    with pytest.raises(ModelError) as caught, world.engines()(world.model) as engine:
        assert engine.generate(PROMPTS, SAMPLING, SEEDS) == EXPECTED
        os.kill(world.connections()[0][2], signal.SIGKILL)
        engine.generate(PROMPTS, SAMPLING, SEEDS)
    assert str(caught.value).startswith("Ray's process was killed by signal 9, as a system does when memory runs out")
    assert "\n" not in str(caught.value) and world.gone()


def test_what_an_engine_says_comes_through(world: World) -> None:
    options = json.dumps({"trace": str(world.trace), "most": 1})
    with pytest.raises(ModelError) as caught, world.engines(f"engine.options={options}")(world.model) as engine:
        engine.generate(PROMPTS[:1], SAMPLING, SEEDS[:1])
    assert str(caught.value) == (
        "two workers ended over the same 1 rows; the last one: vLLM's process ended with exit code 1; it last wrote: "
        "ValueError: The decoder prompt (length 2) is longer than the maximum of 1."
    )
    assert "`engine.python`: expected the Python of an environment with vLLM, found '/of/time'" in world.fault(
        "engine.python=/of/time"
    )


def test_mistakes_of_the_cluster_are_one_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.fault("engine.workers=3") == (
        "expected a Ray cluster with room for 3 workers with 1 CPU each, found room for 2 (2 nodes with 1, 1 CPUs): "
        "lower `engine.workers`, or start more nodes"
    )
    for address in ("127.0.0.1:1", "hyrule"):
        said = world.fault(f"engine.address={address}")
        assert said.startswith(f"expected a Ray cluster at '{address}', found nobody (") and said.endswith(
            "): give the host:port that `ray start` shows as `engine.address`, or auto on a machine that is a node of "
            "it"
        )
    world.now(init_error="Could not find\nany running Ray instance.")
    assert world.fault() == (
        "expected a Ray cluster at 'auto', found none of use (Could not find any running Ray instance.): start one "
        "with `ray start` and give its host:port as `engine.address`; this machine has to be a node of it"
    )
    world.now(init_error=None, busy=True)
    assert world.fault("engine.start_timeout=0.2", kind=ModelError) == (
        "expected a place with 1 CPU for worker 0 within 0.2 s, found 0 CPUs free in the cluster: wait for other work "
        "there, or lower `engine.workers`"
    )


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS.parent / "src"))
    assert world.fault() == (
        "expected Ray for `engine.launcher: ray`, found none (No module named 'ray'): pip install ray, or leave the "
        "launcher out, as `engine.workers` needs no Ray on one machine"
    )


def test_a_node_has_to_make_what_this_machine_would(tiny_llama: Path, tmp_path: Path) -> None:
    engine = {"kind": "transformers", "python": None}
    told = {"engine": engine, "model": str(tiny_llama), "weights": weights_hash(str(tiny_llama))}
    shared = f"on {HOST}, found {{}}: put models and the run folder on a disk that all nodes share, under the same path"
    here = Actor({}, versions())
    for changed, found in (
        ({"model": str(tmp_path / "none")}, "none that can be read"),
        ({"weights": "others"}, "one with other weights"),
    ):
        model = (told | changed)["model"]
        assert here.start(0, told | changed) == {
            "error": "ModelError",
            "message": f"expected the model {model} {shared.format(found)}",
            "dead": False,
        }
    other = Actor({}, versions() | {"torch": "0.1"}).start(0, told)
    assert other["error"] == "ConfigError"
    assert f"torch 0.1, transformers {versions()['transformers']} on" in other["message"]
    assert other["message"].endswith(": install the same on every node")


def test_the_reason_of_a_loss_is_short() -> None:
    class ActorUnavailableError(Exception):
        pass

    page = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR\nAdvice: (1) …"
    assert reason(Exception(page)) == "its worker process has died"
    assert reason(ActorUnavailableError("The actor b137 is unavailable: …")) == "it can't be reached any more"
    page = "The actor with name Actor failed to import on the worker. …\nModuleNotFoundError: No module named 'isara'"
    assert reason(Exception(page)).startswith("its node has no isara; install the same versions of ISARA")
    assert reason(Exception("1 worker(s) were killed\n due to memory")) == "1 worker(s) were killed due to memory"


@pytest.mark.parametrize(
    ("nodes", "workers", "each"),
    [([2.0, 2.0], 2, 2), ([2.0, 2.0], 3, 1), ([8.0, 2.0], 4, 2), ([3.0], 4, 0), ([], 1, 0), ([16.5], 1, 16)],
)
def test_workers_share_the_cpus_of_the_nodes(nodes: list[float], workers: int, each: int) -> None:
    assert cpus_each(nodes, workers) == each


@pytest.mark.parametrize(
    ("settings", "gpus"),
    [
        (["engine.dtype=float32"], 1),
        (["engine.kind=vllm", "engine.evaluate_with=vllm", "engine.options={tensor_parallel_size: 2}"], 2),
    ],
)
def test_each_worker_has_its_gpus(settings: list[str], gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    made: Any = build_engine(load_config(None, ["engine.launcher=ray", "engine.workers=2", *settings]))
    assert made._around.options.gpus == gpus and made._around.options.workers == 2


def test_a_run_measures_in_the_same_places(world: World, tmp_path: Path) -> None:
    settings = ["engine.launcher=ray", "engine.kind=vllm", "engine.evaluate_with=vllm", f"out={tmp_path / 'run'}"]
    parts = build_parts(load_config(TESTS.parent / "recipes" / "safety", settings))
    assert parts.measured_by is parts.engine


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["engine.launcher=ray", "engine.use=mine:Engine"],
            "expected `launcher: null` for an engine of your own, which is opened in this process",
        ),
        (
            ["engine.launcher=ray", "engine.kind=server", "engine.serve=serve {model} {port}"],
            "expected `launcher: null` for `kind: server`, which has `concurrency`",
        ),
        (["engine.address=hyrule:1"], "expected `launcher: ray` beside `address`"),
        (
            ["engine.launcher=ray", "engine.kind=vllm"],
            "expected `evaluate_with: vllm` for `launcher: ray`, where each worker has its GPUs for itself (it is "
            "transformers)",
        ),
    ],
)
def test_settings_that_make_no_sense_are_told(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, settings)
    assert said in str(caught.value)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_a_run_on_two_nodes_loses_an_actor_a_node_and_itself(nodes: Nodes, tmp_path: Path) -> None:
    """Ray itself, the embedded model in float32, and the rows of a run without Ray."""
    recipe = str(TESTS.parent / "recipes" / "safety")
    small = ["iterations=1", "heldout=0", "generate.accept=64", "engine.device=cpu", "engine.dtype=float32"]
    ray = ["engine.launcher=ray", "engine.workers=2", f"engine.address={nodes.address}"]

    def command(out: str, *settings: str) -> list[str]:
        sets = [part for each in (*small, *settings) for part in ("--set", each)]
        return [sys.executable, "-m", "isara", "run", recipe, "--out", str(tmp_path / out), *sets]

    def rows(out: str) -> list[str]:
        return (tmp_path / out / "iteration-01" / "generate" / "candidates.jsonl").read_text().splitlines()

    subprocess.run(command("plain"), check=True, capture_output=True, stdin=subprocess.DEVNULL)

    def begun(wanted: int) -> subprocess.Popen[bytes]:
        """A run that has begun to make rows with so many actors."""
        run = subprocess.Popen(command("ray", *ray), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=-2)
        while len(actors()) < wanted or not (tmp_path / "ray" / "iteration-01").exists():
            assert run.poll() is None, run.communicate()[0].decode()
            time.sleep(0.1)
        return run

    run = begun(2)
    actors()[0].kill()
    time.sleep(5)
    run.kill()
    run.wait()
    assert actors_gone() and all(node.poll() is None for node in nodes.nodes)
    run = begun(2)
    nodes.kill(1)
    said = run.communicate()[0].decode()
    assert run.returncode == 0, said
    assert rows("ray") == rows("plain") and len(rows("ray")) >= 64
    assert nodes.nodes[0].poll() is None and actors_gone()
