"""Features and labels, kept apart: a label is keyed by the day on which it became known."""

import datetime as dt

import dagster as dg
from pyspark.sql import DataFrame

from pdm_assets.partitions import DAILY, FROM_THE_FIRST_DAY, LOOKBACK_DAYS, ONE_RUN, SETTINGS, reads
from pdm_assets.resources.delta_io import span
from pdm_assets.resources.lake import Lake, known_until
from pdm_assets.schemas.features import OBSERVATIONS, READINGS_COUNT
from pdm_assets.schemas.raw import CHANNEL_NAMES, COMPONENTS, ERROR_CODES
from pdm_assets.transforms.features import observe_machines, within_reach
from pdm_assets.transforms.labels import label_observations

TEAM = ["team:reliability"]
HORIZON_DAYS = SETTINGS.horizon_days


def observation_lineage() -> dg.TableColumnLineage:
    """Which raw columns each feature is made from."""

    def source(feature: str) -> list[dg.TableColumnDep]:
        for channel in CHANNEL_NAMES:
            if feature.startswith(f"{channel}_"):
                return [_dep("telemetry", channel), _dep("telemetry", "observed_at")]
        if feature.startswith(tuple(f"{code}_" for code in ERROR_CODES)):
            return [_dep("errors", "error_code"), _dep("errors", "occurred_at")]
        if feature.startswith(tuple(f"{component}_" for component in COMPONENTS)):
            return [_dep("maintenance", "component"), _dep("maintenance", "performed_at")]
        if feature in (READINGS_COUNT, "observed_at"):
            return [_dep("telemetry", "observed_at")]
        return [_dep("machines", feature)]

    return dg.TableColumnLineage({name: source(name) for name in OBSERVATIONS.column_names})


def _dep(table: str, column: str) -> dg.TableColumnDep:
    return dg.TableColumnDep(asset_key=dg.AssetKey(["raw", table]), column_name=column)


@dg.asset(
    key_prefix="features",
    group_name="features",
    kinds={"spark", "delta"},
    owners=TEAM,
    code_version="1",
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    ins={
        "machines": reads("raw/machines"),
        "telemetry": reads("raw/telemetry", days_back=LOOKBACK_DAYS),
        "errors": reads("raw/errors", days_back=LOOKBACK_DAYS),
        "maintenance": reads("raw/maintenance", days_back=FROM_THE_FIRST_DAY),
    },
    pool="spark",
)
def observations(
    context: dg.AssetExecutionContext, machines: DataFrame, telemetry: DataFrame, errors: DataFrame, maintenance: DataFrame
) -> DataFrame:
    """One row per machine and observation time: what was known of the machine then, and nothing later.

    Rolling means and standard deviations of each channel over 12, 24 and 36 h, errors of the last 24 h, days since the
    latest replacement of each component, age and machine model. Windows are (observed_at - lookback, observed_at].
    """
    cadence = SETTINGS.cadence_hours
    seen = within_reach(telemetry, *span(context.partition_keys), cadence)
    context.add_asset_metadata({"dagster/column_lineage": observation_lineage()}, partition_key=context.partition_keys[-1])
    return observe_machines(machines, seen, errors, maintenance, cadence_hours=cadence)


@dg.asset(
    key_prefix="labels",
    group_name="labels",
    kinds={"spark", "delta"},
    owners=TEAM,
    code_version="1",
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    ins={
        "machines": reads("raw/machines", days_back=HORIZON_DAYS, up_to=HORIZON_DAYS),
        "failures": reads("raw/failures", days_back=HORIZON_DAYS),
    },
    deps=[["raw", "telemetry"]],
    pool="spark",
)
def component_failures(lake: Lake, machines: DataFrame, failures: DataFrame) -> DataFrame:
    """One row per machine, observation time and component: does the component fail within the horizon?

    Partition D holds what day D taught us: the outcomes of the observations made one horizon earlier. A day has no labels
    before it is over and telemetry of it or of a later day has landed: that no failure was told of says nothing till then.
    """
    return label_observations(
        machines,
        failures,
        cadence_hours=SETTINGS.cadence_hours,
        horizon=SETTINGS.horizon,
        known_until=known_until(lake, dt.datetime.now(dt.UTC)),
    )
