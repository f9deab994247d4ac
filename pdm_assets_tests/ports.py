"""Ports for servers that tests start."""

import contextlib
import socket

import psutil


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now, each another."""
    with contextlib.ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in sockets]


def listening(pid: int) -> set[tuple[str, int]]:
    """(address, port) of every listening socket of a process and what it started."""
    process = psutil.Process(pid)
    connections = [c for its in (process, *process.children(recursive=True)) for c in its.net_connections("all")]
    # a UDP socket has no state, and one without a peer takes from all
    return {
        (c.laddr.ip.removeprefix("::ffff:"), c.laddr.port)
        for c in connections
        if c.family != socket.AF_UNIX and (c.status == psutil.CONN_LISTEN or (c.type == socket.SOCK_DGRAM and not c.raddr))
    }
