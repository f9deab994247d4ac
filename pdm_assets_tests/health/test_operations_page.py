"""docs/operations.md against the code: rules, metrics, thresholds, checks, and the tests that it says tried each failure."""

import re

import pytest

from pdm_assets.assets.raw import REJECTED_SHARE
from pdm_assets.definitions import defs
from pdm_assets.demo import CHECKOUT
from pdm_assets.health import look
from pdm_assets.health.rules import RULES

PAGE = (CHECKOUT / "docs" / "operations.md").read_text()
TESTS = CHECKOUT / "pdm_assets_tests"
FAILURES = PAGE.split("\n## The ten most likely failures\n")[1].split("\n## ")[0].split("\n### ")[1:]


def anchors(page: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_rule_leads_to_a_part_of_the_page_and_every_link_within_it_to_one():
    assert {rule.runbook for rule in RULES} <= anchors(PAGE)
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors(PAGE)


def test_what_the_page_links_to_is_there():
    for path in re.findall(r"\]\(([\w./-]+)\)", PAGE):
        assert (CHECKOUT / "docs" / path).exists(), path


def test_there_are_ten_failures_each_with_what_to_see_and_do_and_the_tests_that_tried_it():
    assert len(FAILURES) == 10
    for text in FAILURES:
        parts = re.findall(r"^\*\*(You see|Why|Do|Over when|Tried)\*\*", text, re.MULTILINE)
        assert parts == ["You see", "Why", "Do", "Over when", "Tried"], text
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", text)
        assert len(named) >= 3, text
        for file, test in named:
            assert f"\ndef {test}(" in (TESTS / file).read_text(), (file, test)


def test_every_failure_is_where_some_rule_leads_to():
    headings = anchors("\n".join(f"### {text.splitlines()[0]}" for text in FAILURES))
    assert headings == {rule.runbook for rule in RULES} - {"checks"}


def test_every_check_and_metric_is_on_the_page():
    checks = {key.name for key in defs.resolve_asset_graph().asset_check_keys}
    assert len(checks) > 5
    for name in checks:
        assert f"`{name}`" in PAGE.split("\n### Checks\n")[1].split("\n## ")[0], name
    for name in set(look.METRICS) - {"pdm_health_time_seconds"}:
        assert f"`{name}`" in PAGE, name


@pytest.mark.parametrize(
    ("rule", "limits"),
    [
        ("scores", ["1 day", "2 days", "6:00 UTC"]),
        ("runs_under_way", ["2 h", "4 h 15 min"]),
        ("landed", ["1 h", "24 h", "30 days"]),
        ("quarantine", ["10 %"]),
        ("disk", ["15 %", "5 %"]),
        ("daemon", ["5 min"]),
        ("sensor", ["10 min"]),
        ("backup", ["2 days", "8 days"]),
    ],
)
def test_the_thresholds_on_the_page_are_those_of_the_rules(rule, limits):
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{rule}` |")]
    for limit in limits:
        assert limit in row, limit
    assert (look.UNSCORED_DAYS, look.SCORED_BY_HOUR, look.LOOK_BACK_DAYS) == ((1, 2), 6, 30)
    assert (look.UNDER_WAY_S, look.WAITING_S) == ((7200, 15300), (3600, 86400))
    assert (look.DISK_FREE, look.BACKUP_DAYS, REJECTED_SHARE) == ((0.15, 0.05), (2, 8), 0.1)
    assert (look.SILENT_DAEMON_S, look.SILENT_SENSOR_S) == (300, 600)


def test_every_rule_has_a_row():
    assert [rule.name for rule in RULES if f"\n| `{rule.name}` |" not in PAGE] == []
