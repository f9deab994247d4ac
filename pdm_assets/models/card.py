"""The model card: what a model was made from and how good it is, as JSON beside the saved pipeline."""

import dataclasses
import datetime as dt
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from pdm_assets.models.calibration import Platt
from pdm_assets.models.drift import Reference
from pdm_assets.models.evaluation import Capacity, EventReport
from pdm_assets.models.metrics import Metrics
from pdm_assets.models.rules import Healthy
from pdm_assets.models.windows import Window, WindowName
from pdm_assets.settings import ModelType


@dataclass(frozen=True)
class WindowCounts:
    """The observations of one window: its days, how many, and how many of them fail by component."""

    window: Window
    rows: int
    positives: Mapping[str, int]


@dataclass(frozen=True)
class ModelCard:
    """All that is worth knowing of one trained model.

    Args:
        version: name of the model.
        model_type: classifier of each component.
        horizon_hours: how far ahead it foretells.
        cutoff: nothing from this day's 00:00 UTC on was known to it.
        windows: the days it learnt from, was tuned on and was tested on.
        rows_fitted: rows of the training window that were kept for the fit.
        one_healthy_in: of so many training rows without a failure one was kept, with the weight of all.
        one_failing_in: the same of rows with a failure; those of a component with few (FEW_FAILING_ROWS) are all kept.
        parameters: parameters of the classifiers.
        seed: seed of sampling and fit.
        features: columns that it reads.
        calibration: from the classifier's score to the probability, by learnt component.
        thresholds: probability from which on it is an alert, by component.
        constant_probabilities: components that could not be learnt, with the one probability they get.
        metrics: of observations, by window (calibration, test), then by component and pooled.
        events: of failures caught and visits wasted in the test window, beside the baselines; by component and pooled.
        capacity: what a crew of limited visits would have had of the probabilities in the test window.
        healthy: usual values of the channels in the training window.
        usual: usual values (medians) of the numeric features that it reads, in the training window.
        references: how the numeric features were distributed in the training window, and each component's probability (under
            its name) in the test window.
        importances: share of each feature, by learnt component.
        data_versions: Delta version of each table that was read.
        code_version: version of the code.
        notes: what a reader should know before trusting it.
    """

    version: str
    model_type: ModelType
    horizon_hours: int
    cutoff: dt.date
    windows: Mapping[WindowName, WindowCounts]
    rows_fitted: int
    one_healthy_in: int
    one_failing_in: int
    parameters: Mapping[str, int | float | str | bool]
    seed: int
    features: tuple[str, ...]
    calibration: Mapping[str, Platt]
    thresholds: Mapping[str, float]
    constant_probabilities: Mapping[str, float]
    metrics: Mapping[WindowName, Mapping[str, Metrics]]
    events: Mapping[str, EventReport]
    capacity: Capacity
    healthy: Mapping[str, Healthy]
    usual: Mapping[str, float]
    references: Mapping[str, Reference]
    importances: Mapping[str, Mapping[str, float]]
    data_versions: Mapping[str, int]
    code_version: str
    notes: tuple[str, ...]

    def mean_importances(self) -> dict[str, float]:
        """Mean share of each feature over the learnt components, the greatest first."""
        learnt = list(self.importances.values())
        means = {name: sum(shares[name] for shares in learnt) / len(learnt) for name in learnt[0]}
        return dict(sorted(means.items(), key=lambda item: (-item[1], item[0])))

    def to_json(self) -> str:
        """The card as JSON that any reader takes: dates as ISO days, numbers that are not finite as null."""
        return json.dumps(_plain(dataclasses.asdict(self)), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """The card that to_json wrote."""
        return TypeAdapter(cls).validate_json(text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
