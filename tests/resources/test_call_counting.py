"""What the counts of calls add up to, whatever the counters do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.gateway.backends.envoy.statistics import LATENCY_BOUNDS_MS
from modelyard.gateway.port import UpstreamStatistics
from modelyard.resources.endpoints.counting import LATENCY_BOUNDS, Counts, added, counted, percentile, restored, since

counts = st.builds(
    Counts,
    calls_count=st.integers(0, 1000),
    success_count=st.integers(0, 1000),
    latencies=st.dictionaries(st.integers(0, len(LATENCY_BOUNDS) - 1), st.integers(1, 50), max_size=5),
)


@given(counts)
def test_what_is_stored_is_read_again(one: Counts) -> None:
    assert restored(one.stored()) == one


@given(counts, counts)
def test_what_happened_between_two_readings_is_their_difference(first: Counts, news: Counts) -> None:
    assert since(first, added([first, news])) == news


def test_counters_that_begin_anew_show_only_what_has_happened_since() -> None:
    old, new = Counts(calls_count=10, success_count=10), Counts(calls_count=3, success_count=2)
    assert since(old, new) == new
    assert since(None, new) == new


def test_every_bucket_of_the_gateway_has_one_of_ours() -> None:
    for bound in LATENCY_BOUNDS_MS:
        seen = counted(UpstreamStatistics("x", latencies=((bound / 1000, 7),)))
        [(index, count)] = seen.latencies.items()
        assert count == 7
        assert LATENCY_BOUNDS[index] == pytest.approx(bound / 1000)


@given(st.lists(st.floats(0.0002, 700), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_percentile_is_right_within_its_bucket(values: list[float], share: float) -> None:
    latencies: dict[int, int] = {}
    for value in values:
        index = next(number for number, bound in enumerate(LATENCY_BOUNDS) if value <= bound)
        latencies[index] = latencies.get(index, 0) + 1
    found = percentile(latencies, share)
    ordered = sorted(values)
    exact = ordered[max(0, -(-int(share * len(ordered) * 1000) // 1000) - 1)]
    near = ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    assert found is not None
    assert exact / 1.3 <= found <= near * 1.3


def test_without_calls_there_is_no_latency() -> None:
    assert percentile({}, 0.5) is None
