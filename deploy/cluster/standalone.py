"""A Spark standalone cluster on this machine, from the installed pyspark: master, workers, and Spark Connect in front.

`python deploy/cluster/standalone.py FOLDER` stays until it is ended, and then ends all of it. FOLDER/remote.env, for its owner
only, has the two settings that make the platform use it. Clusters of several machines are in docs/cluster.md.
"""

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyspark

from pdm_assets.engine.java import java_home
from pdm_assets.engine.processes import end_with_parent, private_file, private_folder
from pdm_assets.engine.spark import SERVER_CLASS, delta_conf

MASTER_CLASS = "org.apache.spark.deploy.master.Master"
WORKER_CLASS = "org.apache.spark.deploy.worker.Worker"
STARTS_S = 180


@dataclass
class Cluster:
    """What was started: the Connect server is the driver of every run; each worker starts an executor for it."""

    folder: Path
    master_port: int
    connect_port: int
    token: str
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, str]:
        """What to give the platform."""
        return {"PDM_ENGINE": "spark", "PDM_SPARK_REMOTE": f"sc://localhost:{self.connect_port}/;token={self.token}"}


@contextmanager
def cluster(folder: Path, *, workers: int = 2, cores: int = 1, memory_mb: int = 1024) -> Iterator[Cluster]:
    """Start it, wait until it answers, end it."""
    private_folder(folder)
    with private_file(folder / "spark.conf") as out:  # not an option: all users see those
        out.write(f"spark.authenticate true\nspark.authenticate.secret {secrets.token_urlsafe(24)}\n".encode())
    master_port, connect_port = _free_ports(2)
    it = Cluster(folder, master_port, connect_port, secrets.token_urlsafe(24))
    with ExitStack() as running:
        running.callback(_end, it)
        start_master(it)
        for number in range(1, workers + 1):
            start_worker(it, number, cores, memory_mb)
        start_connect(it, workers * cores, memory_mb, f"spark://127.0.0.1:{master_port}")
        with private_file(folder / "remote.env") as out:
            out.write("".join(f"{name}='{value}'\n" for name, value in it.settings.items()).encode())
        yield it


@contextmanager
def connect_server(folder: Path, *, cores: int = 1, memory_mb: int = 1024, store: str = "file") -> Iterator[Cluster]:
    """A Connect server alone, whose driver does all the work: the engine `spark` without a cluster."""
    private_folder(folder)
    with private_file(folder / "spark.conf"):
        it = Cluster(folder, 0, _free_ports(1)[0], secrets.token_urlsafe(24))
    try:
        start_connect(it, cores, memory_mb, f"local[{cores}]", store)
        yield it
    finally:
        _end(it)


def start_master(it: Cluster) -> None:
    """The master, on 127.0.0.1 only and without its UI's port in the way of another's."""
    command = [MASTER_CLASS, "--host", "127.0.0.1", "--port", str(it.master_port), "--webui-port", "0"]
    command += ["--properties-file", str(it.folder / "spark.conf")]
    _start(it, "master", ["spark-class", *command], {})
    _wait(it, "master", it.master_port)


def start_worker(it: Cluster, number: int, cores: int, memory_mb: int) -> None:
    """A worker with so many cores and so much memory for its executor."""
    work = it.folder / f"worker-{number}"
    command = [WORKER_CLASS, f"spark://127.0.0.1:{it.master_port}", "--host", "127.0.0.1", "--webui-port", "0"]
    command += ["--cores", str(cores), "--memory", f"{memory_mb}m", "--work-dir", str(work)]
    command += ["--properties-file", str(it.folder / "spark.conf")]
    _start(it, f"worker-{number}", ["spark-class", *command], {"SPARK_LOCAL_DIRS": str(work / "tmp")})


def start_connect(it: Cluster, cores: int, memory_mb: int, master: str, store: str = "file") -> None:
    """The Connect server, the driver of every run."""
    conf = {
        **delta_conf(cores, it.folder, store),
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(it.connect_port),
        "spark.executor.memory": f"{memory_mb * 3 // 4}m",
        "spark.cores.max": str(cores),
    }
    command = ["spark-submit", "--class", SERVER_CLASS, "--master", master]
    command += ["--properties-file", str(it.folder / "spark.conf"), "--driver-memory", f"{memory_mb}m"]
    command += ["--driver-java-options", "-XX:+ExitOnOutOfMemoryError"]
    command += [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
    _start(it, "connect", [*command, "spark-internal"], {"SPARK_CONNECT_AUTHENTICATE_TOKEN": it.token})
    _wait(it, "connect", it.connect_port)


def _start(it: Cluster, name: str, command: list[str], environ: Mapping[str, str]) -> None:
    home = Path(pyspark.__file__).parent
    # Python on the executors is this one: what scores needs NumPy and PyArrow
    spark = {
        "PYSPARK_PYTHON": sys.executable,
        "JAVA_HOME": str(java_home()),
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    with private_file(it.folder / f"{name}.log", "ab") as log:
        it.processes[name] = subprocess.Popen(
            [str(home / "bin" / command[0]), *command[1:]],
            env={**os.environ, **spark, **environ},
            cwd=it.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - it takes no lock
        )


def _wait(it: Cluster, name: str, port: int) -> None:
    deadline = time.monotonic() + STARTS_S
    while time.monotonic() < deadline and it.processes[name].poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{name} did not start: see {it.folder / name}.log")


def _end(it: Cluster) -> None:
    for process in reversed(it.processes.values()):
        process.terminate()
    for process in it.processes.values():
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def main() -> None:
    """Start it and stay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cores", type=int, default=1, help="of each worker")
    parser.add_argument("--memory-mb", type=int, default=1024, help="of each worker, and of the Connect server")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with cluster(options.folder.absolute(), workers=options.workers, cores=options.cores, memory_mb=options.memory_mb) as it:
        print(f"Spark Connect answers. For the platform: set -a; . {it.folder}/remote.env; set +a; make dev", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            sys.exit(0)


if __name__ == "__main__":
    main()
