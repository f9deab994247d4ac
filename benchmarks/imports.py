"""`python benchmarks/imports.py`: what each process of Dagster pays before it does anything, best of N in seconds.

Each line is a fresh interpreter, from its start to its end, with the default settings and with bytecode written: on the clock,
and of the processor, which others on the machine disturb less.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPOSITORY = """
from dagster._core.definitions.reconstruct import ReconstructableRepository
repository = ReconstructableRepository.for_module("pdm_assets.definitions", "defs")
repository.get_definition()
"""
JOB = 'repository.get_reconstructable_job("process_days").get_definition()'
SESSION = "\nimport pdm_assets.engine.duckdb.channel"
DAGSTERS_OWN = "import dagster._grpc.server, dagster._core.storage.runs.sqlite, dagster._core.storage.event_log\n"
STAGES = {
    "python start": "",
    "import dagster": "import dagster",
    "import pdm_assets.definitions": "import pdm_assets.definitions",
    "load repository": REPOSITORY,
    "a run process without pdm_assets": DAGSTERS_OWN,
    "a run process, to its job": DAGSTERS_OWN + REPOSITORY + JOB,
    "and on to a DuckDB session": DAGSTERS_OWN + REPOSITORY + JOB + SESSION,
}


def seconds(script: Path) -> tuple[float, float]:
    """How long a fresh interpreter takes for a script: a file, for `python -c` makes PySpark import its tests."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PDM_")}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, str(script)], check=True, env={**environ, "PYTHONPATH": str(ROOT)})
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="processes of each kind, of which the fastest counts")
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as folder:
        for name, code in STAGES.items():
            script = Path(folder, "stage.py")
            script.write_text(code)
            seconds(script)  # the first writes bytecode and warms the page cache
            clock, processor = map(min, zip(*(seconds(script) for _ in range(times)), strict=True))
            print(f"{name:<34}{clock:6.2f}{processor:6.2f}")


if __name__ == "__main__":
    main()
