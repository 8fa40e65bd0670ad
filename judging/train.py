"""Trains the offline judge: two logistic regressions on hashed features, from made rows and open data alone.

    python judging/train.py --data FOLDER_OF_OPEN_SETS

No row of a benchmark is read. `README.md` says what goes in; `src/isara/judges/offline/weights.safetensors` comes out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from make_rows import Row, made_rows, open_rows
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

import isara.judges.offline as offline
from isara.judges.offline.features import DIM, VERSION, answer_features, harm_features, hashed

# How much a row counts for harm. People disagree least about open data, and most of what a harm judge is shown asks
# for harm, so that is where the weights should come from.
WEIGHT_ASKS, WEIGHT_MADE_HARMLESS, WEIGHT_OPEN = 1.0, 0.5, 0.125
REFUSAL_C, HARM_C = 1.0, 0.02


def matrix(rows: Sequence[dict[str, float]]) -> csr_matrix:
    """Features as a sparse matrix of shape (len(rows), DIM)."""
    parts = [hashed(features) for features in rows]
    ends = np.cumsum([0, *(len(columns) for columns, _ in parts)])
    values, columns = np.concatenate([v for _, v in parts]), np.concatenate([c for c, _ in parts])
    return csr_matrix((values, columns, ends), shape=(len(rows), DIM))


def fit(features: csr_matrix, labels: NDArray[np.bool_], weights: NDArray[np.float64], c: float) -> NDArray[np.float16]:
    """Weights of shape (DIM + 1,), the intercept last; both labels count the same in all."""
    balance = np.where(labels, weights[~labels].sum() / weights[labels].sum(), 1.0)
    model = LogisticRegression(C=c, max_iter=400).fit(features, labels, weights * balance)
    return np.append(model.coef_[0], model.intercept_).astype(np.float16)


def train(made: Sequence[Row], found: Sequence[Row]) -> dict[str, NDArray[np.float16]]:
    """Weights by kind of judge."""
    rows = [*made, *found]
    clear = [row for row in rows if row.refusal is not None]
    refusal = fit(
        matrix([answer_features(row.answer) for row in clear]),
        np.array([bool(row.refusal) for row in clear]),
        np.ones(len(clear)),
        REFUSAL_C,
    )
    weights = [WEIGHT_ASKS if row.asks_for_harm else WEIGHT_MADE_HARMLESS for row in made]
    harm = fit(
        matrix([harm_features(row.question, row.answer) for row in rows]),
        np.array([row.harmful for row in rows]),
        np.array([*weights, *[WEIGHT_OPEN] * len(found)]),
        HARM_C,
    )
    return {"refusal": refusal, "harm": harm}


def main() -> None:
    """Makes the rows, trains, writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the open sets named in README.md")
    parser.add_argument("--out", type=Path, default=Path(offline.__file__).parent / "weights.safetensors")
    parser.add_argument("--topics", type=int, default=3000, help="topics to make rows of, about ten rows each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    made, found = list(made_rows(options.topics, options.seed)), list(open_rows(options.data, options.seed))
    print(f"{len(made)} made rows, {len(found)} open rows")  # noqa: T201  # a script
    save_file(train(made, found), options.out, metadata={"features": VERSION})
    print(f"{options.out}: {options.out.stat().st_size} bytes")  # noqa: T201  # a script


if __name__ == "__main__":
    main()
