"""The dry run: what each arm will run, and what arms will make together."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from isara.compare.arms import Arm
from isara.compare.budget import run_folders, steps_seen
from isara.compare.compare import Bench
from isara.compare.tasks import HarnessScore
from isara.files import value_hash
from isara.folder import is_done, stage_folder
from isara.helpers import HELPERS, helper_trainer
from isara.marks import clean
from isara.parts import Parts
from isara.pool import Pool
from isara.records import BESIDE
from isara.stages import Keys, Model, steps
from isara.watching import StageName


def plan(bench: Bench, arms: Sequence[Arm], seeds: Sequence[int]) -> list[str]:
    """Lines that say what a comparison will run and share; nothing is written.

    Raises:
        ConfigError: An arm's config has no meaning.
    """
    weights = bench.base.weights(bench.base.model)
    parts = {arm.name: knowing(bench.parts(arm, seeds[0]), weights) for arm in arms}
    lines = [
        f"{len(arms)} arms x {len(seeds)} training seeds on {bench.base.config.model}, {_asked(bench)}; score: "
        f"{bench.scorer.about}"
    ]
    for arm in arms:
        done = sum(is_run(bench, arm, parts[arm.name], seed) for seed in seeds)
        lines.append(f"{arm.name}: {_runs(arm, parts[arm.name])}; {done} of {len(seeds)} runs done")
    lines += _shared(arms, parts)
    if leaks := bench.guard.leaks(bench.base.seeds):
        lines.append(
            f"contaminated: {len(leaks)} seed pairs are near a test question, and --drop-near-tests drops them:"
        )
        lines += [f"  {clean(leak.by, 80)} | {clean(leak.question, 80)} | {clean(leak.how, 80)}" for leak in leaks]
    lines.append("Later iterations are shared where their keys turn out equal, which is known only then.")
    return lines


def _asked(bench: Bench) -> str:
    """How many questions arms are compared on; those that choose an iteration are none of them."""
    if isinstance(bench.task, HarnessScore):
        return "the harness's questions"
    if bench.task is not None:
        return f"{len(bench.tests)} items"
    return f"{sum(pair.id not in bench.selection for pair in bench.tests)} held-out questions"


def _runs(arm: Arm, parts: Parts) -> str:
    """What a run of the arm makes, in words."""
    config = parts.config
    shown = f", asked after {config.answers.demos} {arm.shown} seed pairs" if arm.shown != "none" else ""
    if not config.iterations:
        return f"{arm.about}; no training{shown}"
    if config.generate.accept:
        work = f"{config.iterations} x ({config.generate.accept} pairs and a training)"
    else:
        work = f"a training on the seeds{f' for each iteration of {arm.steps_of}' if arm.steps_of else ''}"
    return f"{arm.about}; {work}{shown}"


def _shared(arms: Sequence[Arm], parts: dict[str, Parts]) -> Iterator[str]:
    """The stages whose keys are known before anything runs, where several arms have the same."""
    known: dict[tuple[str, str], list[str]] = {}
    for arm in arms:
        for place, said, key in first_stages(parts[arm.name]):
            if not (arm.steps_of and place == ("train", 1)):  # how many steps it takes is known later
                known.setdefault((said, value_hash(key)), []).append(arm.name)
    for (stage, _), names in known.items():
        if len(names) > 1:
            yield f"made once for {', '.join(names)}: {stage}"


def first_stages(parts: Parts) -> Iterator[tuple[tuple[StageName, int], str, dict[str, object]]]:
    """Stages whose keys are known before anything runs: name and iteration, what it is in words, and its key."""
    keys, config = Keys(parts, parts.keys()), parts.config
    base = Model(parts.model, keys.weights)
    yield ("evaluate", 0), "the base model's evaluation", keys.evaluate(base)
    found = ((number, helper_trainer(parts, number)) for number in HELPERS if config.iterations)
    trainers = {number: trainer for number, trainer in found if trainer is not None}
    helpers = {number: keys.train(parts.seeds, base, trainer) for number, trainer in trainers.items()}
    for number, key in helpers.items():
        yield ("train", number), f"the training of the {BESIDE[number]}", key
    if config.iterations and config.generate.accept:
        making = steps(parts, 1, base, Pool(parts.embedder, parts.seeds))
        yield ("generate", 1), "the pairs of iteration 1", {"by": list(helpers.items()), **keys.generate(making)}
    elif config.iterations:
        yield ("train", 1), "the training on the seeds", keys.train(parts.seeds, base)


def knowing(parts: Parts, weights: str) -> Parts:
    """The parts with the hash of the base model's weights, which is not made again for each of them."""
    return replace(parts, weights=lambda _: weights)


def is_run(bench: Bench, arm: Arm, parts: Parts, seed: int) -> bool:
    """Whether the arm's runs with a seed are there, whole."""
    runs = run_folders(bench.folder(arm.name, seed))
    if arm.steps_of and not parts.config.generate.accept:
        reference = bench.folder(arm.steps_of, seed)
        seen = steps_seen(reference) if reference.exists() else []
        runs = [bench.folder(arm.name, seed) / f"steps-{steps}" for steps in seen]
    return bool(runs) and all(is_done(stage_folder(run, parts.config.iterations, "evaluate")) for run in runs)
