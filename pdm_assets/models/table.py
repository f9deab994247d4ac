"""Rows to learn from: an observation's features beside what became of it."""

from collections.abc import Iterable, Mapping, Sequence

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
FEW_FAILING_ROWS = 1_000  # of a component: so few are all learnt from, however many the others have


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


def without_undecided(rows: DataFrame, failures: DataFrame, maintenance: DataFrame, horizon_hours: int) -> DataFrame:
    """The rows of the training table, with null for each label that nobody can know: see `events.are_decided`.

    Args:
        rows: of the training table, few: those that are learnt from.
        failures: machine_id, component, failed_at, as far as they are known.
        maintenance: machine_id, component, performed_at, likewise.
        horizon_hours: of the labels.
    """

    def closings(of: DataFrame, instant: str, is_replacement: bool) -> DataFrame:
        closing = F.struct(F.col(instant).alias("at"), F.lit(is_replacement).alias("is_replacement"))
        return of.select("machine_id", "component", closing.alias("closing"))

    def closings_of(component: str) -> str:
        return f"closings_{component}"

    # Few closings against many observations: those of a machine are gathered and sent to every task.
    by_machine = (
        closings(failures, "failed_at", False)
        .unionByName(closings(maintenance, "performed_at", True))
        .groupBy("machine_id")
        .agg(*(F.collect_list(F.when(F.col("component") == c, F.col("closing"))).alias(closings_of(c)) for c in COMPONENTS))
    )
    observed = F.col("observed_at")
    horizon_end = observed + F.make_dt_interval(hours=F.lit(horizon_hours))

    def label(component: str) -> F.Column:
        inside = F.filter(closings_of(component), lambda closing: closing["at"].between(observed, horizon_end))
        first = F.array_min(inside)  # of a failure and a replacement at one instant, the failure
        is_undecided = F.coalesce(first["is_replacement"] | (first["at"] == observed), F.lit(False))
        return F.when(~is_undecided, F.col(label_of(component)))

    return (
        rows.join(F.broadcast(by_machine), on="machine_id", how="left")
        .withColumns({label_of(c): label(c) for c in COMPONENTS})
        .drop(*map(closings_of, COMPONENTS))
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


def seldom_failing(failing_rows: Mapping[str, int]) -> list[str]:
    """The components that fail on so few rows, by component, that none of them is left out."""
    return [component for component, rows in failing_rows.items() if rows <= FEW_FAILING_ROWS]


def thin_out(rows: DataFrame, one_healthy_in: int, one_failing_in: int, seed: int, all_of: Sequence[str] = ()) -> DataFrame:
    """Keep one in so many rows, by a hash of key and seed, with the weight of all those it stands for.

    All rows are kept on which one of the components `all_of` fails, those that have few.

    The weights keep the failure rate what it was, so probabilities stay honest. They are whole numbers: sums
    of them are exact in any order, and so a forest grown twice is the same forest.
    """
    is_rare = F.lit(False)
    for component in all_of:
        is_rare |= F.col(label_of(component)) == 1.0
    one_in = F.when(is_rare, 1).when(any_failure(), one_failing_in).otherwise(one_healthy_in)
    is_kept = F.pmod(F.xxhash64(*OBSERVATION_KEY, F.lit(seed)), one_in) == 0
    return rows.filter(is_kept).withColumn(WEIGHT, one_in.cast("double"))
