"""What NumPy takes to evaluate a model in force: `python benchmarks/scoring.py MODEL_FOLDER [ROWS]`.

The folder is one of data/models/; rows are drawn from the usual values of its card, 50,000 by default.
"""

import sys
import time
from pathlib import Path

import numpy as np

from pdm_assets.models.card import ModelCard
from pdm_assets.models.served import SavedPipeline
from pdm_assets.schemas.features import CATEGORICAL_FEATURES

REPEATS = 5


def main() -> None:
    """Load and score, the best of some repeats each."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50_000
    card = ModelCard.from_json((folder / "card.json").read_text())
    rng = np.random.default_rng(1)
    columns = {name: value + rng.normal(0, abs(value) / 10 + 1, count) for name, value in card.usual.items()}
    columns |= {name: np.array([f"model{n}" for n in rng.integers(1, 5, count)], dtype=object) for name in CATEGORICAL_FEATURES}
    learnt = list(card.calibration)
    loads, scores = [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        pipeline = SavedPipeline(folder / "pipeline")
        loads.append(time.perf_counter() - began)
        began = time.perf_counter()
        pipeline.scores(columns, learnt)
        scores.append(time.perf_counter() - began)
    print(
        f"{card.model_type}: loaded in {min(loads):.3f} s, {count:,} observations x {len(learnt)} scored in {min(scores):.2f} s"
    )


if __name__ == "__main__":
    main()
