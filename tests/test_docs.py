"""Documentation that can rot is held by these."""

import gzip
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import isara
from isara.cli import main as cli
from isara.config import fields, load_config
from isara.generate import ADVICE
from isara.scaffold import write_scaffold
from tests.browser import Browser

ROOT = Path(__file__).parents[1]
NETWORK = "<!-- needs a network -->"  # before a block that can't run in a test
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *ROOT.glob("recipes/*/README.md"),
    ROOT / "results/README.md",
]


def test_every_verb_is_documented() -> None:
    page = (ROOT / "docs/commands.md").read_text()
    verbs = [command.name or getattr(command.callback, "__name__", "") for command in cli.app.registered_commands]
    assert {"run", "show", "evaluate"} <= set(verbs)
    for verb in [*verbs, "judge check", "judge list", "seeds check", "models list", "models check"]:
        assert f"`isara {verb} " in page or f"`isara {verb}`" in page, verb


def test_every_filter_reason_is_documented() -> None:
    sources = [path.read_text() for path in (ROOT / "src/isara/filters").glob("*.py")]
    reasons = {reason for text in sources for reason in re.findall(r"Rejection\(\s*\"(\w+)\"", text)}
    page = (ROOT / "docs/filters.md").read_text()
    assert {"novelty", "copied", "truncated"} <= reasons
    for reason in reasons:
        assert f"`{reason}`" in page, reason


def test_advice_names_real_reasons() -> None:
    page = (ROOT / "docs/filters.md").read_text()
    for reason in ADVICE:
        assert f"`{reason}`" in page, reason


@pytest.mark.parametrize("page", [*PAGES, ROOT / "llms.txt"], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text()):
        if not target.startswith(("http", "mailto:")):
            there = page.parent / target if target else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """Those of a page's headings, as GitHub makes them; the site's own generator holds its links against its own."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = [re.sub(r"\]\([^)]*\)", "", heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_of_docs_is_in_the_list_for_programs() -> None:
    listed = set(re.findall(r"\]\(docs/([^)#]+)\)", (ROOT / "llms.txt").read_text()))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")}


def blocks_of(page: Path, *languages: str) -> list[str]:
    """The page's fenced blocks of these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for language, text in found if language in languages]


def command_lines(page: Path) -> list[list[str]]:
    """The arguments of each `isara` of the page's shell blocks; what a synopsis has in brackets is taken along."""
    lines = "\n".join(blocks_of(page, "", "bash", "sh")).replace("\\\n", " ").splitlines()
    calls = [re.sub(r" \[(--\w+ \w+)\]", r" \1", line) for line in lines if line.startswith("isara ")]
    words = [shlex.split(call, comments=True)[1:] for call in calls]
    return [list(takewhile(lambda word: word not in {"|", ">", "&&"}, line)) for line in words]


def verb_of(words: list[str]) -> tuple[Any, list[str]]:
    """The verb's command, and what is left of the words."""
    command: Any = typer.main.get_command(cli.app)
    while words and hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_parses(page: Path) -> None:
    keys = {key for key, _ in fields()}
    for words in command_lines(page):
        command, arguments = verb_of(words)
        values = command.make_context(command.name, list(arguments)).params
        for override in values.get("overrides") or ():
            assert override.split("=")[0] in keys, words


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_prose_calls_a_command_is_one(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for call in re.findall(r"`isara ([a-z][^`]*)`", prose):
        command, _ = verb_of(re.findall(r"^[a-z ]+", call)[0].split())
        options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        assert set(re.findall(r"(?<=\s)--[\w-]+", call)) <= options, call


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_yaml_block_is_a_config(page: Path, tmp_path: Path) -> None:
    (tmp_path / "my_filters.py").write_text("def no_prices(candidate, kept): ...\n")
    for block in blocks_of(page, "yaml"):
        if not {"judge", "apiVersion"} & yaml.safe_load(block).keys():
            (tmp_path / "isara.yaml").write_text(block)
            load_config(tmp_path)


def test_the_readme_commands_are_targets_of_the_makefile() -> None:
    commands = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(commands) == {"quickstart", "test"} and set(commands) <= set(targets)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what is to be distributed, a checkout says")
def test_the_source_distribution_holds_all_that_a_checkout_does() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = settings["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    by_itself = ["/pyproject.toml", "/.gitignore"]  # what hatchling adds
    assert sorted([*included, *by_itself]) == sorted({f"/{path.split('/')[0]}" for path in tracked.splitlines()})


def python_blocks() -> list[tuple[str, str]]:
    """(where it stands, its text) of every Python block of README and docs."""
    return [
        (f"{page.name} block {number}", block)
        for page in PAGES
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), 1)
    ]


def without_network(blocks: list[tuple[str, str]]) -> list[tuple[str, str]]:
    marked = [
        text for page in PAGES for text in re.findall(rf"{NETWORK}\n```python\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    return [(where, block) for where, block in blocks if block not in marked]


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the folder `my-domain` that the blocks speak of, set so that a run takes seconds."""
    here = tmp_path_factory.mktemp("reader")
    write_scaffold(here / "my-domain", "embedded")
    small = {"generate": {"accept": 2, "batch": 8, "min_yield": 0.0}, "questions": {"demos": 2, "max_new_tokens": 24}}
    lenient = {"filters": {"form": False, "truncated": False, "run_on": False, "copied": None, "repetition": None}}
    options = {"iterations": 1, "heldout": 0.1, "answers": {"demos": 2, "max_new_tokens": 16}, **small, **lenient}
    options |= {"train": {"num_train_epochs": 0.1}, "retrieve": {"embedder": "lexical"}}
    (here / "my-domain/isara.yaml").write_text(yaml.safe_dump(options))
    (here / "faq.csv").write_text("frage,antwort\nWo ist Hyrule?,Gleich hinter dem Wald.\n")
    judged = {"judge": "Zelda", "generator_1": "Impa", "generator_2": "Link", "preference": 1.0}
    with gzip.open(here / "judged_pairs.jsonl.gz", "wt") as file:
        file.write(json.dumps({**judged, "output_1": "Yes.", "output_2": "Hyaa!"}) + "\n")
    return here


def test_every_python_block_runs(domain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(domain)
    blocks = without_network(python_blocks())
    assert len(blocks) >= 10
    for where, block in blocks:
        path = domain / f"{where.replace(' ', '-')}.py"
        path.write_text(block)
        exec(compile(block, str(path), "exec"), {"__name__": "__main__", "__file__": str(path)})


def test_the_commands_for_programs_run(domain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(domain)
    page = ROOT / "docs/agents.md"
    lines = command_lines(page)
    assert len(lines) >= 6
    for words in lines:
        assert not cli.app(words, standalone_mode=False), words
    for name in re.findall(r"^\| `RUN/([^`]+)` \|", page.read_text(), re.MULTILINE):
        assert (domain / "runs/my-domain" / name).is_file(), name


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_tutorial_is_what_happens(tmp_path: Path) -> None:
    page = ROOT / "docs/tutorial.md"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "isara"]
    for words in command_lines(page):
        keys = "a\n" * 5 if "--terminal" in words else ""
        done = subprocess.run(
            [*command, *words], cwd=tmp_path, env=environment, input=keys, capture_output=True, text=True
        )
        refused = "--to" in words and words[words.index("--to") + 1] in {"gguf", "ollama"}  # as the page says
        assert done.returncode == int(refused), (words, done.stdout, done.stderr)
        if words[0] == "init":
            shutil.copy(ROOT / "examples/lending/seeds.jsonl", tmp_path / "lending/seeds.jsonl")
            (tmp_path / "lending/isara.yaml").write_text(blocks_of(page, "yaml")[0])
    assert (tmp_path / "runs/lending/final/isara.json").is_file()


def test_every_python_block_passes_mypy(tmp_path: Path) -> None:
    for number, (_, block) in enumerate(python_blocks()):
        (tmp_path / f"block_{number}.py").write_text(block)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    done = subprocess.run([*command, *map(str, tmp_path.glob("*.py"))], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_imported_from_the_package_is_documented() -> None:
    page = (ROOT / "docs/python.md").read_text()
    assert [name for name in isara.__all__ if f"`{name}`" not in page] == []
    assert all(getattr(isara, name) for name in isara.__all__)


def test_every_message_of_the_troubleshooting_is_one_of_ours() -> None:
    sources = [path.read_text() for path in (ROOT / "src/isara").rglob("*.py")]
    joined = [re.sub(r"\"\s*\n\s*f?\"", "", source) for source in sources]  # a message over several lines is one text
    messages = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(messages) > 30
    for message in messages:
        pattern = r".{1,80}?".join(re.escape(part.strip()) for part in message.split("…") if part.strip())
        assert any(re.search(pattern, source) for source in joined), message


def test_what_others_call_their_options_leads_to_ours() -> None:
    keys = {key for key, _ in fields()}
    rows = re.findall(r"^\| (.+) \| (.+) \|$", (ROOT / "docs/coming-from.md").read_text(), re.MULTILINE)
    for theirs, ours in rows[1:]:
        same = re.findall(r"`(\w+)`", theirs) if "the same name under `train`" in ours else []
        named = [text.split(":")[0] for text in re.findall(r"`([\w.]+(?:: \w+)?)`", ours)]
        for key in (*(f"train.{name}" for name in same), *(set(named) - {"train", "isara", "qlora"})):
            assert key in keys, (theirs, key)


def test_a_training_file_of_openai_is_read_as_it_is(tmp_path: Path) -> None:
    ask = {"role": "user", "content": "Wer hat das Schwert?"}
    system = {"role": "system", "content": "You are a helpful guide to Hyrule."}
    again = {"role": "user", "content": "Seit wann?"}
    told = [{"role": "assistant", "content": text} for text in ("Link hat es.", "Seit er in den Wald kam.")]
    rows = [{"messages": [system, ask, told[0]]}, {"messages": [ask, told[0], again, {**told[1], "weight": 1}]}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert isara.read_pairs(tmp_path / "train.jsonl") == [
        isara.QAPair("Wer hat das Schwert?", "Link hat es."),
        isara.QAPair("Seit wann?", "Seit er in den Wald kam.", before=(("Wer hat das Schwert?", "Link hat es."),)),
    ]


SITE = importlib.util.find_spec("zensical") and importlib.util.find_spec("mkdocstrings")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, str(ROOT / "scripts/site.py"), str(folder)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.skipif(not SITE, reason="needs the extra docs")
def test_the_site_holds_every_page(site: Path) -> None:
    home = (site / "index.html").read_text()
    for page in PAGES:
        path = page.relative_to(ROOT)
        address = str(path.with_name("index.html") if path.name == "README.md" else path.with_suffix(".html"))
        assert (site / address).is_file() and (site / path).is_file()
        if address != "index.html":
            assert f'href="./{address}"' in home, f"{address} is not in the navigation of zensical.toml"
    reference = (site / "reference.html").read_text()
    assert [name for name in isara.__all__ if f'id="isara.{name}"' not in reference] == []


@pytest.mark.skipif(not SITE, reason="needs the extra docs")
def test_the_site_is_searched_from_disk_and_asks_for_nothing(site: Path, browser: Browser) -> None:
    browser.fresh((site / "docs/filters.html").as_uri())
    browser.run("document.querySelector('.md-search__button, [for=__search]').click()")
    box = "document.activeElement.shadowRoot"
    assert browser.settle(f"return Boolean({box}?.querySelector('input'))", True) is True
    for typed in ("c", "cu", "cuc", "cucc", "cucco"):
        browser.press(typed[-1])
        assert browser.settle(f"return {box}.querySelector('input').value", typed) == typed
    found = f"return [...{box}.querySelectorAll('a')].some(a => a.href.includes('algorithm.html?h=cucco'))"
    assert browser.settle(found, True) is True
    assert [request for request in browser.requests() if not request.startswith(("file:", "data:"))] == []
    assert browser.log("browser") == []


def test_the_capacity_on_paper_is_what_its_script_counts() -> None:
    script = ROOT / "benchmarks/capacity.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout in (ROOT / "docs/scale.md").read_text()
    one = subprocess.run([sys.executable, script, "7.6e9:1", "7.6e9:2"], capture_output=True, text=True, check=True)
    # 3 x 512 candidates, a question's prompt and an answer's of 400 tokens each, 2 operations a weight.
    prompts = 3 * 512 * 2 * 400 * 2 * 7.6e9 / (0.4 * 989e12)
    assert one.stdout.splitlines()[2].startswith(f"| 7.6 B | 1 | {prompts:.0f} |")
    assert one.stdout.splitlines()[3].startswith(f"| 7.6 B | 2 | {prompts / 2:.0f} |")
