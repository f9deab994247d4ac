"""What a job of Databricks runs: one asset for the days that Dagster asks for through Pipes, or all of them by itself.

`pdm-assets-databricks-task FIRST LAST` without Pipes makes everything from landed files to the worklist for these days: what
the job of the bundle (deploy/databricks) does where no Dagster runs.
"""

import argparse
import datetime as dt
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import dagster as dg
from dagster_pipes import (
    PipesCliArgsParamsLoader,
    PipesEnvVarParamsLoader,
    PipesUnityCatalogVolumesContextLoader,
    PipesUnityCatalogVolumesMessageWriter,
    open_dagster_pipes,
)


def main() -> None:
    """Run it. An error ends the job as failed, with its text."""
    by_arguments, by_environment = PipesCliArgsParamsLoader(), PipesEnvVarParamsLoader()
    asked = next((way for way in (by_arguments, by_environment) if way.is_dagster_pipes_process()), None)
    if asked is None:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("first", type=_day, help="first day, YYYY-MM-DD, or yesterday")
        parser.add_argument("last", type=_day, help="last day, included")
        options = parser.parse_args()
        os.environ.setdefault("PDM_ENGINE", "spark")
        _materialize(None, [options.first, options.last], {}, {})
        return
    with open_dagster_pipes(
        context_loader=PipesUnityCatalogVolumesContextLoader(),
        message_writer=PipesUnityCatalogVolumesMessageWriter(),
        params_loader=asked,
    ) as pipes:
        told = pipes.extras
        for name in [name for name in os.environ if name.startswith("PDM_")]:
            del os.environ[name]  # the cluster may have others: the settings are those of the run
        os.environ.update(told["settings"])
        from pdm_assets.resources.lake import HOLDER_TAG

        tags = {HOLDER_TAG: told["holder"]} if told["holder"] else {}
        result = _materialize(told["asset"], told["days"], told["config"], tags, run_id=pipes.run_id)
        pipes.report_custom_message({"materialized": said_of_days(result)})


def _day(text: str) -> str:
    """A day as its partition is called."""
    if text == "yesterday":
        return (dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)).isoformat()
    return dt.date.fromisoformat(text).isoformat()


def _materialize(
    asset: Sequence[str] | None,
    days: Sequence[str],
    config: Mapping[str, Any],
    tags: Mapping[str, str],
    run_id: str | None = None,
) -> dg.ExecuteInProcessResult:
    from pdm_assets.definitions import defs  # the settings must stand before it

    if asset:  # its checks are the run's that asked
        whole = defs.resolve_implicit_global_asset_job_def()
        job = whole.get_subset(asset_selection={dg.AssetKey(asset)}, asset_check_selection=set())
    else:
        job = defs.resolve_job_def("process_days")
    return job.execute_in_process(
        run_config={"ops": {"__".join(asset): {"config": dict(config)}}} if asset and config else {},
        tags={"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1], **tags},
        run_id=run_id,
    )


def said_of_days(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """The metadata of a run's one asset, as text: what is the same on all days, and what is a day's own."""
    days = {
        str(event.partition): {name: dg.serialize_value(cast(Any, value)) for name, value in made.metadata.items()}
        for event in result.get_asset_materialization_events()
        if (made := event.materialization)
    }
    every = next(iter(days.values()))
    common = {name: text for name, text in every.items() if all(said.get(name) == text for said in days.values())}
    return {
        "all": common,
        "days": {day: own for day, said in days.items() if (own := {n: t for n, t in said.items() if n not in common})},
    }


if __name__ == "__main__":
    main()
