"""From a real broker to the landing zone: what lands, what is committed, what a death, a neighbour or a bad message does."""

import collections
import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pdm_assets.cli import main
from pdm_assets.resources import kafka_bridge
from pdm_assets.resources.kafka_bridge import Bridge, BridgeError, read_config
from pdm_assets.resources.landing import LandingZone
from pdm_assets.schemas.raw import ERRORS, TELEMETRY
from pdm_assets_tests.builders import day, utc
from pdm_assets_tests.kafka.broker import PASSWORD, Broker, NoBroker, broker

pytestmark = pytest.mark.slow

PATIENCE_S = 40.0
COMMAND = "from pdm_assets.cli import main; main()"
# A bridge that dies when its first file has landed and the broker was not yet told.
DIES = """
import os, signal
from pdm_assets.resources.kafka_bridge import Bridge
Bridge._commit = lambda bridge: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def kafka() -> Iterator[Broker]:
    try:
        with broker() as running:
            yield running
    except NoBroker as error:
        pytest.skip(str(error))


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.05)


def reading(machine: int, hour: int = 6, **changed: object) -> bytes:
    time_ = f"2015-01-01 {hour:02d}:00:00"
    row = {"datetime": time_, "machineID": machine, "volt": machine + 0.5, "rotate": 400, "pressure": 99, "vibration": 40.25}
    return json.dumps({**row, **changed}).encode()


class Plant:
    """A topic or two of a test's own, a group of its own, a landing zone of its own."""

    def __init__(self, kafka: Broker, folder: Path) -> None:
        self.kafka, self.folder, self.name = kafka, folder, folder.name.replace("_", "-")
        self.data = folder / "data"
        self.config = folder / "kafka.properties"
        self.write_config(f"bootstrap.servers={kafka.address}\n")
        self.producer = Producer({"bootstrap.servers": kafka.address, "log_level": "2"})
        self.admin = AdminClient({"bootstrap.servers": kafka.address, "log_level": "2"})
        self.said: list[str] = []

    def write_config(self, text: str) -> None:
        self.config.write_text(f"{text}group.id={self.name}\nsession.timeout.ms=3000\nheartbeat.interval.ms=500\n")
        self.config.chmod(0o600)

    def topic(self, stem: str = "readings", partitions: int = 1) -> str:
        topic = f"{self.name}.{stem}"
        self.admin.create_topics([NewTopic(topic, partitions)])[topic].result()
        return topic

    def send(self, topic: str, *values: bytes | None, partition: int = 0) -> None:
        for value in values:
            self.producer.produce(topic, value, key=b"key", partition=partition)
        assert self.producer.flush(PATIENCE_S) == 0

    def bridge(self, *topics: str, minutes: float = 60.0, rows: int = 1000, until_end: bool = False) -> Bridge:
        tables = {topic: ERRORS if topic.endswith("errors") else TELEMETRY for topic in topics}
        return Bridge(
            read_config(self.config),
            tables,
            self.data / "landing",
            self.said.append,
            minutes=minutes,
            rows=rows,
            until_end=until_end,
        )

    def to_the_end(self, *topics: str, rows: int = 1000) -> None:
        self.bridge(*topics, rows=rows, until_end=True).run()

    @contextlib.contextmanager
    def running(self, bridge: Bridge) -> Iterator[None]:
        """The bridge in a thread, stopped at the end."""
        troubles: list[BaseException] = []

        def run() -> None:
            try:
                bridge.run()
            except BaseException as error:
                troubles.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            bridge.stop()
            thread.join(PATIENCE_S)
        assert not thread.is_alive()
        assert not troubles

    def command(self, topic: str, *options: str, before: str = "") -> subprocess.Popen[str]:
        """`pdm-assets kafka` as a process of its own."""
        arguments = ["kafka", "--config", str(self.config), "--topic", f"telemetry={topic}", *options]
        return subprocess.Popen(
            [sys.executable, "-c", before + COMMAND, *arguments],
            env={**os.environ, "PDM_DATA": str(self.data), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def committed(self, topic: str, partition: int = 0) -> int:
        consumer = Consumer({"bootstrap.servers": self.kafka.address, "group.id": self.name})
        try:
            return consumer.committed([TopicPartition(topic, partition)], timeout=PATIENCE_S)[0].offset
        finally:
            consumer.close()

    def files(self, table: str = "telemetry") -> list[str]:
        folder = self.data / "landing" / table
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.exists() else []

    def rows(self, table: str = TELEMETRY.key) -> list[dict]:
        """The rows as the landing zone stages them, in the order in which they landed."""
        time.sleep(1.1)  # a file is settled then
        zone = LandingZone(self.data / "landing", self.data / "staging", day("2015-01-01"))
        staged = zone.staged(table)
        assert [file.refusal for file in staged if file.refusal] == []
        rows = [
            row
            for file in staged
            for row in sorted(
                (row for part in file.parts for row in pq.read_table(part.path).to_pylist()), key=lambda row: row["line"]
            )
        ]
        assert len(rows) == sum(file.rows for file in staged)
        return rows

    def machines(self) -> list[int]:
        return sorted(row["machine_id"] for row in self.rows())


@pytest.fixture
def plant(kafka: Broker, tmp_path: Path) -> Plant:
    return Plant(kafka, tmp_path)


def test_rows_land_typed_and_in_order_and_what_was_read_is_read_once(plant):
    readings, errors = plant.topic(), plant.topic("errors")
    plant.send(readings, *(reading(machine) for machine in range(5)))
    plant.send(errors, b'{"datetime": "2015-01-02T03:04:05+02:00", "machineID": 3, "errorID": "error1", "line": "A"}')
    plant.to_the_end(readings, errors, rows=2)
    assert plant.files() == [
        f"kafka+{readings}+0+0000000000-0000000001.csv",
        f"kafka+{readings}+0+0000000002-0000000003.csv",
        f"kafka+{readings}+0+0000000004-0000000004.csv",
    ]
    assert [(row["machine_id"], row["observed_at"], row["volt"], row["problem"]) for row in plant.rows()] == [
        (machine, utc("2015-01-01 06:00"), machine + 0.5, None) for machine in range(5)
    ]
    assert [(row["machine_id"], row["occurred_at"], row["error_code"]) for row in plant.rows(ERRORS.key)] == [
        (3, utc("2015-01-02 01:04").replace(second=5), "error1")
    ]
    assert plant.rows(ERRORS.key)[0]["date"] == dt.date(2015, 1, 2)
    assert (plant.committed(readings), plant.committed(errors)) == (5, 1)
    assert any(f"{errors}: the field 'line' is no column of raw/errors" in said for said in plant.said)
    plant.to_the_end(readings, errors)
    assert len(plant.files()) == 3


def test_a_bad_message_stops_nothing_and_is_told_with_its_text(plant):
    topic = plant.topic()
    plant.send(topic, reading(1), b"\xff no JSON\nat all", None, reading(2, volt="high"), b'{"volt": []}', reading(3))
    plant.to_the_end(topic)
    assert [(row["machine_id"], row["problem"], row["text"]) for row in plant.rows()] == [
        (1, None, None),
        (None, "2 fields where 6 are expected", r"offset 1: is not a JSON object,\xff no JSON\nat all"),
        (None, "2 fields where 6 are expected", "offset 2: has no value (a tombstone) and this key,key"),
        (2, "volt 'high' is not a number", "2015-01-01 06:00:00,2,high,400,99,40.25"),
        (None, "2 fields where 6 are expected", 'offset 4: volt holds an object or a list,"{""volt"": []}"'),
        (3, None, None),
    ]
    assert plant.committed(topic) == 6
    assert any("6 messages (3 that are no rows, for quarantine)" in said for said in plant.said)


def test_a_message_of_megabytes_is_kept_whole_and_committed(plant):
    topic = plant.topic()
    long = reading(1, note="x" * (2 << 20), volt="9" * (1 << 20))
    producer = Producer({"bootstrap.servers": plant.kafka.address, "message.max.bytes": 4_000_000})
    producer.produce(topic, long)
    assert producer.flush(PATIENCE_S) == 0
    plant.send(topic, reading(2))
    plant.to_the_end(topic)
    kept = plant.data / "landing" / "telemetry" / f"kafka+{topic}+0+0000000000.message"
    assert kept.read_bytes() == long
    zone = LandingZone(plant.data / "landing", plant.data / "staging", day("2015-01-01"))
    assert zone.passed_over(TELEMETRY.key) == {kept.name: "none of .csv, .csv.gz, .parquet"}
    assert [(row["machine_id"], row["problem"]) for row in plant.rows()] == [
        (None, "2 fields where 6 are expected"),
        (2, None),
    ]


def test_a_correction_lands_after_what_it_corrects_and_a_topic_of_corrections_makes_few_files(plant):
    topic = plant.topic()
    plant.send(topic, reading(1), reading(2), reading(1, volt=7), reading(3))
    plant.to_the_end(topic)
    assert [(row["machine_id"], row["volt"], row["line"]) for row in plant.rows()] == [
        (1, 1.5, 2),
        (2, 2.5, 3),
        (1, 7.0, 2),
        (3, 3.5, 3),
    ]
    plant.send(topic, *(reading(9, volt=volt) for volt in range(100)))
    plant.to_the_end(topic)
    assert len(plant.files()) == 2 + 11
    assert len(plant.rows()) == 4 + 100


def test_killed_between_landing_and_commit_nothing_is_lost_and_what_comes_twice_is_equal(plant):
    topic = plant.topic()
    plant.send(topic, *(reading(machine) for machine in range(4)))
    killed = plant.command(topic, "--until-end", before=DIES)
    said, _ = killed.communicate(timeout=PATIENCE_S)
    assert killed.returncode == -signal.SIGKILL, said
    assert plant.files() == [f"kafka+{topic}+0+0000000000-0000000003.csv"]
    assert plant.committed(topic) < 0  # none
    plant.send(topic, reading(4))  # so the file that comes now has other bounds
    plant.to_the_end(topic)
    assert plant.committed(topic) == 5
    rows = plant.rows()
    assert collections.Counter(row["machine_id"] for row in rows) == {0: 2, 1: 2, 2: 2, 3: 2, 4: 1}
    assert len({tuple((name, row[name]) for name in TELEMETRY.column_names[:-1]) for row in rows}) == 5


def test_two_of_a_group_share_the_partitions_and_hand_over_without_loss_or_doubles(plant):
    topic = plant.topic(partitions=2)

    def joined(times: int) -> bool:
        return sum(said.startswith("reads ") for said in plant.said) >= times

    first = plant.bridge(topic)
    with plant.running(first):
        wait_until(lambda: joined(1), "the first has joined")
        for partition in (0, 1):
            plant.send(topic, *(reading(10 * partition + n) for n in range(5)), partition=partition)
        wait_until(lambda: sum(len(waiting.lines) for waiting in first._waiting.copy().values()) == 10, "the first has read")
        with plant.running(plant.bridge(topic)):
            wait_until(lambda: joined(3), "both have a partition")
            assert len(plant.files()) == 2  # what the first held of both, handed over
            shares = plant.said[-2:]
            assert sorted(said.split("[")[1] for said in shares if "[" in said) == ["0]", "1]"]
            for partition in (0, 1):
                plant.send(topic, *(reading(100 + 10 * partition + n) for n in range(5)), partition=partition)
    plant.to_the_end(topic)
    assert plant.machines() == [*range(5), *range(10, 15), *range(100, 105), *range(110, 115)]


def test_sigterm_lands_what_waits_and_leaves_the_group(plant):
    topic = plant.topic()
    plant.send(topic, reading(1), reading(2))
    bridge = plant.command(topic, "--minutes", "60")
    assert bridge.stdout is not None
    assert "reads " in bridge.stdout.readline()
    time.sleep(2)  # more than it needs for two messages
    assert plant.files() == []
    bridge.send_signal(signal.SIGTERM)
    said, _ = bridge.communicate(timeout=PATIENCE_S)
    assert bridge.returncode == 0, said
    assert plant.machines() == [1, 2]
    assert plant.committed(topic) == 2
    began = time.monotonic()
    plant.to_the_end(topic)
    assert time.monotonic() - began < 3  # it left its seat, which is kept for three seconds otherwise


def test_rows_land_once_the_oldest_has_waited(plant):
    topic = plant.topic()
    with plant.running(plant.bridge(topic, minutes=1 / 60)):
        plant.send(topic, reading(1))
        wait_until(lambda: len(plant.files()) == 1, "the row has landed")
        wait_until(lambda: plant.committed(topic) == 1, "and is committed")


def test_a_broker_that_goes_away_and_comes_back_is_waited_for(plant):
    topic = plant.topic()
    with plant.running(plant.bridge(topic, minutes=1 / 60)):
        plant.send(topic, reading(1))
        wait_until(lambda: plant.committed(topic) == 1, "the row has landed and is committed")
        plant.kafka.stop()
        wait_until(lambda: any(said.startswith("no broker answers: ") for said in plant.said), "the outage is told")
        plant.kafka.start()
        plant.send(topic, reading(2))
        wait_until(lambda: len(plant.files()) == 2, "the next row has landed")
    assert plant.machines() == [1, 2]
    assert sum(said.startswith("no broker answers: ") for said in plant.said) == 1
    assert plant.committed(topic) == 2


def test_a_bridge_that_ends_while_the_broker_is_away_lands_what_waits_and_says_that_it_will_come_again(plant, monkeypatch):
    monkeypatch.setattr(kafka_bridge, "REQUEST_S", 2.0)  # as long is waited for an answer that can't come
    topic = plant.topic()
    bridge = plant.bridge(topic)
    thread = threading.Thread(target=_stop_both, args=(plant, bridge))
    plant.send(topic, reading(1))
    thread.start()
    with pytest.raises(BridgeError, match=r"have landed, but the broker did not take that as read: .*counted as duplicates"):
        bridge.run()
    thread.join()
    plant.kafka.start()
    assert plant.machines() == [1]


def _stop_both(plant: Plant, bridge: Bridge) -> None:
    try:
        wait_until(lambda: bool(bridge._waiting), "the row waits")
        plant.kafka.stop()
    finally:
        bridge.stop()


def test_a_wrong_password_ends_it_and_the_right_one_is_never_told(plant):
    topic = plant.topic()
    login = f"bootstrap.servers={plant.kafka.guarded}\nsecurity.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n"
    plant.write_config(f"{login}sasl.username=pdm\nsasl.password=wrong-{PASSWORD}\n")
    done = CliRunner().invoke(
        main,
        ["kafka", "--config", str(plant.config), "--topic", f"telemetry={topic}", "--until-end"],
        env={"PDM_DATA": str(plant.data)},
    )
    assert done.exit_code == 1
    assert "do not agree on who they are" in done.output
    assert PASSWORD not in done.output
    plant.send(topic, reading(1))
    plant.write_config(f"{login}sasl.username=pdm\nsasl.password={PASSWORD}\n")
    plant.to_the_end(topic)
    assert plant.machines() == [1]
    assert not any(PASSWORD in said for said in plant.said)
    plant.write_config(f"bootstrap.servers={plant.kafka.guarded}\nsecurity.protocol={PASSWORD}\n")  # in the wrong line
    with pytest.raises(BridgeError, match=r"refuses its configuration.*security\.protocol") as error:
        plant.bridge(topic)
    assert PASSWORD not in str(error.value)


def test_a_topic_that_is_not_there_is_named(plant):
    with pytest.raises(BridgeError, match=r"nobody\.made\.it.*Make the topic"):
        plant.to_the_end("nobody.made.it")


def test_rows_that_the_broker_deleted_unread_are_told(plant):
    topic = plant.topic()
    plant.send(topic, reading(1))
    plant.to_the_end(topic)
    plant.send(topic, reading(2), reading(3))
    for each in plant.admin.delete_records([TopicPartition(topic, 0, 2)]).values():
        each.result()
    plant.to_the_end(topic)
    assert any("offsets 1 to 1 are gone, deleted by the broker" in said for said in plant.said)
    assert plant.machines() == [1, 3]
