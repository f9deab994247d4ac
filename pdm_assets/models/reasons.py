"""Why a model alerts: each sign is taken away in turn, and what the probability loses by it is the sign's share.

A sign is all features of one channel, one error code or one component's age; taken away means set to its usual value in the
training window. This asks the model itself, whatever its type: a reason is never given that the model did not use.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pdm_assets.models.card import ModelCard
from pdm_assets.models.scoring import probability
from pdm_assets.schemas.features import NUMERIC_FEATURES, OBSERVATION_KEY
from pdm_assets.schemas.raw import CHANNEL_NAMES, COMPONENTS, ERROR_CODES
from pdm_assets.settings import ERROR_LOOKBACK_HOURS, LOOKBACK_HOURS

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel

NOTHING = "nothing"
AGE = "age_years"
LEAST_SHARE = 0.1  # of the probability: less is no reason
MOST_REASONS = 3
SIGNS: Mapping[str, tuple[str, ...]] = {
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
    without = F.explode(F.array(*(F.lit(sign) for sign in (NOTHING, *SIGNS)))).alias("without")
    rows = observations.select("*", without)
    usual = {name: value for name, value in card.usual.items() if name in observations.columns}
    rows = rows.withColumns(
        {
            name: F.when(F.col("without") == sign, F.lit(usual[name]).cast(observations.schema[name].dataType)).otherwise(
                F.col(name)
            )
            for sign, names in SIGNS.items()
            for name in names
            if name in usual
        }
    )
    found = (
        pipeline.transform(rows)
        .select(*OBSERVATION_KEY, "without", *(probability(component, card).alias(component) for component in COMPONENTS))
        .toArrow()
        .to_pylist()
    )
    whole = {(row["machine_id"], row["observed_at"]): row for row in found if row["without"] == NOTHING}
    lost: dict[tuple[int, dt.datetime, str], list[Share]] = {}
    for row in found:
        if row["without"] == NOTHING:
            continue
        key = row["machine_id"], row["observed_at"]
        for component in COMPONENTS:
            lost.setdefault((*key, component), []).append(Share(row["without"], whole[key][component] - row[component]))
    return {key: sorted(its, key=lambda share: (-share.lost, share.sign)) for key, its in lost.items()}


def in_words(
    found: Sequence[Share],
    probability_now: float,
    features: Mapping[str, float | None],
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


def _word(
    sign: str, features: Mapping[str, float | None], errors: Mapping[str, dt.datetime], card: ModelCard, today: dt.date
) -> str:
    if sign in CHANNEL_NAMES:
        return _channel(sign, features, card)
    if sign in ERROR_CODES:
        at = errors.get(sign)
        return f"{sign} {_when(at, today)}" if at else f"{sign} in the last {ERROR_LOOKBACK_HOURS} h"
    if sign in COMPONENTS:
        days = features[f"{sign}_days_since_replacement"]
        return f"{sign} was never replaced" if days is None else f"{sign} is {days:.0f} days old"
    return f"the machine is {features[AGE]:.0f} years old"


def _channel(channel: str, features: Mapping[str, float | None], card: ModelCard) -> str:
    """The look-back whose mean is farthest from normal, in standard errors of such a mean."""
    usual = card.healthy.get(channel)
    means = {hours: features[f"{channel}_mean_{hours}h"] for hours in LOOKBACK_HOURS}
    known = {hours: mean for hours, mean in means.items() if mean is not None}
    if usual is None or not known:
        return f"{channel} of the last {max(LOOKBACK_HOURS)} h"
    spread = {hours: usual.spread_over(hours) for hours in known}
    # a channel that never varied has no standard errors: the farthest then
    hours = max(known, key=lambda h: abs(known[h] - usual.level) / (spread[h] or 1.0))
    return f"{channel} {hours} h mean {known[hours]:.1f}, normal {usual.level:.1f} ± {spread[hours]:.1f}"


def _when(at: dt.datetime, today: dt.date) -> str:
    days = (today - at.date()).days
    day = {0: "today", 1: "yesterday"}.get(days, f"on {at:%Y-%m-%d}")
    return f"at {at:%H:%M} {day}"
