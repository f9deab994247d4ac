"""The command `kafka`: rows from topics into the landing zone (docs/kafka.md)."""

import signal
from pathlib import Path

import click

from pdm_assets.cli_common import settings


@click.command()
@click.option(
    "--config", "config", required=True, type=click.Path(path_type=Path), help="the client's properties, secrets among them"
)
@click.option(
    "--topic", "pairs", required=True, multiple=True, metavar="TABLE=TOPIC", help="the topic of a table; once for each topic"
)
@click.option("--minutes", default=15.0, show_default=True, type=click.FloatRange(0), help="a row waits no longer to be landed")
@click.option("--rows", default=100_000, show_default=True, type=click.IntRange(1), help="a file has no more rows")
@click.option("--until-end", is_flag=True, help="land what the topics hold now, then end; for schedules")
def kafka(config: Path, pairs: tuple[str, ...], minutes: float, rows: int, until_end: bool) -> None:
    """Land the rows of Kafka topics as files: one JSON object a row. SIGTERM or Ctrl-C lands what waits, then ends."""
    from pdm_assets.resources.kafka_bridge import Bridge, BridgeError, read_config, topics_of

    try:
        bridge = Bridge(
            read_config(config),
            topics_of(pairs),
            settings().landing_root.absolute(),
            click.echo,
            minutes=minutes,
            rows=rows,
            until_end=until_end,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: bridge.stop())
        bridge.run()
    except BridgeError as error:
        raise click.ClickException(str(error)) from error
