"""How each table is computed, as numbers of its physical plan: a shuffle, a scan or a byte more is seen without a clock.

`make plans` writes the file anew. The plans are those that Spark begins with; the tests' own settings do not change them.
"""

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from pyspark.sql.connect.dataframe import DataFrame

from pdm_assets.resources.lake import Lake
from pdm_assets.schemas.tables import TABLES
from pdm_assets.simulator.writer import simulate
from pdm_assets_tests.builders import utc
from pdm_assets_tests.plant import UP_TO_LABELS, Plant

SNAPSHOT = Path(__file__).parent / "plans.txt"
FIRST, LAST, END = "2015-01-01", "2015-01-08", "2015-01-09 00:00"
# nodes of a physical plan that move rows between tasks, order them, or read them
COUNTED = {
    "shuffles": r"\bExchange (?!SinglePartition)",
    "single partitions": r"\bExchange SinglePartition",
    "broadcasts": r"\bBroadcastExchange\b",
    "sorts": r"\bSort \[",
    "scans": r"\bFileScan\b|\bBatchScan\b",
    "windows": r"\bWindow \[",
    "aggregates": r"\b(?:Hash|ObjectHash|Sort)Aggregate\(",
}
BYTES_MAY_DIFFER = 0.1


def planned(root: Path, engine) -> dict[str, str]:
    """The plan of each table's write for eight days of a small fleet, and the bytes that it stored."""
    fleet = root / "fleet"
    simulate(fleet, machines=20, days=8, end=utc(END), seed=1)
    plant = Plant(root, engine)
    for name in ("telemetry", "errors", "maint", "failures", "machines"):
        folder = plant.landing / {"maint": "maintenance"}.get(name, name)
        folder.mkdir(parents=True, exist_ok=True)
        os.utime((fleet / f"{name}.csv").rename(folder / f"{name}.csv"), (0, 0))  # landed long ago
    plans: dict[str, str] = {}
    save = Lake._save

    def saved(self, table, writer):
        plans[table.key] = DataFrame(writer._df, writer._spark)._explain_string()
        save(self, table, writer)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Lake, "_save", saved)
        assert plant.run(FIRST, LAST, tables=UP_TO_LABELS).success
    stored = {key: sum(plant.lake.delta(TABLES[key]).get_add_actions().column("size_bytes").to_pylist()) for key in plans}
    return {key: f"{shape(plans[key])}, {stored[key]} bytes" for key in sorted(plans)}


def shape(plan: str) -> str:
    counts = Counter({name: len(re.findall(pattern, plan)) for name, pattern in COUNTED.items()})
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def told(plans: dict[str, str]) -> str:
    return "".join(f"{key}: {said}\n" for key, said in plans.items())


def test_each_table_is_computed_as_on_record(tmp_path, engine):
    found = planned(tmp_path, engine)
    recorded = dict(line.split(": ", 1) for line in SNAPSHOT.read_text().splitlines())

    def split(said: str) -> tuple[str, int]:
        before, size = said.rsplit(", ", 1)
        return before, int(size.removesuffix(" bytes"))

    assert {key: split(said)[0] for key, said in found.items()} == {key: split(said)[0] for key, said in recorded.items()}, (
        "the plans changed: `make plans`, and look at the difference"
    )
    sizes = {key: (split(found[key])[1], split(recorded[key])[1]) for key in recorded}
    off = {key: its for key, its in sizes.items() if abs(its[0] - its[1]) > BYTES_MAY_DIFFER * its[1]}
    assert not off, f"bytes stored and on record: {off}"


def test_a_shape_counts_what_a_plan_does():
    plan = """AdaptiveSparkPlan isFinalPlan=false
+- Sort [date#1 ASC NULLS FIRST], false, 0
   +- Exchange hashpartitioning(date#1, 4), REPARTITION_BY_NUM, [plan_id=1]
      +- BroadcastHashJoin [machine_id#2], [machine_id#3], LeftOuter, BuildRight, false
         :- FileScan parquet [machine_id#2,date#1] Batched: true, DataFilters: [], Format: Parquet
         +- BroadcastExchange HashedRelationBroadcastMode(List(input[0, bigint, false]),false), [plan_id=2]
            +- HashAggregate(keys=[machine_id#3], functions=[])
               +- Exchange SinglePartition, ENSURE_REQUIREMENTS, [plan_id=3]
                  +- FileScan parquet [machine_id#3] Batched: true"""
    assert shape(plan) == "1 shuffles, 1 single partitions, 1 broadcasts, 1 sorts, 2 scans, 1 aggregates"


def record() -> None:
    """Write the plans of this code down, on an engine as the tests have it."""
    import tempfile

    from pdm_assets_tests.conftest import engine_for_tests

    with tempfile.TemporaryDirectory() as folder, engine_for_tests(Path(folder) / "engine") as engine:
        SNAPSHOT.write_text(told(planned(Path(folder) / "plant", engine)))


if __name__ == "__main__":
    record()
