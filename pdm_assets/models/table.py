"""Rows to learn from: an observation's features beside what became of it."""

from collections.abc import Iterable

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pdm_assets.models.windows import Window
from pdm_assets.schemas.features import (
    CATEGORICAL_FEATURES,
    NUMERIC_FEATURES,
    OBSERVATION_KEY,
    READINGS_COUNT,
)
from pdm_assets.schemas.raw import COMPONENTS
from pdm_assets.settings import LOOKBACK_HOURS

LEAST_READINGS = max(LOOKBACK_HOURS) // 2
WEIGHT = "weight"
# Bounds a fit, whatever the fleet. With 1,000 machines the forest's average precision was the same on 40,000,
# 60,000 and 120,000 rows (within the noise of the seed), its time less than half.
MAX_TRAIN_ROWS = 40_000


def label_of(component: str) -> str:
    """Column of the training table that is 1.0 where the component fails within the horizon, else 0.0."""
    return f"fails_{component}"


LABELS = tuple(label_of(component) for component in COMPONENTS)


def scorable(observations: DataFrame) -> DataFrame:
    """The observations with half of the longest look-back's readings; no other is learnt from or scored."""
    return observations.filter(F.col(READINGS_COUNT) >= LEAST_READINGS)


def training_table(observations: DataFrame, labels: DataFrame, horizon_hours: int) -> DataFrame:
    """One row per observation: its key, its features and one 0/1 column per component (`fails_comp1`, ...).

    Left out: observations without a known outcome of every component at this very horizon (labels of another
    horizon are other facts), and those that are not scorable.
    """
    fails = F.col("fails_within_horizon").cast("double")
    outcomes = (
        labels.filter(F.col("horizon_hours") == horizon_hours)
        .groupBy(*OBSERVATION_KEY)
        .agg(*(F.max(F.when(F.col("component") == c, fails)).alias(label_of(c)) for c in COMPONENTS))
        .dropna(subset=list(LABELS))
    )
    return (
        scorable(observations)
        .select(*OBSERVATION_KEY, *NUMERIC_FEATURES, *CATEGORICAL_FEATURES, READINGS_COUNT)
        .drop(READINGS_COUNT)
        .join(outcomes, on=list(OBSERVATION_KEY), how="inner")
    )


def within(rows: DataFrame, windows: Iterable[Window]) -> DataFrame:
    """The rows observed in one of the windows."""
    inside = F.lit(False)
    for window in windows:
        inside |= is_in(window)
    return rows.filter(inside)


def is_in(window: Window) -> F.Column:
    """Whether a row was observed in the half-open window."""
    return (F.col("observed_at") >= F.lit(window.start_at)) & (F.col("observed_at") < F.lit(window.end_at))


def any_failure() -> F.Column:
    """Whether any component of the row fails within the horizon."""
    return F.greatest(*(F.col(label) for label in LABELS)) == 1.0


def thinning(healthy: int, failing: int, max_rows: int = MAX_TRAIN_ROWS) -> tuple[int, int]:
    """Of how many healthy, and of how many failing rows one is kept so that about max_rows remain.

    Failing rows are the rare ones: they may fill half of the table before any is left out.
    """
    one_failing_in = max(1, -(-failing // (max_rows // 2)))
    room = max_rows - -(-failing // one_failing_in)
    return max(1, -(-healthy // room)), one_failing_in


def thin_out(rows: DataFrame, one_healthy_in: int, one_failing_in: int, seed: int) -> DataFrame:
    """Keep one in so many rows, by a hash of key and seed, with the weight of all those it stands for.

    The weights keep the failure rate what it was, so probabilities stay honest. They are whole numbers: sums
    of them are exact in any order, and so a forest grown twice is the same forest.
    """
    one_in = F.when(any_failure(), one_failing_in).otherwise(one_healthy_in)
    is_kept = F.pmod(F.xxhash64(*OBSERVATION_KEY, F.lit(seed)), one_in) == 0
    return rows.filter(is_kept).withColumn(WEIGHT, one_in.cast("double"))
