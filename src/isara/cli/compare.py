"""`isara compare`: is it worth it against what else could be done with the same pairs and model?"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isara.cli.options import needed, say
from isara.errors import ConfigError, RunError, SeedError

if TYPE_CHECKING:
    from isara.compare.arms import Arm
    from isara.compare.compare import Tests as Tested
    from isara.compare.comparison import Comparison
    from isara.compare.guards import Leak
    from isara.compare.tasks import HarnessScore, TaskScore
    from isara.compare.variations import Variation
    from isara.parts import Parts
    from isara.records import QAPair

DEFAULT_ARMS = "zero-shot,icl-knn,sft-seeds-equal,isara"

Recipe = Annotated[Path, typer.Argument(help="An isara.yaml, or the folder that holds one.", show_default=False)]
Arms = Annotated[str, typer.Option(help="The arms, by commas, or `all`; docs/compare.md lists them.")]
Models = Annotated[str | None, typer.Option(help="Models, by commas; by default the recipe's.")]
Out = Annotated[
    Path | None, typer.Option(help="The comparison's folder; by default comparisons/ and the recipe's name.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides one value of the recipe.")
]
Tests = Annotated[
    list[str] | None,
    typer.Option(
        help="Questions of another source to compare on: a file of pairs, or beavertails or xstest, with =FILE for a "
        "copy; may be repeated. By default the held-out pairs."
    ),
]
On = Annotated[
    str | None,
    typer.Option(help="A task of `isara evaluate` as the score, such as safety or lm-eval:TASK; its flags come along."),
]
DataFiles = Annotated[list[str] | None, typer.Option("--data", metavar="NAME=FILE", help="As in `isara evaluate`.")]
JudgeNames = Annotated[list[str] | None, typer.Option("--judge", help="As in `isara evaluate`.")]
Pairwise = Annotated[str | None, typer.Option("--compare", help="As in `isara evaluate`, for `--on instructions`.")]
Limit = Annotated[
    int | None,
    typer.Option("--test-limit", min=1, help="Most questions of each of --tests, or items of --on, chosen by hash."),
]
DropNear = Annotated[
    bool, typer.Option("--drop-near-tests", help="Leave out seed pairs that give a test question away.")
]
HoldOut = Annotated[
    list[str] | None,
    typer.Option(
        "--hold-out-category",
        metavar="COLUMN[=A;B]",
        help="Seeds of some categories, held-out pairs of the others: the categories A and B, and once more for each "
        "further time it is given; without any, --splits comparisons that hold each out once.",
    ),
]
Splits = Annotated[int, typer.Option(min=2, help="Into how many comparisons --hold-out-category deals categories.")]
Keep = Annotated[str | None, typer.Option("--keep-category", help="Categories, by ;, that stay on both sides.")]
Counts = Annotated[str | None, typer.Option("--seed-counts", help="Numbers of seeds to compare with, by commas.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what will run, what arms share and how long it takes, then stop.")
]
Estimated = Annotated[
    bool, typer.Option("--estimate/--no-estimate", help="With --dry-run: measure speeds and say how long it takes.")
]


def compare(
    context: typer.Context,
    recipe: Recipe,
    arms: Arms = DEFAULT_ARMS,
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds: each arm is run with each of them, from 0.")] = 3,
    models: Models = None,
    out: Out = None,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    estimate: Estimated = True,
    tests: Tests = None,
    test_limit: Limit = None,
    on: On = None,
    data: DataFiles = None,
    judge: JudgeNames = None,
    pairwise: Pairwise = None,
    drop_near_tests: DropNear = False,
    hold_out_category: HoldOut = None,
    splits: Splits = 3,
    keep_category: Keep = None,
    seed_counts: Counts = None,
) -> None:
    """Compare the recipe with baselines at the same budget, on its held-out questions.

    The same command goes on where it was cut off; more arms and seeds may be added to a comparison.
    """
    from isara.build import build_parts
    from isara.compare.arms import ARMS, find_arms, in_order
    from isara.compare.variations import by_counts
    from isara.config import load_config

    needed(context, tests or on, "--tests or --on", test_limit="--test-limit")
    needed(context, on, "--on", data="--data", judge="--judge", pairwise="--compare")
    needed(context, hold_out_category, "--hold-out-category", splits="--splits", keep_category="--keep-category")
    needed(context, dry_run, "--dry-run", estimate="--no-estimate")
    if "all" in _names(arms) and len(_names(arms)) > 1:
        raise ConfigError("--arms: `all` is every arm and stands alone: leave the others out, or `all`")
    chosen = list(ARMS) if arms == "all" else find_arms(_names(arms))
    in_order(chosen)
    if sum(map(bool, (tests, on, hold_out_category, seed_counts))) > 1:
        raise ConfigError(
            "expected one of --tests, --on, --hold-out-category and --seed-counts: give each its own --out"
        )
    counts = _numbers(seed_counts) if seed_counts is not None else []
    folder = out or Path("comparisons") / _recipe_name(recipe)
    names = _names(models) if models is not None else [None]
    _each_once("--models", [_folder_name(name) for name in names if name])
    failed = False
    for name in names:
        config = load_config(recipe, overrides or [], model=name)
        place = folder if len(names) == 1 else folder / _folder_name(config.model)
        base = build_parts(config, began=_begun(place))
        for note in base.notes:
            _tell(note)
        asked = _task(on, base, data, judge, pairwise, test_limit) if on else _tests(tests or [], base, test_limit)
        _check_task(asked, chosen)
        work = _Work(chosen, range(seeds), dry_run, estimate, drop_near_tests, asked)
        if hold_out_category:
            failed |= work.vary(_splits(base, hold_out_category, splits, keep_category), place, pooled=True)
        elif counts:
            failed |= work.vary(by_counts(base, counts), place, pooled=False)
        else:
            failed |= work.failed(work.one(base, place))
    if failed:
        raise RunError("some arms failed, as the table says; the same command tries them again")


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done with each model and each choice of pairs."""

    arms: "list[Arm]"
    seeds: range
    dry_run: bool
    estimate: bool
    drop_near: bool
    tests: "Tested | TaskScore | HarnessScore | None"

    def one(self, base: "Parts", out: Path) -> "Comparison | None":
        """A comparison, or with --dry-run its plan."""
        from isara.compare.compare import set_up

        left_out: list[Leak] = []
        if self.drop_near:
            left_out = set_up(base, out, tests=self.tests).guard.leaks(base.seeds)
            base = replace(base, seeds=_without(base.seeds, left_out))
            _tell(f"{len(left_out)} seed pairs near a test question are left out, and {len(base.seeds)} are left")
        if self.dry_run:
            self._plan(base, out)
            return None
        return self._compare(base, out, left_out)

    def vary(self, variations: "Sequence[Variation]", out: Path, pooled: bool) -> bool:
        """The comparisons on other pairs and what they say together; whether an arm failed."""
        from isara.compare.compare import set_up
        from isara.compare.summary import write_summary
        from isara.compare.summary_page import refresh_page

        for variation in variations:  # before the first of them takes hours
            try:
                set_up(variation.base, out / variation.name, tests=self.tests)
            except ConfigError as error:
                raise ConfigError(f"{variation.name} ({variation.about}): {error}") from error
        about = {variation.name: variation.about for variation in variations}
        done: dict[str, Comparison] = {}
        text = ""
        for variation in variations:
            _tell(f"{variation.name}: {variation.about}")
            comparison = self.one(variation.base, out / variation.name)
            if comparison is not None:
                done[variation.name] = comparison
                text = write_summary(out, done, about, pooled)
                refresh_page(out)
        if done:
            say(text)
            say(f"{out / 'summary.md'} holds this summary, report.html shows it, and each folder is a comparison.")
        return any(map(self.failed, done.values()))

    def failed(self, comparison: "Comparison | None") -> bool:
        """Whether an arm did."""
        return comparison is not None and bool(comparison.failures)

    def _plan(self, base: "Parts", out: Path) -> None:
        from isara.compare.compare import set_up
        from isara.compare.plan import plan

        bench = set_up(base, out, tests=self.tests)
        for line in plan(bench, self.arms, self.seeds):
            say(line)
        if self.estimate:
            from isara.compare.ahead import look_ahead, sentences

            _tell(
                "Making a few rows and a few steps of training, to say how long it takes (--no-estimate leaves it out)"
            )
            for line in sentences(look_ahead(bench, self.arms, self.seeds)):
                say(line)

    def _compare(self, base: "Parts", out: Path, left_out: "Sequence[Leak]") -> "Comparison":
        from functools import partial

        from rich.console import Console

        from isara.cli.progress import Bars
        from isara.compare.compare import cell_parts
        from isara.compare.compare import compare as run_all
        from isara.compare.page import refresh_page
        from isara.compare.store import write
        from isara.compare.table import table

        with Bars(Console(stderr=True), base.config.iterations) as bars:
            make = partial(cell_parts, watcher=bars)
            comparison = run_all(
                base, self.arms, self.seeds, out, tests=self.tests, make=make, watcher=bars, tell=_tell
            )
        if left_out:
            comparison = replace(comparison, left_out=left_out)
            write(comparison, comparison.measured)
            refresh_page(out)
        say(table(comparison))
        _draw(comparison)
        say(f"{out / 'table.md'} holds this table, scores.jsonl beside it every answer, report.html both.")
        return comparison


def _draw(comparison: "Comparison") -> None:
    """The pictures, where they can be had; one line where not."""
    from isara.compare.plot import draw, draw_iterations

    try:
        draw(comparison, comparison.out / "arms.svg")
        if comparison.iterations:
            draw_iterations(comparison, comparison.out / "iterations.svg")
    except RunError as error:
        say(str(error))


def _task(
    name: str,
    base: "Parts",
    data: Sequence[str] | None,
    judges: Sequence[str] | None,
    pairwise: str | None,
    limit: int | None,
) -> "TaskScore | HarnessScore":
    """The task as `isara evaluate` makes it."""
    from isara.cli.evaluate import task_for, task_names
    from isara.compare.tasks import HarnessScore, TaskScore
    from isara.evaluate.harness import PREFIX, HarnessOptions

    names = task_names(name)
    if len(names) > 1:
        raise ConfigError(f"--on: expected one task, found {', '.join(names)}: give each its own --out")
    engine = base.config.engine
    if names[0].startswith(PREFIX):
        options = HarnessOptions(limit, engine.dtype, engine.device, engine.trust_remote_code)
        return HarnessScore(names[0].removeprefix(PREFIX), options)
    return TaskScore(task_for(names[0], base, data or (), judges or (), pairwise), limit)


def _tests(named: Sequence[str], base: "Parts", limit: int | None) -> "Tested | None":
    from isara.compare.questions import read_tests

    return read_tests(named, base.config, limit) if named else None


def _splits(base: "Parts", held: Sequence[str], splits: int, keep: str | None) -> "Sequence[Variation]":
    from isara.compare.variations import by_categories

    columns = {text.partition("=")[0] for text in held}
    if len(columns) > 1:
        raise ConfigError(f"--hold-out-category: expected one column, found {', '.join(sorted(columns))}: choose one")
    groups = [_listed(text.partition("=")[2]) for text in held if "=" in text]
    return by_categories(base, columns.pop(), groups, splits, _listed(keep or ""))


def _numbers(text: str) -> list[int]:
    names = _names(text)
    if not all(name.isdecimal() for name in names):
        raise ConfigError(f"--seed-counts: expected whole numbers with commas between them, found {text!r}")
    _each_once("--seed-counts", [str(int(name)) for name in names])
    return [int(name) for name in names]


def _check_task(tests: object, arms: "Sequence[Arm]") -> None:
    """Says before anything runs that a task of the harness is unknown, or asks in its own way."""
    from isara.compare.tasks import HarnessScore

    if isinstance(tests, HarnessScore):
        tests.check(arms)


def _without(seeds: "Sequence[QAPair]", leaks: "Sequence[Leak]") -> "list[QAPair]":
    near = {leak.by for leak in leaks}
    left = [pair for pair in seeds if pair.asked not in near]
    if not left:
        raise SeedError("--drop-near-tests: expected seeds that give no test question away, found none: give others")
    return left


def _each_once(option: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{option}: expected each once, found {name} twice: they would share a folder")


def _folder_name(model: str) -> str:
    return re.sub(r"[^\w.-]+", "-", model).strip("-")


def _listed(text: str) -> list[str]:
    """What stands between the semicolons: a category's name may hold commas."""
    return [name.strip() for name in text.split(";") if name.strip()]


def _begun(folder: Path) -> Path:
    """The record of what may have begun there: a comparison's, or that of the first of several seed sets."""
    from isara.compare.store import FILE_NAME

    parts = sorted(each for name in ("seeds", "split") for each in folder.glob(f"{name}-*/{FILE_NAME}"))
    return next((record for record in (folder / FILE_NAME, *parts) if record.is_file()), folder / FILE_NAME)


def _names(text: str) -> list[str]:
    """What stands between the commas."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"expected names with commas between them, found {text!r}: name one at least")
    return names


def _recipe_name(recipe: Path) -> str:
    path = Path(recipe).expanduser().absolute()
    return path.name if path.is_dir() else path.parent.name if path.stem == "isara" else path.stem


def _tell(line: str) -> None:
    say(line, err=True)
