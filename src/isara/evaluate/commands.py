"""`isara evaluate`: what a model is measured on, from the command line."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from isara.errors import ConfigError, RunError

if TYPE_CHECKING:
    from isara.data import QAPair
    from isara.evaluate.answers import Judges
    from isara.evaluate.benchmarks import Data
    from isara.evaluate.items import Asking
    from isara.evaluate.runner import Result, Task
    from isara.judges.base import PairwiseJudge
    from isara.pool import Pool

TASKS = ("domain", "safety", "truthfulness", "truthfulness-generation", "instructions")
DATA = ("truthfulness", "beavertails", "xstest", "instructions")
# Demonstrations for the likelihood that `domain` reports beside the zero-shot one, where --demos names no other number.
DOMAIN_DEMOS = 5
# They ship, so `safety` works without a word about judges.
SAFETY_JUDGES = ("offline-harm", "offline-refusal")


@dataclass(frozen=True, slots=True)
class _Options:
    """The command line, read."""

    data: "Data"
    heldout: "list[QAPair]"
    pairs: "list[QAPair]"
    demos: int
    max_new_tokens: int
    judges: tuple[str, ...]
    compare: str | None
    primer: Literal["harness", "zero-shot"]
    embedder: str
    limit: int | None
    prompt_format: Literal["auto", "plain", "chat"]
    dtype: str
    device: str
    task_files: Path | None


def evaluate(
    model: Annotated[str, typer.Argument(help="A model folder, a hub name, a run folder, or `embedded`.")],
    on: Annotated[str, typer.Option(help=f"What to measure, by commas: {', '.join(TASKS)}, lm-eval:TASK.")] = "domain",
    out: Annotated[
        Path | None, typer.Option(help="Folder for items and figures; by default beside the run or in evaluations/.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most items of a task, chosen by hash.")] = None,
    heldout: Annotated[Path | None, typer.Option(help="Pairs for `domain`; by default those of the run.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Pairs to show as demonstrations; by default the run's.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another model's --out folder, to compare with item by item.")
    ] = None,
    demos: Annotated[int, typer.Option(min=0, help="Demonstrations before each question; 0 is zero-shot.")] = 0,
    data: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help=f"A local copy; NAME is one of {', '.join(DATA)}.")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option(metavar="NAME.COLUMN=THEIRS", help="A column that the copy calls otherwise.")
    ] = None,
    judge: Annotated[
        list[str] | None, typer.Option(help="offline-refusal, offline-harm, or a judge's YAML file; may be repeated.")
    ] = None,
    compare: Annotated[str | None, typer.Option(help="A judge that compares two answers, for `instructions`.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 256,
    primer: Annotated[
        Literal["harness", "zero-shot"],
        typer.Option(help="What stands before TruthfulQA's questions: lm-evaluation-harness's six pairs, or nothing."),
    ] = "harness",
    prompt_format: Annotated[
        Literal["auto", "plain", "chat"], typer.Option("--format", help="How pairs become text.")
    ] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Of the weights; float32 gives the same numbers everywhere, auto is faster.")
    ] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    task_files: Annotated[
        Path | None, typer.Option(help="A folder of task files for lm-eval:TASK instead of the harness's own.")
    ] = None,
    embedder: Annotated[str, typer.Option(help="Finds demonstrations and measures nearness.")] = "auto",
) -> None:
    """Measure a model on held-out pairs and benchmarks. The same command goes on where it was cut off."""
    from rich.console import Console

    from isara.evaluate.comparison import compare_items, comparison_table
    from isara.evaluate.table import table

    names = task_names(on)
    run, folder = find_run(model)
    options = _Options(
        data=_data(data or (), columns or ()),
        heldout=_pairs(heldout, run, "heldout.jsonl") if "domain" in names else [],
        pairs=_pairs(pairs, run, "seeds.jsonl"),
        demos=demos,
        max_new_tokens=max_new_tokens,
        judges=tuple(judge or ()),
        compare=compare,
        primer=primer,
        embedder=embedder,
        limit=limit,
        prompt_format=prompt_format,
        dtype=dtype,
        device=device,
        task_files=task_files,
    )
    place = out or (run / "evaluation" if run else Path("evaluations") / Path(folder).name)
    tasks = _tasks([name for name in names if name in TASKS], options)
    console = Console()
    with console.status("loading") as status:
        results = _measure(folder, tasks, options, place, lambda *progress: status.update(_progress(*progress)))
        results += _harness(folder, [name for name in names if name not in TASKS], options, place)
    console.print(table(model, results))
    if against:
        console.print(comparison_table(compare_items(tasks, place, against), against))
    typer.echo(f"Every item is kept in {place}")


def task_names(on: str) -> list[str]:
    """The tasks named, by commas.

    Raises:
        ConfigError: There is no such task.
    """
    names = [name.strip() for name in on.split(",") if name.strip()]
    for name in names or [on]:
        if name not in TASKS and not (name.startswith("lm-eval:") and name != "lm-eval:"):
            near = difflib.get_close_matches(name, TASKS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(TASKS)} and lm-eval:TASK"
            raise ConfigError(f"expected the name of a task after --on, found {name!r}: {hint}")
    return list(dict.fromkeys(names))


def find_run(model: str) -> tuple[Path | None, str]:
    """The run folder (None for a plain model), and the model to measure: a run's is its `final/`.

    Raises:
        RunError: The run has not exported a model yet.
        ModelError: No such model.
    """
    from isara.models import find_model

    run = Path(model).expanduser()
    if not (run / "isara.yaml").is_file():
        return None, find_model(model)
    if not (run / "final" / "config.json").is_file():
        raise RunError(
            f"the run in {run} has exported no model yet: finish it with `isara run`, or name one of its "
            "iteration-NN/model folders"
        )
    return run, find_model(str(run / "final"))


def _progress(task: str, stage: str, done: int, total: int) -> str:
    return f"{task}: {stage} {done} of {total}"


def _measure(
    model: str, tasks: "Sequence[Task]", options: _Options, out: Path, watch: Callable[[str, str, int, int], None]
) -> "list[Result]":
    from isara.engines.transformers import TransformersEngine
    from isara.evaluate.runner import run_tasks
    from isara.models import weights_hash

    return run_tasks(
        model,
        tasks,
        out,
        engine=lambda name, /: TransformersEngine(
            name, prompt_format=options.prompt_format, dtype=options.dtype, device=options.device
        ),
        weights=weights_hash(model),
        settings={"format": options.prompt_format, "dtype": options.dtype},
        limit=options.limit,
        watch=watch,
    )


def _harness(model: str, names: Sequence[str], options: _Options, out: Path) -> "list[Result]":
    from isara.evaluate.harness import PREFIX, run_harness
    from isara.models import weights_hash

    return [
        run_harness(
            model,
            name.removeprefix(PREFIX),
            out,
            weights=weights_hash(model),
            limit=options.limit,
            dtype=options.dtype,
            device=options.device,
            own=options.task_files,
        )
        for name in names
    ]


def _tasks(names: Sequence[str], options: _Options) -> "list[Task]":
    """The tasks by their names; data and judges are read only for those that are asked for."""
    from isara.evaluate.domain import Domain
    from isara.evaluate.instructions import Instructions
    from isara.evaluate.safety import Safety
    from isara.evaluate.truthfulness import Truthfulness, TruthfulnessGeneration

    asking = _asking(options)
    data = options.data

    def domain() -> "Task":
        demos = (options.demos or DOMAIN_DEMOS) if options.pairs else 0
        return Domain(options.heldout, asking.pool or _pool(options), demos, asking, _judges(options.judges))

    makers: dict[str, Callable[[], Task]] = {
        "domain": domain,
        "safety": lambda: Safety(data.beavertails() + data.xstest(), _judges(options.judges or SAFETY_JUDGES), asking),
        "truthfulness": lambda: Truthfulness(data.truthfulness(), options.primer),
        "truthfulness-generation": lambda: TruthfulnessGeneration(data.truthfulness(), _judges(options.judges), asking),
        "instructions": lambda: Instructions(data.instructions(), _comparing(options.compare), asking),
    }
    return [makers[name]() for name in names]


def _pool(options: _Options) -> "Pool":
    from isara.embedders import find_embedder
    from isara.pool import Pool

    return Pool(find_embedder(options.embedder), options.pairs)


def _asking(options: _Options) -> "Asking":
    from isara.evaluate.items import Asking

    if not options.demos:
        return Asking(options.max_new_tokens)
    if not options.pairs:
        raise ConfigError(f"--demos {options.demos} needs pairs to show, and none were given: name them with --pairs")
    return Asking(options.max_new_tokens, options.demos, _pool(options))


def _judges(specs: Sequence[str]) -> "Judges":
    from isara.judges.build import read_judge

    judges = [read_judge(spec) for spec in specs]
    kinds = [judge.kind for judge in judges]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise ConfigError(f"expected one judge of a kind, found {kinds.count(kind)} of {kind}: leave one out")
    return {judge.kind: judge for judge in judges}


def _comparing(spec: str | None) -> "PairwiseJudge":
    from isara.judges.build import read_pairwise

    if spec is None:
        raise ConfigError("`instructions` needs a judge that compares two answers, found none: name it with --compare")
    return read_pairwise(spec)


def _pairs(file: Path | None, run: Path | None, name: str) -> "list[QAPair]":
    from isara.data import read_pairs

    source = file or (run / name if run else None)
    return read_pairs(source) if source else []


def _data(files: Sequence[str], columns: Sequence[str]) -> "Data":
    from isara.evaluate.benchmarks import Data

    named = dict(_assignment("--data", "NAME=FILE", text) for text in files)
    renamed: dict[str, dict[str, str]] = {}
    for text in columns:
        target, theirs = _assignment("--columns", "NAME.COLUMN=THEIRS", text)
        name, dot, column = target.partition(".")
        if not dot:
            raise _no_assignment("--columns", "NAME.COLUMN=THEIRS", text)
        renamed.setdefault(name, {})[column] = theirs
    for option, names in (("--data", named), ("--columns", renamed)):
        for name in names:
            if name not in DATA:
                raise ConfigError(
                    f"expected one of {', '.join(DATA)} after {option}, found {name!r}: choose one of them"
                )
    return Data({name: Path(path).expanduser() for name, path in named.items()}, renamed)


def _assignment(option: str, form: str, text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise _no_assignment(option, form, text)
    return name, value


def _no_assignment(option: str, form: str, text: str) -> ConfigError:
    return ConfigError(f"expected {option} {form}, found {text!r}: put the name before = and the value after it")
