"""The plan of the house, held by tests: who may know whom, and how large anything may grow."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "isara"
FILES = sorted(path for path in SOURCE.rglob("*.py") if "embedded" not in path.parts)
# From the ground up: a file may import from its own floor and from those below it. A room stands as a whole.
FLOORS = [
    {"errors", "marks", "rouge", "words", "statistics", "temporary", "vectors"},
    {"files", "hardware", "process", "http", "keys", "own", "tables", "templates", "watchdog", "yaml_text"},
    {"records", "watching"},
    {"models", "loading", "gguf", "packaged", "converted", "adapters", "sizes"},
    {"config", "pool", "render", "data", "diversity", "kinds", "nearness"},
    {"protocols", "embedders", "shelf"},
    {"asking", "export", "filters", "seeds", "selection", "testing"},
    {"folder", "generate", "decisions", "preference", "engines", "judges"},
    {"parts", "training", "evaluate"},
    {"stages"},
    {"helpers"},
    {"loop", "verbs"},
    {"report"},
    {"build", "estimate", "scaffold", "preview", "budget", "tracking", "tune"},
    {"compare"},
    {"cli", "isara", "__main__"},
]
MOST_LINES, MOST_PARAMETERS = 60, 8


def module(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "isara"


def imports(path: Path) -> set[str]:
    """The project's own modules that a file imports, wherever in it, for a type checker alone, too."""
    names = {module(other) for other in FILES}
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("isara."):
            base = (node.module or "").removeprefix("isara.")
            found |= {name if (name := f"{base}.{alias.name}") in names else base for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("isara.") for alias in node.names if alias.name.startswith("isara.")}
    return found & names


def floor(name: str) -> int:
    room = name.split(".")[0]
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("path", FILES, ids=module)
def test_no_arrow_goes_back_up(path: Path) -> None:
    own = module(path)
    higher = {name for name in imports(path) if floor(name) > floor(own)}
    assert not higher, f"{own} imports {sorted(higher)} from a floor above it"


def test_there_is_no_circle() -> None:
    graph = {module(path): imports(path) for path in FILES}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " → ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_file_of_the_source_is_ignored() -> None:
    """Else a clone and a package would lack it, while all works here."""
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    names = "\n".join(map(str, FILES))
    try:
        found = subprocess.run(command, input=names, cwd=SOURCE, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no git here")
    if found.returncode == 128:
        pytest.skip("this is no clone")
    assert found.stdout == ""


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module(path)}:{node.name}", node


def test_functions_stay_small() -> None:
    long = [
        name for name, node in functions() if (node.end_lineno or 0) - node.lineno + 1 > MOST_LINES and not _verb(node)
    ]
    assert not long


def test_parameter_lists_stay_short() -> None:
    """Verbs of the command line and constructors are option records: there each parameter is an option."""
    wide = [
        name
        for name, node in functions()
        if len(node.args.args) + len(node.args.kwonlyargs) - _self(node) > MOST_PARAMETERS
        and not _verb(node)
        and node.name != "__init__"
    ]
    assert not wide


def _self(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return sum(arg.arg in ("self", "cls") for arg in node.args.args)


def _verb(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is a verb of the command line: its parameters are typer's."""
    return any(arg.annotation is not None and "Annotated" in ast.unparse(arg.annotation) for arg in node.args.args)
