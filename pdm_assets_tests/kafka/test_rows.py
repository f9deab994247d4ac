"""What a message becomes, and how files of them land. No broker."""

import json
import os
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, TopicPartition

from pdm_assets.resources.kafka_bridge import Bridge, BridgeError, read_config, topics_of
from pdm_assets.resources.kafka_rows import Row, Waiting, row_of
from pdm_assets.resources.landed_rows import read_landed
from pdm_assets.schemas.raw import ERRORS, TELEMETRY

READING = {"datetime": "2015-01-01 06:00:00", "machineID": 7, "volt": 170.5, "rotate": 400, "pressure": 99, "vibration": 40.25}


def message(**changed: object) -> bytes:
    return json.dumps({**READING, **changed}).encode()


def line(value: bytes | None, table=TELEMETRY, key: bytes | None = None) -> str:
    return row_of(table, 5, key, value).line


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(message(), "2015-01-01 06:00:00,7,170.5,400,99,40.25", id="the reference's names"),
        pytest.param(
            b'{"machine_id": 7, " Observed_At": "2015-01-01T06:00Z", "VOLT": 1, "rotate": 2, "pressure": 3, "vibration": 4}',
            "2015-01-01T06:00Z,7,1,2,3,4",
            id="our names, in any order and case",
        ),
        pytest.param(
            b'{"datetime": 1420092000000, "machineID": "7", "volt": 0.10000000000000000001, "rotate": 1e400, "pressure": NaN,'
            b' "vibration": -0}',
            "1420092000000,7,0.10000000000000000001,1e400,NaN,-0",
            id="digits as they came, judged by the platform",
        ),
        pytest.param(message(volt=None, rotate=True, pressure=""), "2015-01-01 06:00:00,7,,true,,40.25", id="null and truth"),
        pytest.param(b"{}", ",,,,,", id="no column at all is a row of missing values"),
        pytest.param(
            message(volt='=1+1,"x"'), '2015-01-01 06:00:00,7,"=1+1,""x""",400,99,40.25', id="quotes and commas are quoted"
        ),
        pytest.param(b"\xef\xbb\xbf" + message(), "2015-01-01 06:00:00,7,170.5,400,99,40.25", id="a byte order mark"),
    ],
)
def test_a_json_object_is_a_row_with_its_values_unjudged(value, expected):
    assert line(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"hello, world", 'offset 5: is not a JSON object,"hello, world"', id="text"),
        pytest.param(b"[1]", "offset 5: is not a JSON object,[1]", id="a list"),
        pytest.param(
            b"\x00\x00\x00\x00\x07{}", "offset 5: is not a JSON object,\x00\x00\x00\x00\x07{}", id="a registry's five bytes"
        ),
        pytest.param(b"a\xff\r\nb", r"offset 5: is not a JSON object,a\xff\r\nb", id="no text, and a line break"),
        pytest.param(b"", "offset 5: is not a JSON object,", id="empty"),
        pytest.param(
            b'{"datetime": "1", "datetime": "2"}',
            'offset 5: datetime is there twice,"{""datetime"": ""1"", ""datetime"": ""2""}"',
            id="one name twice",
        ),
        pytest.param(
            b'{"datetime": "1", "observed_at": "2"}',
            'offset 5: datetime is there twice,"{""datetime"": ""1"", ""observed_at"": ""2""}"',
            id="both names of a column",
        ),
        pytest.param(b'{"volt": [1]}', 'offset 5: volt holds an object or a list,"{""volt"": [1]}"', id="a list in a column"),
        pytest.param(
            b'{"volt": {"a": {}}}', 'offset 5: volt holds an object or a list,"{""volt"": {""a"": {}}}"', id="an object in one"
        ),
        pytest.param(b'{"volt": "a\\nb"}', r'''offset 5: volt has a line break,"{""volt"": ""a\nb""}"''', id="a line break"),
        pytest.param(
            b'{"volt": "\\ud800"}', r'''offset 5: volt has half of a character,"{""volt"": ""\ud800""}"''', id="a surrogate"
        ),
    ],
)
def test_what_is_no_row_is_a_line_that_says_why_and_holds_the_message(value, expected):
    row = row_of(TELEMETRY, 5, b"key", value)
    assert (row.line, row.key) == (expected, None)


def test_a_tombstone_shows_its_key():
    assert line(None, key=b"machine 7") == "offset 5: has no value (a tombstone) and this key,machine 7"


def test_other_fields_are_left_out_and_named_unless_a_column_is_missing_that_they_may_stand_for():
    row = row_of(ERRORS, 5, None, b'{"datetime": "t", "machineID": 1, "errorID": "error1", "plant": {"id": 3}}')
    assert row == Row("t,1,error1", ("t", "1", "error1"), frozenset({"plant"}))
    wrong = b'{"datetime":1,"machineID":1,"error":2}'
    said = '"offset 5: has no errorID, but fields that are no columns","{""datetime"":1,""machineID"":1,""error"":2}"'
    assert line(wrong, ERRORS) == said


def test_very_deep_json_is_no_row():
    assert line(b"[" * 100_000).startswith("offset 5: is not a JSON object,")


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    return tmp_path / "landing"


def waiting(landing: Path, *values: bytes, first: int = 40, topic: str = "plant.readings") -> Waiting:
    rows = Waiting(TELEMETRY, topic, 3, first)
    for offset, value in enumerate(values, start=first):
        rows.add(offset, row_of(TELEMETRY, offset, None, value), value, landing)
    return rows


def test_a_file_is_named_by_topic_partition_and_offsets_and_lands_whole(landing):
    path = waiting(landing, message(), message(machineID=8)).land(landing)
    assert path == landing / "telemetry" / "kafka+plant.readings+3+0000000040-0000000041.csv"
    assert path.read_text().splitlines() == [
        "datetime,machineID,volt,rotate,pressure,vibration",
        "2015-01-01 06:00:00,7,170.5,400,99,40.25",
        "2015-01-01 06:00:00,8,170.5,400,99,40.25",
    ]
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_the_landing_zone_takes_the_rows_and_refuses_the_rest_with_their_text(landing):
    messages = [message(), b"no row", message(volt="high"), message(volt=None), message(volt='a"b')]
    path = waiting(landing, *messages).land(landing)
    rows = [row for batch in read_landed(path, TELEMETRY) for row in batch.to_pylist()]
    rows.sort(key=lambda row: row["line"])
    assert [
        (row["line"], row["machine_id"], row["volt"], row["problem"]) for row in sorted(rows, key=lambda row: row["line"])
    ] == [
        (2, 7, 170.5, None),
        (3, None, None, "2 fields where 6 are expected"),
        (4, 7, None, "volt 'high' is not a number"),
        (5, 7, None, "volt is missing"),
        (6, 7, None, "volt 'a\"b' is not a number"),
    ]
    assert rows[1]["text"] == "offset 41: is not a JSON object,no row"


def test_the_same_file_lands_anew_and_another_of_its_name_replaces_nothing(landing):
    first = waiting(landing, message()).land(landing)
    other = waiting(landing, message(volt=1)).land(landing)  # a topic that was made anew counts from 0 again
    assert other.name == "kafka+plant.readings+3+0000000040-0000000040-2.csv"
    assert "170.5" in first.read_text()
    assert waiting(landing, message(volt=1)).land(landing) == other
    assert len(list(first.parent.iterdir())) == 2


def test_a_correction_that_lands_again_still_counts_as_landed_after_what_it_corrects(landing):
    correction = waiting(landing, message(volt=2), first=41).land(landing)
    os.utime(correction, (0, 0))
    # All is delivered again, and the row is in a file of other bounds this time.
    corrected = waiting(landing, message(volt=1), message(machineID=8), first=39).land(landing)
    assert waiting(landing, message(volt=2), first=41).land(landing) == correction
    assert correction.stat().st_mtime_ns >= corrected.stat().st_mtime_ns


def test_fields_that_are_another_in_each_message_are_not_all_remembered(landing):
    rows = waiting(landing, *(message(**{f"field{n}": 1}) for n in range(100)))
    assert len(rows.left_out) == 20


def test_what_a_bridge_left_that_died_while_it_wrote_is_removed(landing):
    (landing / "telemetry").mkdir(parents=True)
    left = landing / "telemetry" / ".kafka+plant.readings+3+0000000001-0000000002.csv.landing"
    of_another = landing / "telemetry" / ".telemetry.csv.landing"
    left.touch()
    of_another.touch()
    waiting(landing, message()).land(landing)
    assert not left.exists()
    assert of_another.exists()


def test_a_message_too_long_for_a_line_is_kept_whole_beside_the_file(landing):
    long = message(note="x", volt="9" * (1 << 20))
    path = waiting(landing, long).land(landing)
    kept = path.with_name("kafka+plant.readings+3+0000000040.message")
    assert kept.read_bytes() == long
    text = path.read_text().splitlines()[1]
    assert text.startswith(
        f'"offset 40: is of {len(long)} bytes, which {kept.name} has; it begins so","2015-01-01 06:00:00,7,99'
    )
    assert len(text) < 2_000
    another = message(volt="8" * (1 << 20))
    assert "which kafka+plant.readings+3+0000000040-2.message has" in waiting(landing, another).lines[0].decode()
    assert kept.with_name("kafka+plant.readings+3+0000000040-2.message").read_bytes() == another
    assert kept.read_bytes() == long


def test_a_row_that_corrects_one_that_waits_is_told_from_one_that_comes_twice(landing):
    rows = waiting(landing, message(), message(machineID=8))

    def corrects(value: bytes) -> bool:
        return rows.corrects(row_of(TELEMETRY, 42, None, value))

    assert corrects(message(volt=1))
    assert not corrects(message())
    assert not corrects(message(machineID=9))
    assert not corrects(b"no row")
    without_machine = waiting(landing, message(machineID=None))
    assert not without_machine.corrects(row_of(TELEMETRY, 42, None, message(machineID=None, volt=1)))


def test_each_topic_has_one_table_and_the_fleet_is_not_a_stream():
    assert topics_of(("telemetry=a", "telemetry=b", "errors=c")) == {"a": TELEMETRY, "b": TELEMETRY, "c": ERRORS}
    with pytest.raises(BridgeError, match="named twice"):
        topics_of(("telemetry=a", "errors=a"))
    with pytest.raises(BridgeError, match=r"land machines\.csv when the fleet changes"):
        topics_of(("machines=a",))
    for wrong in ("telemetry", "telemetry=", "raw/telemetry=a", f"errors={'x' * 200}", "errors=^plant"):
        with pytest.raises(
            BridgeError,
            match="write TABLE=TOPIC, a topic's own name, the table being one of telemetry, errors, maintenance, failures",
        ):
            topics_of((wrong,))


def properties(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "kafka.properties"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_configuration_is_the_file_with_what_the_bridge_needs(tmp_path):
    path = properties(
        tmp_path, "# the plant's\nbootstrap.servers = a:9092,b:9092\n\nsasl.password=x=y \ngroup.id=mine\n", 0o640
    )
    config = read_config(path)
    assert config["bootstrap.servers"] == "a:9092,b:9092"
    assert config["sasl.password"] == "x=y"
    assert config["group.id"] == "mine"
    assert (config["enable.auto.commit"], config["auto.offset.reset"]) == ("false", "earliest")


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("bootstrap.servers=a:1", 0o604, "everybody may read it"),
        ("sasl.password=hidden", 0o600, "says no bootstrap.servers"),
        ("bootstrap.servers=a:1\nhidden", 0o600, "line 2: is not name=value"),
        ("enable.auto.commit=true", 0o600, "enable.auto.commit is the bridge's own to set"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_and_not_shown(tmp_path, text, mode, said):
    with pytest.raises(BridgeError, match=said) as error:
        read_config(properties(tmp_path, text, mode))
    assert "hidden" not in str(error.value)


def test_what_the_client_tells_is_cleaned_of_the_secrets_it_was_given(tmp_path):
    said: list[str] = []
    config = read_config(properties(tmp_path, "bootstrap.servers=127.0.0.1:9\nsasl.password=hidden"))
    bridge = Bridge(config, {"a": TELEMETRY}, tmp_path, said.append, minutes=1, rows=1)
    bridge._hear(KafkaError(KafkaError._TRANSPORT, "sent hidden"))
    bridge._hear(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert said == ["no broker answers: sent ***. Trying until one does"]
    bridge._consumer.close()


def test_partitions_that_were_taken_away_are_not_read_to_their_end(tmp_path):
    bridge = Bridge(
        read_config(properties(tmp_path, "bootstrap.servers=127.0.0.1:9")), {"a": TELEMETRY}, tmp_path, print, minutes=1, rows=1
    )
    bridge._joined, bridge._open_ends = True, {("a", 0): 7}
    bridge._revoked(None, [TopicPartition("a", 0)])
    assert not bridge._joined, "it would end although nothing was read to its end"
    bridge._consumer.close()
