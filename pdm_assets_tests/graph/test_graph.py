"""The graph as text: a change of it shows in a review. `make graph` writes the file anew."""

from pathlib import Path

import dagster as dg
from dagster._core.definitions.dependency import NodeHandle

from pdm_assets.definitions import defs
from pdm_assets.resources.faults import faults_are_told

SNAPSHOT = Path(__file__).parent / "graph.txt"


def describe() -> str:
    graph = defs.resolve_asset_graph()
    lines = []
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        lines.append(f"{key.to_user_string()}  [{', '.join(sorted(node.kinds))}]")
        lines.extend(f"    reads {parent.to_user_string()}" for parent in sorted(node.parent_keys))
        checks = [graph.get(check) for check in sorted(node.check_keys)]
        lines.extend(f"    check {check.key.name}{' (blocking)' if check.blocking else ''}" for check in checks)
    repository = defs.get_repository_def()
    lines += sorted(f"job {job.name}" for job in repository.get_all_jobs() if not job.name.startswith("__"))
    lines += sorted(f"schedule {s.name} {s.cron_schedule} -> {s.job_name}" for s in repository.schedule_defs)
    lines += sorted(f"sensor {s.name} -> {s.job_name}" for s in repository.sensor_defs)
    return "\n".join(lines) + "\n"


def test_the_graph_is_the_one_on_record():
    assert describe() == SNAPSHOT.read_text(), "the graph changed: `make graph`, and look at the difference"


def test_the_definitions_load():
    dg.Definitions.validate_loadable(defs)


def test_every_asset_says_what_it_is_and_whose():
    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description
        assert node.owners
        assert node.kinds
        assert node.group_name == key.path[0]


def test_all_assets_share_their_days_and_their_policy_so_that_a_backfill_is_one_run():
    graph = defs.resolve_asset_graph()
    nodes = [graph.get(key) for key in graph.get_all_asset_keys()]
    assert len({id(node.partitions_def) for node in nodes}) == 1
    assert {node.backfill_policy for node in nodes} == {dg.BackfillPolicy.single_run()}
    identity = (dg.TimeWindowPartitionMapping(), dg.IdentityPartitionMapping())
    for node in nodes:
        assert all(mapping in identity for mapping in node.partition_mappings.values()), node.key


def test_a_fault_of_the_machine_is_told_of_whatever_node_of_whatever_job_it_meets():
    without = [
        f"{job.name}: {node.name}"
        for job in defs.get_repository_def().get_all_jobs()
        for node in job.nodes
        if faults_are_told not in job.get_all_hooks_for_handle(NodeHandle(node.name, parent=None))
    ]
    assert not without


if __name__ == "__main__":
    SNAPSHOT.write_text(describe())
