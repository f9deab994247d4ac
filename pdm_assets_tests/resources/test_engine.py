"""The engine's life: attached to, shared, replaced when dead or hung, stopped when idle. Each start costs seconds."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import grpc
import psutil
import pytest
from pyspark.sql import SparkSession
from pyspark.sql.connect.proto import AnalyzePlanRequest, SparkConnectServiceStub

from pdm_assets.resources import engine as module
from pdm_assets.resources.engine import Engine, EngineError, Sizing, private_folder, the_only_writer

SIZING = Sizing(cores=1, memory_mb=1024, idle_minutes=5)


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.1)


def listening(pid):
    """(address, port) of every listening socket of a process and what it started."""
    process = psutil.Process(pid)
    connections = [c for its in (process, *process.children(recursive=True)) for c in its.net_connections("all")]
    # a UDP socket has no state, and one without a peer takes from all
    return {
        (c.laddr.ip.removeprefix("::ffff:"), c.laddr.port)
        for c in connections
        if c.family != socket.AF_UNIX and (c.status == psutil.CONN_LISTEN or (c.type == socket.SOCK_DGRAM and not c.raddr))
    }


def refusal(port, token):
    """Why a client with this token, or none, gets no answer; None if it gets one."""
    with grpc.insecure_channel(f"localhost:{port}") as channel:
        request = AnalyzePlanRequest(session_id="00000000-0000-0000-0000-000000000000")
        request.spark_version.SetInParent()
        metadata = [("authorization", f"Bearer {token}")] if token else []
        try:
            SparkConnectServiceStub(channel).AnalyzePlan(request, timeout=60, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()
    return None


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    plant = tmp_path_factory.mktemp("plant") / 'o\'hara "2" `id` $HOME; #1'  # as a shell would not like it
    # as a careless umask and an earlier release may have left it
    (plant / "engine").mkdir(parents=True)
    for name in ("", "engine.part", "supervisor.log"):
        path = plant / "engine" / name
        path.exists() or path.touch()
        path.chmod(0o777)
    engine = Engine(plant, SIZING)
    yield engine
    engine.stop()


def test_two_who_come_at_once_share_one_engine(engine):
    found = []

    def come():
        with engine.lease() as info:
            found.append(info)

    threads = [threading.Thread(target=come) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] == found[1] == engine.info()


def test_it_is_for_this_user_and_this_machine_only(engine):
    with engine.lease() as info:
        assert stat.S_IMODE(engine.folder.stat().st_mode) == 0o700
        for name in ("engine.json", "engine.log", "supervisor.log"):
            assert stat.S_IMODE((engine.folder / name).stat().st_mode) == 0o600
        session = SparkSession.builder.remote(info.address).create()
        assert session.range(1000).repartition(3).count() == 1000  # what a job opens is open now
        session.stop()
        addresses = listening(info.supervisor_pid)
        assert ("127.0.0.1", info.port) in addresses
        assert all(ip == "127.0.0.1" for ip, _ in addresses)
        assert refusal(info.port, None) == refusal(info.port, "wrong") == grpc.StatusCode.UNAUTHENTICATED
        assert refusal(info.port, info.token) is None
        for process in psutil.process_iter(["cmdline"]):
            assert info.token not in " ".join(process.info["cmdline"] or [])
        assert not any(info.token in log.read_text() for log in engine.folder.glob("*.log"))


def test_nobody_else_writes_the_lake_meanwhile(engine):
    with (
        engine.lease(),
        pytest.raises(EngineError, match="being written by the Spark engine"),
        the_only_writer(engine.folder, "x"),
    ):
        pass


@pytest.mark.slow
def test_a_hung_engine_is_replaced(engine, monkeypatch):
    monkeypatch.setattr(module, "PING_TIMEOUT_S", 2)
    with engine.lease() as hung:
        os.kill(hung.jvm_pid, signal.SIGSTOP)
    with engine.lease() as info:
        assert info.jvm_pid != hung.jvm_pid
        assert not psutil.pid_exists(hung.jvm_pid)


@pytest.mark.slow
def test_what_a_killed_supervisor_left_is_cleared_away(engine):
    with engine.lease() as old:
        os.kill(old.supervisor_pid, signal.SIGKILL)
    wait_until(lambda: engine.info() is None, 10)
    with engine.lease() as info:
        assert info.supervisor_pid != old.supervisor_pid
        assert not psutil.pid_exists(old.jvm_pid)
        # killed itself, the JVM takes its supervisor along and leaves no trace
        os.kill(info.jvm_pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(info.supervisor_pid), 15)
    assert engine.info() is None


@pytest.mark.slow
def test_unused_it_stops(tmp_path):
    engine = Engine(tmp_path, Sizing(cores=1, memory_mb=1024, idle_minutes=0.02))
    with engine.lease() as info:
        time.sleep(3)
        assert engine.info() == info, "in use, it stays"
    wait_until(lambda: not psutil.pid_exists(info.jvm_pid), 30)
    assert engine.info() is None
    assert not engine.stop()


def test_a_start_that_fails_says_why(tmp_path):
    engine = Engine(tmp_path, Sizing(cores=1, memory_mb=1, idle_minutes=1))  # no JVM lives in 1 MiB
    with pytest.raises(EngineError, match=r"did not start.*engine.log"), engine.lease():
        pass


def test_without_java_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(EngineError, match="openjdk-17-jre-headless"), Engine(tmp_path, SIZING).lease():
        pass


def test_one_that_is_still_starting_is_stopped_too(tmp_path):
    starting = Engine(tmp_path, SIZING)
    failed = []

    def come():
        try:
            with starting.lease():
                pass
        except EngineError as error:
            failed.append(error)

    coming = threading.Thread(target=come)
    coming.start()
    wait_until(lambda: (tmp_path / "engine" / "writer.lock").exists() and (tmp_path / "engine" / "writer.lock").read_text(), 20)
    assert starting.info() is None
    assert starting.stop()
    coming.join(30)
    assert failed
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert not starting.stop()


@pytest.mark.slow
def test_one_that_is_still_starting_for_somebody_who_was_killed_is_waited_for(tmp_path):
    engine = Engine(tmp_path, SIZING)
    private_folder(engine.folder)
    command = [sys.executable, "-m", "pdm_assets.resources.engine", str(engine.folder), json.dumps(asdict(SIZING))]
    pid = int(subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout)
    while engine._starting() is None:
        assert psutil.pid_exists(pid)
        time.sleep(0.01)
    try:
        with engine.lease() as info:
            assert info.supervisor_pid == pid
    finally:
        engine.stop()
