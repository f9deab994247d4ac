"""The rows that the platform's model learnt from, given to scikit-learn and XGBoost."""

import time
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score
from xgboost import XGBClassifier

from pdm_assets.models.table import WEIGHT, label_of
from pdm_assets.schemas.features import CATEGORICAL_FEATURES, NUMERIC_FEATURES
from pdm_assets.schemas.raw import COMPONENTS
from pdm_assets.settings import HYPERPARAMETERS

KINDS = ("scikit-learn, random forest", "XGBoost, 100 trees of depth 6")


def features(rows: pa.Table, models: list[str]) -> np.ndarray:
    """The numeric features, NaN where one is not known, and a column for each machine model."""
    numbers = [rows[name].cast(pa.float64()).to_numpy() for name in NUMERIC_FEATURES]
    (name,) = CATEGORICAL_FEATURES
    of = rows[name].to_numpy(zero_copy_only=False)
    return np.column_stack([*numbers, *(of == model for model in models)]).astype(np.float32)


def fit(kind: str, rows: pa.Table, later: pa.Table, seed: int) -> dict[str, Any]:
    """Four classifiers, one a component; seconds of the fits and average precision in the test window."""
    models = sorted(set(rows[CATEGORICAL_FEATURES[0]].to_pylist()))
    known, test = features(rows, models), features(later, models)
    weights = rows[WEIGHT].to_numpy() if WEIGHT in rows.column_names else np.ones(len(known))
    seconds, precision = 0.0, {}
    for component in COMPONENTS:
        model = _classifier(kind, seed)
        fails, came = (table[label_of(component)].to_numpy(zero_copy_only=False) for table in (rows, later))
        # what nobody can know is null: neither learnt from nor measured by, as on the platform
        learnt, measured = ~np.isnan(fails), ~np.isnan(came)
        given = known[learnt], fails[learnt] == 1.0, weights[learnt]
        began = time.perf_counter()
        model.fit(given[0], given[1], sample_weight=given[2])
        seconds += time.perf_counter() - began
        said = model.predict_proba(test[measured])[:, 1]
        precision[component] = float(average_precision_score(came[measured] == 1.0, said))
    return {"seconds": seconds, "rows": len(known), "average_precision": precision}


def _classifier(kind: str, seed: int) -> Any:
    if kind.startswith("XGBoost"):
        return XGBClassifier(n_estimators=100, max_depth=6, learning_rate=0.2, tree_method="hist", n_jobs=-1, random_state=seed)
    ours = HYPERPARAMETERS["random_forest"]
    return RandomForestClassifier(
        n_estimators=int(ours["numTrees"]),
        max_depth=int(ours["maxDepth"]),
        min_samples_leaf=int(ours["minInstancesPerNode"]),
        max_features=1 / 3,
        n_jobs=-1,
        random_state=seed,
    )
