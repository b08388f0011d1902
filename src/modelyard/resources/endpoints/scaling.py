"""How many model servers there should be for what is asked of them. Pure.

Up as soon as a few seconds say so, down only when a long while does: a server too many costs memory, one too few costs answers.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from modelyard.resources.endpoints.model import Metric, Scaling

FAST_SECONDS = 6.0
"""The load of so many seconds, averaged, decides about more servers."""
_TOLERANCE = 0.1
_BUCKET_SECONDS = 5.0
_MIN_SPAN_SECONDS = 1.5

_WORDS = {
    Metric.CONCURRENCY: "requests at once",
    Metric.REQUESTS_PER_SECOND: "requests per second",
    Metric.CPU_UTILIZATION: "% of a server's cores",
    Metric.MEMORY_UTILIZATION: "% of a server's memory",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """So many servers from now on, and why, in a word and in a sentence."""

    count: int
    reason: str
    message: str


@dataclass(slots=True)
class History:
    """What was measured of one model on a stage since somebody looks at it. Lost with the process, and then gathered anew: nothing is
    taken away for what nobody has seen.

    Attributes:
        begun_at, active_at, added_at: seconds of the clock that samples have; `active_at` is when a request was last seen, `added_at` when
            servers were last added.
    """

    begun_at: float
    active_at: float
    added_at: float = -math.inf
    recent: deque[tuple[float, float]] = field(default_factory=deque[tuple[float, float]])
    peaks: deque[tuple[float, float]] = field(default_factory=deque[tuple[float, float]])

    def add(self, now: float, load: float, *, is_active: bool) -> None:
        """A sample: the load of all servers together, in units of the metric, and whether requests were seen since the last one."""
        if is_active:
            self.active_at = now
        self.recent.append((now, load))
        while self.recent[0][0] < now - FAST_SECONDS:
            self.recent.popleft()
        starts_at = now - now % _BUCKET_SECONDS
        smooth = self.average
        if self.peaks and self.peaks[-1][0] == starts_at:
            self.peaks[-1] = (starts_at, max(smooth, self.peaks[-1][1]))
        else:
            self.peaks.append((starts_at, smooth))

    def forget_before(self, moment: float) -> None:
        """Drop what no decision looks at any more."""
        while self.peaks and self.peaks[0][0] + _BUCKET_SECONDS < moment:
            self.peaks.popleft()

    @property
    def average(self) -> float:
        """The load of the last few seconds."""
        return sum(load for _, load in self.recent) / len(self.recent) if self.recent else 0.0

    @property
    def is_telling(self) -> bool:
        """Whether the last few seconds have been looked at more than once."""
        return len(self.recent) > 1 and self.recent[-1][0] - self.recent[0][0] >= _MIN_SPAN_SECONDS

    def peak_since(self, moment: float) -> float:
        """The highest load since then."""
        return max((load for starts_at, load in self.peaks if starts_at + _BUCKET_SECONDS >= moment), default=0.0)


def wish(
    scaling: Scaling,
    metric: Metric,
    target: float,
    count: int,
    history: History,
    now: float,
    *,
    is_waited_for: bool,
    is_measured: bool = True,
) -> Wish | None:
    """How many servers there should be instead of `count`; None to leave it.

    `target` is the load that one server is to have; `is_measured`: the history has a sample of this moment.
    """
    if count == 0:
        if is_waited_for or scaling.min_count > 0:
            why = "A request waits for the model." if is_waited_for else _bounds(scaling)
            return Wish(max(1, scaling.min_count), "WAKING", f"From rest to {max(1, scaling.min_count)}: {why}")
        return None
    within = min(max(count, scaling.min_count, 1), scaling.max_count)
    if within != count:
        return Wish(within, "SCALING", f"From {count} to {within} model servers: {_bounds(scaling)}")
    if not is_measured:
        return None
    return (
        _more(scaling, metric, target, count, history)
        or _rest(scaling, count, history, now, is_waited_for=is_waited_for)
        or _fewer(scaling, metric, target, count, history, now)
    )


def _more(scaling: Scaling, metric: Metric, target: float, count: int, history: History) -> Wish | None:
    load = history.average
    if not history.is_telling or load <= count * target * (1 + _TOLERANCE):
        return None
    wanted = min(math.ceil(load / target - 1e-9), scaling.max_count)
    if wanted <= count:
        return None
    message = (
        f"From {count} to {wanted} model servers: {load:.3g} {_WORDS[metric]} in the last {FAST_SECONDS:.0f} s, "
        f"and one server is to have {target:g}."
    )
    return Wish(wanted, "SCALING_UP", message)


def _rest(scaling: Scaling, count: int, history: History, now: float, *, is_waited_for: bool) -> Wish | None:
    if scaling.min_count > 0 or is_waited_for or now - history.active_at < scaling.idle_seconds:
        return None
    message = f"From {count} to 0 model servers: no request for {scaling.idle_seconds:.0f} s. The next one waits for the start."
    return Wish(0, "AT_REST", message)


def _fewer(scaling: Scaling, metric: Metric, target: float, count: int, history: History, now: float) -> Wish | None:
    least = max(1, scaling.min_count)
    since = now - max(scaling.unneeded_seconds, FAST_SECONDS)
    if not scaling.scales_down or count <= least or now - history.added_at < scaling.delay_after_add_seconds:
        return None
    if history.begun_at > since or not history.is_telling:
        return None
    peak = history.peak_since(since)
    if 100 * peak >= scaling.threshold_percent * count * target:
        return None
    wanted = max(least, math.ceil(peak / target - 1e-9))
    if wanted >= count:
        return None
    message = (
        f"From {count} to {wanted} model servers: at most {peak:.3g} {_WORDS[metric]} in the last {now - since:.0f} s, "
        f"less than {scaling.threshold_percent:.0f} % of what {count} servers are to have."
    )
    return Wish(wanted, "SCALING_DOWN", message)


def _bounds(scaling: Scaling) -> str:
    return f"there are to be {scaling.min_count} to {scaling.max_count}."
