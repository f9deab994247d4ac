"""How findings are told: to a person, as JSON, as Prometheus reads them."""

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pdm_assets.health.look import METRICS, Level, Metric, Said


@dataclass(frozen=True)
class Finding:
    """What a rule said, with its name and the part of docs/operations.md to read."""

    rule: str
    runbook: str
    said: Said


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """For a person, and for monitors that show the first line."""
    level = worst(findings)
    bad = [finding for finding in findings if finding.said.level]
    yield f"{level.name}: {', '.join(finding.rule for finding in bad) or f'{len(findings)} rules are fine'}"
    for finding in findings:
        said = finding.said
        since = f", since {said.since:%Y-%m-%d %H:%M} UTC" if said.since and said.level else ""
        yield f"{said.level.name:8} {finding.rule:14} {said.what}{since}"
        if said.level:
            yield f"{'':8} {'':14} what to do: {said.todo}; {finding.runbook}"


def as_json(findings: Sequence[Finding], now: dt.datetime) -> str:
    """All that was found."""
    rules = [
        {
            "rule": finding.rule,
            "level": finding.said.level.name.lower(),
            "what": finding.said.what,
            "since": finding.said.since and finding.said.since.isoformat(),
            "todo": finding.said.todo,
            "runbook": finding.runbook,
            "metrics": [metric._asdict() for metric in finding.said.metrics],
        }
        for finding in findings
    ]
    return json.dumps({"level": worst(findings).name.lower(), "at": now.isoformat(), "rules": rules}, indent=1)


def prometheus(findings: Sequence[Finding], now: dt.datetime) -> str:
    """The metrics in Prometheus' text format, all gauges."""
    found = [
        *(Metric("pdm_health_status", float(finding.said.level), {"rule": finding.rule}) for finding in findings),
        Metric("pdm_health_time_seconds", now.timestamp(), {}),
        *(metric for finding in findings for metric in finding.said.metrics),
    ]
    text = []
    for name, doc in METRICS.items():
        its = [metric for metric in found if metric.name == name]
        if its:
            text += [f"# HELP {name} {doc}", f"# TYPE {name} gauge"]
        text += [f"{name}{_labels(metric.labels)} {float(metric.value)!r}" for metric in its]
    return "\n".join(text) + "\n"


def _labels(labels: dict[str, str]) -> str:
    def quoted(value: str) -> str:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'

    return "{" + ",".join(f"{name}={quoted(value)}" for name, value in labels.items()) + "}" if labels else ""


def worst(findings: Sequence[Finding]) -> Level:
    """The worst of all."""
    return max((finding.said.level for finding in findings), default=Level.OK)
