"""The load and the features in Polars, lazily: one query a table, in memory or streaming."""

from functools import partial

import polars as pl

from peers.common import CHANNEL_NAMES, CHANNELS, COMPONENTS, ERROR_CODES, EVENTS, HOURS, Stage, Work

BY_DAY = {"partition_by": ["date"]}


def load(work: Work, engine: str) -> None:
    """CSV to Delta tables by day: typed, checked against the fleet and the valid ranges, the last of equal keys kept."""
    fleet = pl.scan_csv(work.files / "machines.csv").select(
        pl.col("machineID").alias("machine_id"),
        pl.col("model").alias("machine_model"),
        pl.col("age").cast(pl.Int32).alias("age_years"),
    )
    days = pl.LazyFrame({"date": work.days})
    _write(days.join(fleet, how="cross"), work, "raw/machines", engine)
    telemetry = _times(work, "telemetry.csv", "observed_at").filter(
        *(pl.col(c.name).is_between(c.lowest, c.highest) for c in CHANNELS)
    )
    _events(
        telemetry.select("machine_id", "observed_at", *CHANNEL_NAMES),
        fleet,
        "observed_at",
        ["machine_id", "observed_at"],
        work,
        "raw/telemetry",
        engine,
    )
    for file, (table, time, theirs, ours, known) in EVENTS.items():
        rows = (
            _times(work, file, time).rename({theirs: ours}).filter(pl.col(ours).is_in(known)).select("machine_id", time, ours)
        )
        _events(rows, fleet, time, ["machine_id", time, ours], work, table, engine)


def _times(work: Work, file: str, time: str) -> pl.LazyFrame:
    found = pl.scan_csv(work.files / file, schema_overrides={"datetime": pl.String})
    at = pl.col("datetime").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", time_zone="UTC")
    return found.with_columns(at.alias(time)).rename({"machineID": "machine_id"}).drop_nulls()


def _events(rows: pl.LazyFrame, fleet: pl.LazyFrame, time: str, key: list[str], work: Work, table: str, engine: str) -> None:
    date = pl.max_horizontal(pl.col(time).dt.date(), pl.lit(work.first)).alias("date")
    known = rows.join(fleet, on="machine_id", how="semi").unique(key, keep="last", maintain_order=False)
    _write(known.with_columns(date), work, table, engine)


def _write(rows: pl.LazyFrame, work: Work, table: str, engine: str) -> None:
    target = work.lake / table
    if engine == "streaming":
        rows.sink_delta(target, mode="overwrite", delta_write_options=BY_DAY, engine="streaming")
    else:
        rows.collect(engine=engine).write_delta(target, mode="overwrite", delta_write_options=BY_DAY)


def features(work: Work, engine: str) -> None:
    """Observations at 06:00 and 18:00, windows (t - h, t]."""
    read = lambda table: pl.scan_delta(str(work.lake / table))  # noqa: E731
    key = ["machine_id", "observed_at"]
    telemetry = read("raw/telemetry").select(*key, *CHANNEL_NAMES).sort(key)
    hours = pl.LazyFrame({"hour": [6, 18]}, schema={"hour": pl.Int64})
    grid = (
        read("raw/machines")
        .join(hours, how="cross")
        .with_columns((pl.col("date").cast(pl.Datetime("us", "UTC")) + pl.duration(hours="hour")).alias("observed_at"))
        .drop("hour")
        # observed are the times whose last hour has landed of any machine
        .join(telemetry.select("observed_at").unique(), on="observed_at", how="semi")
        .sort(key)
    )
    found = grid
    for hours_back in HOURS:
        windows = _windows(telemetry, "observed_at", hours_back).agg(
            *(pl.col(name).mean().alias(f"{name}_mean_{hours_back}h") for name in CHANNEL_NAMES),
            *(pl.col(name).std().alias(f"{name}_std_{hours_back}h") for name in CHANNEL_NAMES),
            pl.len().cast(pl.Int32).alias(f"readings_{hours_back}h"),
        )
        found = found.join(windows, on=key, how="left")
    errors = read("raw/errors").sort("machine_id", "occurred_at")
    counts = _windows(errors, "occurred_at", 24).agg(
        *((pl.col("error_code") == code).sum().cast(pl.Int32).alias(f"{code}_count_24h") for code in ERROR_CODES)
    )
    found = found.join(counts.rename({"occurred_at": "observed_at"}), on=key, how="left")
    maintenance = read("raw/maintenance")
    found = found.sort("observed_at")
    for component in COMPONENTS:
        replaced = (
            maintenance.filter(pl.col("component") == component).select("machine_id", "performed_at").sort("performed_at")
        )
        found = found.join_asof(
            replaced.rename({"performed_at": component}),
            left_on="observed_at",
            right_on=component,
            by="machine_id",
            coalesce=False,
        )
    since = {name: (pl.col("observed_at") - pl.col(name)).dt.total_microseconds() / 86_400e6 for name in COMPONENTS}
    result = found.with_columns(
        *(age.alias(f"{name}_days_since_replacement") for name, age in since.items()),
        *(pl.col(name).is_null().alias(f"{name}_never_replaced") for name in COMPONENTS),
        *(pl.col(f"{code}_count_24h").fill_null(0) for code in ERROR_CODES),
        pl.col("readings_36h").fill_null(0),
    ).drop(*COMPONENTS, "readings_12h", "readings_24h")
    _write(result, work, "features/observations", engine)


def _windows(rows: pl.LazyFrame, time: str, hours: int) -> pl.lazyframe.group_by.LazyGroupBy:
    """Windows of some hours that end, closed, at 06:00 and 18:00."""
    return rows.group_by_dynamic(
        time,
        every="12h",
        period=f"{hours}h",
        offset=f"{6 - hours}h",
        closed="right",
        label="right",
        group_by="machine_id",
        start_by="window",
    )


def stages(engine: str) -> dict[str, Stage]:
    """The work in one of Polars's engines: in-memory or streaming."""
    return {"load": partial(load, engine=engine), "features": partial(features, engine=engine)}
