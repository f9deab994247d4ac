"""How each stage grows with the fleet: a table at the end of results.md and growth.png. `make bench` calls it."""

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from measured import Fleet, PlanError, read_times

HEAD = "Growth"
# what the first words of a row stand for here; of several rows (new days) the median
STAGES = {
    "landing to raw": "landing to raw",
    "raw to features": "features",
    "labels": "labels",
    "models": "models, training included",
    "scores": "scores, a range",
    "worklist": "worklists, a range",
    "monitoring": "monitoring, a range",
    "all of it once more": "all once more, as one run",
    "raw to labels": "raw to labels, by command",
    "new day": "a new day",
    "landed to scored": "landed to scored, by the sensor",
}
MEMORY = "memory of that process"


def write(results: Path) -> None:
    """Replace the section in a results.md; none while fewer than two sizes of fleet were measured over as many days."""
    sections = results.read_text().split("\n## ")
    kept = "\n## ".join(section for section in sections if not section.startswith(f"{HEAD}\n")).rstrip() + "\n"
    with suppress(PlanError):
        fleets = read_times(kept)
        if len({fleet.days for fleet in fleets}) == 1:
            kept += "\n" + _section(fleets, results.with_name("growth.png"))
    results.write_text(kept)


def _section(fleets: Sequence[Fleet], picture: Path) -> str:
    sizes = [fleet.machines for fleet in fleets]
    seconds = {name: [_seconds(fleet, words) for fleet in fleets] for words, name in STAGES.items()}
    seconds = {name: values for name, values in seconds.items() if sum(value is not None for value in values) > 1}
    lines = [
        f"## {HEAD}",
        "",
        "Seconds by machines, and between two sizes the exponent of growth: 1 is in proportion to the fleet, 0 not at all.",
        "",
        f"| work | {' | | '.join(f'{size:,}' for size in sizes)} |",
        f"| --- {'| --- ' * (2 * len(sizes) - 1)}|",
        *(f"| {name} | {_row(sizes, values, '{:.1f} s')} |" for name, values in seconds.items()),
        f"| memory of a range | {_row(sizes, [_memory(fleet) for fleet in fleets], '{:.1f} GiB')} |",
        "",
        f"![Seconds by machines]({picture.name})",
    ]
    _plot(picture, sizes, seconds)
    return "\n".join(lines) + "\n"


def _seconds(fleet: Fleet, words: str) -> float | None:
    rows = [row for row in fleet.times(words, optional=True) if "cold" not in row.what]
    return median(row.seconds for row in rows) if rows else None


def _memory(fleet: Fleet) -> float | None:
    return fleet.number(MEMORY, r"([\d.]+) GiB") if fleet.values(MEMORY, optional=True) else None


def _row(sizes: Sequence[int], values: Sequence[float | None], shape: str) -> str:
    cells = ["" if values[0] is None else shape.format(values[0])]
    for (size, value), (larger, more) in pairwise(zip(sizes, values, strict=True)):
        exponent = "" if not value or not more else f"{math.log(more / value) / math.log(larger / size):.2f}"
        cells += [exponent, "" if more is None else shape.format(more)]
    return " | ".join(cells)


def _plot(path: Path, sizes: Sequence[int], seconds: Mapping[str, Sequence[float | None]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for name, values in seconds.items():
        points = [(size, value) for size, value in zip(sizes, values, strict=True) if value is not None]
        axes.loglog(*zip(*points, strict=True), marker="o", label=name)
    low, high = axes.get_ylim()
    axes.loglog(sizes, [low * size / sizes[0] for size in sizes], ":", color="grey", label="in proportion to the fleet")
    axes.set(xlabel="machines", ylabel="seconds", xticks=sizes, ylim=(low, high))
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    write(Path(__file__).with_name("results.md"))
