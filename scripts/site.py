"""Builds the documentation site: `python scripts/site.py FOLDER`, or `make docs` for `site/`.

The pages keep their places (README.md, docs/, recipes/…), so the links that work in the repository work in the site.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import isara

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "recipes/*/README.md", "results/README.md")


def pages() -> list[Path]:
    """Every page of the site that is a file of the repository."""
    return sorted(path for pattern in PAGES for path in ROOT.glob(pattern))


def linked(page: Path) -> set[Path]:
    """The files of the repository that a page links to."""
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    return {path for target in targets if (path := (page.parent / target).resolve()).is_file()}


def deeper(text: str) -> str:
    """The page with lists indented by four, which Python-Markdown asks for; code stays as it is."""
    parts = re.split(r"(^```.*?^```)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else re.sub(r"^  (?=\S)", "    ", part, flags=re.M) for part in parts)


def reference() -> str:
    """A page of what the package exports, by docstrings: functions first."""
    names = sorted(isara.__all__, key=lambda name: (name[0].isupper(), name))
    lines = ["# Every name of the package", *(f"::: isara.{name}" for name in names)]
    return "\n\n".join([*lines, "::: isara.protocols", "::: isara.testing", ""])


def gather(folder: Path) -> None:
    """Copies the pages and what they link to."""
    for path in sorted({*pages(), *(file for page in pages() for file in linked(page))}):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            copy.write_text(deeper(path.read_text()))
        else:
            shutil.copyfile(path, copy)
    (folder / "reference.md").write_text(reference())
    for path in ("scripts/iframe-worker.js", "llms.txt"):
        shutil.copy(ROOT / path, folder)


def main(out: Path) -> int:
    """Builds the site into a folder and returns the exit code, which is 1 where a link or an anchor is broken."""
    with TemporaryDirectory() as name:
        work = Path(name)
        gather(work / "pages")
        shutil.copyfile(ROOT / "zensical.toml", work / "zensical.toml")
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        if subprocess.run(command, cwd=work, env=environment).returncode:
            return 1
        for page in (work / "pages").rglob("*.md"):  # what programs read
            shutil.copyfile(page, work / "site" / page.relative_to(work / "pages"))
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(work / "site", out)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
