"""Assets whose work is a job of Databricks: the graph stays the same, where a table is made changes."""

from typing import Any, cast

import dagster as dg

from pdm_assets.resources.databricks_jobs import DatabricksJobs


def by_job(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """The same asset, made by a job: its inputs are read and its rows written there."""
    (spec,) = asset.specs

    @dg.asset(
        key=spec.key,
        deps=list(spec.deps),
        description=spec.description,
        metadata=spec.metadata,
        tags=spec.tags,
        owners=spec.owners,
        group_name=spec.group_name,
        code_version=spec.code_version,
        partitions_def=asset.partitions_def,
        backfill_policy=asset.backfill_policy,
        freshness_policy=spec.freshness_policy,
        io_manager_key=asset.get_io_manager_key_for_asset_key(spec.key),
        config_schema=cast(Any, asset.op.config_schema),
        pool=asset.op.pool,
    )
    def made_elsewhere(context: dg.AssetExecutionContext, databricks: DatabricksJobs) -> dg.MaterializeResult:
        return databricks.materialize(context)

    return made_elsewhere
