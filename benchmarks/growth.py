"""How each stage grows with the fleet: a table at the end of results.md and growth.png. `make bench` calls it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

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


@dataclass(frozen=True)
class Fleet:
    """A section of results.md: work and its value, by row."""

    machines: int
    days: int
    rows: tuple[tuple[str, str], ...]

    def number(self, first_words: str, pattern: str) -> float | None:
        """The median of a number in the values of the rows that begin with some words; None without such a row."""
        values = [re.search(pattern, value) for what, value in self.rows if what.startswith(first_words)]
        found = [float(value[1].replace(",", "")) for value in values if value]
        return median(found) if found else None


def read(text: str) -> list[Fleet]:
    """The fleets of a results.md, the smallest first."""
    fleets = []
    for section in text.split("\n## ")[1:]:
        if head := re.match(r"(\d+) machines x (\d+) days\n", section):
            cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][2:]
            fleets.append(Fleet(int(head[1]), int(head[2]), tuple((row[0], row[1]) for row in cells)))
    return sorted(fleets, key=lambda fleet: fleet.machines)


def write(results: Path) -> None:
    """Replace the section in a results.md; none while fewer than two sizes of fleet were measured over as many days."""
    sections = results.read_text().split("\n## ")
    kept = "\n## ".join(section for section in sections if not section.startswith(f"{HEAD}\n")).rstrip() + "\n"
    fleets = read(kept)
    if len(fleets) > 1 and len({fleet.days for fleet in fleets}) == 1:
        kept += "\n" + _section(fleets, results.with_name("growth.png"))
    results.write_text(kept)


def _section(fleets: Sequence[Fleet], picture: Path) -> str:
    sizes = [fleet.machines for fleet in fleets]
    seconds = {name: [fleet.number(words, r"^([\d,.]+) s$") for fleet in fleets] for words, name in STAGES.items()}
    seconds = {name: values for name, values in seconds.items() if sum(value is not None for value in values) > 1}
    memory = [fleet.number(MEMORY, r"([\d.]+) GiB") for fleet in fleets]
    lines = [
        f"## {HEAD}",
        "",
        "Seconds by machines, and between two sizes the exponent of growth: 1 is in proportion to the fleet, 0 not at all.",
        "",
        f"| work | {' | | '.join(f'{size:,}' for size in sizes)} |",
        f"| --- {'| --- ' * (2 * len(sizes) - 1)}|",
        *(f"| {name} | {_row(sizes, values, '{:.1f} s')} |" for name, values in seconds.items()),
        f"| memory of a range | {_row(sizes, memory, '{:.1f} GiB')} |",
        "",
        f"![Seconds by machines]({picture.name})",
    ]
    _plot(picture, sizes, seconds)
    return "\n".join(lines) + "\n"


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
