"""All steps: pack, train, export, evaluate. `python -m pretraining.all --work /tmp/isara-pretraining --minutes 80`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pretraining import card, export, losses, pack, train
from pretraining.evaluate import __main__ as evaluate


def main(argv: Sequence[str] | None = None) -> None:
    """Make the model from the data to the figures; a step whose result is there is not done again."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", default="../shared/data/pretrain")
    parser.add_argument("--work", type=Path, required=True, help="rows, checkpoints and figures go here")
    parser.add_argument("--out", default="src/isara/embedded/model")
    parser.add_argument("--minutes", default="80")
    args = parser.parse_args(argv)
    rows, run = args.work / "rows", args.work / "run"
    if not list(rows.glob("shard-*.npy")):
        pack.main(["--data", args.data, "--out", str(rows)])
    train.main(["--rows", str(rows), "--out", str(run), "--minutes", args.minutes, "--compile"])
    export.main([str(run / "checkpoint.pt"), "--rows", str(rows), "--out", args.out])
    figures, by_source = str(args.work / "evaluation.json"), str(args.work / "losses.json")
    losses.main(["--model", args.out, "--data", args.data, "--out", by_source])
    evaluate.main(["--model", args.out, "--data", args.data, "--out", figures])
    card.main(
        ["--rows", str(rows), "--run", str(run), "--figures", figures, "--losses", by_source]
        + ["--out", str(Path(args.out) / "README.md")]
    )


if __name__ == "__main__":
    main()
