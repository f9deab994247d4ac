"""A stand-in of a Databricks workspace: the REST endpoints that the jobs use, and jobs that really run, each as a process.

What it is not: Databricks. It knows no permissions, no clusters and no Unity Catalog; a volume is a folder of this machine.
"""

import configparser
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ACTIVE = ("PENDING", "RUNNING", "TERMINATING")


def bare_environ() -> dict[str, str]:
    """What a process needs of this machine: no settings of the platform's, and not those that a Spark session leaves behind."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "JAVA_HOME", "XDG_CACHE_HOME", "TZ") if name in os.environ}


@dataclass
class Run:
    """A run that was submitted, of one task."""

    number: int
    name: str
    task: dict[str, Any]
    request: dict[str, Any]
    folder: Path
    state: str = "PENDING"
    result: str | None = None
    ended: tuple[str, str] | None = None  # type and code
    message: str = ""
    process: subprocess.Popen | None = None
    asked: int = 0

    @property
    def output(self) -> str:
        path = self.folder / "output.txt"
        return path.read_text() if path.exists() else ""


@dataclass
class Workspace:
    """A workspace at `url`; its volumes are folders below `volumes`, under the same path."""

    volumes: Path
    environ: dict[str, str] = field(default_factory=dict)  # what a cluster has: Spark's settings among it
    token_seconds: float = 3600.0  # how long a token is taken
    token_says_seconds: int = 3600  # how long it says that it lives
    throttled: int = 0  # so many of the next requests are refused
    pending_polls: int = 1
    lost_answers: int = 0  # so many submissions are taken, and not answered
    gives_tokens: bool = True
    refuses: str = ""  # what it says to every submission
    runs: dict[int, Run] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    tokens: dict[str, float] = field(default_factory=dict)

    def __enter__(self) -> "Workspace":
        self._lock = threading.Lock()
        workspace = self

        class Handler(_Handler):
            here = workspace

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        for run in self.runs.values():
            self.end(run)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def client_environ(self) -> dict[str, str]:
        """How the SDK finds it."""
        return {"DATABRICKS_HOST": self.url, "DATABRICKS_CLIENT_ID": "dagster", "DATABRICKS_CLIENT_SECRET": "secret"}

    def submit(self, request: dict[str, Any]) -> Run:
        (task,) = request["tasks"]
        token = request.get("idempotency_token")
        with self._lock:
            if known := [run for run in self.runs.values() if token and run.request.get("idempotency_token") == token]:
                return known[0]
            number = 1000 + len(self.runs)
            run = Run(number, request["run_name"], task, request, self.volumes / f".run-{number}")
            self.runs[number] = run
        return run

    def start(self, run: Run) -> None:
        """Install the wheel that the task names, as a cluster does, and run its entry point."""
        run.folder.mkdir()
        libraries = [each["whl"] for each in run.task.get("libraries", []) if "whl" in each]
        for environment in run.request.get("environments", []):
            libraries += [each for each in environment["spec"].get("dependencies", []) if each.endswith(".whl")]
        for wheel in libraries:
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(run.folder / "installed")
        what = run.task["python_wheel_task"]
        (points,) = (run.folder / "installed").glob("*.dist-info/entry_points.txt")
        parser = configparser.ConfigParser()
        parser.read(points)
        module, function = parser["console_scripts"][what["entry_point"]].split(":")
        code = f"import sys; from {module} import {function}; sys.argv[0] = {what['entry_point']!r}; {function}()"
        environ = {
            **bare_environ(),
            "PYTHONPATH": str(run.folder / "installed"),
            **self.environ,
            **run.task.get("new_cluster", {}).get("spark_env_vars", {}),
        }
        with (run.folder / "output.txt").open("w") as output:
            run.process = subprocess.Popen(
                [sys.executable, "-c", code, *what.get("parameters", [])],
                env=environ,
                cwd=run.folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        run.state = "RUNNING"
        limit = run.task.get("timeout_seconds") or run.request.get("timeout_seconds")
        threading.Thread(target=self._wait, args=(run, run.process, limit), daemon=True).start()

    def _wait(self, run: Run, process: subprocess.Popen, limit: float | None) -> None:
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            self.end(run, "TIMEDOUT", ("CLIENT_ERROR", "RUN_EXECUTION_ERROR"), "timed out")
            return
        with self._lock:
            if run.state != "RUNNING":
                return
            run.state = "TERMINATED"
            if code == 0:
                run.result, run.ended = "SUCCESS", ("SUCCESS", "SUCCESS")
            else:
                run.result, run.ended = "FAILED", ("CLIENT_ERROR", "RUN_EXECUTION_ERROR")
                run.message = "Workload failed, see run output for details"

    def end(
        self,
        run: Run,
        result: str = "CANCELED",
        ended: tuple[str, str] = ("CLIENT_ERROR", "USER_CANCELED"),
        message: str = "Run cancelled.",
        state: str = "TERMINATED",
    ) -> None:
        """End a run as someone, or something, there does."""
        with self._lock:
            if run.state not in ACTIVE:
                return
            run.state, run.result, run.ended, run.message = state, result, ended, message
        if run.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait(30)

    def told(self, run: Run) -> dict[str, Any]:
        state = {"life_cycle_state": run.state, "result_state": run.result, "state_message": run.message}
        found: dict[str, Any] = {
            "run_id": run.number,
            "run_name": run.name,
            "run_page_url": f"{self.url}/#job/runs/{run.number}",
            "state": {name: value for name, value in state.items() if value},
            "tasks": [{"run_id": run.number + 500_000, "task_key": run.task["task_key"]}],
        }
        if run.ended:
            kind, code = run.ended
            details = {"type": kind, "code": code, "message": run.message}
            found["status"] = {"state": "TERMINATED", "termination_details": details}
        return found


class _Handler(BaseHTTPRequestHandler):
    here: Workspace
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, body: Any = None, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if isinstance(body, bytes) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str, message: str, **headers: str) -> None:
        self.answer({"error_code": code, "message": message}, status, **headers)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urllib.parse.urlsplit(self.path)
        path, query = urllib.parse.unquote(address.path), dict(urllib.parse.parse_qsl(address.query))
        here = self.here
        if path.startswith("/oidc/"):
            return self.sign_in(path)
        here.calls[f"{self.command} {path if path.startswith('/api/2.2') else path.split('/')[4]}"] += 1
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if here.tokens.get(token, 0) < time.time():
            here.calls["refused tokens"] += 1
            return self.refuse(401, "UNAUTHENTICATED", "the token is not valid, or not any more")
        if here.throttled > 0:
            here.throttled -= 1
            return self.refuse(429, "RESOURCE_EXHAUSTED", "too many requests", Retry_After="1")
        if path.startswith("/api/2.2/jobs/runs/"):
            return self.jobs(path.rsplit("/", 1)[1], json.loads(body) if body else query)
        kind, _, name = path.removeprefix("/api/2.0/fs/").partition("/")
        return self.files(kind, Path(f"/{name}"), body)

    def handled(self) -> None:
        try:
            self.handle_any()
        except Exception as error:  # a connection that breaks off would be tried again for five minutes
            self.refuse(400, "BAD_REQUEST", f"the stand-in failed: {error!r}")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handled  # noqa: N815 - http.server's names

    def sign_in(self, path: str) -> None:
        if path.endswith("oauth-authorization-server"):
            ends = {f"{name}_endpoint": f"{self.here.url}/oidc/v1/{name}" for name in ("authorization", "token")}
            return self.answer(ends)
        if not self.here.gives_tokens:
            return self.refuse(503, "TEMPORARILY_UNAVAILABLE", "no tokens just now")
        token = f"token-{len(self.here.tokens)}"
        self.here.tokens[token] = time.time() + self.here.token_seconds
        return self.answer({"access_token": token, "token_type": "Bearer", "expires_in": self.here.token_says_seconds})

    def jobs(self, what: str, asked: dict[str, Any]) -> None:
        here = self.here
        if what == "submit":
            self.submit(asked)
        elif what == "list":
            wanted = [run for run in here.runs.values() if asked.get("active_only") != "true" or run.state in ACTIVE]
            self.answer({"runs": [here.told(run) for run in wanted]})
        elif (run := here.runs.get(int(asked["run_id"]) % 500_000)) is None:
            self.refuse(400, "INVALID_PARAMETER_VALUE", f"Run {asked['run_id']} does not exist.")
        elif what == "cancel":
            here.end(run)
            self.answer({})
        elif what == "get-output":
            lines = run.output.strip().splitlines()
            self.answer({"error": lines[-1] if lines else "", "error_trace": run.output[-4000:]})
        else:
            run.asked += 1
            if run.state == "PENDING" and run.asked > here.pending_polls:
                here.start(run)
            self.answer(here.told(run))

    def submit(self, asked: dict[str, Any]) -> None:
        here = self.here
        if here.refuses:
            self.refuse(400, "INVALID_PARAMETER_VALUE", here.refuses)
            return
        number = here.submit(asked).number
        if here.lost_answers > 0:
            here.lost_answers -= 1
            self.close_connection = True
            return
        self.answer({"run_id": number})

    def files(self, kind: str, path: Path, body: bytes) -> None:
        is_there = path.is_dir() if kind == "directories" else path.is_file()
        if not path.is_relative_to(self.here.volumes):
            self.refuse(404, "NOT_FOUND", f"the volume of {path} does not exist")
        elif self.command == "PUT":
            if kind == "directories":
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.write_bytes(body)
            self.answer(status=204)
        elif not is_there:
            self.refuse(404, "NOT_FOUND", f"{path} does not exist")
        elif self.command == "DELETE":
            path.rmdir() if kind == "directories" else path.unlink()
            self.answer(status=204)
        elif kind == "directories":
            contents = [{"path": str(p), "name": p.name, "is_directory": p.is_dir()} for p in sorted(path.iterdir())]
            self.answer({"contents": contents})
        else:
            self.answer(path.read_bytes())
