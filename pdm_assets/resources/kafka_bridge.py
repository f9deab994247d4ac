"""The bridge from Kafka: reads a topic a table, gathers messages into files, lands these, and only then commits the offsets.

So each message lands at least once. One that is delivered again, to this bridge or another of its group, lands again as an
equal row, which the platform counts as a duplicate.
"""

import math
import re
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pdm_assets.resources.kafka_rows import Waiting, row_of
from pdm_assets.resources.landed_columns import LandingError
from pdm_assets.schemas.raw import FILE_COLUMNS, MACHINES, RAW_TABLES
from pdm_assets.schemas.table import Table

POLL_S = 0.5
REQUEST_S = 15.0
PATIENCE_S = 120.0  # of a bridge that is to end, without a word from the broker, which keeps a dead member's seat for 45 s
SAY_AGAIN_S = 300.0
COMMIT_AGAIN_S, COMMIT_ANSWER_S = 5.0, 60.0
MOST_MEMORY = 64 << 20  # bytes of waiting rows, about
MOST_CORRECTIONS = 10  # files of a partition that are ended early for a row that corrects one of theirs, until all are landed
TOPIC = re.compile(r"[A-Za-z0-9._-]{1,180}")  # Kafka's names; shorter, for a file's name has it. With ^ it would be a pattern
FIXED = {"enable.auto.commit": "false", "enable.partition.eof": "true"}
DEFAULTS = {
    "group.id": "pdm-assets",
    "client.id": "pdm-assets",
    "auto.offset.reset": "earliest",
    "log_level": "2",  # what goes wrong with the connection is said here, once
}
SECRET_WORDS = ("password", "secret", "key", "token", "jaas", "oauth", "config")

Place = tuple[str, int]  # topic and partition


class BridgeError(RuntimeError):
    """The bridge can't go on; the text says why and what to do. What was not committed is delivered again."""


def topics_of(pairs: tuple[str, ...]) -> dict[str, Table]:
    """The table of each topic, from TABLE=TOPIC.

    Raises:
        BridgeError: if a table is unknown or can't come from a topic, or a topic is named twice.
    """
    tables = {table.name: table for table in RAW_TABLES if table != MACHINES}
    topics: dict[str, Table] = {}
    for pair in pairs:
        name, _, topic = pair.partition("=")
        if name == MACHINES.name:
            raise BridgeError(
                f"{pair}: the fleet's list can't come from a topic. A list holds from the first day on, or from that in its "
                "name, so every file of it makes all these days anew: land machines.csv when the fleet changes"
            )
        if name not in tables or not TOPIC.fullmatch(topic):
            raise BridgeError(f"{pair}: write TABLE=TOPIC, a topic's own name, the table being one of {', '.join(tables)}")
        if topic in topics:
            raise BridgeError(f"{pair}: the topic {topic} is named twice; a topic holds the rows of one table")
        topics[topic] = tables[name]
    return topics


def read_config(path: Path) -> dict[str, str]:
    """The client's configuration from a file of `name=value` lines, those of librdkafka; `#` begins a comment line.

    Raises:
        BridgeError: if the file can't be read, everybody may read it, or a line is none. No value is shown.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & stat.S_IROTH:
            raise BridgeError(f"{path}: everybody may read it, and it is where secrets belong: chmod o-rwx {path}")
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BridgeError(f"{path}: can't be read: {getattr(error, 'strerror', None) or 'it is no UTF-8 text'}") from None
    config = dict(DEFAULTS)
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise BridgeError(f"{path}, line {number}: is not name=value")
        if name.strip() in FIXED:
            raise BridgeError(f"{path}, line {number}: {name.strip()} is the bridge's own to set; delete the line")
        config[name.strip()] = value.strip()
    if not config.get("bootstrap.servers"):
        raise BridgeError(f"{path}: says no bootstrap.servers=HOST:PORT, so nobody knows where the broker is")
    return config | FIXED


class Bridge:
    """One member of the consumer group."""

    def __init__(
        self,
        config: Mapping[str, str],
        topics: Mapping[str, Table],
        landing_root: Path,
        say: Callable[[str], None],
        *,
        minutes: float,
        rows: int,
        until_end: bool = False,
    ) -> None:
        """Nothing is asked of the broker before `run`.

        Args:
            config: of librdkafka, as `read_config` gives it.
            topics: the table of each topic.
            landing_root: where the tables' folders are.
            say: takes a line for the log.
            minutes: the oldest waiting row is landed after so long, and all others with it.
            rows: a file has no more.
            until_end: end once everything is landed that the topics held at the start.

        Raises:
            BridgeError: if the client is not installed or does not know a property.
        """
        try:
            import confluent_kafka
        except ImportError as error:
            raise BridgeError(
                "Kafka's client is not installed: run `make setup` in the checkout, or `.venv/bin/uv pip install -e '.[kafka]'`"
            ) from error
        self._kafka = confluent_kafka
        self._topics, self._landing_root, self._minutes, self._rows = topics, landing_root, minutes, rows
        self._until_end = until_end
        self._secrets = [
            value for name, value in config.items() if value and any(word in name.lower() for word in SECRET_WORDS)
        ]
        self._say_raw = say
        try:
            self._consumer = confluent_kafka.Consumer({**config, "error_cb": self._hear, "on_commit": self._answered})
        except (confluent_kafka.KafkaException, ValueError, TypeError) as error:
            self._secrets = [value for name, value in config.items() if value not in (*DEFAULTS.values(), *FIXED.values())]
            raise BridgeError(self._clean(f"the client refuses its configuration: {_words(error)}")) from None
        self._stopped = False
        self._failure: str | None = None
        self._trouble = ""  # the last that the client told of
        self._said: dict[str, float] = {}
        self._waiting: dict[Place, Waiting] = {}
        self._uncommitted: dict[Place, int] = {}
        self._commit_at = 0.0
        self._gave_up = False  # of rows that have landed it is not known whether the broker took them as read
        self._corrections: dict[Place, int] = defaultdict(int)
        self._known_left_out: set[tuple[str, str]] = set()
        self._joined = False
        self._open_ends: dict[Place, int | None] = {}  # partitions not yet read to the end that they had, and that end
        self._heard_at = time.monotonic()

    def stop(self) -> None:
        """Land what waits, commit, leave the group, end `run`. Safe to call from a signal's handler."""
        self._stopped = True

    def run(self) -> None:
        """Read until `stop`, or to the end.

        Raises:
            BridgeError: if it can't go on.
        """
        try:
            self._consumer.subscribe(list(self._topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
            while not self._stopped and not (self._until_end and self._joined and not self._open_ends):
                self._step()
            self._land_all()
            self._commit_last()
        except (OSError, LandingError) as error:
            raise BridgeError(
                f"can't land: {error}. Nothing of it is committed: see to it and start the bridge again"
            ) from error
        except self._kafka.KafkaException as error:
            raise BridgeError(self._clean(f"the broker's answer: {_words(error)}")) from None
        finally:
            self._waiting.clear()  # landed, or to be delivered again: nothing must land from here on
            self._consumer.close()

    def _step(self) -> None:
        message = self._consumer.poll(POLL_S)
        if self._failure is not None:
            raise BridgeError(self._failure)
        if message is None:
            if self._until_end and time.monotonic() - self._heard_at > PATIENCE_S:
                raise BridgeError(f"no word from the broker for {PATIENCE_S:.0f} s; {self._trouble or 'no reason was told'}")
        elif (error := message.error()) is not None:
            self._judge(error, message)
        else:
            self._heard_at = time.monotonic()
            self._take(message)
        if self._is_due():
            self._land_all()
        if self._uncommitted and time.monotonic() >= self._commit_at:
            self._commit()

    def _is_due(self) -> bool:
        if not self._waiting:
            return False
        oldest = min(waiting.since for waiting in self._waiting.values())
        size = sum(waiting.size for waiting in self._waiting.values())
        return time.monotonic() - oldest >= self._minutes * 60 or size >= MOST_MEMORY

    def _take(self, message: Any) -> None:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        place, table = (topic, partition), self._topics[topic]
        key, value = message.key(), message.value()
        row = row_of(table, offset, key, value)
        waiting = self._waiting.get(place)
        if waiting is not None and waiting.corrects(row) and self._corrections[place] < MOST_CORRECTIONS:
            self._corrections[place] += 1
            self._land(place)
            waiting = None
        if waiting is None:
            waiting = self._waiting[place] = Waiting(table, topic, partition, offset)
        waiting.add(offset, row, (key if value is None else value) or b"", self._landing_root)
        for name in row.left_out:
            if (topic, name) not in self._known_left_out and len(self._known_left_out) < 1000:
                self._known_left_out.add((topic, name))
                columns = ", ".join(FILE_COLUMNS[table.key])
                self._say(f"{topic}: the field {name!r} is no column of {table.key} ({columns}) and is left out, from now on")
        if len(waiting.lines) >= self._rows:
            self._land(place)
            self._corrections.pop(place, None)  # a full file bears as many small ones
        self._reached(place, offset + 1)

    def _reached(self, place: Place, offset: int) -> None:
        end = self._open_ends.get(place)
        if end is not None and offset >= end:
            del self._open_ends[place]

    def _land(self, place: Place) -> None:
        waiting = self._waiting[place]
        path = waiting.land(self._landing_root)
        del self._waiting[place]
        self._uncommitted[place] = waiting.last + 1
        self._commit_at = 0.0
        more = [f"{waiting.no_rows} that are no rows, for quarantine"] if waiting.no_rows else []
        more += [f"fields left out: {', '.join(map(repr, sorted(waiting.left_out)))}"] if waiting.left_out else []
        self._say(
            f"landed {waiting.table.name}/{path.name}: {len(waiting.lines)} messages"
            + (f" ({'; '.join(more)})" if more else "")
        )

    def _land_all(self) -> None:
        for place in sorted(self._waiting):
            self._land(place)
        self._corrections.clear()

    def _commit(self) -> None:
        """Say to the broker what has landed, without waiting for its answer: where it is away, none comes for minutes."""
        self._commit_at = time.monotonic() + COMMIT_ANSWER_S
        self._consumer.commit(offsets=self._offsets(), asynchronous=True)

    def _commit_last(self) -> None:
        """The same, for a while with the answer."""
        until, self._gave_up = time.monotonic() + REQUEST_S, False
        while self._uncommitted and time.monotonic() < until and self._failure is None:
            if time.monotonic() >= self._commit_at:
                self._commit()
            self._consumer.poll(POLL_S)  # a message that comes now is not taken, so it is delivered again
        if self._uncommitted or self._gave_up:
            raise BridgeError(
                "the last rows have landed, but the broker did not take that as read: "
                f"{self._failure or self._trouble or 'no answer'}. They will be delivered again, and counted as duplicates then"
            )

    def _offsets(self) -> list[Any]:
        return [self._kafka.TopicPartition(*place, offset) for place, offset in self._uncommitted.items()]

    def _answered(self, error: Any, partitions: list[Any]) -> None:
        """The broker's answer to a commit; what it did not take is said again later, or delivered again."""
        for each in partitions:
            place, trouble = (each.topic, each.partition), error or each.error
            if trouble is None and self._uncommitted.get(place, each.offset + 1) <= each.offset:
                del self._uncommitted[place]
            elif trouble is not None and place in self._uncommitted:
                self._trouble = self._clean(trouble.str())
                self._commit_at = time.monotonic() + COMMIT_AGAIN_S
                self._say_once("commit", f"rows have landed, and the broker does not take it: {self._trouble}. Trying again")

    def _assigned(self, consumer: Any, partitions: list[Any]) -> None:
        self._joined, self._heard_at = True, time.monotonic()
        names = ", ".join(f"{each.topic} [{each.partition}]" for each in partitions)
        self._say(f"reads {names}" if names else "reads no partition: others of its group have them all")
        for each in partitions:
            self._open_ends[each.topic, each.partition] = None  # at the end once told so
        try:
            for each in consumer.committed(partitions, timeout=REQUEST_S) if partitions else []:
                low, high = consumer.get_watermark_offsets(each, timeout=REQUEST_S)
                self._open_ends[each.topic, each.partition] = high
                if 0 <= each.offset < low:
                    self._say(
                        f"{each.topic} [{each.partition}]: offsets {each.offset} to {low - 1} are gone, deleted by the broker "
                        "(its retention) before they were read. Have their rows sent again, or land them as a file"
                    )
                elif each.offset > high:
                    self._say(
                        f"{each.topic} [{each.partition}]: was read up to {each.offset} and ends at {high} now: it was made "
                        "anew, and is read from where auto.offset.reset says"
                    )
        except self._kafka.KafkaException as error:
            self._say_once("ends", f"the broker does not say where the partitions begin and end: {self._clean(_words(error))}")

    def _revoked(self, _consumer: Any, partitions: list[Any]) -> None:
        """Others get the partitions: what waits of them is landed and committed first."""
        places = [(each.topic, each.partition) for each in partitions]
        for place in places:
            if place in self._waiting:
                self._land(place)
        if self._uncommitted:
            try:  # with the answer: once this returns, others read from where the broker thinks that this one was
                self._answered(None, self._consumer.commit(offsets=self._offsets(), asynchronous=False))
            except self._kafka.KafkaException as error:
                self._answered(error.args[0], self._offsets())
        self._forget(places)

    def _lost(self, _consumer: Any, partitions: list[Any]) -> None:
        """Others have the partitions already, and are sent what was not committed."""
        places = [(each.topic, each.partition) for each in partitions]
        names = ", ".join(f"{topic} [{partition}]" for topic, partition in places)
        self._say(f"no longer has {names}: what is not committed is delivered again")
        self._gave_up |= any(place in self._uncommitted for place in places)
        self._forget(places)

    def _forget(self, places: list[Place]) -> None:
        # What is assigned next is to be read to its end, too.
        self._joined, self._heard_at = False, time.monotonic()
        for place in places:
            self._waiting.pop(place, None)
            self._uncommitted.pop(place, None)
            self._open_ends.pop(place, None)

    def _hear(self, error: Any) -> None:
        """What the client tells of its connections, from within `poll`."""
        codes = self._kafka.KafkaError
        text = self._clean(error.str())
        if error.code() in (codes._AUTHENTICATION, codes.SASL_AUTHENTICATION_FAILED, codes._SSL) or error.fatal():
            self._failure = f"the broker and the bridge do not agree on who they are: {text}. See to the file of --config"
        elif error.code() == codes._ALL_BROKERS_DOWN:
            self._say_once("away", f"no broker answers: {self._trouble or text}. Trying until one does")
        else:
            self._trouble = text

    def _judge(self, error: Any, message: Any) -> None:
        """What `poll` tells instead of a message."""
        codes = self._kafka.KafkaError
        if error.code() == codes._PARTITION_EOF:
            self._heard_at = time.monotonic()
            self._open_ends.pop((message.topic(), message.partition()), None)
            return
        text = self._clean(error.str())
        if error.code() in (codes.TOPIC_AUTHORIZATION_FAILED, codes.GROUP_AUTHORIZATION_FAILED) or error.fatal():
            raise BridgeError(f"the broker does not let the bridge read: {text}. It needs Read on the topics and the group")
        if error.code() == codes.UNKNOWN_TOPIC_OR_PART and self._until_end:
            raise BridgeError(f"{text}. Make the topic, or name another")
        self._trouble = text
        self._say_once(text, f"{text}. Trying again")

    def _say_once(self, about: str, text: str) -> None:
        """Say it, unless something was said about this in the last minutes."""
        now = time.monotonic()
        if now - self._said.get(about, -math.inf) >= SAY_AGAIN_S:
            self._said = {**{told: at for told, at in self._said.items() if now - at < SAY_AGAIN_S}, about: now}
            self._say(text)

    def _say(self, text: str) -> None:
        self._say_raw(self._clean(text))

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _words(error: BaseException) -> str:
    first = error.args[0] if error.args else error
    return str(first.str()) if hasattr(first, "str") else str(first)
