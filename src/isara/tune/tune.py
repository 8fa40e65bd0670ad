"""Measures what can be measured with nothing but the seeds, and says which settings the model wants."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isara.asking import Asker
from isara.embedders import CachedEmbedder, LexicalEmbedder, all_minilm
from isara.errors import ModelError, SeedError
from isara.filters.kind import KindProbe
from isara.parts import Parts
from isara.protocols import Embedder
from isara.records import QAPair
from isara.render import Renderer, open_renderer
from isara.statistics import Difference, holm, paired_difference
from isara.tune.generation import Sampled, answers, questions
from isara.tune.likelihood import Choice, LeaveOneOut, sample

DEMOS = (0, 1, 2, 3, 5, 8)
FEWER_SEEDS = (8, 16, 32)
QUESTION_TEMPERATURES = (0.5, 0.7, 1.0)
ANSWER_TEMPERATURES = (0.0, 0.5, 1.0)
MOST_MEASURED = 48  # seeds whose answers are measured; more would take minutes and tell little more
ROWS = 16  # texts drawn at each temperature
LEAST_SEEDS = 4
# What is chosen by likelihood, and what by the texts that are drawn.
LIKELY = ("answers.demos", "retrieve.embedder", "prompt_format")
DRAWN = ("questions.temperature", "answers.temperature")
LARGER = "this model gains nothing from demonstrations: take a larger one"

_CHANCE = 0.05  # the p-value from which on a difference counts as chance
# Measured seeds or drawn texts below which nothing is beyond chance: the signs of n differences all agree with p =
# 2 / 2^n, and that is multiplied by the number of looks.
_LEAST = 8

# Is told how many prompts are done, of how many.
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured, and what follows.

    Attributes:
        model: As the config names it.
        seeds: How many there are.
        measured: Ids of the seeds whose answers were measured.
        choices: Leave-one-out likelihood, by setting and value.
        sampled: Generated texts, by temperature.
        current: The config's value of each setting that was varied.
        kinds: How well the seeds' questions tell kinds of answers apart, by embedder, where they do beyond chance.
    """

    model: str
    seeds: int
    measured: Sequence[str]
    choices: Sequence[Choice]
    sampled: Sequence[Sampled]
    current: Mapping[str, Any]
    kinds: Mapping[str, KindProbe] = field(default_factory=dict)

    @property
    def suggested(self) -> dict[str, Any]:
        """The values that beat the config's own beyond chance, by dotted key."""
        # More demonstrations than there are other seeds are not measured, and what isn't can't be beaten.
        known = [key for key in LIKELY if self.current[key] in {choice.value for choice in self.of(key)}]
        likely = {key: pick(self.of(key), self.current[key]).value for key in known}
        drawn = {key: pick_temperature(self.texts_of(key), self.current[key]) for key in DRAWN}
        return {key: value for key, value in {**likely, **drawn}.items() if value != self.current[key]}

    @property
    def findings(self) -> list[str]:
        """What the figures say, in lines."""
        return list(_findings(self))

    def of(self, setting: str) -> list[Choice]:
        """The choices of a setting, in the order they were measured."""
        return [choice for choice in self.choices if choice.setting == setting]

    def texts_of(self, setting: str) -> list[Sampled]:
        """The texts that were drawn at each value of a setting."""
        return [each for each in self.sampled if each.setting == setting]


def tune(parts: Parts, tell: Tell = lambda done, total: None, most: int = MOST_MEASURED, rows: int = ROWS) -> Tuned:
    """Leave-one-out likelihoods and a few generated texts of the base model.

    Args:
        parts: Whose model, prompts, embedder and seeds are taken; nothing is written.
        tell: Is told of progress.
        most: Seeds whose answers are measured, drawn at random where there are more.
        rows: Texts drawn at each temperature.

    Raises:
        SeedError: There are too few seeds.
    """
    if len(parts.seeds) < LEAST_SEEDS:
        raise SeedError(
            f"expected at least {LEAST_SEEDS} seeds to leave one out of, found {len(parts.seeds)}: add some, or lower "
            "heldout"
        )
    measured = sample(parts.seeds, most, parts.config.seed)
    with parts.measurer(parts.model) as asker:
        tuning = _Tuning(parts, asker, measured, rows, tell)
        choices = tuning.likelihoods()
        sampled = tuning.texts(choices)
    ids = [pair.id for pair in measured]
    return Tuned(
        parts.config.model, len(parts.seeds), ids, choices, sampled, tuning.current, _kinds(parts, tuning.embedders)
    )


class _Tuning:
    """One pass over all that is measured, which counts the prompts."""

    def __init__(self, parts: Parts, asker: Asker, measured: Sequence[QAPair], rows: int, tell: Tell) -> None:
        self.parts, self.asker, self.measured, self.rows, self.tell = parts, asker, measured, rows, tell
        self.embedders = _embedders(parts)
        self.formats = _formats(parts)
        self.demos = [k for k in dict.fromkeys((*DEMOS, parts.config.answers.demos)) if k < len(parts.seeds)]
        self.fewer = [count for count in FEWER_SEEDS if count < len(parts.seeds) - 1]
        config = parts.config
        self.questions = _with(QUESTION_TEMPERATURES, config.questions.sampling.temperature)
        self.answers = _with(ANSWER_TEMPERATURES, config.answers.sampling.temperature)
        self.current: dict[str, Any] = {
            "answers.demos": config.answers.demos,
            "answers.retrieve": config.answers.retrieve,
            "retrieve.embedder": config.retrieve.embedder,
            "prompt_format": parts.renderer.format.name,
            "seeds": len(parts.seeds) - 1,
            "questions.temperature": config.questions.sampling.temperature,
            "answers.temperature": config.answers.sampling.temperature,
        }
        self.done = 0
        settings = len(self.demos) + 1 + len(self.embedders) + len(self.formats) + len(self.fewer)
        self.total = settings * len(measured) + rows * len(self.questions)
        self.total += len(self.answers) * min(rows, len(measured))

    def likelihoods(self) -> list[Choice]:
        """Every setting varied alone, the others as they are, with the k that was found first."""
        parts = self.parts
        loo = LeaveOneOut(self.asker, parts.seeds, self.measured, parts.config.seed, self._count)
        others = self.formats.items()
        found = [loo.choice("answers.demos", k, parts.embedder, k) for k in sorted(self.demos)]
        k = int(best(found[1:]).value)
        same = next(choice for choice in found if choice.value == k)
        found += [
            _as(same, "answers.retrieve", "nearest"),
            loo.choice("answers.retrieve", "random", parts.embedder, k, kind="random"),
            _as(same, "retrieve.embedder", self.current["retrieve.embedder"]),
            *(loo.choice("retrieve.embedder", name, embedder, k) for name, embedder in self.embedders.items()),
            _as(same, "prompt_format", self.current["prompt_format"]),
            *(loo.choice("prompt_format", name, parts.embedder, k, renderer=each) for name, each in others),
            *(loo.choice("seeds", count, parts.embedder, k, within=count) for count in self.fewer),
            _as(same, "seeds", self.current["seeds"]),
        ]
        return found

    def texts(self, choices: Sequence[Choice]) -> list[Sampled]:
        """Texts at each temperature; answers after the k that was found."""
        k = int(best([each for each in choices if each.setting == "answers.demos" and each.value]).value)
        asked = sample(self.measured, self.rows, self.parts.config.seed)  # a file may be sorted
        found = []
        for temperature in self.questions:
            found.append(questions(self.parts, self.asker, temperature, self.rows))
            self._count(self.rows)
        for temperature in self.answers:
            found.append(answers(self.parts, self.asker, temperature, k, asked))
            self._count(len(asked))
        return found

    def _count(self, prompts: int) -> None:
        self.done += prompts
        self.tell(self.done, self.total)


def best(choices: Sequence[Choice]) -> Choice:
    """The choice with the fewest bits per byte; of equals the one with the fewest tokens."""
    return min(choices, key=lambda choice: (choice.mean, choice.tokens))


def pick(choices: Sequence[Choice], current: Any) -> Choice:
    """The current choice, unless the best beats it beyond chance; then the cheapest that is as good as the best.

    Args:
        choices: Of one setting.
        current: The config's value.
    """
    least = best(choices)
    others = [choice for choice in choices if choice is not least]
    # The best was chosen after the fact, so the p-values are those of several looks.
    chances = holm([choice.less(least).p_value for choice in others])
    as_good = [least, *(choice for choice, chance in zip(others, chances, strict=True) if chance >= _CHANCE)]
    kept = [choice for choice in as_good if choice.value == current]
    return kept[0] if kept else min(as_good, key=lambda choice: choice.tokens)


def pick_temperature(sampled: Sequence[Sampled], current: float) -> float:
    """The current temperature, unless another is better beyond chance.

    Questions by the share that passes, as far as the intervals don't overlap; answers by ROUGE-L, paired, among those
    temperatures at which no smaller share passes. Fewer than eight texts change nothing.
    """
    now = next(each for each in sampled if each.value == current)
    if len(now.passed) < _LEAST:
        return current
    if now.setting == "questions.temperature":
        most = max(sampled, key=lambda each: each.share)
        return most.value if most.interval.low > now.interval.high else current
    others = [each for each in sampled if each is not now]
    gains = [paired_difference(each.scores, now.scores) for each in others]
    chances = holm([gain.p_value for gain in gains])
    better = {
        each.value: gain.mean
        for each, gain, chance in zip(others, gains, chances, strict=True)
        if gain.mean > 0 and chance < _CHANCE and each.share >= now.share
    }
    return max(better, key=better.__getitem__, default=current)


def _findings(found: Tuned) -> Iterable[str]:
    demos = found.of("answers.demos")
    yield _reads(demos)
    if full := [choice for choice in demos if choice.fewer]:
        yield (
            f"the model's context had no room for {full[0].value} demonstrations in {full[0].fewer} of "
            f"{len(full[0].bits)} prompts: there, the figures for {full[0].value} and more are of fewer"
        )
    nearest, chance = found.of("answers.retrieve")
    won = chance.less(nearest)
    more = "more" if won.interval.low > 0 else "no more"
    yield f"by likelihood the nearest pairs tell {more} than random ones: they save {said(won)} bits a byte"
    counts = found.of("seeds")
    if len(counts) > 1:
        grown = counts[-2].less(counts[-1])
        go_on = "would go on helping" if grown.interval.low > 0 else "would help no further"
        yield (
            f"from {counts[-2].value} to {counts[-1].value} seeds to retrieve from saves {said(grown)} bits a byte: as "
            f"demonstrations, more {go_on}"
        )
    for embedder, probe in found.kinds.items():
        yield (
            f"the seeds' questions tell {len(probe.groups)} kinds of answers apart (retrieve.embedder: {embedder}; "
            f"{probe.accuracy:.0%} of them by the others, kinds weighed alike): questions.focus: kinds with "
            "filters.kind: true keeps questions and answers to one kind. It paid where how a question is meant decides "
            "the kind, and cost where a fact does; there, filters.kind alone paid for a model of 135 M weights. Ask "
            "the arms by-kind and kind-check of `isara compare`"
        )
    yield (
        "likelihood counts every byte alike, and most bytes are tone: where a few words decide whether an answer is "
        "right, believe the generated answers and `isara preview` first"
    )


def _reads(demos: Sequence[Choice]) -> str:
    """Whether the model gains from demonstrations, by what each number of them costs, none first."""
    if all(choice.fewer == len(choice.bits) for choice in demos[1:]):
        return (
            "it can't be told whether it reads demonstrations: in no prompt all fitted its context; shorten the seeds"
        )
    zero, some = demos[0], best(demos[1:])
    gain, measured = zero.less(some), len(zero.bits)
    chances = holm([zero.less(choice).p_value for choice in demos[1:]])
    saved = f"{some.value} of them save {said(gain)} bits a byte"
    if gain.mean > 0 and chances[demos[1:].index(some)] < _CHANCE:
        share = gain.mean / zero.mean
        return f"it reads demonstrations: {some.value} of them save {share:.0%}, {said(gain)} bits a byte"
    if measured < _LEAST:
        return f"{measured} seeds can't tell whether it reads demonstrations, expected {_LEAST} or more ({saved})"
    if gain.interval.low <= 0:
        return f"{LARGER} ({saved})"
    return f"it is not shown that it reads demonstrations, as several numbers of them were tried: {saved}"


def _kinds(parts: Parts, others: Mapping[str, Embedder]) -> dict[str, KindProbe]:
    """The embedders by which the seeds' questions tell kinds of answers apart beyond chance, the config's own first."""
    embedders = {parts.config.retrieve.embedder: parts.embedder, **others}
    probes = {name: KindProbe(embedder, parts.seeds) for name, embedder in embedders.items()}
    return {name: probe for name, probe in probes.items() if probe.tells}


def said(difference: Difference) -> str:
    """A difference with its interval: "0.12 [0.08, 0.17]"."""
    return f"{difference.mean:.3f} [{difference.interval.low:.3f}, {difference.interval.high:.3f}]"


def _as(choice: Choice, setting: str, value: Any) -> Choice:
    """A choice that has been measured already, as the value of another setting."""
    return Choice(setting, value, choice.bits, choice.tokens, choice.fewer)


def _with(temperatures: Sequence[float], current: float) -> list[float]:
    return sorted({*temperatures, current})


def _embedders(parts: Parts) -> dict[str, Embedder]:
    """Other embedders that are at hand, by the name that a config calls them."""
    found: dict[str, Embedder] = {}
    known = {_weights_of(getattr(parts.embedder, "name", ""))}
    for name, make in (("lexical", LexicalEmbedder), ("auto", all_minilm)):
        try:
            embedder = CachedEmbedder(make())
        except ModelError:  # not on this machine
            continue
        if _weights_of(embedder.name) not in known:
            known.add(_weights_of(embedder.name))
            found[name] = embedder
    return found


def _weights_of(embedder: str) -> str:
    """What is the same under all names of an embedding model."""
    return embedder.rpartition("@")[2]


def _formats(parts: Parts) -> dict[str, Renderer]:
    """The other prompt format, where the model's tokenizer has both and every seed fits its context in it."""
    other = "plain" if parts.renderer.format.name == "chat" else "chat"
    try:
        renderer = open_renderer(parts.model, other, parts.config.engine.trust_remote_code)  # type: ignore[arg-type]
    except ModelError:
        return {}
    return {other: renderer} if all(_fits(renderer, pair) for pair in parts.seeds) else {}


def _fits(renderer: Renderer, pair: QAPair) -> bool:
    prompt = renderer.answer((), pair)
    return len(prompt.ids) + len(renderer.answer_ids(prompt, pair.answer)) <= renderer.context_length
