"""The command line as a user meets it: verbs, exit codes, and every kind of mistake in one line."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from isara.cli import main as cli
from isara.keys import part_key
from tests.faults.kills import LENIENT

Command = Callable[..., tuple[int, str, str]]

# What lets a run of seconds go through every stage on a random model, whose texts no filter should judge.
FAST = [
    "iterations=1",
    "generate.accept=4",
    "generate.batch=8",
    "questions.demos=2",
    "questions.max_new_tokens=12",
    "answers.demos=2",
    "answers.max_new_tokens=12",
    "filters.min_question_tokens=1",
    "filters.min_answer_tokens=1",
    "generate.min_yield=0",
    "generate.max_batches=60",
    "train.num_train_epochs=1",
    "train.method=lora",
    "train.lora_r=2",
    "retrieve.embedder=lexical",
    *LENIENT,
]


def options(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


@pytest.fixture
def isara(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs the command line in this process and in a folder of its own: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["isara", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    path = tmp_path / "seeds.jsonl"
    places = [
        "Hyrule Castle",
        "Kakariko",
        "Lake Hylia",
        "Death Mountain",
        "Lost Woods",
        "Gerudo Desert",
        "Lon Lon Ranch",
    ]
    sights = ["a moat", "a windmill", "a laboratory", "a crater", "a stage", "a fortress", "a stable"]
    rows = [
        {
            "question": f"What is there to see near {place} today?",
            "answer": f"Go and see {sight}; it is worth the walk.",
        }
        for place, sight in zip(places, sights, strict=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['isara', '--help']\n"
        "from isara.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'datasets', 'sentence_transformers', 'sklearn'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "HEAVY []"
    for verb in ("run", "generate", "train", "answer", "evaluate", "compare", "judge", "models", "show", "init"):
        assert verb in done.stdout


@pytest.mark.parametrize(
    ("own", "heard"),
    [
        ({}, ("PASSIVE", "3000")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", "30000000000")),
        ({"GOMP_SPINCOUNT": "7"}, ("PASSIVE", "7")),
    ],
)
def test_threads_that_wait_for_each_other_soon_sleep(own: dict[str, str], heard: tuple[str, str]) -> None:
    code = (
        "import sys; from isara.cli import main as cli\n"
        "@cli.app.command()\n"
        "def load() -> None: import torch\n"
        "sys.argv = ['isara', 'load']; cli.main()\n"
    )
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"OMP_DISPLAY_ENV": "verbose", **own}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    found = dict(re.findall(r"(\w+) = '(\w+)'", done.stderr))
    if "GOMP_SPINCOUNT" not in found:
        pytest.skip("torch's OpenMP is not GNU's here")
    assert (found["OMP_WAIT_POLICY"], found["GOMP_SPINCOUNT"]) == heard


def test_importing_isara_loads_neither_torch_nor_transformers() -> None:
    code = "import sys, isara; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_run_end_to_end_and_again(isara: Command, tiny_llama: Path, seeds: Path, tmp_path: Path) -> None:
    command = ["run", "--model", tiny_llama, "--seeds", seeds, "--out", "run", "--heldout", "0.3", *options(*FAST)]
    code, out, err = isara(*command)
    assert code == 0, err
    said = " ".join(out.split())
    assert "The loop did not help: iteration 1 is not shown to be better than" in said and "seeds only" in said
    assert "before" in out and "wanted" in out
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run/final").config.model_type == "llama"
    names = {path.name for path in (tmp_path / "run/final").iterdir()}
    # What a random model's three figures choose is chance; what goes with a model is not.
    number = json.loads((tmp_path / "run/final/isara.json").read_text())["iteration"]
    assert {"README.md", "model.safetensors"} <= names
    assert ("adapter" in names, "data_card.md" in names) == (number != 0, number > 0)
    stamp = (tmp_path / "run/final/model.safetensors").stat().st_mtime_ns
    assert isara(*command)[0] == 0
    assert (tmp_path / "run/final/model.safetensors").stat().st_mtime_ns == stamp

    (tmp_path / "run").rename(tmp_path / "[red]run")
    assert "Run [red]run" in isara("show", "[red]run")[1]
    (tmp_path / "[red]run").rename(tmp_path / "run")
    code, out, _ = isara("show", "run")
    assert code == 0 and "Accepted in iteration 1" in out
    row = json.loads((tmp_path / "run/iteration-01/generate/accepted.jsonl").read_text().splitlines()[0])
    code, out, _ = isara("show", "run", "--row", row["id"])
    assert code == 0 and "Prompt of the answer" in out and "Demonstrations, nearest last" in out

    code, out, err = isara(
        "answer", "What is there to see in Termina?", "--model", "run", *options("answers.max_new_tokens=4")
    )
    assert err == "isara: answers.max_new_tokens=4 was given, and the run was made with 12\n"
    assert code == 0 and out.startswith("Question: What is there to see in Termina?\nAnswer:")


def test_generate_train_and_answer_by_themselves(isara: Command, tiny_llama: Path, seeds: Path, tmp_path: Path) -> None:
    shared = ["--model", tiny_llama, *options(*FAST)]
    code, out, err = isara("generate", "--seeds", seeds, "--out", "run", *shared)
    assert code == 0 and out.startswith("4 pairs are in ")
    made = (tmp_path / "run/iteration-01/generate/accepted.jsonl").read_text().splitlines()
    assert len(made) == 4
    # A random model's texts are no texts, and are refused; what stands for them here is in the form that they have.
    accepted = tmp_path / "accepted.jsonl"
    texts = ["the inn at night", "a boat by the lake", "the old mill", "two horses"]
    rows = [
        {**json.loads(line), "question": f"Where do I find {text}?", "answer": f"Ask for {text}."}
        for line, text in zip(made, texts, strict=True)
    ]
    accepted.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = isara("train", seeds, accepted, "--out", "trained", *shared)
    assert code == 0 and out.startswith("trained on 11 pairs in 2 steps"), err
    arguments = ["--model", "trained", "--seeds", seeds, "--demos", "2", *options("answers.max_new_tokens=4")]
    code, out, err = isara("answer", "Is it far?", "And by boat?", *arguments, *options("retrieve.embedder=lexical"))
    assert code == 0 and out.count("Answer:") == 2, err


def test_generation_alone_is_where_a_run_goes_on(isara: Command, tiny_llama: Path, seeds: Path, tmp_path: Path) -> None:
    shared = ["--model", tiny_llama, "--seeds", seeds, "--heldout", "0.3", *options(*FAST)]
    assert isara("generate", "--out", "run", *shared)[0] == 0
    before = (tmp_path / "run/iteration-01/generate/candidates.jsonl").read_bytes()
    code, _, err = isara("answer", "Is it far?", "--model", "run")
    assert (code, err) == (
        1,
        "isara: run has no aligned model yet: finish it with the command that started it\n",
    )
    code, _, err = isara("show", "run", "--iteration", "0")
    assert (code, err) == (1, "isara: run holds no candidates of iteration 0 (it has: 1): give one that it has\n")
    assert isara("run", "--out", "run", *shared)[0] == 0
    assert (tmp_path / "run/iteration-01/generate/candidates.jsonl").read_bytes() == before


def test_dry_run_shows_prompts_and_estimates_and_writes_nothing(
    isara: Command, tiny_llama: Path, seeds: Path, tmp_path: Path
) -> None:
    code, out, err = isara("run", "--model", tiny_llama, "--seeds", seeds, "--out", "run", "--dry-run", *options(*FAST))
    assert code == 0, err
    assert "Question:" in out and "tokens/s" in out and re.search("[MG]iB", out)
    assert not (tmp_path / "run").exists()


def test_a_config_written_by_init_runs(isara: Command, tmp_path: Path) -> None:
    code, out, _ = isara("init", "hyrule")
    assert code == 0 and out.startswith("wrote hyrule: put your pairs into its seeds.jsonl")
    assert (tmp_path / "hyrule/isara.yaml").exists()
    assert "`isara run 'lost woods'`" in isara("init", "lost woods")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: expected a config file, found nothing: `isara init` writes one"),
        (
            ["run", "--model", "TINY", "--seeds", "nowhere.jsonl"],
            "HERE/nowhere.jsonl: expected a file of question-answer pairs, found nothing: did you mean "
            "HERE/seeds.jsonl?",
        ),
        (
            ["run", "--model", "nowhere", "--seeds", "seeds.jsonl"],
            "'nowhere' is not a folder, it is not in the local cache, and HF_HUB_OFFLINE is set: download it where "
            "there is a network with `hf download nowhere`, or name a folder",
        ),
        (
            ["run", "--seeds", "seeds.jsonl", "--set", "train.lora_rank=3"],
            "--set: unknown key `train.lora_rank`: did you mean `train.lora_r`?",
        ),
        (
            ["run", "--seeds", "seeds.jsonl", "--set", "answers.top_p=2"],
            "--set: `answers.top_p`: expected a number in (0, 1], found 2",
        ),
        (
            ["run", "--seeds", "seeds.jsonl", "--set", "iterations"],
            "--set: expected KEY=VALUE, found 'iterations': write it like --set generate.accept=64",
        ),
        (
            ["run", "--seeds", "seeds.jsonl", "--heldout", "1.5"],
            "configuration: `heldout`: expected a share in [0, 1) or a file, found 1.5",
        ),
        (
            ["show", "nowhere"],
            "expected a run folder with an isara.yaml at nowhere, found none: give the --out of a run",
        ),
        (
            ["chat", "nowhere"],
            "expected a run folder with an isara.yaml at nowhere, found none: give the --out of a run",
        ),
        (["init", "."], "expected a new or empty folder, found files in .: name another one"),
        (
            ["answer", "Is it far?", "--demos", "3"],
            "--demos 3 needs pairs to show, and none were given: name them with --seeds",
        ),
        (
            ["train", "seeds.jsonl", "--out", "."],
            "expected a new folder for the trained model, found .: give another --out",
        ),
        (["answer"], "Missing argument 'questions'; `isara answer --help` lists its options"),
    ],
)
def test_every_mistake_is_one_line_and_exit_code_1(
    isara: Command, seeds: Path, tiny_llama: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, _, err = isara(*(str(tiny_llama) if word == "TINY" else word for word in arguments))
    assert code == 1
    assert err == f"isara: {message.replace('HERE', str(tmp_path))}\n"


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["ran"], "isara"),
        (["run", "--itertions", "2"], "isara run"),
        (["run", "--iterations", "many"], "isara run"),
        (["seeds", "chek"], "isara seeds"),
        (["answer", "Is it far?", "--demos", "-1"], "isara answer"),
    ],
)
def test_usage_errors_are_one_line_that_names_the_verbs_help(isara: Command, arguments: list[str], where: str) -> None:
    # What stands before the hint is the words of the typer that is installed.
    code, _, err = isara(*arguments)
    assert code == 1 and err.startswith("isara: ") and err.count("\n") == 1
    assert err.endswith(f"; `{where} --help` lists its options\n")


@pytest.mark.parametrize("group", [[], ["seeds"], ["judge"], ["models"]])
def test_a_group_without_a_verb_lists_its_verbs(isara: Command, group: list[str]) -> None:
    code, out, err = isara(*group)
    assert (code, err) == (0, "") and out.startswith(" ".join(["Usage: isara", *group, "[OPTIONS]"])) and "\n" in out


def test_generate_keeps_to_a_budget_and_knows_the_tracker(isara: Command, seeds: Path, tiny_llama: Path) -> None:
    few = [word for option in FAST for word in ("--set", option)]
    command = ["generate", "--model", str(tiny_llama), "--seeds", "seeds.jsonl", "--out", "run", *few]
    code, _, err = isara(*command, "--set", "track=trackio")
    assert code == 1 and "expected its package, found none: pip install trackio" in err
    code, out, err = isara(*command, "--set", "budget.tokens=10")
    assert code == 0, err
    assert "budget.tokens is 10" in out and not Path("run/iteration-01/generate/DONE").exists()


def test_a_model_cannot_move_the_cursor(isara: Command, tmp_path: Path) -> None:
    from rich.console import Console

    from isara.report.terminal import plain

    console = Console(record=True, force_terminal=True, width=80)
    console.print(plain("\x1b[2J\x1b]0;owned\x07[bold]no markup[/bold]"))
    assert console.export_text(clear=False) == "\ufffd[2J\ufffd]0;owned\ufffd[bold]no markup[/bold]\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_what_the_terminal_cannot_show_is_replaced(seeds: Path, tmp_path: Path, encoding: str) -> None:
    """A pipe on Windows has cp1252, a shell without a locale ASCII."""
    code = (
        "import sys; from isara.cli import main as cli\n"
        "@cli.app.command()\n"
        "def odd() -> None: print('0.50 → 0.25 ±0.1 ö 漢')\n"
        "sys.argv = ['isara', 'odd']; cli.main()\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding).startswith("0.50 ")


def test_bytes_that_are_no_text_are_replaced_in_what_is_typed(seeds: Path) -> None:
    code = (
        "import sys; from isara.cli import main as cli\n"
        "@cli.app.command()\n"
        "def heard() -> None: print(ascii(sys.stdin.readline()))\n"
        "sys.argv = ['isara', 'heard']; cli.main()\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=b"Wo ist K\xf6nig Rhoam?\n", capture_output=True, env=environment)
    assert done.stdout.decode() == "'Wo ist K\\ufffdnig Rhoam?\\n'\n", done.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1080"),
        ("HTTPS_PROXY", "socks://127.0.0.1:7890"),
        ("all_proxy", "ftp://127.0.0.1:21"),
    ],
)
def test_a_proxy_that_the_hubs_client_cannot_use_is_one_line(
    seeds: Path, tmp_path: Path, variable: str, value: str
) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub"), variable: value}
    command = [sys.executable, "-m", "isara", "run", "--model", "zelda/link-1b", "--seeds", str(seeds)]
    done = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("isara: 'zelda/link-1b' is not a folder, it is not in the local cache, and the hub can't be")
    assert f"of the proxy variables {variable} is set" in line


def test_a_run_is_asked_as_it_was_made(
    isara: Command, tiny_chat: Path, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chat model that was trained in plain prompts is answered, and measured, in plain prompts."""
    from isara.build import build_run

    settings = options(*FAST, "prompt_format=plain", "engine.dtype=float32", "generate.accept=0")
    code, _, err = isara("run", "--model", tiny_chat, "--seeds", seeds, "--out", "run", "--heldout", "0.3", *settings)
    assert code == 0, err
    parts = build_run(tmp_path / "run")
    assert parts.renderer.format.name == "plain" and parts.config.engine.dtype == "float32"
    assert len(parts.seeds) == 5 and part_key(parts.embedder) == "lexical-1024"
    code, out, err = isara("answer", "Is it far?", "--model", "run", "--demos", "2")
    assert (code, err) == (0, "") and out.startswith("Question: Is it far?")
    code, out, err = isara("evaluate", "run", "--format", "chat", "--limit", "1")
    assert code == 0 and "chat" in out + err and "plain" in out + err

    monkeypatch.setattr("sys.stdin", StringIO("/demos\n\nIs it far?\n/demos\n"))
    code, out, err = isara("chat", "run", "--demos", "2")
    assert code == 0
    assert out.splitlines()[0] == "no pairs stood before a question yet: ask one, with --demos 5 or so"
    assert out.index("base: ") < out.index("base after 2 pairs: ") < out.index("aligned: ")
    shown = [pair for pair in parts.seeds if pair.question in " ".join(out.split())]
    assert len(shown) == 2 and all(f"→ {pair.answer}" in " ".join(out.split()) for pair in shown)
    assert err.startswith("A line is a question and stands alone: no earlier one is sent with it. Ctrl-D ends.\n")
    assert "The aligned model is" in err and "others than" not in err


def test_a_runs_reader_is_asked_after_its_pairs(isara: Command, tiny_llama: Path, seeds: Path, tmp_path: Path) -> None:
    shared = ["--model", tiny_llama, "--seeds", seeds, "--heldout", "0.3", *options(*FAST)]
    reads = options("answers.from=reader", "answers.demos=2", "answers.max_new_tokens=4")
    assert isara("generate", "--out", "run", *shared, *reads)[0] == 0
    code, out, err = isara("answer", "Is it far?", "--model", "run", "--reader")
    assert (code, err) == (0, "") and out.startswith("Question: Is it far?\nAnswer:")
    from isara.build import build_run
    from isara.verbs import answer

    parts = build_run(tmp_path / "run", reader=True)
    [draw] = answer(parts, ["Is it far?"], parts.config.answers.demos)
    assert parts.model.endswith("reader/train/model") and draw is not None and len(draw.demo_ids) == 2
    assert draw.text in out
    assert isara("generate", "--out", "plain", *shared)[0] == 0
    for model, message in (
        ("plain", "isara: expected a reader in plain, found none: a run has one where questions.from or answers.from"),
        (tiny_llama, "isara: --reader: expected a run folder, which has one, as --model: name it\n"),
    ):
        code, _, err = isara("answer", "Is it far?", "--model", model, "--reader")
        assert code == 1 and err.startswith(message)


def test_answers_stand_side_by_side_where_there_is_room(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from isara.cli.chat import _side_by_side
    from isara.records import Draw

    answers = {"base": Draw("[red]No\x1b[2J", 1, "stop", "", 0), "aligned": None}
    for width, beside in ((120, True), (80, False)):
        Console(width=width).print(_side_by_side(answers, width))
        out = capsys.readouterr().out
        assert "[red]No\ufffd[2J" in out and "does not fit" in out and "\x1b" not in out
        assert any("[red]No" in line and "does not fit" in line for line in out.splitlines()) is beside
