"""How often the demo's model is right about films that it was not trained on, beside TF-IDF and logistic regression.

Both saw the same training rows and are asked about the same held-back ones. Intervals are by bootstrap over films,
since snippets about one film are not independent. `make demo` must have run: it makes the model.

    python bench/sentiment.py
"""

import sys
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

import suffuse
from claims import RESAMPLES, ROOT, Claim, Goal, resampled_claim, write

sys.path.append(str(ROOT / "scripts"))
from baseline import tf_idf
from demo import BUNDLE, demo_data

COMMAND = "python bench/sentiment.py"


def main() -> None:
    """Measure, write the claims."""
    data = demo_data()
    rows = [row for _, _, row in data.rows("test")]
    labels = [row["label"] for row in rows]
    answers = suffuse.load(ROOT / BUNDLE)(rows)
    ours = np.array([answer["label"] for answer in answers]) == labels
    theirs = tf_idf(data).predict([row["text"] for row in rows]) == labels
    films = by_film([row["movie_name"] for row in rows])
    what = f"{len(rows)} critics' snippets about {len(films)} films not trained on"
    minilm, baseline = "MiniLM with 2-hop diffusion attention", "TF-IDF and logistic regression"
    write(
        "sentiment",
        [
            claim(f"accuracy of {minilm}, one epoch, on {what}", ours * 1.0, films, Goal(0.80, is_upper=False)),
            claim(f"accuracy of {baseline} on the same", theirs * 1.0, films, None),
            claim(f"accuracy of {minilm} minus that of {baseline}", ours * 1.0 - theirs, films, None),
        ],
    )


def by_film(names: list[str]) -> list[NDArray[np.int64]]:
    """Indices of the rows about each film."""
    rows: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        rows[name].append(index)
    return [np.array(indices) for indices in rows.values()]


def claim(text: str, values: NDArray[np.float64], films: list[NDArray[np.int64]], goal: Goal | None) -> Claim:
    """The mean over rows, with its interval over films."""
    draw = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([films[film] for film in draw.integers(len(films), size=len(films))])
        means.append(values[drawn].mean())
    return resampled_claim(text, float(values.mean()), means, "share of rows", COMMAND, goal)


if __name__ == "__main__":
    main()
