"""`make compare`: the platform's load and features beside Polars and pandas, its training beside scikit-learn and XGBoost.

The same files in the same run; outputs are compared row by row before any time is shown. Writes benchmarks/peers.md.

Each peer is a process of its own, so that its peak of memory is its own; one that leaves less than 3 GiB of the machine's is
ended, and the table says so. The platform also sorts out bad rows, checks, and keeps Dagster's record of each day, which the
peers do not.
"""

import argparse
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from peers.common import measured_on, peak

RESULTS = Path(__file__).parent / "peers.md"
END = dt.date(2026, 1, 1)
LOADED = ("raw/telemetry", "raw/errors", "raw/maintenance", "raw/failures", "raw/machines")
SPARED = 3 * 2**30  # bytes of the machine's memory that a peer must leave
PACKAGES = ("pyspark", "delta-spark", "polars", "deltalake", "pandas", "scikit-learn", "xgboost-cpu")
PEERS = {"Polars, in memory": "polars:in-memory", "Polars, streaming": "polars:streaming", "pandas": "pandas:"}


def main() -> None:
    """Run all, compare, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--load-only", action="store_true", help="no trainings: does the load still fit the machine?")
    parser.add_argument("--peer", nargs=3, metavar=("NAME", "FILES", "LAKE"), help="run one peer, print what it took as JSON")
    options = parser.parse_args()
    first = END - dt.timedelta(days=options.days)
    if options.peer:
        print(json.dumps(run_peer(*options.peer, first)))
        return
    root = Path(tempfile.mkdtemp(prefix="pdm-compare-"))
    title = f"{options.machines} machines x {options.days} days{', load and features only' if options.load_only else ''}"
    try:
        text = f"## {title}\n\n{compare(root, options.machines, options.days, first, not options.load_only)}"
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(text)
    before = RESULTS.read_text() if RESULTS.exists() else "# Beside other tools\n"
    kept = [part for part in before.split("\n## ") if part.split("\n", 1)[0] != title]
    RESULTS.write_text("\n## ".join(kept).rstrip() + "\n\n" + text)


def run_peer(name: str, files: str, lake: str, first: dt.date) -> dict[str, float]:
    """The stages of one peer in this process: seconds of each, and the peak of memory in MiB."""
    import warnings

    from peers import pandas_peer, polars_peer
    from peers.common import Work

    warnings.filterwarnings("ignore", message="Sortedness of columns")
    tool, engine = name.split(":")
    stages = polars_peer.stages(engine) if tool == "polars" else pandas_peer.STAGES
    work = Work(Path(files), Path(lake), first, END)
    took: dict[str, float] = {}
    for stage, of_it in stages.items():
        began = time.perf_counter()
        of_it(work)
        took[stage] = time.perf_counter() - began
    return {**took, "memory": peak(os.getpid()) / 2**20}


def compare(root: Path, machines: int, days: int, first: dt.date, with_training: bool) -> str:
    """The section of the page for one fleet."""
    files = root / "fleet"
    command = [str(Path(sys.executable).parent / "pdm-assets"), "simulate", "--machines", str(machines), "--days", str(days)]
    subprocess.run([*command, "--end", END.isoformat(), "--out", str(files)], check=True)
    ours, trained = run_ours(root, files, first, with_training)
    made_by = f"make compare MACHINES={machines}{'' if with_training else ' ONLY=--load-only'}"
    lines = [
        f"{measured_on(*PACKAGES)}: `{made_by}`",
        "",
        "| load and features | load | features | both | ours / theirs | peak of memory | rows as ours |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        load_line("this platform", ours, ours, ""),
    ]
    measured = {"this platform": ours}
    for name, code in PEERS.items():
        lake = root / code.replace(":", "-")
        command = [sys.executable, __file__, "--days", str(days), "--peer", code, str(files), str(lake)]
        answer, ended = within_memory(command)
        if ended:
            lines.append(f"| {name} | {ended} | | | | | |")
        else:
            same = same_rows(lake, root / "data" / "lake", first)
            measured[name] = json.loads(answer)
            lines.append(load_line(name, measured[name], ours, same))
        shutil.rmtree(lake, ignore_errors=True)
    if not trained:
        return "\n".join(lines) + "\n"
    lines += ["", "| training, four components | rows | fits | ours / theirs | average precision of each in the test window |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for name, it in trained.items():
        precision = ", ".join(f"{value:.3f}" for value in it["average_precision"].values())
        ours_fit = trained["Spark MLlib, random forest"]
        ratio = f"{ours_fit['seconds'] / it['seconds']:.1f}" if it["rows"] == ours_fit["rows"] else ""
        lines.append(f"| {name} | {it['rows']:,} | {it['seconds']:.1f} s | {ratio} | {precision} |")
    lines += [
        "",
        "The fits of Spark include filling gaps and coding the machine models; those of the others begin with arrays.",
        "",
        f"![Seconds and memory of each](peers-{machines}.png)",
    ]
    fits = {name: it["seconds"] for name, it in trained.items()}
    plot(RESULTS.with_name(f"peers-{machines}.png"), f"{machines:,} machines x {days} days", measured, fits)
    return "\n".join(lines) + "\n"


def within_memory(command: list[str]) -> tuple[str, str]:
    """What a peer printed, and how it ended if not by itself and well: it may not take the machine's last memory."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output)
        try:
            while process.poll() is None:
                if psutil.virtual_memory().available < SPARED:
                    return "", f"does not fit: it left less than {SPARED // 2**30} GiB of the machine's memory"
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        return output.read(), f"ended with {process.returncode}" if process.returncode else ""


def load_line(name: str, took: dict[str, float], ours: dict[str, float], same: str) -> str:
    """A line of the first table."""
    both, ours_both = took["load"] + took["features"], ours["load"] + ours["features"]
    return (
        f"| {name} | {took['load']:.1f} s | {took['features']:.1f} s | {both:.1f} s | {ours_both / both:.1f} "
        f"| {took['memory']:,.0f} MiB | {same} |"
    )


def plot(path: Path, title: str, measured: dict[str, dict[str, float]], fits: dict[str, float]) -> None:
    """Load and features stacked, the peak of memory, and the fits, as bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    (times, memory), (training, unused) = figure.subplots(2, 2, gridspec_kw={"width_ratios": (2, 1)})
    unused.set_axis_off()
    names = list(reversed(measured))
    left = [0.0] * len(names)
    for stage in ("load", "features"):
        seconds = [measured[name][stage] for name in names]
        times.barh(names, seconds, left=left, label=stage)
        left = [so_far + more for so_far, more in zip(left, seconds, strict=True)]
    times.legend()
    times.set(xlabel="seconds", title=f"load and features, {title}")
    memory.barh(names, [measured[name]["memory"] / 1024 for name in names], color="grey")
    memory.set(xlabel="GiB at the peak", yticks=[])
    training.barh(list(reversed(fits)), list(reversed(fits.values())), color="C2")
    training.set(xlabel="seconds", title="fits of four components")
    figure.savefig(path, dpi=110)


def run_ours(root: Path, files: Path, first: dt.date, with_training: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """The platform's own stages; then the training of all tools on its tables."""
    last = END - dt.timedelta(days=1)
    os.environ.update(PDM_DATA=str(root / "data"), PDM_FIRST_DAY=first.isoformat(), PDM_LAST_DAY=last.isoformat())
    import dagster as dg

    from pdm_assets.assets.training import trained_for
    from pdm_assets.definitions import defs, lake, spark
    from pdm_assets.demo import make_home
    from pdm_assets.models.table import seldom_failing, thin_out, training_table, within, without_undecided
    from pdm_assets.models.windows import model_windows
    from pdm_assets.partitions import SETTINGS
    from pdm_assets.resources.landing import land
    from pdm_assets.schemas.features import COMPONENT_FAILURES, OBSERVATIONS
    from pdm_assets.schemas.raw import FAILURES, MAINTENANCE

    os.environ["DAGSTER_HOME"] = str(make_home(root / "data"))
    land(files, root / "data" / "landing")
    time.sleep(1.5)  # a file is taken once it has been still for a second
    job = defs.resolve_job_def("process_days")

    def materialize(*groups: str) -> float:
        keys = [key for key in job.asset_layer.executable_asset_keys if key.path[0] in groups]
        tags = {"dagster/asset_partition_range_start": first.isoformat(), "dagster/asset_partition_range_end": last.isoformat()}
        quiet = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}
        began = time.perf_counter()
        assert job.execute_in_process(
            run_config=quiet, instance=dg.DagsterInstance.get(), asset_selection=keys, tags=tags
        ).success
        return time.perf_counter() - began

    ours = {"load": materialize("raw", "quarantine"), "features": materialize("features")}
    ours["memory"] = peak(os.getpid()) / 2**20
    if not with_training:
        spark.close()
        return ours, {}
    materialize("labels")
    from peers import training  # only now: what it imports is none of the platform's memory

    windows = model_windows(END, SETTINGS)
    with spark.fitter() as fitter:
        its = trained_for(
            lake, END, kind="random_forest", settings=SETTINGS, version="benchmark", fitter=fitter, folder=root / "pipeline"
        )
    scores = {c: m.average_precision for c, m in its.card.metrics["test"].items() if c in its.card.thresholds}
    ours_fit = {"seconds": its.fit_seconds, "rows": its.card.rows_fitted, "average_precision": scores}
    trained: dict[str, Any] = {"Spark MLlib, random forest": ours_fit}
    table = training_table(lake.read(OBSERVATIONS), lake.read(COMPONENT_FAILURES), SETTINGS.horizon_hours)
    train, test = within(table, [windows.train]), within(table, [windows.test])
    seldom = seldom_failing(its.card.windows["train"].positives)
    same = thin_out(train, its.card.one_healthy_in, its.card.one_failing_in, SETTINGS.seed, seldom)
    happened = lake.read(FAILURES), lake.read(MAINTENANCE)
    rows = {
        name: without_undecided(frame, *happened, SETTINGS.horizon_hours).toArrow()
        for name, frame in {"same": same, "all": train, "test": test}.items()
    }
    spark.close()
    for which, words in {"same": "", "all": ", all rows"}.items():
        for kind in training.KINDS:
            trained[f"{kind}{words}"] = training.fit(kind, rows[which], rows["test"], SETTINGS.seed)
    return ours, trained


def same_rows(theirs: Path, ours: Path, first: dt.date) -> str:
    """Whether every table holds the same rows, numbers to nine digits; the first difference raises."""
    import polars as pl
    from polars.testing import assert_frame_equal

    count = 0
    for table in (*LOADED, "features/observations"):
        month = first
        while month < END:  # by month: the peers' memory is what is measured, not ours here
            after = min(month + dt.timedelta(days=31), END)
            found, expected = (
                pl.scan_delta(str(lake / table)).filter(pl.col("date") >= month, pl.col("date") < after).collect()
                for lake in (theirs, ours)
            )
            order = [name for name in expected.columns if not expected[name].dtype.is_float()]
            assert_frame_equal(
                found.select(expected.columns).sort(order), expected.sort(order), check_dtypes=False, rel_tol=1e-9, abs_tol=1e-6
            )
            count += len(found)
            month = after
    return f"all {count:,}"


if __name__ == "__main__":
    main()
