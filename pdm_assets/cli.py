"""The command `pdm-assets`: simulate a fleet, land files, replay days, look after the engine, run the demo."""

import datetime as dt
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pdm_assets.settings import SettingError, Settings

if TYPE_CHECKING:
    from pdm_assets.resources.engine import Engine


def _settings() -> Settings:
    try:
        return Settings.from_environ(os.environ)
    except SettingError as error:
        raise click.ClickException(str(error)) from error


def _day(_context: click.Context, _parameter: click.Parameter, text: str | None) -> dt.date | None:
    try:
        return None if text is None else dt.date.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no day: write YYYY-MM-DD") from error


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def main() -> None:
    """Predictive maintenance: from landed files to component risks."""


@main.command()
@click.option("--machines", default=100, show_default=True, type=click.IntRange(1), help="machines of the fleet")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1), help="days of telemetry")
@click.option("--end", callback=_day, default=None, help="day after the last, YYYY-MM-DD  [default: today]")
@click.option("--seed", default=1, show_default=True, help="another seed, another fleet")
@click.option(
    "--first-machine-id",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="number of the first machine",
)
@click.option(
    "--harder",
    is_flag=True,
    help="ramps, failures at any hour and missing errors instead of the data set's artefacts",
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="folder for the five files")
def simulate(machines: int, days: int, end: dt.date | None, seed: int, first_machine_id: int, harder: bool, out: Path) -> None:
    """Write the five files of a simulated fleet."""
    from rich.progress import Progress

    from pdm_assets.simulator.writer import simulate as write_fleet

    end_at = dt.datetime.combine(end or dt.datetime.now(dt.UTC).date(), dt.time(), dt.UTC)
    with Progress(transient=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(f"simulating {machines} machines x {days} days", total=machines)
        write_fleet(
            out,
            machines=machines,
            days=days,
            end=end_at,
            seed=seed,
            first_machine_id=first_machine_id,
            harder=harder,
            progress=lambda done: progress.advance(bar, done),
        )
    click.echo(f"{out}: telemetry.csv errors.csv maint.csv failures.csv machines.csv")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def land(folder: Path) -> None:
    """Put the five files of FOLDER into the landing zone, under any of their usual names."""
    from pdm_assets.resources.landing import LandingError
    from pdm_assets.resources.landing import land as land_files

    try:
        landed = land_files(folder, _settings().landing_root)
    except LandingError as error:
        raise click.ClickException(str(error)) from error
    for path in landed:
        click.echo(f"landed {path}")
    if not landed:
        click.echo("nothing new: these files have landed before")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--from", "first", callback=_day, required=True, help="first day to land, YYYY-MM-DD")
@click.option("--to", "last", callback=_day, required=True, help="last day to land, YYYY-MM-DD, included")
@click.option("--every", default=20.0, show_default=True, help="seconds between two days")
def replay(folder: Path, first: dt.date, last: dt.date, every: float) -> None:
    """Land the days of FOLDER's files one by one, as a plant would send them."""
    import time

    from pdm_assets.simulator.replay import Replayer

    replayer = Replayer(folder, _settings().landing_root, first)
    day = first
    while day <= last:
        files = replayer.land_day(day)
        click.echo(f"{day}: {len(files)} files landed")
        day += dt.timedelta(days=1)
        if day <= last:
            time.sleep(every)


@main.group()
def engine() -> None:
    """The warm Spark engine of the data root."""


def _engine() -> "Engine":
    from pdm_assets.resources.engine import Engine, Sizing

    settings = _settings()
    return Engine(settings.data, Sizing.of(settings))


@engine.command()
def status() -> None:
    """Whether it runs, where, how large, and where its log is."""
    it = _engine()
    info = it.info()
    if info is None:
        click.echo(f"not running (log of the last one: {it.log})")
        sys.exit(3)
    click.echo(f"running on 127.0.0.1:{info.port}, {info.cores} cores, {info.memory_mb} MiB heap, JVM {info.jvm_pid}")
    click.echo(f"log: {it.log}")


@engine.command()
def start() -> None:
    """Start it now rather than on first use."""
    from pdm_assets.resources.engine import EngineError

    it = _engine()
    try:
        with it.lease() as info:
            click.echo(f"running on 127.0.0.1:{info.port}; log: {it.log}")
    except EngineError as error:
        raise click.ClickException(str(error)) from error


@engine.command()
def stop() -> None:
    """Stop it, in use or not."""
    it = _engine()
    click.echo("stopped" if it.stop() else "was not running")


@main.command()
@click.option("--machines", default=100, show_default=True, type=click.IntRange(1))
@click.option("--port", default=3000, show_default=True, help="of the web server, on 127.0.0.1")
def demo(machines: int, port: int) -> None:
    """Simulate a fleet, train, start Dagster and score its days as they land. Ctrl-C ends everything."""
    from pdm_assets.demo import run

    run(machines=machines, port=port, settings=_settings())


@main.command()
@click.option("--port", default=3000, show_default=True, help="of the web server, on 127.0.0.1")
def dev(port: int) -> None:
    """Dagster's web server and daemon on the data root, which keeps their runs and events; DAGSTER_HOME overrides where."""
    from pdm_assets.demo import dagster_dev, make_home

    data = _settings().data.absolute()
    home = os.environ.get("DAGSTER_HOME") or str(make_home(data))
    os.chdir(home)
    command = dagster_dev(port)
    os.execve(command[0], command, {**os.environ, "DAGSTER_HOME": home, "PDM_DATA": str(data)})
