"""A model as one page: what a crew would have had of it, beside the baselines, the gate's verdict, and its pictures."""

import base64
from collections.abc import Mapping, Sequence

from jinja2 import Environment

from pdm_assets.models.backtest import Fold
from pdm_assets.models.card import ModelCard
from pdm_assets.models.evaluation import POOLED
from pdm_assets.models.promotion import Verdict
from pdm_assets.models.reports import Tabular, backtest, baselines, components, conditions, intervals, leads, observations

# Name of a picture: what it shows.
CAPTIONS = {
    "precision_recall": "Precision against recall of observations in the test window, a dot where the threshold lies.",
    "reliability": "Of the observations that were given a probability, how many failed: on the dashed line it is to be "
    "taken at its word.",
    "lead_times": "How early the first alert of each caught failure of the test window came.",
    "cost_curves": "What alerts would have cost by threshold. It was chosen in the calibration window (dashed); the test "
    "window (solid) was only looked at.",
    "feature_importance": "What the model looks at.",
    "backtest": "What the model of each month would have been worth in the days before its cutoff.",
}

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ card.version }}</title><style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1a1a1a }
h2 { margin-top: 2.2rem; font-size: 1.15rem }
table { border-collapse: collapse; font-size: .9rem }
th, td { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid #ddd; vertical-align: top }
td { font-variant-numeric: tabular-nums }
th { font-weight: 600; color: #555 }
.wide { overflow-x: auto }
.verdict { display: inline-block; padding: .1rem .6rem; border-radius: .3rem; color: #fff }
.promoted { background: #2e7d32 } .refused { background: #b3261e }
.big { font-size: 1.1rem }
figure { margin: 1rem 0; display: inline-block; vertical-align: top; max-width: 34rem }
figure img { max-width: 100% }
figcaption, small { color: #555; font-size: .85rem }
code { font-size: .85rem }
</style></head><body>
{% macro tabular(table) %}<div class="wide"><table><thead>
<tr>{% for cell in table.head %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endmacro %}
<h1>{{ card.version }}</h1>
<p><span class="verdict {{ decision }}">{{ decision }}</span> {{ card.model_type }}, foretells failures
{{ card.horizon_hours }} h ahead, knew nothing from {{ card.cutoff }} 00:00 UTC on.</p>
<p class="big">{{ headline }}</p>
{% for note in card.notes %}<p><strong>Note:</strong> {{ note }}</p>{% endfor %}
<h2>Beside the baselines</h2>{{ tabular(baselines) }}
<p><small>All components, in the test window. A warning later than the least useful lead before the failure is none; "files"
lines count an alert from when its data had landed. Cost: missed failures, visits for nothing, planned repairs, by the settings.
The calendar's intervals are the cheapest in hindsight.</small></p>
<h2>By component</h2>{{ tabular(components) }}
<p>{{ load }}</p>
<h2>How sure that is</h2>{{ tabular(intervals) }}
<p><small>By drawing the fleet's machines again and again, for what happens to one machine hangs together.</small></p>
<h2>What the gate asked</h2>{{ tabular(conditions) }}
<h2>Pictures</h2>
{% for name, png in pictures.items() %}<figure><img alt="{{ name }}" src="data:image/png;base64,{{ png }}">
<figcaption>{{ captions[name] }}</figcaption></figure>
{% endfor %}
{% if backtest %}<h2>Month by month</h2>{{ tabular(backtest) }}{% endif %}
<h2>How early</h2>{{ tabular(leads) }}
<h2>By observation</h2>{{ tabular(observations) }}
<p><small>To compare with references that count rows. A failure is several rows: do not read these as failures.</small></p>
<h2>Made from</h2>
<div class="wide"><table><tbody>
{% for name, its in card.windows.items() %}<tr><th>{{ name }} window</th><td>{{ its.window.start }} to before
{{ its.window.end }}, {{ "{:,}".format(its.rows) }} observations; failing:
{% for component, rows in its.positives.items() %}{{ component }} {{ rows }}{{ ", " if not loop.last }}{% endfor %}</td></tr>
{% endfor %}<tr><th>rows fitted</th><td>{{ "{:,}".format(card.rows_fitted) }}: one healthy in {{ card.one_healthy_in }}, one
failing in {{ card.one_failing_in }}, with the weight of all</td></tr>
<tr><th>parameters</th><td>{% for name, value in card.parameters.items() %}<code>{{ name }}={{ value }}</code> {% endfor %}
<code>seed={{ card.seed }}</code></td></tr>
<tr><th>data</th><td>{% for table, version in card.data_versions.items() %}<code>{{ table }}@{{ version }}</code> {% endfor %}
</td></tr>
<tr><th>code</th><td><code>{{ card.code_version }}</code></td></tr>
</tbody></table></div>
</body></html>
"""


def page(card: ModelCard, verdict: Verdict, folds: Sequence[Fold], pictures: Mapping[str, bytes]) -> str:
    """A model's report as HTML with nothing to load; `pictures` are PNG bytes by a name in CAPTIONS."""
    return (
        Environment(autoescape=True)
        .from_string(PAGE)
        .render(
            card=card,
            decision="promoted" if verdict.is_promoted else "refused",
            headline=headline(card),
            load=load(card),
            baselines=baselines(card),
            components=components(card),
            intervals=intervals(card),
            conditions=conditions(verdict),
            leads=leads(card),
            observations=observations(card),
            backtest=_backtest(folds),
            pictures={name: base64.b64encode(png).decode() for name, png in pictures.items()},
            captions=CAPTIONS,
        )
    )


def headline(card: ModelCard) -> str:
    """What the test window says, in sentences that need no glossary."""
    report, window = card.events[POOLED], card.windows["test"].window
    found, said = report.observed, []
    if not found.failures:
        return f"No failure was due in the test window, {window.start} to before {window.end}: it can't tell what is caught."
    recall = report.intervals.get("event_recall")
    sure = f" (90 % sure of {recall[0]:.0%} to {recall[1]:.0%})" if recall else ""
    said.append(
        f"From {window.start} to before {window.end} it would have warned of {found.caught} of {found.failures} failures{sure}"
    )
    if found.lead_median_hours is not None:
        said[-1] += f", half of them {found.lead_median_hours:.0f} h ahead or more"
    if found.alarm_precision is not None:
        of = found.true_episodes + found.false_episodes
        said.append(f"{found.true_episodes} of {of} alarms were right")
    if report.saving is not None:
        other = "replacing by the calendar" if report.calendar_cost < report.never_cost else "waiting for failures"
        word = "less" if report.saving >= 0 else "more"
        said.append(f"Acting on them would have cost {found.cost:,.0f}, {abs(report.saving):.0%} {word} than {other}")
    return ". ".join(said) + "."


def load(card: ModelCard) -> str:
    """How many machines alarmed a day, and what a crew of limited visits would have had of the most probable ones."""
    alarmed, crew = card.events[POOLED].alarmed_machines_per_day, card.capacity
    said = [f"{alarmed:.1f} machines alarmed a day"]
    if crew.precision is not None:
        said.append(
            f"Of {crew.visits_a_day} visits a day to the most probable components, alarm or not, {crew.precision:.0%} would "
            f"have been to one that failed within {card.horizon_hours} h"
        )
    if crew.recall is not None:
        said.append(f"{crew.recall:.0%} of the failures would have been visited in time")
    return ". ".join(said) + "."


def _backtest(folds: Sequence[Fold]) -> Tabular | None:
    return backtest(folds) if folds else None
