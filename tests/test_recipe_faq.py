"""The recipe that reads its pairs from an installed package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MAKE = Path(__file__).parents[1] / "recipes" / "faq" / "make.py"


def make(out: Path, *options: str, isolated: bool = False) -> subprocess.CompletedProcess[str]:
    flags = ["-S"] if isolated else []  # without site-packages
    return subprocess.run(
        [sys.executable, *flags, str(MAKE), "--out", str(out), *options], capture_output=True, text=True, check=False
    )


def test_without_the_package_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    done = make(tmp_path / "faq", isolated=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "pip install zaragoza-construction-faq" in done.stderr
    assert not (tmp_path / "faq").exists()


def test_whole_categories_are_held_out_and_languages_have_the_same_pairs(tmp_path: Path) -> None:
    pytest.importorskip("zaragoza_construction_faq")
    ids = {}
    for language in ("en", "sv"):
        assert make(tmp_path / language, "--language", language).returncode == 0
        files = (tmp_path / language / f"{name}.jsonl" for name in ("seeds", "heldout"))
        seeds, heldout = ([json.loads(line) for line in file.read_text("utf-8").splitlines()] for file in files)
        assert (len(seeds), len(heldout)) == (64, 100)
        assert not {row["category"] for row in seeds} & {row["category"] for row in heldout}
        assert not {row["question"] for row in seeds} & {row["question"] for row in heldout}
        ids[language] = [row["id"] for row in seeds + heldout]
    assert ids["en"] == ids["sv"]
