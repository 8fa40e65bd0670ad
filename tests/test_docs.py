"""Documentation that can rot is held by these."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import isara
from isara.cli import main as cli
from isara.generate import ADVICE
from isara.scaffold import write_scaffold

ROOT = Path(__file__).parents[1]
NETWORK = "<!-- needs a network -->"  # before a block that can't run in a test
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *ROOT.glob("recipes/*/README.md"),
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


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http", "mailto:")):
            assert (page.parent / target).exists(), target


def test_the_readme_commands_are_targets_of_the_makefile() -> None:
    commands = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(commands) == {"quickstart", "test"} and set(commands) <= set(targets)


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
