"""The days that a model learns from, is tuned on and is tested on."""

import datetime as dt
from dataclasses import dataclass
from typing import Literal, get_args

from pdm_assets.settings import LOOKBACK_HOURS, Settings

WindowName = Literal["train", "calibration", "test"]
WINDOW_NAMES: tuple[WindowName, ...] = get_args(WindowName)

LOOKBACK_DAYS = -(-max(LOOKBACK_HOURS) // 24)


@dataclass(frozen=True)
class Window:
    """The observations of whole UTC days: start 00:00 <= observed_at < end 00:00."""

    start: dt.date
    end: dt.date

    @property
    def start_at(self) -> dt.datetime:
        """First instant inside, UTC."""
        return _midnight(self.start)

    @property
    def end_at(self) -> dt.datetime:
        """First instant after, UTC."""
        return _midnight(self.end)


@dataclass(frozen=True)
class Windows:
    """The three windows of one model, one horizon apart so that no outcome belongs to two of them."""

    train: Window
    calibration: Window
    test: Window

    def named(self) -> dict[WindowName, Window]:
        """The windows by name, in the order of time."""
        return {"train": self.train, "calibration": self.calibration, "test": self.test}


def model_windows(cutoff: dt.date, settings: Settings) -> Windows:
    """The windows of a model that may know nothing from cutoff 00:00 UTC on.

    An outcome is known when its horizon is over: observed_at + horizon <= cutoff. Windows are whole days, so
    each is followed by a gap of ceil(horizon) days: all outcomes of a window are known before the next
    window, or the cutoff, begins.
    """
    end = cutoff
    windows: dict[str, Window] = {}
    for name, days in (
        ("test", settings.test_days),
        ("calibration", settings.calibration_days),
        ("train", settings.train_days),
    ):
        end -= dt.timedelta(days=settings.horizon_days)
        windows[name] = Window(end - dt.timedelta(days=days), end)
        end = windows[name].start
    return Windows(**windows)


def first_possible_cutoff(first_day: dt.date, settings: Settings) -> dt.date:
    """The first cutoff whose windows are all history, where telemetry begins on first_day.

    The first observations with a complete look-back are those of first_day + 2.
    """
    length = first_day - model_windows(first_day, settings).train.start
    return first_day + dt.timedelta(days=LOOKBACK_DAYS) + length


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)
