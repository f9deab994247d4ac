"""Why a model alerts: each sign is taken away in turn, and what the probability loses by it is the sign's share.

A sign is all features of one channel, one error code or one component's age, or the machine's model. Taken away means set to
its usual value in the training window; the machine's model, to that one in training with the least probability. This asks the
model itself, whatever its type: a reason is never given that the model did not use.
"""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pdm_assets.models.card import ModelCard
from pdm_assets.models.pipeline import known_categories
from pdm_assets.models.scoring import probability
from pdm_assets.schemas.features import CATEGORICAL_FEATURES, NUMERIC_FEATURES, OBSERVATION_KEY
from pdm_assets.schemas.raw import CHANNEL_NAMES, COMPONENTS, ERROR_CODES
from pdm_assets.settings import ERROR_LOOKBACK_HOURS, LOOKBACK_HOURS

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel

NOTHING = "nothing"
AGE = "age_years"
(MACHINE_MODEL,) = CATEGORICAL_FEATURES
LEAST_SHARE = 0.1  # of the probability: less is no reason
MOST_REASONS = 3
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
    observations: DataFrame, pipeline: "PipelineModel", card: ModelCard
) -> dict[tuple[int, dt.datetime, str], list[Share]]:
    """By machine, time and component: every sign with what it adds to the probability, the greatest first.

    Args:
        observations: rows of features/observations; each is scored once more for every sign.
        pipeline: the model.
        card: its card, for the usual values.
    """
    other_models = {f"{MACHINE_MODEL}={name}": name for name in known_categories(pipeline)[MACHINE_MODEL]}
    without = F.explode(F.array(*(F.lit(sign) for sign in (NOTHING, *NUMERIC_SIGNS, *other_models)))).alias("without")
    rows = observations.select("*", without)
    usual = {name: value for name, value in card.usual.items() if name in observations.columns}
    rows = rows.withColumns(
        {
            name: F.when(F.col("without") == sign, F.lit(usual[name]).cast(observations.schema[name].dataType)).otherwise(
                F.col(name)
            )
            for sign, names in NUMERIC_SIGNS.items()
            for name in names
            if name in usual
        }
    )
    changed = F.create_map(*(F.lit(text) for pair in other_models.items() for text in pair))
    rows = rows.withColumn(MACHINE_MODEL, F.coalesce(changed[F.col("without")], F.col(MACHINE_MODEL)))
    found = (
        pipeline.transform(rows)
        .select(*OBSERVATION_KEY, "without", *(probability(component, card).alias(component) for component in COMPONENTS))
        .toArrow()
        .to_pylist()
    )
    whole = {(row["machine_id"], row["observed_at"]): row for row in found if row["without"] == NOTHING}
    lost: dict[tuple[int, dt.datetime, str], dict[str, float]] = {}
    for row in found:
        if row["without"] == NOTHING:
            continue
        key = row["machine_id"], row["observed_at"]
        sign = MACHINE_MODEL if row["without"] in other_models else row["without"]
        for component in COMPONENTS:
            its = lost.setdefault((*key, component), {})
            its[sign] = max(its.get(sign, -1.0), whole[key][component] - row[component])
    return {
        key: sorted((Share(*item) for item in its.items()), key=lambda share: (-share.lost, share.sign))
        for key, its in lost.items()
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
