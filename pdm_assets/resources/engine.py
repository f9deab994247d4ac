"""The warm local Spark engine: one Spark Connect server that all runs of a data root share.

A supervisor process owns the server's JVM. Who uses the engine holds a shared lock on `lease.lock`, which the system releases
when the process dies; when nobody has held it for the idle time, the supervisor stops the JVM and ends. The JVM inherits the
supervisor's lock on `writer.lock`, so a second writer of the same lake is refused for as long as any JVM can still write,
even after the supervisor was killed: Delta commits on a local file system are only safe inside one JVM.

`python -m pdm_assets.resources.engine FOLDER` is the supervisor; nothing here imports Dagster.
"""

import contextlib
import ctypes
import dataclasses
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psutil

from pdm_assets.resources.java import JavaError, java_home
from pdm_assets.resources.object_store import s3_endpoint
from pdm_assets.settings import Settings

DELTA_PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"
# Hadoop without its native library starts a `chmod` process for every file and folder it makes: 1,560 of them for a year of
# days in one table. This file system does it in Java.
LOCAL_FILES_PACKAGE = "com.globalmentor:hadoop-bare-naked-local-fs:0.1.0"
LOCAL_FILES_CLASS = "com.globalmentor.apache.hadoop.fs.BareLocalFileSystem"
# What Spark needs to read and write an object store, by the scheme of its addresses, of the release that pyspark's Hadoop is.
# Hadoop names the whole of the AWS SDK, 690 MB; these are the parts that it uses.
AWS_SDK = "software.amazon.awssdk:{}:2.35.4"
STORE_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "file": (),
    "s3a": (
        "org.apache.hadoop:hadoop-aws:3.5.0",
        *(AWS_SDK.format(part) for part in ("s3", "s3-transfer-manager", "sts", "apache-client", "netty-nio-client")),
    ),
    "abfss": ("org.apache.hadoop:hadoop-azure:3.5.0",),
    "gs": ("org.apache.hadoop:hadoop-gcp:3.5.0",),
}
LEFT_OUT = ("software.amazon.awssdk:bundle", "org.apache.hadoop:hadoop-client-api", "org.apache.hadoop:hadoop-client-runtime")
SERVER_CLASS = "org.apache.spark.sql.connect.service.SparkConnectServer"
START_TIMEOUT_S = 180  # the first start downloads 87 MB of jars
PING_TIMEOUT_S = 60  # an engine that doesn't say its version in this time is hung, not busy
LOG_TAIL_LINES = 15
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here, for a forked process should load nothing
OUT_OF_MEMORY = "java.lang.OutOfMemoryError"


class EngineError(RuntimeError):
    """The engine can't be had; the text says why and what to do."""


class EngineOutOfMemory(EngineError):
    """The engine ended for want of heap: the same work would end it again."""


@dataclass(frozen=True)
class EngineInfo:
    """A running engine, as its supervisor wrote it down."""

    port: int
    token: str = dataclasses.field(repr=False)  # what is logged or raised shows no token
    supervisor_pid: int
    jvm_pid: int
    memory_mb: int
    cores: int

    @property
    def address(self) -> str:
        """Spark Connect address. The host must read `localhost`: for any other name the client demands TLS."""
        return f"sc://localhost:{self.port}/;token={self.token}"


@dataclass(frozen=True)
class Sizing:
    """How large the engine is, how long it waits for work and on what kind of store the tables are."""

    cores: int
    memory_mb: int
    idle_minutes: float
    store: str = "file"

    @classmethod
    def of(cls, settings: Settings) -> "Sizing":
        """The sizes in the settings, the machine's where they say 0."""
        quarter = psutil.virtual_memory().total // 4 // 2**20
        return cls(
            cores=settings.spark_cores or os.cpu_count() or 1,
            memory_mb=settings.spark_memory_mb or min(4096, max(1024, quarter)),
            idle_minutes=settings.spark_idle_minutes,
            store=settings.store,
        )


def delta_conf(cores: int, folder: Path, store: str = "file") -> dict[str, str]:
    """Spark settings of every local session, engine or classic, with tables on a store of that scheme."""
    from pdm_assets.schemas.tables import REAL_COLUMNS

    return {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(2 * cores),
        # 50 by default, which costs 10 s a commit on two cores
        "spark.databricks.delta.snapshotPartitions": "1",
        # Tasks in which VACUUM lists a table: 10,000 by default, minutes each time
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": str(2 * cores),
        # HotSpot leaves longer methods to its interpreter: the features of a year take 8 s less of 35 in smaller ones
        "spark.sql.codegen.hugeMethodLimit": "8000",
        # Readings hardly repeat: Parquet would build a dictionary of them for each file, and throw it away (of a year of a
        # thousand machines that is 4 s of 15, for files of the same size)
        **{f"spark.hadoop.parquet.enable.dictionary#{name}": "false" for name in REAL_COLUMNS},
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "WARN",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.local.dir": str(folder / "tmp"),
        **_jars(store),
        **(s3_conf(os.environ) if store == "s3a" else {}),
    }


def s3_conf(environ: Mapping[str, str]) -> dict[str, str]:
    """Spark settings for S3, from the variables that other clients of AWS read by themselves, as it does credentials."""
    conf = {
        # S3 has no rename: commits are safe because one driver makes them all, the engine.
        "spark.delta.logStore.s3a.impl": "io.delta.storage.S3SingleDriverLogStore",
        "spark.hadoop.fs.s3a.path.style.access": "false",
    }
    if endpoint := s3_endpoint(environ):
        # Of a store of one's own: it has no name of its own for each bucket.
        conf |= {"spark.hadoop.fs.s3a.endpoint": endpoint, "spark.hadoop.fs.s3a.path.style.access": "true"}
    if region := environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"):
        conf["spark.hadoop.fs.s3a.endpoint.region"] = region
    return conf


def _jar_cache(store: str = "file") -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    versions = [package.rsplit(":", 1)[1] for package in (DELTA_PACKAGE, LOCAL_FILES_PACKAGE)]
    of_store = [store, *sorted({package.rsplit(":", 1)[1] for package in STORE_PACKAGES[store]})] if store != "file" else []
    return Path(cache) / "pdm-assets" / "-".join(("jars", *versions, *of_store))


def _jars(store: str) -> dict[str, str]:
    """Jars that were fetched once are named as files: no resolver, no network, two seconds less a start."""
    if not (_jar_cache(store) / "complete").exists():
        return {
            "spark.jars.packages": ",".join((DELTA_PACKAGE, LOCAL_FILES_PACKAGE, *STORE_PACKAGES[store])),
            "spark.jars.excludes": ",".join(LEFT_OUT),
            "spark.jars.ivy": str(_jar_cache(store)),
        }
    jars = sorted(map(str, (_jar_cache(store) / "jars").glob("*.jar")))
    local_files = [jar for jar in jars if LOCAL_FILES_PACKAGE.split(":")[1] in jar]
    return {
        "spark.jars": ",".join(jar for jar in jars if jar not in local_files),
        # Needed before Spark adds any jar. The others must not be here: they would come before Spark's own, and Delta's
        # older Jackson breaks it.
        "spark.driver.extraClassPath": ":".join(local_files),
        "spark.hadoop.fs.file.impl": LOCAL_FILES_CLASS,
    }


@contextlib.contextmanager
def one_fetches(store: str = "file", is_given_up: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hold the cache of jars while a first session fetches them: two that resolve into one folder damage each other's files."""
    if (_jar_cache(store) / "complete").exists():
        yield
        return
    _jar_cache(store).mkdir(parents=True, exist_ok=True)
    with (_jar_cache(store) / ".lock").open("a") as lock:
        while not _try_lock(lock) and not is_given_up():
            time.sleep(0.2)
        yield


def jars_are_fetched(store: str = "file") -> None:
    """Remember that a session started with all the jars in the cache."""
    if any((_jar_cache(store) / "jars").glob("io.delta_delta-spark*.jar")):
        (_jar_cache(store) / "complete").touch()


class Engine:
    """The engine of one data root, seen from a process that wants to use it."""

    def __init__(self, data: Path, sizing: Sizing) -> None:
        """Nothing is started or created before `lease`."""
        self.folder = (data.absolute() / "engine").resolve()  # by one name, whatever link led here
        self.sizing = sizing

    @property
    def log(self) -> Path:
        """What the JVM printed."""
        return self.folder / "engine.log"

    @contextlib.contextmanager
    def lease(self) -> Iterator[EngineInfo]:
        """A running engine that stays up while the context is open; started, or replaced if dead or hung, when needed.

        Raises:
            EngineError: if it can't be started, or another writer holds the lake.
        """
        private_folder(self.folder)
        with _locked(self.folder / "lease.lock", fcntl.LOCK_SH):
            with _locked(self.folder / "start.lock", fcntl.LOCK_EX):
                info = self.info()
                if info is None and (coming := self._starting()) is not None:
                    # Whoever asked for it was killed: it comes up all the same, and another would be refused the lake.
                    info = self._wait_for(coming.pid)
                if info is None or not _answers(info):
                    self._clear(info)
                    info = self._start()
            yield info

    def check_alive(self, info: EngineInfo) -> None:
        """See to it that an engine that was leased is still there.

        Raises:
            EngineError: if its JVM has died; the text says of what, where its log tells.
        """
        if _jvm(info, self.folder) is not None:
            return
        if self.ran_out_of_memory():
            raise EngineOutOfMemory(
                f"the Spark engine ran out of memory: PDM_SPARK_MEMORY_MB={info.memory_mb} is too little for so many days. "
                "Set it higher and run `pdm-assets engine stop`, or materialize fewer days at a time"
            )
        raise EngineError(
            f"the Spark engine (pid {info.jvm_pid}) died while it was in use: it was stopped or killed, or the system ran out "
            f"of memory. What it had begun is not committed. Its log is {self.log}"
        )

    def ran_out_of_memory(self) -> bool:
        """Whether the newest engine, running or not, said that its heap was full."""
        return self.log.exists() and OUT_OF_MEMORY in self.log.read_text(errors="replace")

    def is_dead(self) -> bool:
        """Whether one was recorded that neither runs nor stopped by itself: it was killed, and the next run clears it away."""
        return self._recorded() is not None and self.info() is None

    def info(self) -> EngineInfo | None:
        """The engine that is running, or None."""
        try:
            info = EngineInfo(**json.loads((self.folder / "engine.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        alive = psutil.pid_exists(info.supervisor_pid) and _jvm(info, self.folder) is not None
        return info if alive else None

    def stop(self) -> bool:
        """Stop the engine, in use or not, or still starting. False if none was running."""
        info = self.info()
        was_starting = info is None and self._end_start()
        self._clear(self._recorded())
        return info is not None or was_starting

    def _end_start(self) -> bool:
        """End a supervisor that has not yet written down its engine; it ends its JVM."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if (supervisor := self._starting()) is not None:
                supervisor.terminate()
                with contextlib.suppress(psutil.TimeoutExpired):
                    supervisor.wait(15)
                return True
        return False

    def _starting(self) -> psutil.Process | None:
        """A supervisor that holds the lake and has not yet written down its engine, or no longer has it."""
        with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess), (self.folder / "writer.lock").open() as lock:
            holder = None if _is_free(lock) else re.search(r"the Spark engine \(pid (\d+)\)", lock.read())
            if holder is not None and str(self.folder) in (supervisor := psutil.Process(int(holder[1]))).cmdline():
                return supervisor
        return None

    def _wait_for(self, supervisor_pid: int) -> EngineInfo | None:
        """The engine of a supervisor, once it is up; None if the supervisor ends, or takes too long."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and psutil.pid_exists(supervisor_pid):
            if (info := self.info()) is not None and info.supervisor_pid == supervisor_pid:
                return info
            time.sleep(0.05)
        return None

    def _recorded(self) -> EngineInfo | None:
        try:
            return EngineInfo(**json.loads((self.folder / "engine.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _clear(self, info: EngineInfo | None) -> None:
        """End what is left of an engine: a JVM whose supervisor was killed, or one that no longer answers."""
        info = info or self._recorded()
        if info is None:
            return
        jvm = _jvm(info, self.folder)
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(info.supervisor_pid)
            if str(self.folder) in supervisor.cmdline():
                supervisor.terminate()
                with contextlib.suppress(psutil.TimeoutExpired):
                    supervisor.wait(15)
        if jvm is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                jvm.kill()
                jvm.wait(15)
        (self.folder / "engine.json").unlink(missing_ok=True)

    def _start(self) -> EngineInfo:
        environ = {**os.environ, "JAVA_HOME": java_for_spark()}
        command = [
            sys.executable,
            "-m",
            "pdm_assets.resources.engine",
            str(self.folder),
            json.dumps(dataclasses.asdict(self.sizing)),
        ]
        started = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
        pid = int(started.stdout)
        if (info := self._wait_for(pid)) is not None:
            return info
        if not psutil.pid_exists(pid):
            raise EngineError(f"the Spark engine did not start. {self._why()}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        raise EngineError(f"the Spark engine did not answer within {START_TIMEOUT_S} s. {self._why()}")

    def _why(self) -> str:
        said = (self.folder / "supervisor.log").read_text(errors="replace").strip()
        if said:
            return said.splitlines()[-1]
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        if any("unresolved dependency" in line or "UNRESOLVED DEPENDENCIES" in line for line in lines):
            return (
                f"Its Delta jars are not in {_jar_cache(self.sizing.store)} yet, and Maven Central, where they are fetched "
                "once, can not be reached: see to network and proxy, or copy that folder from a machine that has it. "
                f"Its log is {self.log}"
            )
        return "\n".join([f"Last lines of {self.log}:", *lines[-LOG_TAIL_LINES:]])


def private_folder(folder: Path) -> None:
    """Make a folder that is its owner's alone, also where it is there already."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)


@contextlib.contextmanager
def the_only_writer(folder: Path, who: str) -> Iterator[IO[str]]:
    """Hold the lake of a data root as its one writing JVM.

    Raises:
        EngineError: if another process holds it; the text says which.
    """
    private_folder(folder)
    with (folder / "writer.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise EngineError(
                f"the lake is being written by {holder}, and local Delta tables bear only one writing JVM. "
                "Wait for it to end or stop it (pdm-assets engine stop)."
            ) from None
        lock.truncate(0)
        lock.write(f"{who} (pid {os.getpid()})")
        lock.flush()
        yield lock


@contextlib.contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    with path.open("a") as lock:
        fcntl.flock(lock, kind)
        yield


def _jvm(info: EngineInfo, folder: Path) -> psutil.Process | None:
    """The recorded JVM, unless the number meanwhile belongs to another process. Told by its command: clocks are set."""
    try:
        process = psutil.Process(info.jvm_pid)
        command = " ".join(process.cmdline())  # empty for a zombie
    except psutil.NoSuchProcess:
        return None
    return process if SERVER_CLASS in command and str(folder) in command else None


def _answers(info: EngineInfo) -> bool:
    """Ask the server for its version: a stopped or dead-locked JVM still accepts connections."""
    import grpc
    from pyspark.sql.connect.proto import AnalyzePlanRequest, SparkConnectServiceStub

    request = AnalyzePlanRequest(session_id="00000000-0000-0000-0000-000000000000")
    request.spark_version.SetInParent()
    with grpc.insecure_channel(f"localhost:{info.port}") as channel:
        try:
            SparkConnectServiceStub(channel).AnalyzePlan(
                request, timeout=PING_TIMEOUT_S, metadata=[("authorization", f"Bearer {info.token}")]
            )
        except grpc.RpcError:
            return False
    return True


def java_for_spark() -> str:
    """What JAVA_HOME is to be for Spark's scripts.

    Raises:
        EngineError: if there is no Java that Spark runs on.
    """
    try:
        return str(java_home())
    except JavaError as error:
        raise EngineError(str(error)) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _supervise(folder: Path, sizing: Sizing) -> None:
    """Start the JVM, write down how to reach it, stop it when nobody has used it for the idle time."""
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with the_only_writer(folder, "the Spark engine") as writer, (folder / "lease.lock").open("a") as lease:
        port, token = _free_port(), secrets.token_urlsafe(24)
        jvm = None
        try:
            with one_fetches(sizing.store, lambda: stopping):
                if stopping:
                    return
                jvm = _launch(folder, sizing, port, token, writer.fileno())
                while not stopping and jvm.poll() is None and not _accepts(port):
                    time.sleep(0.05)
                if stopping or jvm.poll() is not None:
                    return
                jars_are_fetched(sizing.store)
            info = EngineInfo(port, token, os.getpid(), jvm.pid, sizing.memory_mb, sizing.cores)
            _write_private(folder / "engine.json", json.dumps(dataclasses.asdict(info)))
            last_used = time.monotonic()
            while not stopping and jvm.poll() is None:
                time.sleep(0.5)
                # Waits for a client only once the idle time is over: then the lock keeps new ones out until the JVM is gone.
                if _try_lock(lease):
                    if time.monotonic() - last_used > sizing.idle_minutes * 60:
                        return
                    fcntl.flock(lease, fcntl.LOCK_UN)
                else:
                    last_used = time.monotonic()
        finally:
            (folder / "engine.json").unlink(missing_ok=True)
            if jvm is not None:
                jvm.terminate()
                try:
                    jvm.wait(10)
                except subprocess.TimeoutExpired:
                    jvm.kill()
                    jvm.wait()


def _is_free(file: IO[Any]) -> bool:
    """Whether nobody holds a lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


def _try_lock(file: IO[Any]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _launch(folder: Path, sizing: Sizing, port: int, token: str, writer_lock: int) -> "subprocess.Popen[bytes]":
    import importlib.util

    spec = importlib.util.find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    home = Path(spec.origin).parent
    shutil.rmtree(folder / "tmp", ignore_errors=True)
    conf = {
        **delta_conf(sizing.cores, folder, sizing.store),
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
    }
    command = [
        str(home / "bin" / "spark-submit"),
        "--class",
        SERVER_CLASS,
    ]
    command += ["--master", f"local[{sizing.cores}]", "--driver-memory", f"{sizing.memory_mb}m"]
    # Without it a JVM that has no heap left goes on with some of its threads dead, and a run may wait for ever.
    command += ["--driver-java-options", "-XX:+ExitOnOutOfMemoryError"]
    command += [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
    environ = {**os.environ, "SPARK_HOME": str(home), "SPARK_CONNECT_AUTHENTICATE_TOKEN": token}
    log = folder / "engine.log"
    if log.exists():
        log.replace(folder / "engine.previous.log")
    with private_file(log) as out:
        return subprocess.Popen(
            [*command, "spark-internal"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environ,
            cwd=folder,
            pass_fds=(writer_lock,),
            # a supervisor that is killed leaves no JVM that nobody would stop
            preexec_fn=end_with_parent,  # noqa: PLW1509 - there is no other thread
        )


def end_with_parent(by: int = signal.SIGTERM) -> None:
    """Have this process, just forked, end when its parent does. Linux only; elsewhere the next start clears up."""
    if LIBC is not None:
        set_parent_death_signal = 1
        LIBC.prctl(set_parent_death_signal, int(by))


def private_file(path: Path, mode: str = "wb") -> IO[bytes]:
    """Open a file for writing that only its owner can read, whatever the umask and whoever made it before."""
    out = open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115 - the caller's
    os.fchmod(out.fileno(), 0o600)
    return out


def _write_private(path: Path, text: str) -> None:
    partial = path.with_suffix(".part")
    with private_file(partial) as out:
        out.write(text.encode())
    partial.replace(path)


def _detach(log: Path) -> None:
    """Go on as a process of its own, no child of the run that happened to come first, and tell that run the number."""
    if (pid := os.fork()) > 0:
        print(pid, flush=True)
        os._exit(0)
    os.setsid()
    with private_file(log) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)


if __name__ == "__main__":
    _folder = Path(sys.argv[1])
    _detach(_folder / "supervisor.log")
    try:
        _supervise(_folder, Sizing(**json.loads(sys.argv[2])))
    except EngineError as error:
        sys.exit(str(error))
