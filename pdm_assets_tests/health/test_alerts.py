"""deploy/monitoring: the alerts speak of metrics, rules, checks and runbooks that there are; the units are as the others."""

import re

import yaml

from pdm_assets.definitions import defs
from pdm_assets.demo import CHECKOUT
from pdm_assets.health.look import METRICS
from pdm_assets.health.rules import RULES
from pdm_assets_tests.health.test_operations_page import PAGE, anchors

MONITORING = CHECKOUT / "deploy" / "monitoring"
(GROUP,) = yaml.safe_load((MONITORING / "pdm-alerts.yml").read_text())["groups"]
ALERTS = {alert["alert"]: alert for alert in GROUP["rules"]}


def matched(label: str, expression: str) -> list[str]:
    """The values that an expression asks of a label."""
    return [value for each in re.findall(rf'{label}=~?"([^"]*)"', expression) for value in each.split("|")]


def test_every_alert_is_of_metrics_rules_and_checks_that_there_are_and_leads_to_a_runbook():
    assert len(ALERTS) == len(GROUP["rules"]) > 10
    checks = {key.name for key in defs.resolve_asset_graph().asset_check_keys}
    for name, alert in ALERTS.items():
        metrics = set(re.findall(r"\bpdm_\w+", alert["expr"]))
        assert metrics, name
        assert metrics <= set(METRICS), name
        assert set(matched("rule", alert["expr"])) <= {rule.name for rule in RULES}, name
        assert set(matched("check", alert["expr"])) <= checks, name
        assert alert["labels"]["severity"] in ("warning", "critical"), name
        page, anchor = alert["annotations"]["runbook"].split("#")
        assert page == "docs/operations.md"
        assert anchor in anchors(PAGE), name


def test_whatever_is_critical_raises_an_alert_with_the_runbook_of_its_rule():
    runbooks = {rule.name: rule.runbook for rule in RULES}
    raised = {}
    for alert in ALERTS.values():
        if re.fullmatch(r"pdm_health_status\{[^}]*\} == 2", alert["expr"]) and alert["labels"]["severity"] == "critical":
            for rule in matched("rule", alert["expr"]):
                raised[rule] = alert["annotations"]["runbook"].split("#")[1]
    only_warn = {"quarantine", "java"}
    assert raised == {name: runbook for name, runbook in runbooks.items() if name not in only_warn}


def test_a_look_that_is_no_longer_taken_raises_one():
    assert "absent(pdm_health_time_seconds)" in ALERTS["PdmHealthNotTold"]["expr"]


def test_the_unit_runs_as_the_others_do_and_writes_where_the_page_says():
    unit = (MONITORING / "pdm-health.service").read_text()
    daemon = (CHECKOUT / "deploy" / "systemd" / "pdm-daemon.service").read_text()
    for line in re.findall(
        r"^(?:User|EnvironmentFile|WorkingDirectory|UMask|NoNew\w+|Protect\w+|PrivateTmp)=.*$", daemon, re.M
    ):
        assert f"\n{line}\n" in unit, line
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    file = command.split()[-1]
    assert command.split()[1:3] == ["health", "--web"]
    assert f"`{file}`" in PAGE
    assert "StateDirectory=pdm-metrics\n" in unit
    assert f"textfile.directory={file.rsplit('/', 1)[0]}`" in PAGE
