"""Documentation that can rot is held by these."""

import re
from pathlib import Path

import pytest

from isara import cli
from isara.loop import ADVICE

ROOT = Path(__file__).parents[1]
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
    for verb in [*verbs, "judge check", "judge list"]:
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


def test_the_readme_example_is_real_python(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        imports = [line for line in block.splitlines() if line.startswith(("from ", "import "))]
        exec("\n".join(imports), {})
        compile(block, "README.md", "exec")
