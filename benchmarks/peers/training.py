"""The same rows, components and windows given to scikit-learn and XGBoost."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score
from xgboost import XGBClassifier

from pdm_assets.models.table import LEAST_READINGS
from pdm_assets.models.windows import Windows
from pdm_assets.schemas.features import CATEGORICAL_FEATURES, NUMERIC_FEATURES, OBSERVATION_KEY, READINGS_COUNT
from pdm_assets.schemas.raw import COMPONENTS
from pdm_assets.settings import HYPERPARAMETERS, Settings

Rows = tuple[np.ndarray, np.ndarray]


def tables(lake: Path, windows: Windows, settings: Settings) -> dict[str, Rows]:
    """Features and outcomes of the training and test windows: all observations that the platform would learn from."""
    labels = pl.scan_delta(str(lake / "labels/component_failures")).filter(pl.col("horizon_hours") == settings.horizon_hours)
    wide = labels.collect().pivot(on="component", index=list(OBSERVATION_KEY), values="fails_within_horizon").lazy()
    rows = pl.scan_delta(str(lake / "features/observations")).filter(pl.col(READINGS_COUNT) >= LEAST_READINGS)
    joined = rows.join(wide, on=list(OBSERVATION_KEY)).sort(OBSERVATION_KEY)
    found = {}
    for name, window in {"train": windows.train, "test": windows.test}.items():
        its = joined.filter(pl.col("observed_at") >= window.start_at, pl.col("observed_at") < window.end_at).collect()
        numbers = its.select(pl.col(NUMERIC_FEATURES).cast(pl.Float32)).to_numpy()
        models = its.select(CATEGORICAL_FEATURES).to_dummies().to_numpy()
        found[name] = np.hstack([numbers, models]), its.select(COMPONENTS).to_numpy().astype(bool)
    return found


def fit(kind: str, rows: dict[str, Rows], seed: int) -> dict[str, Any]:
    """Four classifiers, one a component; seconds of the fits and average precision in the test window."""
    features, fails = rows["train"]
    later, came = rows["test"]
    known = HYPERPARAMETERS["random_forest"]
    seconds, precision = 0.0, {}
    for number, component in enumerate(COMPONENTS):
        if kind == "scikit-learn":
            model: Any = RandomForestClassifier(
                n_estimators=int(known["numTrees"]),
                max_depth=int(known["maxDepth"]),
                min_samples_leaf=int(known["minInstancesPerNode"]),
                max_features=1 / 3,
                n_jobs=-1,
                random_state=seed,
            )
        else:
            model = XGBClassifier(
                n_estimators=100, max_depth=6, learning_rate=0.2, tree_method="hist", n_jobs=-1, random_state=seed
            )
        began = time.perf_counter()
        model.fit(features, fails[:, number])
        seconds += time.perf_counter() - began
        precision[component] = float(average_precision_score(came[:, number], model.predict_proba(later)[:, 1]))
    return {"seconds": seconds, "rows": len(features), "average_precision": precision}
