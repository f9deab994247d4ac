"""The real thing for journeys: `dagster dev` (web server, daemon, code server) on a data root of its own, driven over HTTP."""

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pdm_assets.demo import end_dagster, make_home, start_dagster


class Platform:
    """A running platform and what a browser would ask of it."""

    def __init__(self, data: Path, port: int) -> None:
        self.data, self.url = data, f"http://127.0.0.1:{port}"

    def graphql(self, query: str, **variables) -> dict:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = json.load(answer)
        assert "errors" not in content, content["errors"]
        return content["data"]

    def runs(self) -> list[dict]:
        """All runs, the newest first: id, status, tags as a dictionary."""
        found = self.graphql("{ runsOrError { ... on Runs { results { runId status jobName tags { key value } } } } }")
        return [{**run, "tags": {t["key"]: t["value"] for t in run["tags"]}} for run in found["runsOrError"]["results"]]

    def wait_for(self, what: str, condition, timeout: float = 600):
        """What the condition gives as soon as it is true; a failed run ends the wait with its error."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if found := condition():
                return found
            failed = [run for run in self.runs() if run["status"] == "FAILURE"]
            assert not failed, f"run {failed[0]['runId']} failed while waiting for {what}: {self.errors(failed[0]['runId'])}"
            time.sleep(1)
        raise AssertionError(f"{what}: not within {timeout} s. Runs: {self.runs()}")

    def errors(self, run_id: str) -> list[str]:
        query = """query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
            ... on ExecutionStepFailureEvent { stepKey error { message causes { message } } }
            ... on RunFailureEvent { error { message } } } } } }"""
        return [str(event) for event in self.graphql(query, id=run_id)["logsForRun"]["events"] if event]

    def all_done(self, least: int) -> list[dict] | None:
        runs = self.runs()
        return runs if len(runs) >= least and all(run["status"] == "SUCCESS" for run in runs) else None


@contextmanager
def platform(data: Path, **settings: str) -> Iterator[Platform]:
    """Start it, wait until it answers, end it with everything it started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = make_home(data)
    with (home / "dagster.log").open("wb") as log:
        process = start_dagster(home, port, log.fileno(), PDM_DATA=str(data), **settings)
    try:
        it = Platform(data, port)
        deadline = time.monotonic() + 360
        while True:
            with suppress(OSError):
                it.runs()
                break
            assert time.monotonic() < deadline, (home / "dagster.log").read_text()[-3000:]
            assert process.poll() is None, (home / "dagster.log").read_text()[-3000:]
            time.sleep(0.5)
        yield it
    finally:
        end_dagster(process)
