"""Labels: does a component of a machine fail within the horizon of an observation? Said only once the horizon is over."""

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pdm_assets.schemas.features import COMPONENT_FAILURES
from pdm_assets.schemas.raw import COMPONENTS
from pdm_assets.schemas.table import DATE
from pdm_assets.transforms.features import observation_hours


def label_observations(
    machines: DataFrame,
    failures: DataFrame,
    *,
    cadence_hours: int,
    horizon: dt.timedelta,
    known_until: dt.datetime,
) -> DataFrame:
    """One row per machine, observation time and component, kept by the day on which its outcome became known.

    The outcome of an observation is known on the day `date` = its own day + ceil(horizon): then (observed_at, observed_at +
    horizon] is over. Two components may fail together: each has a row of its own, nothing is summed. A day that is not over
    at `known_until` has no labels yet, not even of failures already seen: keeping only the early positives would inflate the
    failure rate at the edge.

    Args:
        machines: raw/machines of the observed days, ceil(horizon) before the days that the labels are kept by.
        failures: raw/failures from the observed days up to the end of the days that the labels are kept by.
        cadence_hours: hours between two observations.
        horizon: how far ahead a failure counts.
        known_until: the present, or the end of the last day that was heard of; only days that ended by then have labels.
    """
    days_ahead = -(-int(horizon.total_seconds()) // 86_400)
    hour = F.explode(F.array(*(F.lit(h) for h in observation_hours(cadence_hours))))
    known_on = F.date_add(DATE, days_ahead)
    observations = (
        machines.select("machine_id", DATE, hour.alias("hour"))
        .select(
            "machine_id",
            (F.col(DATE).cast("timestamp") + F.make_dt_interval(hours="hour")).alias("observed_at"),
            known_on.alias(DATE),
        )
        .where(F.date_add(DATE, 1).cast("timestamp") <= F.lit(known_until))
    )
    candidates = observations.select("*", F.explode(F.array(*map(F.lit, COMPONENTS))).alias("component"))
    same_component = ["machine_id", "component"]
    # Few failures against many observations: the failures of a component are gathered and sent to every task.
    failure_times = failures.groupBy(*same_component).agg(F.collect_list("failed_at").alias("failure_times"))
    horizon_end = F.col("observed_at") + F.lit(horizon)
    fails = F.exists("failure_times", lambda failed_at: (failed_at > F.col("observed_at")) & (failed_at <= horizon_end))
    return (
        candidates.join(F.broadcast(failure_times), on=same_component, how="left")
        .select(
            "machine_id",
            "observed_at",
            "component",
            F.coalesce(fails, F.lit(False)).alias("fails_within_horizon"),
            F.lit(int(horizon.total_seconds()) // 3600).alias("horizon_hours"),
            DATE,
        )
        .select(*COMPONENT_FAILURES.column_names)
    )
