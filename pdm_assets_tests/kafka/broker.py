"""A Kafka broker of a test's own: one node, in a temporary folder, on this machine only, its jars from Maven Central."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyspark

from pdm_assets_tests.ports import free_ports

VERSION = "4.1.0"
START_S = 60
PASSWORD = "broker-password-5UPPOSED-secret"
# What a broker of one node loads, without the rest that Maven would bring along (tools, tiered storage).
JARS = [
    *(
        f"org.apache.kafka:{name}:{VERSION}"
        for name in (
            "kafka_2.13",
            "kafka-clients",
            "kafka-coordinator-common",
            "kafka-group-coordinator",
            "kafka-group-coordinator-api",
            "kafka-metadata",
            "kafka-raft",
            "kafka-server",
            "kafka-server-common",
            "kafka-share-coordinator",
            "kafka-storage",
            "kafka-storage-api",
            "kafka-tools-api",
            "kafka-transaction-coordinator",
        )
    ),
    *(f"com.fasterxml.jackson.core:jackson-{name}:2.19.0" for name in ("annotations", "core", "databind")),
    "com.fasterxml.jackson.datatype:jackson-datatype-jdk8:2.19.0",
    "com.dynatrace.hash4j:hash4j:0.22.0",
    "com.github.ben-manes.caffeine:caffeine:3.2.0",
    "com.google.re2j:re2j:1.8",
    "com.typesafe.scala-logging:scala-logging_2.13:3.9.5",
    "com.yammer.metrics:metrics-core:2.2.0",
    "commons-validator:commons-validator:1.9.0",
    "net.sf.jopt-simple:jopt-simple:5.0.4",
    "net.sourceforge.argparse4j:argparse4j:0.7.0",
    "org.apache.logging.log4j:log4j-api:2.24.3",
    "org.apache.logging.log4j:log4j-core:2.24.3",
    "org.bitbucket.b_c:jose4j:0.9.6",
    "org.hdrhistogram:HdrHistogram:2.2.2",
    "org.pcollections:pcollections:4.0.2",
    "org.scala-lang:scala-library:2.13.16",
    "org.scala-lang:scala-reflect:2.13.16",
    "org.slf4j:slf4j-api:1.7.36",
    "org.slf4j:slf4j-simple:1.7.36",
]


class NoBroker(RuntimeError):
    """A broker can't be had here; the text says why."""


def jars() -> Path:
    """The folder of the broker's jars, fetched once, by the Ivy that PySpark brings."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pdm-assets" / f"kafka-{VERSION}"
    complete = cache / "complete"
    if complete.exists() and complete.read_text().split() == JARS:
        return cache / "jars"
    cache.mkdir(parents=True, exist_ok=True)
    wanted = "\n".join(
        '<dependency org="{}" name="{}" rev="{}" transitive="false" conf="default->master"/>'.format(*jar.split(":"))
        for jar in JARS
    )
    (cache / "ivy.xml").write_text(
        f'<ivy-module version="2.0"><info organisation="pdm" module="broker"/>'
        f'<configurations><conf name="default"/></configurations><dependencies>{wanted}</dependencies></ivy-module>'
    )
    ivy = next((Path(pyspark.__file__).parent / "jars").glob("ivy-*.jar"))
    pattern = f"{cache}/jars/[organisation]_[artifact]-[revision].[ext]"
    command = [
        "java",
        "-jar",
        ivy,
        "-ivy",
        cache / "ivy.xml",
        "-confs",
        "default",
        "-retrieve",
        pattern,
    ]
    with tempfile.TemporaryDirectory() as scratch:  # two checkouts may fetch at once
        command += ["-cache", scratch]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0 or len(list((cache / "jars").glob("*.jar"))) < len(JARS):
        raise NoBroker("Kafka's jars can't be fetched from Maven Central: " + "\n".join(done.stdout.splitlines()[-15:]))
    complete.write_text("\n".join(JARS))
    return cache / "jars"


@dataclass
class Broker:
    """A broker: `address` for clients without a name, `guarded` for those that say user and password."""

    folder: Path
    classpath: str
    address: str = ""
    guarded: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, with what it held when it was stopped."""
        log = (self.folder / "log").open("ab")
        command = [*_java(self.classpath, self.folder), "kafka.Kafka", str(self.folder / "server.properties")]
        self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        log.close()
        host, port = self.address.split(":")
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                return
            time.sleep(0.1)
        raise AssertionError("the broker did not start:\n" + (self.folder / "log").read_text()[-3000:])

    def stop(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def _java(classpath: str, folder: Path) -> list[str]:
    small = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Djava.io.tmpdir={folder}"]
    return ["java", *small, "-cp", classpath]


@contextlib.contextmanager
def broker() -> Iterator[Broker]:
    """A running broker; gone with all that it held when the context closes."""
    classpath = f"{jars()}/*"
    folder = Path(tempfile.mkdtemp(prefix="pdm-kafka-"))
    open_, guarded, controller = (f"127.0.0.1:{port}" for port in free_ports(3))
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"PLAINTEXT://{open_},SASL_PLAINTEXT://{guarded},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{open_},SASL_PLAINTEXT://{guarded}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{login} user_pdm="{PASSWORD}";',
        "log.dirs": str(folder / "data"),
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "log.cleaner.enable": "false",
        "message.max.bytes": str(4 << 20),
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
    }
    (folder / "server.properties").write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    what = ["format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(folder / "server.properties")]
    command = [*_java(classpath, folder), "kafka.tools.StorageTool", *what]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    running = Broker(folder, classpath, open_, guarded)
    try:
        running.start()
        yield running
    finally:
        if running.process is not None:
            running.stop()
        shutil.rmtree(folder, ignore_errors=True)
