"""The cards that go with an aligned model and its generated pairs: how they were made, from what, under which licence.

Functions of plain values to Markdown with the YAML front matter that the Hugging Face hub reads. No dates and no paths,
so that the same run has the same cards; text of users and models is escaped.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from isara.records import QAPair

UNKNOWN_LICENSE = "unknown: ask before you publish"
_PAPER = (
    "Guo et al., [Human-Instruction-Free LLM Self-Alignment with Limited Samples](https://arxiv.org/abs/2401.06785)"
)
_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
_HUB_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_SIZES = {
    10**3: "n<1K",
    10**4: "1K<n<10K",
    10**5: "10K<n<100K",
    10**6: "100K<n<1M",
}


def model_card(
    *,
    name: str,
    base_model: str,
    iterations: int,
    best: int,
    seeds: int,
    accepted: int,
    dropped: Mapping[str, int],
    prompt: str,
    training: Mapping[str, Any],
    evaluation: Mapping[int, Mapping[str, float]],
    heldout: int = 0,
    merge_difference: float | None = None,
    model_license: str | None = None,
    seeds_license: str | None = None,
    language: str | None = None,
) -> str:
    """The README.md of an aligned model.

    Args:
        name: Title of the model.
        base_model: The base model M_0, a hub name or a folder, of which only the last part is shown.
        iterations: Iterations that were trained.
        best: The iteration whose model this is.
        seeds: Seed pairs.
        accepted: Generated pairs that the model was trained on.
        dropped: Candidates dropped, by reason.
        prompt: A prompt of the run, as the model got it.
        training: Arguments of the training, by name.
        evaluation: Figures on the held-out pairs by name, for each iteration; 0 is the base model.
        heldout: Held-out pairs that the figures are of.
        merge_difference: Largest difference of a logit before and after merging the adapter.
        model_license: Licence of the base model, if known.
        seeds_license: Licence of the seed pairs, if known.
        language: Code of the pairs' language ("en"), if known.
    """
    meta = {
        "base_model": base_model if _on_hub(base_model) else None,
        "base_model_relation": "finetune" if _on_hub(base_model) else None,
        "language": language,
        "library_name": "transformers",
        "license": _hub_license(model_license),
        "pipeline_tag": "text-generation",
        "tags": ["isara", "self-alignment", "synthetic-data", "sft", *_peft_tag(training)],
    }
    share = f"{accepted} generated and {seeds} seed pairs"
    return _page(
        meta,
        f"# {escape(name)}",
        f"`{_shown(base_model)}`, aligned to a new domain with [ISARA](https://arxiv.org/abs/2401.06785) from {seeds} "
        "question-answer pairs: the model made more pairs for itself from retrieved demonstrations, was fine-tuned on "
        "those that passed the filters, and this was repeated.",
        "## How it was made",
        f"This is the model of iteration {best} of {iterations}, trained on {share} with loss on the answers alone "
        f"({_PAPER}). The generated pairs were written by the model itself; no human has checked them.",
        _drops(dropped),
        "A prompt is demonstrations and an open question, and no instruction. One of them:",
        _fence(prompt),
        "Training:",
        _table(("argument", "value"), [(key, str(value)) for key, value in training.items()]),
        _merge_note(merge_difference),
        "## Evaluation",
        _evaluation(evaluation, heldout, best),
        "## Limits",
        "The model can be wrong, harmful or biased, as its base model can, and fine-tuning on its own text can make "
        "that stronger. It was measured on held-out pairs of one domain only: measure it on your own questions, and on "
        "what it may have unlearnt, before others rely on it.",
        "## Licence",
        _licences(model_license, seeds_license),
    )


def data_card(
    *,
    name: str,
    base_model: str,
    seeds: int,
    accepted: Sequence[int],
    dropped: Mapping[str, int],
    sampling: Mapping[str, Any],
    examples: Sequence[QAPair] = (),
    model_license: str | None = None,
    seeds_license: str | None = None,
    language: str | None = None,
) -> str:
    """The README.md of the pairs that a run has generated.

    Args:
        name: Title of the data set.
        base_model: The base model M_0, a hub name or a folder, of which only the last part is shown.
        seeds: Seed pairs.
        accepted: Generated pairs that passed the filters, for each iteration from the first.
        dropped: Candidates dropped, by reason.
        sampling: Arguments of the generation, by name.
        examples: Generated pairs to show, not picked by hand.
        model_license: Licence of the model that wrote the pairs, if known.
        seeds_license: Licence of the seed pairs, if known.
        language: Code of the pairs' language ("en"), if known.
    """
    rows = sum(accepted)
    meta = {
        "annotations_creators": ["machine-generated"],
        "language": language,
        "language_creators": ["machine-generated"],
        "license": _hub_license(seeds_license),
        "size_categories": [next((size for limit, size in _SIZES.items() if rows < limit), "n>1M")],
        "source_datasets": ["extended"],
        "tags": ["isara", "self-alignment", "synthetic"],
        "task_categories": ["text-generation"],
    }
    by_iteration = [(str(number), str(count)) for number, count in enumerate(accepted, 1)]
    return _page(
        meta,
        f"# {escape(name)}",
        f"{rows} question-answer pairs that `{_shown(base_model)}` and the models fine-tuned from it wrote with "
        f"[ISARA](https://arxiv.org/abs/2401.06785) from {seeds} seed pairs.",
        "**All of it is synthetic.** Questions and answers were generated by a language model from demonstrations and "
        "passed automatic filters; no human has checked them.",
        "## How it was made",
        f"The method is that of {_PAPER}. New questions are generated after demonstrations, answers after the nearest "
        "pairs; no prompt holds an instruction.",
        _table(("iteration", "accepted pairs"), by_iteration),
        _drops(dropped),
        "Generation:",
        _table(("argument", "value"), [(key, str(value)) for key, value in sampling.items()]),
        "## Fields",
        "`question`, `answer`; `id`, 12 hex digits of the SHA-256 of both; `iteration`, the one that made the pair (0 "
        "is a seed pair); `demo_ids`, the demonstrations in the prompt that made the answer, nearest last.",
        *(["## Examples", *(_example(pair) for pair in examples)] if examples else []),
        "## Limits",
        "Answers can be wrong, harmful or biased, as those of the model are. Questions stay near the seed pairs and do "
        "not cover the domain evenly. Text of the seed pairs, and what it says of persons, may come back in the "
        "generated pairs.",
        "## Licence",
        _licences(model_license, seeds_license),
    )


def escape(text: str) -> str:
    """The text on one line of Markdown, without markup; for use after the start of a line."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", line)


def _page(meta: Mapping[str, Any], *blocks: str) -> str:
    front = yaml.safe_dump({key: value for key, value in meta.items() if value is not None}, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n\n".join(block for block in blocks if block) + "\n"


def _on_hub(model: str) -> bool:
    # "runs/may" may be either; what is a folder is not taken for a hub name, as transformers does.
    return _HUB_NAME.fullmatch(model) is not None and not Path(model).is_dir()


def _shown(model: str) -> str:
    """A model's name for a code span; a folder's path is nobody's business."""
    return (model if _on_hub(model) else Path(model).name).replace("`", "'")


def _hub_license(license: str | None) -> str:
    """The hub's identifier of a licence."""
    if license is None:
        return "unknown"
    identifier = license.strip().lower()
    return identifier if _HUB_LICENSE.fullmatch(identifier) else "other"


def _peft_tag(training: Mapping[str, Any]) -> list[str]:
    return ["lora"] if training.get("method") == "lora" else []


def _drops(dropped: Mapping[str, int]) -> str:
    if not dropped:
        return "No candidate was dropped."
    rows = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    total = f"{sum(dropped.values())} candidates were dropped:"
    return f"{total}\n\n" + _table(("reason", "candidates"), [(reason, str(count)) for reason, count in rows])


def _merge_note(difference: float | None) -> str:
    if difference is None:
        return ""
    return (
        "The adapter is merged into the weights and lies beside them in `adapter/`. Merging, and rounding to the dtype "
        f"of the base model, moved the logits of one pair by at most {difference:.2g}."
    )


def _evaluation(evaluation: Mapping[int, Mapping[str, float]], heldout: int, best: int) -> str:
    names = list(dict.fromkeys(name for figures in evaluation.values() for name in figures))
    if not names:
        return "The model was not evaluated: the run had no held-out pairs."
    rows = [
        (_iteration(number, best), *(f"{figures[name]:.4g}" if name in figures else "" for name in names))
        for number, figures in sorted(evaluation.items())
    ]
    return f"On {heldout} held-out pairs:\n\n" + _table(("iteration", *names), rows)


def _iteration(number: int, best: int) -> str:
    if number == 0:
        return "0 (base model)"
    return f"{number} (this model)" if number == best else str(number)


def _licences(model_license: str | None, seeds_license: str | None) -> str:
    rows = [("base model", model_license or UNKNOWN_LICENSE), ("seed pairs", seeds_license or UNKNOWN_LICENSE)]
    return _table(("of", "licence"), rows) + (
        "\n\nThe licences of both hold for what was made from them; some forbid it, or ask for a name or a notice."
    )


def _example(pair: QAPair) -> str:
    return f"> **Question:** {escape(pair.question)}\n>\n> **Answer:** {escape(pair.answer)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = [[cell if line is lines[1] else escape(cell) for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def _fence(text: str) -> str:
    """A code block whose fence is longer than any run of backticks in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"
