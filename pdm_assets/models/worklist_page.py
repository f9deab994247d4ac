"""A day's worklist as a page of its own and as CSV: nothing to load, so it can be mailed or printed."""

import csv
import dataclasses
import datetime as dt
import functools
import io
from collections.abc import Mapping, Sequence

from jinja2 import Environment, Template

from pdm_assets.models import markdown
from pdm_assets.models.worklist import Line

CHART_DAYS = 14
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four: full width
WIDTH, HEIGHT = 180, 40

History = Sequence[tuple[dt.datetime, float]]  # times and probabilities of one machine's component, the earliest first

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Worklist {{ day }}</title><style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #1a1a1a }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .45rem .7rem; border-bottom: 1px solid #ddd; vertical-align: top }
.number { text-align: right; font-variant-numeric: tabular-nums }
td { white-space: nowrap }
tr.beyond { color: #777; background: #fafafa }
ul { margin: 0; padding-left: 1.1rem }
th { font-size: .85rem; font-weight: 600; color: #555 }
small { color: #666 }
</style></head><body>
<h1>Worklist of {{ day }}</h1>
<p>{{ lines | length }} open {{ "alarm" if lines | length == 1 else "alarms" }}, the greatest expected saving first;
the crew can see to {{ capacity }} a day. A probability is that of a failure within {{ horizon_hours }} h.</p>
{% if lines %}<table><thead><tr><th class="number">#</th><th>machine</th><th>component</th><th>why</th>
<th class="number">probability</th><th>last {{ chart_days }} days</th><th class="number">hours left, about</th>
<th class="number">days since replacement</th><th class="number">saves, about</th><th>alerted (UTC)</th></tr></thead><tbody>
{% for line in lines %}<tr{% if loop.index > capacity %} class="beyond"{% endif %}>
<td class="number">{{ loop.index }}</td><td>{{ line.machine_id }}</td><td>{{ line.component }}</td>
<td><ul>{% for reason in line.reasons.split("; ") %}<li>{{ reason }}</li>{% endfor %}</ul></td>
<td class="number">{{ "%.0f" | format(100 * line.probability) }} %</td>
<td><svg width="{{ width }}" height="{{ height }}" role="img" aria-label="probability of the last {{ chart_days }} days">
<line x1="0" x2="{{ width }}" y1="{{ y(line.threshold) }}" y2="{{ y(line.threshold) }}" stroke="#c60" stroke-dasharray="3 3"/>
<polyline fill="none" stroke="#225ea8" stroke-width="1.5" points="{{ points[line.episode_id] }}"/></svg></td>
<td class="number">{{ whole(line.expected_hours_left, "not known") }}</td>
<td class="number">{{ whole(line.days_since_replacement, "never") }}</td>
<td class="number">{{ "{:,.0f}".format(line.expected_saving) }}</td>
<td>{{ line.first_alerted_at.strftime("%d %b %H:%M") }}<br>
<small>last {{ line.last_alerted_at.strftime("%d %b %H:%M") }}<br>{{ line.episode_id }}</small></td></tr>
{% endfor %}</tbody></table>
<p><small>Grey lines are beyond the crew's capacity. The dashed line is the probability from which on it is an alert. An alarm
stays until the component is replaced or fails, or {{ horizon_hours }} h have passed since its last alert. Models: {{ models }}.
</small></p>
{% else %}<p>Nothing to see to.</p>{% endif %}
</body></html>
"""


def page(day: dt.date, lines: Sequence[Line], histories: Mapping[str, History], *, capacity: int, horizon_hours: int) -> str:
    """The worklist as HTML; `histories` by episode id, for the charts."""
    until = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC)
    return _template().render(
        day=day,
        lines=lines,
        capacity=capacity,
        horizon_hours=horizon_hours,
        chart_days=CHART_DAYS,
        width=WIDTH,
        height=HEIGHT,
        y=_y,
        whole=_whole,
        points={line.episode_id: _points(histories[line.episode_id], until) for line in lines},
        models=", ".join(sorted({line.model_version for line in lines})),
    )


@functools.cache
def _template() -> Template:
    return Environment(autoescape=True).from_string(PAGE)


def table(lines: Sequence[Line], limit: int, capacity: int) -> str:
    """The first lines as Markdown, for the UI."""
    if not lines:
        return "nothing to see to"
    timing = ("alerted (UTC)", "hours left", "days since replacement")
    columns = ("", "machine", "component", "probability", *timing, "saves", "within capacity", "why")
    rows = [
        (
            n,
            its.machine_id,
            its.component,
            f"{its.probability:.0%}",
            f"{its.first_alerted_at:%d %b %H:%M}",
            _whole(its.expected_hours_left, "not known"),
            _whole(its.days_since_replacement, "never"),
            f"{its.expected_saving:,.0f}",
            "yes" if n <= capacity else "no",
            _unbroken(its.reasons),
        )
        for n, its in enumerate(lines[:limit], start=1)
    ]
    more = f"\n\n{len(lines) - limit} more lines are on the page" if len(lines) > limit else ""
    return markdown.table(columns, rows) + more


def _unbroken(reasons: str) -> str:
    """Reasons that stay on a line each, where a narrow cell would break them after every word."""
    return "; ".join(reason.replace(" ", "\N{NO-BREAK SPACE}") for reason in reasons.split("; "))


def as_csv(lines: Sequence[Line], capacity: int) -> str:
    """The lines with their rank and whether the crew can see to them, one column a field."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["rank", "is_within_capacity", *(field.name for field in dataclasses.fields(Line))])
    writer.writerows([n, n <= capacity, *map(_cell, dataclasses.astuple(line))] for n, line in enumerate(lines, start=1))
    return out.getvalue()


def _whole(value: float | None, unknown: str) -> str:
    return unknown if value is None else f"{value:.0f}"


def _cell(value: object) -> object:
    """A number stays one. Text that a spreadsheet would take for a formula gets the apostrophe that makes it text there."""
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="minutes")
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(FORMULA) else value


def _y(probability: float) -> float:
    return round((HEIGHT - 2) * (1 - probability) + 1, 1)


def _points(history: History, until: dt.datetime) -> str:
    span = CHART_DAYS * 86_400
    left = [(at, probability) for at, probability in history if (until - at).total_seconds() <= span]
    return " ".join(f"{WIDTH * (1 - (until - at).total_seconds() / span):.1f},{_y(probability)}" for at, probability in left)
