"""A model's test window in words and tables, for the metadata of its asset."""

from pdm_assets.models.card import ModelCard
from pdm_assets.models.evaluation import POOLED
from pdm_assets.models.events import EventMetrics
from pdm_assets.models.promotion import Verdict

HEAD = "| | failures caught | alarm precision | false alarms a machine-month | median lead | cost |"


def baselines_table(card: ModelCard) -> str:
    """The model beside the rules, never acting and the calendar, all components pooled, as Markdown."""
    found = card.events[POOLED]
    lines = [HEAD, "| --- " * 6 + "|", _line(f"**{card.model_type}**", found.observed)]
    lines += [_line(f"{card.model_type}, {landing}", metrics) for landing, metrics in found.delivered.items()]
    lines += [_line(f"rule: {name}", metrics) for name, metrics in found.rules.items()]
    days = ", ".join(f"{component} every {days} d" for component, days in found.calendar_days.items())
    lines.append(f"| never acting | 0 of {found.observed.failures} | | | | {found.never_cost:,.0f} |")
    lines.append(f"| calendar ({days}) | | | | | {found.calendar_cost:,.0f} |")
    return "\n".join(lines)


def conditions_table(verdict: Verdict) -> str:
    """What the gate asked of a model and what it found, as Markdown."""
    lines = [f"| {'yes' if c.is_met else '**no**'} | {c.name} | {c.found} |" for c in verdict.conditions]
    return "\n".join(["| met | condition | found |", "| --- | --- | --- |", *lines])


def _line(name: str, metrics: EventMetrics) -> str:
    cells = [
        name,
        f"{metrics.caught} of {metrics.failures}{_text(metrics.event_recall, ' ({:.1%})')}",
        _text(metrics.alarm_precision, "{:.1%}"),
        _text(metrics.false_alarms_per_machine_month, "{:.3f}"),
        _text(metrics.lead_median_hours, "{:.0f} h"),
        f"{metrics.cost:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _text(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
