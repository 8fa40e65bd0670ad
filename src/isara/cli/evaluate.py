"""`isara evaluate`: what a model is measured on, from the command line."""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from isara.cli.options import console, say
from isara.errors import ConfigError, RunError

if TYPE_CHECKING:
    from isara.asking import Asker
    from isara.config import Config
    from isara.evaluate.answers import Judges
    from isara.evaluate.benchmarks import Data
    from isara.evaluate.items import Asking
    from isara.evaluate.results import Result
    from isara.evaluate.runner import Task
    from isara.judges.base import PairwiseJudge
    from isara.parts import Parts
    from isara.pool import Pool
    from isara.records import QAPair
    from isara.render import Renderer

TASKS = ("domain", "safety", "truthfulness", "truthfulness-generation", "instructions")
DATA = ("truthfulness", "beavertails", "xstest", "instructions")
# They ship, so `safety` works without a word about judges.
SAFETY_JUDGES = ("offline-harm", "offline-refusal")
_TASK_PARTS = ("name", "items", "key", "judge_key", "answer", "judge", "figures", "values")

_Format = Literal["auto", "plain", "chat"]
_Primer = Literal["harness", "zero-shot"]

Model = Annotated[str, typer.Argument(help="A model folder, a hub name, a run folder, or `embedded`.")]
On = Annotated[
    str,
    typer.Option(help=f"What to measure, by commas: {', '.join(TASKS)}, lm-eval:TASK, or your own MODULE:FUNCTION."),
]
Out = Annotated[
    Path | None, typer.Option(help="Folder for items and figures; by default beside the run or in evaluations/.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Most items of a task, chosen by hash.")]
Heldout = Annotated[Path | None, typer.Option(help="Pairs for `domain`; by default those of the run.")]
Pairs = Annotated[Path | None, typer.Option(help="Pairs to show as demonstrations; by default the run's.")]
Against = Annotated[Path | None, typer.Option(help="Another model's --out folder, to compare with item by item.")]
Demos = Annotated[int, typer.Option(min=0, help="Demonstrations before each question; 0 is zero-shot.")]
DataFiles = Annotated[
    list[str] | None, typer.Option(metavar="NAME=FILE", help=f"A local copy; NAME is one of {', '.join(DATA)}.")
]
Columns = Annotated[
    list[str] | None, typer.Option(metavar="NAME.COLUMN=THEIRS", help="A column that the copy calls otherwise.")
]
JudgeNames = Annotated[
    list[str] | None, typer.Option(help="offline-refusal, offline-harm, or a judge's YAML file; may be repeated.")
]
Compare = Annotated[str | None, typer.Option(help="A judge that compares two answers, for `instructions`.")]
Primer = Annotated[
    _Primer,
    typer.Option(help="What stands before TruthfulQA's questions: lm-evaluation-harness's six pairs, or nothing."),
]
Format = Annotated[
    _Format | None, typer.Option("--format", help="How pairs become text; by default as the run was made, else auto.")
]
Dtype = Annotated[
    str | None,
    typer.Option(help="Of the weights; by default the run's where it names one, else float32: the same everywhere."),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps; by default the run's, else auto.")]
Embedder = Annotated[
    str | None, typer.Option(help="Finds demonstrations and measures nearness; by default the run's, else auto.")
]
TrustRemoteCode = Annotated[
    bool | None, typer.Option(help="Run code that comes with the model; by default as the run was made, else not.")
]
TaskFiles = Annotated[
    Path | None, typer.Option(help="A folder of task files for lm-eval:TASK instead of the harness's own.")
]


@dataclass(frozen=True, slots=True)
class _Options:
    """The command line, read."""

    config: "Config"
    data: "Data"
    heldout: "list[QAPair]"
    pairs: "list[QAPair]"
    demos: int
    max_new_tokens: int
    judges: tuple[str, ...]
    compare: str | None
    primer: _Primer
    limit: int | None
    task_files: Path | None


def evaluate(
    model: Model,
    on: On = "domain",
    out: Out = None,
    limit: Limit = None,
    heldout: Heldout = None,
    pairs: Pairs = None,
    against: Against = None,
    demos: Demos = 0,
    data: DataFiles = None,
    columns: Columns = None,
    judge: JudgeNames = None,
    compare: Compare = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 256,
    primer: Primer = "harness",
    prompt_format: Format = None,
    dtype: Dtype = None,
    device: Device = None,
    embedder: Embedder = None,
    trust_remote_code: TrustRemoteCode = None,
    task_files: TaskFiles = None,
) -> None:
    """Measure a model on held-out pairs and benchmarks. The same command goes on where it was cut off."""
    names = task_names(on)
    run, folder = find_run(model)
    made, config = opening(run, prompt_format, dtype, device, embedder, trust_remote_code)
    options = _Options(
        config=config,
        data=_data(data or (), columns or ()),
        heldout=_pairs(heldout, run, "heldout.jsonl") if "domain" in names else [],
        pairs=_pairs(pairs, run, "seeds.jsonl"),
        demos=demos,
        max_new_tokens=max_new_tokens,
        judges=tuple(judge or ()),
        compare=compare,
        primer=primer,
        limit=limit,
        task_files=task_files,
    )
    place = out or (run / "evaluation" if run else Path("evaluations") / Path(folder).name)
    renderer = _renderer(folder, config)
    if run:
        for line in contradictions(folder, made, config, dtype, renderer):
            say(line)
    _run_and_print(model, _asker(folder, config, renderer), names, options, place, against)


def _run_and_print(
    model: str, asker: "Asker", names: Sequence[str], options: _Options, place: Path, against: Path | None
) -> None:
    from isara.cli.progress import Steps
    from isara.evaluate.comparison import compare_items, comparison_table, keep_comparison, left_out
    from isara.evaluate.table import table
    from isara.report.evaluation import name_model, refresh_page

    tasks = _tasks([name for name in names if not name.startswith("lm-eval:")], options)

    def finished(result: "Result") -> None:
        name_model(place, model)
        refresh_page(place)

    with Steps(console(stderr=True), "loading") as told:
        results = _measure(
            asker,
            tasks,
            options,
            place,
            lambda task, stage, done, total: told(done, total, f"{task}: {stage}"),
            finished,
        )
        for name in names:
            if name.startswith("lm-eval:"):
                told(0, 0, name)
                results.append(_harness(asker.model, name, options, place))
                finished(results[-1])
    console().print(table(model, results))
    if against:
        compared = compare_items(tasks, place, against)
        keep_comparison(compared, place, against)
        refresh_page(place)
        console().print(comparison_table(compared, against))
        if alone := left_out(tasks, place, against):
            say(f"Not compared, since only one of both has it: {'; '.join(alone)}")
    say(f"Every item is kept in {place}; report.html shows them.")


def task_names(on: str) -> list[str]:
    """The tasks named, by commas.

    Raises:
        ConfigError: There is no such task.
    """
    names = [name.strip() for name in on.split(",") if name.strip()]
    for name in names or [on]:
        if name not in TASKS and not re.fullmatch(r"lm-eval:.+|(?!lm-eval:).+:\w+", name):
            near = difflib.get_close_matches(name, TASKS, n=1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"choose from {', '.join(TASKS)}, lm-eval:TASK and your own MODULE:FUNCTION"
            )
            raise ConfigError(f"expected the name of a task after --on, found {name!r}: {hint}")
    return list(dict.fromkeys(names))


def task_for(name: str, parts: "Parts", data: Sequence[str], judges: Sequence[str], compare: str | None) -> "Task":
    """One task for the models of a comparison: on its held-out pairs, or on benchmarks.

    Raises:
        ConfigError: A judge is missing, or there is no such task.
        SeedError: A benchmark can't be had.
    """
    options = _Options(
        config=parts.config,
        data=_data(data, ()),
        heldout=list(parts.heldout),
        pairs=list(parts.seeds),
        demos=0,
        max_new_tokens=parts.config.answers.max_new_tokens,
        judges=tuple(judges),
        compare=compare,
        primer="harness",
        limit=None,
        task_files=None,
    )
    return _tasks([name], options)[0]


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
            "iteration-NN/train/model folders"
        )
    return run, find_model(str(run / "final"))


def opening(
    run: Path | None,
    prompt_format: _Format | None = None,
    dtype: str | None = None,
    device: str | None = None,
    embedder: str | None = None,
    trust_remote_code: bool | None = None,
) -> "tuple[Config, Config]":
    """The config that the run was made with (the defaults for a plain model), and the one to open the model with.

    A flag that was given goes before the run's own value. The dtype is float32 where neither names one, so that the
    figures don't depend on the machine.

    Raises:
        ConfigError: The run's config can't be read, or a flag has no meaning.
    """
    from isara.config import load_config

    path = run / "isara.yaml" if run else None
    made = load_config(path)
    own = made.engine.dtype
    engine = {
        "dtype": dtype or ("float32" if own == "auto" else own),
        "device": device,
        "trust_remote_code": trust_remote_code,
    }
    retrieve = {} if embedder is None else {"embedder": embedder}
    return made, load_config(path, prompt_format=prompt_format, engine=_given(engine), retrieve=retrieve)


def contradictions(model: str, made: "Config", config: "Config", dtype: str | None, renderer: "Renderer") -> list[str]:
    """A line for each flag that measures a run in another way than it was made: that is a choice, and it is said."""
    given = renderer.format.name
    same = config.prompt_format == made.prompt_format
    found = [
        ("--format", given, given if same else _renderer(model, made).format.name),  # "auto" may mean what was given
        ("--dtype", dtype or made.engine.dtype, made.engine.dtype),
        ("--embedder", config.retrieve.embedder, made.retrieve.embedder),
    ]
    return [f"{flag} {value} was given; the run was made with {own}" for flag, value, own in found if value != own]


def own_task(place: str) -> "Task":
    """The task that a function of the user's own returns.

    Raises:
        ConfigError: There is no such function, or it returns no task.
    """
    from isara.own import load_part

    module, _, name = place.rpartition(":")
    file = Path(module if module.endswith(".py") else module.replace(".", "/") + ".py")
    found = load_part(f"{file.resolve()}:{name}" if file.is_file() else place, "--on", "into the working directory")
    if not callable(found):
        raise ConfigError(f"expected a function that returns a task at {place}, found {found!r}: name the function")
    task: Task = found()
    lacks = [part for part in _TASK_PARTS if not hasattr(task, part)]
    if lacks:
        raise ConfigError(
            f"expected a task from {place}, found {type(task).__name__} without {', '.join(lacks)}: "
            "return an isara.evaluate.runner.SimpleTask"
        )
    if task.name in TASKS or not re.fullmatch(r"\w[\w.-]*", task.name):
        raise ConfigError(
            f"expected a new name of letters, digits, - and . for the task of {place}, found {task.name!r}: it is the "
            "name of a folder, too; choose another"
        )
    return task


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _renderer(model: str, config: "Config") -> "Renderer":
    from isara.render import open_renderer

    return open_renderer(model, config.prompt_format, config.engine.trust_remote_code)


def _asker(model: str, config: "Config", renderer: "Renderer") -> "Asker":
    from isara.asking import Asker
    from isara.build import build_measuring_engine

    return Asker(build_measuring_engine(config), model, renderer)


def _measure(
    asker: "Asker",
    tasks: "Sequence[Task]",
    options: _Options,
    out: Path,
    watch: Callable[[str, str, int, int], None],
    finished: "Callable[[Result], None]",
) -> "list[Result]":
    from isara.evaluate.runner import run_tasks
    from isara.models import weights_hash

    engine = options.config.engine
    settings: dict[str, Any] = (
        {"dtype": engine.dtype} if engine.use is None else {"engine": [engine.use, engine.options]}
    )
    if engine.kind == engine.evaluate_with == "server":
        settings = {"engine": [engine.kind, engine.serve, engine.served_model, engine.prompt]}
    if engine.kind == engine.evaluate_with == "vllm":
        settings = {"engine": [engine.kind, engine.dtype, engine.options]}
    weights = weights_hash(asker.model)
    return run_tasks(
        asker, tasks, out, weights=weights, settings=settings, limit=options.limit, watch=watch, finished=finished
    )


def _harness(model: str, name: str, options: _Options, out: Path) -> "Result":
    from isara.evaluate.harness import PREFIX, HarnessOptions, run_harness
    from isara.models import weights_hash

    engine = options.config.engine
    how = HarnessOptions(options.limit, engine.dtype, engine.device, engine.trust_remote_code, options.task_files)
    return run_harness(model, name.removeprefix(PREFIX), out, weights_hash(model), how)


def _tasks(names: Sequence[str], options: _Options) -> "list[Task]":
    """The tasks by their names; data and judges are read only for those that are asked for."""
    from isara.evaluate.domain import Domain
    from isara.evaluate.instructions import Instructions
    from isara.evaluate.safety import Safety
    from isara.evaluate.truthfulness import Truthfulness, TruthfulnessGeneration

    pool = _pool(options) if options.demos or "domain" in names else None
    asking = _asking(options, pool)
    data = options.data

    def domain() -> "Task":
        assert pool is not None, "made above"
        demos = (options.demos or options.config.evaluate.demos) if options.pairs else 0
        return Domain(options.heldout, pool, demos, asking, _judges(options.judges))

    makers: dict[str, Callable[[], Task]] = {
        "domain": domain,
        "safety": lambda: Safety(data.beavertails() + data.xstest(), _judges(options.judges or SAFETY_JUDGES), asking),
        "truthfulness": lambda: Truthfulness(data.truthfulness(), options.primer),
        "truthfulness-generation": lambda: TruthfulnessGeneration(data.truthfulness(), _judges(options.judges), asking),
        "instructions": lambda: Instructions(data.instructions(), _comparing(options.compare), asking),
    }
    tasks = [makers[name]() if name in makers else own_task(name) for name in names]
    called = [task.name for task in tasks]
    for name in called:
        if called.count(name) > 1:
            raise ConfigError(f"expected tasks with names of their own, found {called.count(name)} called {name!r}")
    return tasks


def _pool(options: _Options) -> "Pool":
    from isara.embedders import find_embedder
    from isara.pool import Pool

    return Pool(find_embedder(options.config.retrieve.embedder), options.pairs)


def _asking(options: _Options, pool: "Pool | None") -> "Asking":
    from isara.evaluate.items import Asking, asking_nearest

    if not options.demos:
        return Asking(options.max_new_tokens)
    if not options.pairs:
        raise ConfigError(f"--demos {options.demos} needs pairs to show, and none were given: name them with --pairs")
    assert pool is not None, "demonstrations come from one"
    return asking_nearest(options.max_new_tokens, pool, options.demos)


def _judges(specs: Sequence[str]) -> "Judges":
    from isara.build.judges import read_judge

    judges = [read_judge(spec) for spec in specs]
    kinds = [judge.kind for judge in judges]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise ConfigError(f"expected one judge of a kind, found {kinds.count(kind)} of {kind}: leave one out")
    return {judge.kind: judge for judge in judges}


def _comparing(spec: str | None) -> "PairwiseJudge":
    from isara.build.judges import read_pairwise

    if spec is None:
        raise ConfigError("`instructions` needs a judge that compares two answers, found none: name it with --compare")
    return read_pairwise(spec)


def _pairs(file: Path | None, run: Path | None, name: str) -> "list[QAPair]":
    """The pairs of a file, else the run's own."""
    from isara.data import read_pairs
    from isara.files import damaged, read_rows
    from isara.records import QAPair

    if file or not run:
        return read_pairs(file) if file else []
    try:
        return [QAPair.from_json(row) for row in read_rows(run / name)]
    except (KeyError, TypeError, ValueError):
        raise damaged(run / name) from None


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
