"""`make search`: the hyperparameters of each type of model over temporal folds, as benchmarks/search.md.

What wins is put into settings.HYPERPARAMETERS by hand. The fleets are others than those of quality.py, so that its figures
are of data that nothing was chosen on: one as the data set, one `--harder`.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleets import DAYS, Fleet, cutoffs, make
from peers.common import measured_on

from pdm_assets.models.backtest import Fold, MeanAndWorst, folds_of, summarize
from pdm_assets.models.fitting import Fitter
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.settings import HYPERPARAMETERS, ModelType, Settings

RESULTS = Path(__file__).parent / "search.md"
FOLDS = 2
MACHINES = 100
# Around each type's usual values; every dict stands alone, what it does not name is as in settings.HYPERPARAMETERS.
TRIED: Mapping[ModelType, Sequence[Mapping[str, float | str]]] = {
    "random_forest": (
        {},
        {"maxDepth": 6},
        {"maxDepth": 10},
        {"numTrees": 20},
        {"featureSubsetStrategy": "sqrt"},
        {"maxBins": 32},
        {"maxBins": 256},
    ),
    "decision_tree": ({}, {"maxDepth": 4}, {"maxDepth": 8}),
    "gradient_boosted_trees": ({}, {"maxIter": 40}, {"maxDepth": 3}, {"stepSize": 0.1}),
    "logistic_regression": ({}, {"regParam": 0.0}, {"regParam": 0.005}),
}


def main() -> None:
    """Run it and write the page."""
    settings = Settings()
    with tempfile.TemporaryDirectory(prefix="pdm-search-") as folder:
        engine = SparkEngine.of(Settings(data=Path(folder) / "data"))
        with engine.fitter() as fitter:
            spark = engine.spark_session
            usual = make(spark, Path(folder), "usual", seed=11, machines=MACHINES)
            harder = make(spark, Path(folder), "harder", seed=12, harder=True, machines=MACHINES)
            tables = [_search(fitter, kind, (usual, harder), settings) for kind in TRIED]
        engine.close()
    head = (
        f"# Hyperparameters\n\n{MACHINES} machines, {DAYS} days, {FOLDS} folds of each of two fleets (seeds 11 and 12, the "
        f"second `--harder`), default settings; {measured_on('pyspark')}: `make search`. "
        "Costs are the mean of the folds and, in brackets, the worst. The first line of each type is what "
        "settings.HYPERPARAMETERS held.\n\n"
    )
    RESULTS.write_text(head + "\n".join(tables))


def _search(fitter: Fitter, kind: ModelType, fleets: Sequence[Fleet], settings: Settings) -> str:
    lines = [
        f"## {kind}\n\n`{dict(HYPERPARAMETERS[kind])}`\n",
        "| changed | cost | PR-AUC | cost, harder | PR-AUC, harder | both costs | fit |",
        "| --- " * 7 + "|",
    ]
    for changed in TRIED[kind]:
        found = [_tried(fitter, fleet, kind, changed, settings) for fleet in fleets]
        both = sum(figures["cost"].mean for figures in found)
        seconds = sum(figures["fit_seconds"].mean for figures in found) / len(found)
        cells = [f"{f['cost'].mean:,.0f} ({f['cost'].worst:,.0f}) | {f['average_precision'].mean:.3f}" for f in found]
        name = ", ".join(f"{key}={value}" for key, value in changed.items()) or "nothing"
        lines.append(f"| {name} | {' | '.join(cells)} | {both:,.0f} | {seconds:.1f} s |")
        print(kind, lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def _tried(
    fitter: Fitter, fleet: Fleet, kind: ModelType, changed: Mapping[str, float | str], settings: Settings
) -> dict[str, MeanAndWorst]:
    folds: list[Fold] = []
    for cutoff in cutoffs(FOLDS):
        model = fleet.train(fitter, cutoff, settings, kind, **changed)
        folds += folds_of(model.card, model.fit_seconds)
    return summarize(folds)[kind]


if __name__ == "__main__":
    main()
