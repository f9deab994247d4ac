"""The real thing for journeys: `dagster dev` (web server, daemon, code server) on a data root of its own, driven over HTTP."""

import datetime as dt
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pdm_assets.demo import end_dagster, make_home, start_dagster
from pdm_assets_tests.ports import free_ports

UNDER_WAY = {"QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"}
HERE = {"repositoryLocationName": "pdm_assets", "repositoryName": "__repository__"}


class Platform:
    """A running platform and what a browser would ask of it."""

    def __init__(self, data: Path, port: int) -> None:
        self.data, self.url = data, f"http://127.0.0.1:{port}"

    def graphql(self, query: str, **variables) -> dict:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                content = json.load(answer)
        except urllib.error.HTTPError as error:  # its text says what was wrong with the request
            raise OSError(f"{error}: {error.read()[:2000].decode(errors='replace')}") from error
        assert "errors" not in content, content["errors"]
        return content["data"]

    def runs(self) -> list[dict]:
        """All runs, the newest first: id, status, tags as a dictionary."""
        found = self.graphql("{ runsOrError { ... on Runs { results { runId status jobName tags { key value } } } } }")
        return [{**run, "tags": {t["key"]: t["value"] for t in run["tags"]}} for run in found["runsOrError"]["results"]]

    def wait_for(self, what: str, condition, timeout: float = 600, *, may_fail: bool = False):
        """What the condition gives as soon as it is true; a failed run ends the wait with its error, unless it may fail."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if found := condition():
                return found
            failed = [run for run in self.runs() if run["status"] == "FAILURE" and not may_fail]
            assert not failed, f"run {failed[0]['runId']} failed while waiting for {what}: {self.errors(failed[0]['runId'])}"
            time.sleep(1)
        raise AssertionError(f"{what}: not within {timeout} s. Runs: {self.runs()}")

    def errors(self, run_id: str) -> list[str]:
        query = """query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
            ... on ExecutionStepFailureEvent { stepKey error { message causes { message } } }
            ... on RunFailureEvent { error { message } } } } } }"""
        return [str(event) for event in self.graphql(query, id=run_id)["logsForRun"]["events"] if event]

    def launch(self, job: str, config: str = "{}", assets: Sequence[str] = (), **tags: str) -> str:
        """A run of a job, or of some of its assets, as the launchpad asks for it; its id."""
        query = """mutation($p: ExecutionParams!) { launchPipelineExecution(executionParams: $p) {
            __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
        selector = {**HERE, "pipelineName": job, "assetSelection": [{"path": key.split("/")} for key in assets] or None}
        params = {
            "selector": selector,
            "runConfigData": config,
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
            "mode": "default",
        }
        launched = self.graphql(query, p=params)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def backfill(self, first: dt.date, last: dt.date, groups: Sequence[str] = ()) -> str:
        """A backfill of all assets, or of those of some groups, for the days from first to last; its id."""
        nodes = self.graphql("{ assetNodes { assetKey { path } isPartitioned isMaterializable } }")["assetNodes"]
        keys = [{"path": node["assetKey"]["path"]} for node in nodes if node["isPartitioned"] and node["isMaterializable"]]
        days = [(first + dt.timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]
        launched = self.graphql(
            """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
                __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
            params={
                "assetSelection": [key for key in keys if not groups or key["path"][0] in groups],
                "partitionNames": days,
            },
        )["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return launched["backfillId"]

    def backfill_status(self, backfill_id: str) -> str:
        query = "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
        return self.graphql(query, id=backfill_id)["partitionBackfillOrError"]["status"]

    def all_done(self, least: int) -> list[dict] | None:
        runs = self.runs()
        return runs if len(runs) >= least and all(run["status"] == "SUCCESS" for run in runs) else None


@contextmanager
def platform(data: Path, **settings: str) -> Iterator[Platform]:
    """Start it, wait until it answers, end it with everything it started."""
    (port,) = free_ports(1)
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
