"""The day partitions that every asset shares, and which days a day reads.

This is the one place below the command line that reads the environment: Dagster needs the partitions when a definition is
made, and all assets must share one object, or the daemon will not put them into one run.
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


def day_partitions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """The days from first_day to the running one or to last_day, whichever is earlier, all included."""
    end = None if settings.last_day is None else (settings.last_day + dt.timedelta(days=1)).isoformat()
    return dg.DailyPartitionsDefinition(
        start_date=settings.first_day.isoformat(),
        end_date=end,
        end_offset=1,  # the running day is a partition too, scored as its hours land; end_date holds all the same
        timezone="UTC",
    )


DAILY = day_partitions(SETTINGS)
# A range is one query, whatever its length; the same object everywhere, or layers split into runs of their own.
ONE_RUN = dg.BackfillPolicy.single_run()

LOOKBACK_DAYS = -(-max(LOOKBACK_HOURS) // 24)
FROM_THE_FIRST_DAY = "the first day"


def reads(key: str, *, days_back: int | str = 0, up_to: int = 0) -> dg.AssetIn:
    """An input of which day D reads the days D - days_back (or all days) to D - up_to, both included.

    The IO manager widens what it reads; to Dagster the input is the day's own. Declared as a partition mapping, a look-back
    splits a backfill from the UI into a run per layer, each waiting for a tick of the daemon (docs/adr, decision 6).
    """
    return dg.AssetIn(key=key.split("/"), metadata={"days_back": days_back, "up_to": up_to})
