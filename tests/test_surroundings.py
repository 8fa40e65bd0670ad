"""What is around a command: texts that want to steer the terminal, outputs that can't be written, and interrupts."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from isara.marks import visible
from tests.test_cli import FAST, Command, isara, options, seeds  # noqa: F401 (fixtures)

# A cleared screen, a window's title, a text turned round, one that nobody sees, and a tag.
HOSTILE = "\x1b[2J\x1b]0;owned\x07 \u202egnissim\u202c \u200b\u2066hidden\u2069 \U000e0041 \x9b31m"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e0fff]")
ENGINE = f"""
from isara.testing import ScriptedEngine

NOISE = {HOSTILE!r}

def answer(prompt, seed):
    if prompt.rstrip().endswith("Question:"):
        return f" Is there {{NOISE if seed % 3 else ''}} a moat {{seed % 997}} feet from Kakariko?"
    return f" Go and see moat {{seed % 89}}; {{NOISE if seed % 2 else ''}} it is worth it."

def engine(model):
    return ScriptedEngine(answer)
"""


@pytest.fixture
def hostile(isara: Command, tiny_llama: Path, seeds: Path, tmp_path: Path) -> list[str]:  # noqa: F811
    """Options that make a run whose model says what it should not."""
    (tmp_path / "loud.py").write_text(ENGINE)
    settings = [f"engine.use={tmp_path / 'loud.py'}:engine", "evaluate.patience=null"]
    return ["--model", str(tiny_llama), "--seeds", str(seeds), "--heldout", "0.3", *options(*FAST, *settings)]


def test_nothing_that_a_model_says_steers_the_terminal(
    isara: Command,  # noqa: F811
    hostile: list[str],
    tmp_path: Path,
) -> None:
    code, out, err = isara("run", *hostile, "--out", "run")
    assert code == 0, err
    said = {"run": out + err}
    row = json.loads((tmp_path / "run/iteration-01/generate/candidates.jsonl").read_text().splitlines()[0])["id"]
    for name, *arguments in [
        ("show", "show", "run"),
        ("row", "show", "run", "--row", row),
        ("read", "show", "run", "--read", "4"),
        ("rejected", "show", "run", "--read", "4", "--rejected"),
        ("report", "report", "run"),
        ("rows", "export", "run", "--rows", "alpaca", "--out", "rows.json"),
        ("answer", "answer", f"Is it {HOSTILE} far?", "--model", "run"),
        ("evaluate", "evaluate", "run"),
    ]:
        code, out, err = isara(*arguments)
        assert code == 0, (name, err)
        said[name] = out + err
    assert not {name: found[0] for name, text in said.items() if (found := RAW.search(text))}
    # What they show is what was said, and not something else.
    assert all("[2J" in said[name] for name in ("row", "rejected", "answer"))


@pytest.mark.parametrize("verb", ["preview", "dry run", "tune", "models check", "compare"])
def test_nor_does_it_before_a_run_or_beside_others(
    isara: Command,  # noqa: F811
    hostile: list[str],
    tmp_path: Path,
    verb: str,
) -> None:
    (tmp_path / "isara.yaml").write_text(f"model: {hostile[1]}\nseeds: {hostile[3]}\nheldout: 0.3\n")
    code, out, err = isara(
        *{
            "preview": ["preview", *hostile, "--no-estimate", "--rows", "3"],
            "dry run": ["run", *hostile, "--dry-run"],
            "tune": ["tune", *hostile, "--out", "tuned"],
            "models check": ["models", "check", hostile[1], "--seeds", hostile[3]],
            "compare": ["compare", ".", "--seeds", "1", "--arms", "zero-shot,isara", "--out", "all", *hostile[6:]],
        }[verb]
    )
    assert code == 0, err
    assert not RAW.search(out + err)
    assert "[2J" in out or verb != "preview"


@pytest.mark.parametrize(
    "arguments",
    [
        ["seeds", "check", "--seeds", "SEEDS"],
        ["run", "--seeds", "SEEDS"],
        ["run", "--seeds", f"{HOSTILE}.jsonl"],
        ["run", "--model", f"a{HOSTILE}/b", "--seeds", "SEEDS"],
        ["run", f"{HOSTILE}/isara.yaml"],
        ["show", HOSTILE],
        ["report", HOSTILE],
        ["tune", "--seeds", "SEEDS", "--out", HOSTILE],
        ["export", HOSTILE, "--out", HOSTILE, "--rows", HOSTILE],
        ["compare", HOSTILE],
        ["compare", "SEEDS", "--arms", HOSTILE],
        ["evaluate", HOSTILE],
        ["evaluate", "embedded", "--on", HOSTILE],
        ["models", "check", f"a{HOSTILE}/b"],
        ["judge", "check", "judge.yaml", "--on", "SEEDS", "--label", HOSTILE],
        ["train", "SEEDS", "--out", "out"],
        ["init", "here", "--model", HOSTILE],
        [HOSTILE],
    ],
)  # fmt: skip
def test_no_error_line_steers_the_terminal(isara: Command, tmp_path: Path, arguments: list[str]) -> None:  # noqa: F811
    rows = [{"question": f"Is it {word} {HOSTILE}?", HOSTILE: "a", "answer": HOSTILE * 9} for word in ("far", "near")]
    rows.append({"question": "x" * 999_000, "answer": HOSTILE})
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "judge.yaml").write_text("judge: offline-harm\n" + json.dumps({"kind": HOSTILE}))
    code, out, err = isara(*(word.replace("SEEDS", "seeds.jsonl") for word in arguments))
    assert code in (0, 1) and (code == 0 or err.strip())
    assert not RAW.search(out + err)
    assert len(out + err) < 20_000


def test_what_is_shown_whole_keeps_lines_and_the_joiners_of_scripts() -> None:
    assert visible("می\u200cخواهم\n\t👩\u200d🌾") == "می\u200cخواهم\n\t👩\u200d🌾"
    assert visible("a\x1b[2J\u202eb\u2028\ud800") == "a\ufffd[2J\ufffdb\ufffd\ufffd"


KEPT = "isara: stopped; every finished batch and stage stays in the run folder; the same command goes on from there\n"
# A command that says where it stands: when its first line of Python is run, and when its libraries are loaded.
AT = """
import sys, signal, time
from isara.cli.guard import guarded
from isara.cli.stop import Stop
def command():
    {body}
sys.argv = ["isara", "run", "recipe"]
guarded(command, Stop())
"""


def stopped(body: str, number: int) -> tuple[int, str]:
    """Stops a command while it is in `body`, which prints a line when it may be stopped."""
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)" + AT.format(body=body)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "now\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    "body",
    [
        "print('now', flush=True); time.sleep(60)",
        "print('now', flush=True); import isara.cli.main, transformers, torch; time.sleep(60)",
        # What swallows every exception would swallow an interrupt.
        "print('now', flush=True)\n    while True:\n        try: time.sleep(1)\n        except BaseException: continue",
        "import threading; threading.Thread(target=time.sleep, args=(60,)).start(); print('now', flush=True)\n"
        "    while True: pass",
    ],
    ids=["sleep", "imports", "swallowed", "thread"],
)  # fmt: skip
def test_a_stopped_command_says_what_is_kept(body: str, number: int, code: int) -> None:
    assert stopped(body, number) == (code, KEPT)


def test_a_stopped_command_removes_its_temporary_folders_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "isara-1-other").mkdir()
    body = (
        f"import tempfile; tempfile.tempdir = {str(tmp_path)!r}; from isara.temporary import temporary_folder\n"
        "    found = temporary_folder(); open(found.name + '/weights', 'w').close(); print('now', flush=True)\n"
        "    time.sleep(60)"
    )
    assert stopped(body, signal.SIGTERM)[0] == 143
    assert [path.name for path in tmp_path.iterdir()] == ["isara-1-other"]


def test_what_a_shell_has_told_to_ignore_ctrl_c_goes_on_ignoring_it() -> None:
    code = "import signal, os; signal.signal(signal.SIGINT, signal.SIG_IGN)" + AT.format(
        body="os.kill(os.getpid(), signal.SIGINT); print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "still here\n")


def test_a_stopped_run_goes_on(isara: Command, tiny_llama: Path, seeds: Path, tmp_path: Path) -> None:  # noqa: F811
    """SIGTERM between two batches, from a filter of the user's own; then the same command."""
    (tmp_path / "mine.py").write_text(
        "import os, signal\nfrom pathlib import Path\n\n\ndef stop(candidate, pool):\n"
        "    flag = Path(__file__).with_name('stopped')\n"
        "    if not flag.exists():\n        flag.touch()\n        os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    settings = options(*FAST, f"filters.own_questions=[{{use: {tmp_path / 'mine.py'}:stop}}]")
    command = ["run", "--model", str(tiny_llama), "--seeds", str(seeds), "--out", "run", *settings]
    done = subprocess.run([sys.executable, "-m", "isara", *command], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (143, KEPT.strip())
    code, _, err = isara(*command)
    assert code == 0, err


def ended(arguments: str, redirection: str, where: Path, **environment: str) -> tuple[int, str, str]:
    """A command in a shell with a redirection: exit code, stdout and stderr."""
    line = f"{sys.executable} -m isara {arguments} {redirection}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], cwd=where, capture_output=True, text=True, errors="replace",
        env={**os.environ, **environment},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


FULL = "isara: the output can't be written (No space left on device): free some space or give it another place\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
@pytest.mark.parametrize("verb", ["--help", "--version", "judge list", "run --help"])
def test_outputs_that_cannot_be_written(verb: str, tmp_path: Path) -> None:
    assert ended(verb, ">/dev/full", tmp_path) == (1, "", FULL)
    assert ended(verb, ">&-", tmp_path) == (0, "", "")
    assert ended(verb, ">&- 2>&- <&-", tmp_path) == (0, "", "")


def test_a_reader_that_goes_away_ends_a_command_in_silence(tmp_path: Path) -> None:
    code = AT.format(body="[print('x' * 4096) for _ in range(1000)]")
    (tmp_path / "long.py").write_text(code)
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} long.py | head -1"], cwd=tmp_path, capture_output=True
    )
    assert (done.returncode, done.stderr) == (141, b"")


def test_messages_that_nobody_can_read_stop_nothing(tmp_path: Path) -> None:
    code, out, _ = ended("init here", "2>/dev/full", tmp_path)
    assert code == 0 and out.startswith("wrote here")
    assert ended("nix", "2>/dev/full", tmp_path)[0] == 1


def test_a_closed_output_gives_its_number_to_no_file(tmp_path: Path) -> None:
    code = AT.format(body="open('first.txt', 'w').write('mine'); import os; os.write(1, b'stray')")
    (tmp_path / "open.py").write_text(code)
    subprocess.run(["bash", "-c", f"{sys.executable} open.py >&-"], cwd=tmp_path, check=True)
    assert (tmp_path / "first.txt").read_text() == "mine"
