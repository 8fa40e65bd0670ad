"""All steps: pack, train, export, evaluate. `python -m pretraining.all --work /tmp/isara-pretraining --minutes 170`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pretraining import card, export, losses, pack, train
from pretraining.evaluate import __main__ as evaluate


def main(argv: Sequence[str] | None = None) -> None:
    """Make the model from the data to the figures; packing and training go on where an earlier call stopped."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", default="../shared/data/pretrain")
    parser.add_argument("--work", type=Path, required=True, help="rows, checkpoints and figures go here")
    parser.add_argument("--out", default="src/isara/embedded/model")
    parser.add_argument("--minutes", default="170", help="of training")
    parser.add_argument("--quick", action="store_true", help="few rows, steps and questions: tries the steps, no more")
    args = parser.parse_args(argv)
    rows, run = args.work / "rows", args.work / "run"
    few_rows = ["--tokens", "50000", "--shards", "2", "--tokenizer-documents", "3000"] if args.quick else []
    pack.main(["--data", args.data, "--out", str(rows), *few_rows])
    end = ["--steps", "20"] if args.quick else ["--minutes", args.minutes, "--compile"]
    train.main(["--rows", str(rows), "--out", str(run), *end])
    export.main([str(run / "checkpoint.pt"), "--rows", str(rows), "--out", args.out])
    figures, by_source = str(args.work / "evaluation.json"), str(args.work / "losses.json")
    losses.main(["--model", args.out, "--data", args.data, "--out", by_source])
    few_questions = ["--targets", "8", "--questions", "8", "--seeds", "1"] if args.quick else []
    evaluate.main(["--model", args.out, "--data", args.data, "--out", figures, *few_questions])
    card.main(
        ["--rows", str(rows), "--run", str(run), "--figures", figures, "--losses", by_source]
        + ["--out", str(Path(args.out) / "README.md")]
    )


if __name__ == "__main__":
    main()
