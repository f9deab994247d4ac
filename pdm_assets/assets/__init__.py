"""The tables, the model and the worklist, as Dagster assets."""

from pdm_assets.assets import backtest, features, monitoring, raw, scoring, training, worklist

ASSETS = [
    *raw.ASSETS,
    features.observations,
    features.component_failures,
    training.failure_model,
    backtest.backtest,
    scoring.component_risk,
    worklist.maintenance,
    monitoring.realised_performance,
    monitoring.feature_drift,
]
