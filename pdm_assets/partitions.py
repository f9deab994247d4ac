"""The day partitions that every asset shares, and how a day maps to the days it reads.

This is the one place below the command line that reads the environment: Dagster needs the partitions when a definition is
made, and all assets must share one object, or the daemon will not put them into one run (dagster notes 2.3).
"""

import datetime as dt
import os
import warnings

import dagster as dg

from pdm_assets.settings import LOOKBACK_HOURS, Settings

# Used on purpose, at a pinned version; each definition would say so once more in every process.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)

SETTINGS = Settings.from_environ(os.environ)

# end_offset=1: the running day is a partition too, scored as its hours land.
DAILY = dg.DailyPartitionsDefinition(
    start_date=SETTINGS.first_day.isoformat(),
    end_date=None if SETTINGS.last_day is None else (SETTINGS.last_day + dt.timedelta(days=1)).isoformat(),
    end_offset=1 if SETTINGS.last_day is None else 0,
    timezone="UTC",
)
# A range is one Spark job, whatever its length; the same object everywhere, or layers split into runs of their own.
ONE_RUN = dg.BackfillPolicy.single_run()

LOOKBACK_DAYS = -(-max(LOOKBACK_HOURS) // 24)
IDENTITY = dg.TimeWindowPartitionMapping()


def days_back(first: int, last: int = 0) -> dg.TimeWindowPartitionMapping:
    """Day D reads the days D - first to D - last; days before the first partition do not exist and are not asked for."""
    return dg.TimeWindowPartitionMapping(start_offset=-first, end_offset=-last, allow_nonexistent_upstream_partitions=True)
