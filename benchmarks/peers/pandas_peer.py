"""The load and the features in pandas: PyArrow's reader, whole tables in memory, half-day sums instead of rolling windows."""

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from peers.common import CHANNEL_NAMES, CHANNELS, COMPONENTS, ERROR_CODES, EVENTS, HOURS, Stage, Work

KEY = ["machine_id", "observed_at"]
HALF_DAY = pd.Timedelta(hours=12)


def load(work: Work) -> None:
    """CSV to Delta tables by day: typed, checked against the fleet and the valid ranges, the last of equal keys kept."""
    fleet = pd.read_csv(work.files / "machines.csv", engine="pyarrow").rename(
        columns={"machineID": "machine_id", "model": "machine_model", "age": "age_years"}
    )
    fleet["age_years"] = fleet["age_years"].astype("int32")
    _write(pd.DataFrame({"date": work.days}).merge(fleet, how="cross"), work, "raw/machines")
    telemetry = _times(work, "telemetry.csv", "observed_at")
    valid = np.logical_and.reduce([telemetry[c.name].between(c.lowest, c.highest) for c in CHANNELS])
    telemetry = telemetry[valid]
    _events(telemetry[[*KEY, *CHANNEL_NAMES]], fleet, "observed_at", KEY, work, "raw/telemetry")
    for file, (table, time, theirs, ours, known) in EVENTS.items():
        rows = _times(work, file, time).rename(columns={theirs: ours})
        columns = ["machine_id", time, ours]
        _events(rows.loc[rows[ours].isin(known), columns], fleet, time, columns, work, table)


def _times(work: Work, file: str, time: str) -> pd.DataFrame:
    rows = pd.read_csv(work.files / file, engine="pyarrow", parse_dates=["datetime"]).dropna()
    rows = rows.rename(columns={"machineID": "machine_id", "datetime": time})
    rows[time] = rows[time].dt.tz_localize("UTC").astype("datetime64[us, UTC]")
    return rows


def _events(rows: pd.DataFrame, fleet: pd.DataFrame, time: str, key: list[str], work: Work, table: str) -> None:
    rows = rows[rows["machine_id"].isin(fleet["machine_id"])].drop_duplicates(key, keep="last")
    days = rows[time].dt.tz_localize(None).dt.normalize().clip(lower=pd.Timestamp(work.first))
    _write(rows.assign(date=days), work, table)


def _write(rows: pd.DataFrame, work: Work, table: str) -> None:
    found = pa.Table.from_pandas(rows, preserve_index=False)
    date = found.schema.get_field_index("date")
    found = found.set_column(date, "date", found["date"].cast(pa.date32()))
    write_deltalake(work.lake / table, found, mode="overwrite", partition_by=["date"])


def _read(work: Work, table: str) -> pd.DataFrame:
    return DeltaTable(work.lake / table).to_pandas()


def _half_day_end(times: pd.Series) -> pd.Series:
    """End of the half day (end - 12 h, end] that a time falls into; half days end at 06:00 and 18:00."""
    six = pd.Timedelta(hours=6)
    return (times - six).dt.ceil("12h") + six


def features(work: Work) -> None:
    """Observations at 06:00 and 18:00, windows (t - h, t]."""
    telemetry = _read(work, "raw/telemetry")
    telemetry["bucket"] = _half_day_end(telemetry["observed_at"])
    for name in CHANNEL_NAMES:
        telemetry[f"{name}_squares"] = telemetry[name] ** 2
    squares = [f"{name}_squares" for name in CHANNEL_NAMES]
    grouped = telemetry.groupby(["machine_id", "bucket"], sort=True)
    sums = grouped[[*CHANNEL_NAMES, *squares]].sum()
    sums["readings"] = grouped.size()
    landed = telemetry.loc[telemetry["observed_at"] == telemetry["bucket"], "bucket"].unique()

    errors = _read(work, "raw/errors")
    errors["bucket"] = _half_day_end(errors["occurred_at"])
    counts = errors.pivot_table(index=["machine_id", "bucket"], columns="error_code", aggfunc="size", fill_value=0)

    machines = _read(work, "raw/machines")
    midnight = pd.to_datetime(machines["date"]).dt.tz_localize("UTC")
    grid = pd.concat([machines.assign(observed_at=midnight + pd.Timedelta(hours=hour)) for hour in (6, 18)])
    grid["observed_at"] = grid["observed_at"].astype("datetime64[us, UTC]")
    every = grid[KEY].rename(columns={"observed_at": "bucket"}).set_index(["machine_id", "bucket"]).index
    every = every.union(sums.index).union(counts.index).sort_values()
    # each half day of each machine once, in order: neighbours are rows
    first, last = every.get_level_values("bucket").min(), every.get_level_values("bucket").max()
    full = pd.MultiIndex.from_product(
        [every.get_level_values("machine_id").unique(), pd.date_range(first, last, freq=HALF_DAY, unit="us")],
        names=["machine_id", "bucket"],
    )
    sums = sums.reindex(full, fill_value=0.0)
    counts = counts.reindex(full, fill_value=0).reindex(columns=list(ERROR_CODES), fill_value=0)
    result = pd.DataFrame(index=full)
    by_machine = sums.groupby(level="machine_id")
    steps = [sums, by_machine.shift(1).fillna(0.0), by_machine.shift(2).fillna(0.0)]
    for hours in HOURS:
        total = sum(steps[: hours // 12][1:], steps[0])
        count = total["readings"].replace(0, np.nan)
        for name in CHANNEL_NAMES:
            result[f"{name}_mean_{hours}h"] = total[name] / count
            spread = (total[f"{name}_squares"] - total[name] ** 2 / count).clip(lower=0)
            result[f"{name}_std_{hours}h"] = np.sqrt(spread / (count - 1).replace(0, np.nan))
        if hours == max(HOURS):
            result["readings_36h"] = total["readings"].astype("int32")
    day = counts + counts.groupby(level="machine_id").shift(1).fillna(0)
    for code in ERROR_CODES:
        result[f"{code}_count_24h"] = day[code].astype("int32")
    found = (
        grid[grid["observed_at"].isin(landed)]
        .merge(result, how="left", left_on=KEY, right_index=True)
        .sort_values("observed_at")
    )
    maintenance = _read(work, "raw/maintenance").sort_values("performed_at")
    for component in COMPONENTS:
        replaced = maintenance.loc[maintenance["component"] == component, ["machine_id", "performed_at"]]
        found = pd.merge_asof(found, replaced, left_on="observed_at", right_on="performed_at", by="machine_id")
        age = found["observed_at"] - found.pop("performed_at")
        found[f"{component}_days_since_replacement"] = age / pd.Timedelta(days=1)
        found[f"{component}_never_replaced"] = age.isna()
    _write(found, work, "features/observations")


STAGES: dict[str, Stage] = {"load": load, "features": features}
