"""Where a pipeline is fitted: MLlib is all that needs Spark on one machine, and it has a process of its own there.

Rows go in as Arrow, a folder that PipelineModel.save wrote comes out. The process owns its JVM; its memory returns at its end.
"""

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import pyarrow as pa
from pyspark.sql import SparkSession

from pdm_assets.engine.java import JavaError, java_home
from pdm_assets.engine.processes import end_with_parent, private_file
from pdm_assets.settings import ModelType

FIT_MAY_TAKE_S = 3600.0  # of 40,000 rows it takes half a minute
STOPS_IN_S = 10.0
LOG_LINES = 15
MODULE = "pdm_assets.models.fit_process"
ROWS, LOG = "rows.arrow", "fit.log"
OF_A_SPARK_SESSION = ("SPARK_CONNECT_MODE_ENABLED", "SPARK_REMOTE", "SPARK_API_MODE", "SPARK_LOCAL_REMOTE")


class FitProcessError(RuntimeError):
    """The process that fits was killed, hung, or ran out of memory; the text says which. A retry may succeed."""


class NoJava(RuntimeError):
    """There is no Java for the fit; the text says what to install. Everything but the fit works without it."""


class FitFailed(RuntimeError):
    """MLlib refused the rows or the parameters; the text is its own."""


@dataclass(frozen=True)
class FitSpec:
    """What `pipeline.fit_pipeline` is asked for."""

    components: tuple[str, ...]
    features: tuple[str, ...]
    model_type: ModelType
    parameters: dict[str, int | float | str | bool]
    seed: int


class Fitted(NamedTuple):
    """A pipeline in a folder, how much each feature weighs in it by component, and how long the fit took."""

    folder: Path
    importances: dict[str, dict[str, float]]
    seconds: float


class Fitter(Protocol):
    """Fits pipelines."""

    def fit(self, rows: pa.Table, spec: FitSpec, folder: Path) -> Fitted:
        """Fit on rows of the training table with a weight, in their order, and save the pipeline to a new folder.

        Raises:
            FitProcessError: if the process that fits was lost.
            NoJava: if there is no Java to start it with.
            FitFailed: if MLlib refuses what it is asked for.
        """


def fit_in_session(session: SparkSession, rows: pa.Table, spec: FitSpec, folder: Path) -> Fitted:
    """Fit in a Spark session, classic or over Connect, whose driver can write the folder."""
    from pdm_assets.models.pipeline import fit_pipeline, importances

    frame = session.createDataFrame(rows).coalesce(1)
    began = time.perf_counter()
    pipeline = fit_pipeline(
        frame,
        components=spec.components,
        features=spec.features,
        model_type=spec.model_type,
        parameters=spec.parameters,
        seed=spec.seed,
    )
    seconds = time.perf_counter() - began
    found = importances(pipeline, spec.components, spec.features)
    pipeline.write().overwrite().save(str(folder))
    return Fitted(folder, found, seconds)


class SessionFitter:
    """Fits in the Spark session of the engine `spark`."""

    def __init__(self, session: SparkSession) -> None:
        self._session = session

    def fit(self, rows: pa.Table, spec: FitSpec, folder: Path) -> Fitted:
        """See `Fitter.fit`."""
        return fit_in_session(self._session, rows, spec, folder)


class FitProcess:
    """Fits in a child process with a JVM of its own, which serves one fit after another until `close`.

    Args:
        memory_mb: heap of the JVM.
    """

    def __init__(self, memory_mb: int = 1024) -> None:
        self._memory_mb = memory_mb
        self._child: subprocess.Popen[bytes] | None = None
        self._answers: IO[bytes] | None = None
        self._scratch: Path | None = None

    def __enter__(self) -> "FitProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child, if there is one."""
        return None if self._child is None else self._child.pid

    def fit(self, rows: pa.Table, spec: FitSpec, folder: Path) -> Fitted:
        """See `Fitter.fit`."""
        if self._child is None:
            self._start()
        assert self._child is not None
        assert self._child.stdin is not None
        assert self._scratch is not None
        with pa.ipc.new_file(str(self._scratch / ROWS), rows.schema) as out:
            out.write_table(rows)
        try:
            self._child.stdin.write(json.dumps({"spec": asdict(spec), "folder": str(folder)}).encode() + b"\n")
            self._child.stdin.flush()
            answer = self._wait()
        except (BrokenPipeError, ConnectionError):
            raise self._lost() from None
        except BaseException:
            self.close()
            raise
        if "error" in answer:
            raise FitFailed(answer["error"])
        return Fitted(folder, answer["importances"], answer["seconds"])

    def _start(self) -> None:
        try:
            java = java_home()
        except JavaError as error:
            raise NoJava(f"no model can be fitted: {error} All else works without Java.") from None
        self._scratch = Path(tempfile.mkdtemp(prefix="pdm-fit-"))  # its owner's alone
        environ = {name: value for name, value in os.environ.items() if name not in OF_A_SPARK_SESSION}
        receiving, sending = os.pipe()
        with private_file(self._scratch / LOG) as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(self._scratch), str(self._memory_mb), str(sending)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(sending,),
                env={**environ, "JAVA_HOME": str(java), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # it and its JVM are killed together
                preexec_fn=end_with_parent,  # noqa: PLW1509 - it takes no lock
            )
        os.close(sending)
        self._answers = os.fdopen(receiving, "rb", buffering=0)

    def _wait(self) -> dict[str, Any]:
        assert self._answers is not None
        text, deadline = b"", time.monotonic() + FIT_MAY_TAKE_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while not text.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self._lost(f"has not ended after {FIT_MAY_TAKE_S:.0f} s, and was killed")
                part = self._answers.read(1 << 16)
                if not part:
                    raise self._lost()
                text += part
        found: dict[str, Any] = json.loads(text)
        return found

    def _lost(self, what: str | None = None) -> FitProcessError:
        """The error for a process that ended, or is ended now, without an answer."""
        assert self._child is not None
        assert self._scratch is not None
        if what is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(STOPS_IN_S)
            what = f"ended with {self._child.returncode}"
        lines = (self._scratch / LOG).read_text(errors="replace").splitlines()
        advice = "It is tried again; if it goes on, see the system's log for who kills it"
        if any("OutOfMemoryError" in line for line in lines):
            what = f"ran out of memory ({self._memory_mb} MiB)"
            advice = "Set PDM_MEMORY_MB higher, or PDM_TRAIN_DAYS lower"
        self.close()
        return FitProcessError(
            "\n".join([f"the process that fits the model {what}. {advice}. The end of its log:", *lines[-LOG_LINES:]])
        )

    def close(self) -> None:
        """End the child with its JVM and remove its files; nothing if there is none."""
        if self._child is not None:
            assert self._child.stdin is not None
            with contextlib.suppress(BrokenPipeError, ConnectionError):
                self._child.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(STOPS_IN_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
            self._child = None
        if self._answers is not None:
            self._answers.close()
            self._answers = None
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
