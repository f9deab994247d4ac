"""Why a model alerts: each sign is taken away in turn, and what the probability loses by it is the sign's share.

A sign is all features of one channel, one error code or one component's age, or the machine's model. Taken away means set to
its usual value in the training window; the machine's model, to that one in training with the least probability. This asks the
model itself, whatever its type: a reason is never given that the model did not use.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pyspark.sql import types as T

from pdm_assets.models.card import ModelCard
from pdm_assets.models.metrics import Floats
from pdm_assets.models.served import SavedPipeline
from pdm_assets.schemas.features import CATEGORICAL_FEATURES, NUMERIC_FEATURES, OBSERVATIONS
from pdm_assets.schemas.raw import CHANNEL_NAMES, COMPONENTS, ERROR_CODES
from pdm_assets.settings import ERROR_LOOKBACK_HOURS, LOOKBACK_HOURS

AGE = "age_years"
(MACHINE_MODEL,) = CATEGORICAL_FEATURES
LEAST_SHARE = 0.1  # of the probability: less is no reason
MOST_REASONS = 3
KINDS = {field.name: field.dataType for field in OBSERVATIONS.columns}
WHOLE = (T.IntegerType(), T.LongType())
UNREMARKABLE = 2.0  # standard errors of a mean: chance alone takes it as far
NUMERIC_SIGNS: Mapping[str, tuple[str, ...]] = {
    sign: tuple(name for name in NUMERIC_FEATURES if name == sign or name.startswith(f"{sign}_"))
    for sign in (*CHANNEL_NAMES, *ERROR_CODES, *COMPONENTS, AGE)
}


class Share(NamedTuple):
    """What a component's probability loses without a sign."""

    sign: str
    lost: float


def shares(
    observations: Sequence[Mapping[str, Any]], pipeline: SavedPipeline, card: ModelCard
) -> dict[tuple[int, dt.datetime, str], list[Share]]:
    """By machine, time and component: every sign with what it adds to the probability, the greatest first.

    Args:
        observations: rows of features/observations; each is scored once more for every sign.
        pipeline: the model.
        card: its card, for the usual values.
    """
    columns = {name: _column([row[name] for row in observations]) for name in card.features}
    usual = {name: value for name, value in card.usual.items() if name in columns}
    whole = _probabilities(columns, pipeline, card)
    lost: dict[str, dict[str, Floats]] = {component: {} for component in COMPONENTS}
    for sign, changed in _without_each(columns, usual, pipeline.categories[MACHINE_MODEL]):
        found = _probabilities({**columns, **changed}, pipeline, card)
        for component in COMPONENTS:
            loses = whole[component] - found[component]
            its = lost[component]
            its[sign] = (
                np.maximum(its[sign], loses) if sign in its else loses
            )  # of several other models, the one that tells most
    return {
        (row["machine_id"], row["observed_at"], component): sorted(
            (Share(sign, float(loses[place])) for sign, loses in lost[component].items()),
            key=lambda share: (-share.lost, share.sign),
        )
        for place, row in enumerate(observations)
        for component in COMPONENTS
    }


def _column(values: Sequence[Any]) -> Any:
    """Values as `SavedPipeline.scores` takes them: a number that is not known is NaN."""
    if any(isinstance(value, str) for value in values):
        return np.array(values, dtype=object)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _without_each(
    columns: Mapping[str, Any], usual: Mapping[str, float], models: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each sign, with the columns that it changes: its features as usual, or the machine as one of another model."""
    rows = len(next(iter(columns.values())))
    for sign, names in NUMERIC_SIGNS.items():
        # as the column's type would hold it: a median may lie between two whole numbers
        yield sign, {name: np.full(rows, _as_stored(name, usual[name])) for name in names if name in usual}
    for model in models:
        yield MACHINE_MODEL, {MACHINE_MODEL: np.full(rows, model, dtype=object)}


def _as_stored(name: str, value: float) -> float:
    """A value as the feature's column would keep it: whole numbers and flags have no fraction."""
    kind = KINDS[name]
    return float(bool(value)) if isinstance(kind, T.BooleanType) else float(int(value)) if kind in WHOLE else value


def _probabilities(columns: Mapping[str, Any], pipeline: SavedPipeline, card: ModelCard) -> dict[str, Floats]:
    constants = card.constant_probabilities
    scores = pipeline.scores(columns, [c for c in COMPONENTS if c not in constants])
    rows = len(next(iter(columns.values())))
    return {
        c: card.calibration[c].of(scores[c]) if c in card.calibration else scores.get(c, np.full(rows, constants.get(c, 0.0)))
        for c in COMPONENTS
    }


def in_words(
    found: Sequence[Share],
    probability_now: float,
    features: Mapping[str, Any],
    errors: Mapping[str, dt.datetime],
    card: ModelCard,
    today: dt.date,
) -> list[str]:
    """The signs that carry the probability, as a mechanic would say them.

    Args:
        found: the shares of one machine, time and component.
        probability_now: the probability that they are shares of.
        features: the row of features/observations.
        errors: when each error code was last reported before the observation.
        card: for what is normal.
        today: the day of the worklist.
    """
    telling = [share.sign for share in found if share.lost >= LEAST_SHARE * probability_now][:MOST_REASONS]
    words = [_word(sign, features, errors, card, today) for sign in telling]
    return words or ["no single sign: several together"]


def _word(sign: str, features: Mapping[str, Any], errors: Mapping[str, dt.datetime], card: ModelCard, today: dt.date) -> str:
    if sign in CHANNEL_NAMES:
        return _channel(sign, features, card)
    if sign in ERROR_CODES:
        at = errors.get(sign)
        return f"{sign} {_when(at, today)}" if at else f"{sign} in the last {ERROR_LOOKBACK_HOURS} h"
    if sign in COMPONENTS:
        days = features[f"{sign}_days_since_replacement"]
        return f"{sign} was never replaced" if days is None else f"{sign} is {days:.0f} days old"
    return f"machine model {features[sign]}" if sign == MACHINE_MODEL else f"the machine is {features[AGE]:.0f} years old"


def _channel(channel: str, features: Mapping[str, Any], card: ModelCard) -> str:
    """The look-back whose mean is farthest from normal, in standard errors of such a mean.

    Where no mean is remarkable and how much the readings scatter is farther from normal, that.
    """
    usual = card.healthy.get(channel)
    if usual is None:
        return f"{channel} of the last {max(LOOKBACK_HOURS)} h"
    scatter = usual.spread_over(1)  # of single readings, one an hour
    # a channel that never varied has no standard errors: the farthest then
    means = _distances(channel, "mean", features, usual.level, usual.spread_over)
    scatters = _distances(channel, "std", features, scatter, lambda hours: scatter / (2 * hours) ** 0.5)
    if not means:
        return f"{channel} of the last {max(LOOKBACK_HOURS)} h"
    hours, farthest = max(means.items(), key=lambda item: item[1])
    if scatters and farthest < UNREMARKABLE and max(scatters.values()) > farthest:
        hours = max(scatters, key=scatters.__getitem__)
        return f"{channel} {hours} h scatter {features[f'{channel}_std_{hours}h']:.1f}, normal {scatter:.1f}"
    mean, spread = features[f"{channel}_mean_{hours}h"], usual.spread_over(hours)
    return f"{channel} {hours} h mean {mean:.1f}, normal {usual.level:.1f} ± {spread:.1f}"


def _distances(
    channel: str, statistic: str, features: Mapping[str, Any], normal: float, error: Callable[[int], float]
) -> dict[int, float]:
    """How many standard errors a statistic is from normal, by look-back; of those that are known."""
    values = {hours: features.get(f"{channel}_{statistic}_{hours}h") for hours in LOOKBACK_HOURS}
    return {hours: abs(value - normal) / (error(hours) or 1.0) for hours, value in values.items() if value is not None}


def _when(at: dt.datetime, today: dt.date) -> str:
    days = (today - at.date()).days
    day = {0: "today", 1: "yesterday"}.get(days, f"on {at:%Y-%m-%d}")
    return f"at {at:%H:%M} {day}"
