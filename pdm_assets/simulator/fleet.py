"""The life of one machine: its visits, failures, errors and readings, with the rates found in the public data set.

What follows was measured on its version of 100 machines and the year 2015, but for what harder and shifted fleets have.

Every machine has random streams of its own, seeded by the fleet's seed and its number, and drawn in the order of time. So the
same machine has the same life whatever the size of the fleet, and a longer simulation begins like a shorter one.
"""

import itertools
from dataclasses import dataclass, field

import numpy as np

HOURS_A_DAY = 24
SERVICE_EVERY_DAYS = 15  # 100 % of the visits are on the machine's private grid
SERVICE_HOUR = 6
BURN_IN_SLOTS = 40  # so that component ages are in their steady state when telemetry begins
HISTORY_DAYS = 214  # maintenance is on record this long before telemetry begins, as from 2014-06-01 in the reference
DRIFT_HOURS = 48  # one channel steps exactly so long before a failure
ERROR_LEAD_HOURS = 24  # the component's own error fires exactly so long before it
ERROR_SHOWN = 0.975  # share of failures that their own error foretells
HARDER_ERROR_SHOWN = 0.7
MAX_DRIFT_HOURS = 96  # of a ramp in the harder fleet
# How many components are replaced as a precaution beside 0, 1 or 2 failed ones
PLANNED_WORK = ((0.136, 0.626, 0.238), (0.578, 0.422, 0.0), (1.0, 0.0, 0.0))
SECOND_FAILURE = 0.5  # a second component fails in one visit half as often as chance would have it
MODEL_SHARES = (0.16, 0.17, 0.35, 0.32)  # model1 to model4
OLD_AGE, MAX_AGE, OLD_SHARE = 14, 20, 0.47  # comp4 fails only in machines this old
YEAR_HOURS = 8766.0


@dataclass(frozen=True)
class Component:
    """How one component fails, and what its failure looks like beforehand.

    Args:
        hazard: probability of failing at a visit, once old enough. It is flat: there is no wear-out.
        least_slots: visits after a replacement before which it never fails.
        preventive: weight of a precautionary replacement, by visits since the last one (1, 2, 3 and more).
        step: shift of its channel in a drift, in the channel's unit.
        errors: its own error codes; all of them fire together.
        decoys_a_year: drifts of its channel that end in no failure.
    """

    hazard: float
    least_slots: int
    preventive: tuple[float, float, float]
    step: float
    errors: tuple[int, ...]
    decoys_a_year: float


COMPONENTS = (
    Component(0.185, 3, (0.31, 0.28, 0.15), 20.5, (0,), 6.3),
    Component(0.165, 2, (0.31, 0.16, 0.15), -79.5, (1, 2), 6.9),
    Component(0.54, 3, (0.31, 0.28, 0.20), 25.3, (3,), 3.7),
    Component(0.47, 3, (0.31, 0.28, 0.15), 10.4, (4,), 4.1),
)
LEVELS = np.array([170.0, 450.4, 99.9, 40.0])
SPREADS = np.array([15.0, 50.1, 9.9, 5.0])
# What a shift changes: a channel's healthy level, as if its gauge had been exchanged, and how one component fails
SHIFTED_CHANNEL, SHIFTED_BY = 2, 9.9  # pressure, by one spread of its readings
NEW_WAY = 0  # comp1: its channel falls where it rose before, and no error tells of it
BACKGROUND_ERRORS_A_YEAR = np.array([8.24, 7.29, 5.82, 6.05, 1.77])  # 2.3


@dataclass(frozen=True)
class Drift:
    """A channel away from its healthy level from `start` on, for `hours`; hours count from the start of telemetry."""

    channel: int
    start: int
    hours: int
    is_ramp: bool = False
    is_new_way: bool = False  # the other way than the component's step


@dataclass
class Life:
    """What happens to one machine. Hours count from the start of telemetry; replacements may lie before it."""

    machine_id: int
    model: int
    age: int
    replacements: list[tuple[int, int]] = field(default_factory=list)  # (hour, component)
    failures: list[tuple[int, int]] = field(default_factory=list)  # (hour, component)
    errors: list[tuple[int, int]] = field(default_factory=list)  # (hour, error code)
    drifts: list[Drift] = field(default_factory=list)


def live(machine_id: int, *, hours: int, seed: int, harder: bool = False, shift_hour: int | None = None) -> Life:
    """The life of a machine over `hours` of telemetry: everything but the readings.

    From `shift_hour` on comp1 fails in a new way; until then life is the same as without.

    `harder` takes the artefacts away: a failure comes at any hour, its drift is a ramp of random length, its error is missing
    in three cases of ten and comes at a random time before.
    """
    traits, visits, signs, noise = (_stream(seed, machine_id, n) for n in range(4))
    life = Life(machine_id, _model(traits.random()), _age(traits))
    phase = int(traits.integers(SERVICE_EVERY_DAYS))
    since = np.full(len(COMPONENTS), 2)  # visits since the last replacement
    before: dict[int, int] = {}  # the latest replacement of each component before telemetry: all that is on record of then
    # of the harder fleet: a failure is shifted by up to half of the grid, and its drift begins before it
    last_hour = hours + SERVICE_EVERY_DAYS * HOURS_A_DAY // 2 + MAX_DRIFT_HOURS
    for slot in itertools.count(-BURN_IN_SLOTS):
        visit = (slot * SERVICE_EVERY_DAYS + phase) * HOURS_A_DAY + SERVICE_HOUR
        if visit >= last_hour:
            break
        since += 1
        chances = visits.random((len(COMPONENTS), 4))  # drawn for all, so that what comes later does not depend on it
        failing, replaced = _visit(life, since, chances, visits.random(2))
        for component in failing + replaced:
            since[component] = 0
            shift = int((chances[component, 1] - 0.5) * SERVICE_EVERY_DAYS * HOURS_A_DAY) if harder else 0
            hour = visit + shift if component in failing else visit
            if component in failing:
                is_new_way = component == NEW_WAY and shift_hour is not None and hour >= shift_hour
                _fail(life, component, hour, signs.random(3), harder, is_new_way)
            if hour < 0:
                before[component] = hour
            elif hour < hours:
                life.replacements.append((hour, component))
    life.replacements += [(hour, component) for component, hour in before.items() if hour >= -HISTORY_DAYS * HOURS_A_DAY]
    for channel, part in enumerate(COMPONENTS):
        starts = _times(noise.spawn(1)[0], part.decoys_a_year, -DRIFT_HOURS, hours)
        life.drifts += [Drift(channel, start, DRIFT_HOURS, harder) for start in starts]
    for code, a_year in enumerate(BACKGROUND_ERRORS_A_YEAR):
        life.errors += [(hour, code) for hour in _times(noise.spawn(1)[0], a_year, 0, hours)]
    life.failures = sorted(event for event in life.failures if 0 <= event[0] < hours)
    life.errors = sorted({event for event in life.errors if 0 <= event[0] < hours})
    life.replacements.sort()
    return life


def readings(life: Life, *, hours: int, seed: int, shift_hour: int | None = None) -> np.ndarray:
    """Hourly readings, shape (hours, 4): volt, rotate, pressure, vibration. Gaussian noise around the level of the hour.

    From `shift_hour` on the healthy level of pressure is higher.
    """
    noise = _stream(seed, life.machine_id, 4).standard_normal((hours, len(LEVELS)))
    shift = np.zeros_like(noise)
    for drift in life.drifts:
        start, end = max(0, drift.start), min(hours, drift.start + drift.hours)
        if start < end:
            share = (np.arange(start, end) - drift.start + 1) / drift.hours if drift.is_ramp else np.ones(end - start)
            column = shift[start:end, drift.channel]
            # two drifts at once are one
            column[:] = np.where(share > np.abs(column), -share if drift.is_new_way else share, column)
    found = LEVELS + noise * SPREADS + shift * np.array([component.step for component in COMPONENTS])
    if shift_hour is not None:
        found[max(0, shift_hour) :, SHIFTED_CHANNEL] += SHIFTED_BY
    return found


def _stream(seed: int, machine_id: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, machine_id, purpose]))


def _model(chance: float) -> int:
    return int(np.searchsorted(np.cumsum(MODEL_SHARES), chance))


def _age(rng: np.random.Generator) -> int:
    """Years in service: half of the fleet is 14 or older (0 of 51 younger machines failed by comp4)."""
    is_old, young, old = rng.random() < OLD_SHARE, rng.integers(OLD_AGE), rng.integers(OLD_AGE, MAX_AGE + 1)
    return int(old if is_old else young)


def _visit(life: Life, since: np.ndarray, chances: np.ndarray, work: np.ndarray) -> tuple[list[int], list[int]]:
    """Which components have failed and which are replaced as a precaution, at most two together."""
    everything = range(len(COMPONENTS))
    failing = [
        c
        for c in everything
        if _can_fail(life, c) and since[c] >= COMPONENTS[c].least_slots and chances[c, 0] < COMPONENTS[c].hazard
    ]
    failing.sort(key=lambda c: chances[c, 2])
    if len(failing) > 1:
        failing = failing[: 2 if work[0] < SECOND_FAILURE else 1]
    planned = int(np.searchsorted(np.cumsum(PLANNED_WORK[len(failing)]), work[1]))
    # Weighted sampling without replacement (Efraimidis and Spirakis): the smallest of exponentials with these rates.
    weight = {c: COMPONENTS[c].preventive[min(since[c], 3) - 1] for c in everything if c not in failing}
    by_chance = sorted(weight, key=lambda c: -np.log1p(-chances[c, 3]) / weight[c])
    return failing, by_chance[:planned]


def _can_fail(life: Life, component: int) -> bool:
    """comp3 fails in model1 and model2 only, comp4 in old machines only."""
    return (component != 2 or life.model < 2) and (component != 3 or life.age >= OLD_AGE)


def _fail(life: Life, component: int, hour: int, fate: np.ndarray, harder: bool, is_new_way: bool) -> None:
    shown, length_share, lead_share = fate
    length = int(24 + (MAX_DRIFT_HOURS - 24) * length_share) if harder else DRIFT_HOURS
    lead = int(2 + 46 * lead_share) if harder else ERROR_LEAD_HOURS
    life.failures.append((hour, component))
    life.drifts.append(Drift(component, hour - length, length, harder, is_new_way))
    if not is_new_way and shown < (HARDER_ERROR_SHOWN if harder else ERROR_SHOWN):
        life.errors += [(hour - lead, code) for code in COMPONENTS[component].errors]


def _times(rng: np.random.Generator, a_year: float, first: int, end: int) -> list[int]:
    """Hours of a Poisson process from `first` on, drawn in the order of time."""
    times, at = [], float(first)
    while (at := at + rng.exponential(YEAR_HOURS / a_year)) < end:
        times.append(int(np.floor(at)))
    return times
