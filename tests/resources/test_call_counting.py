"""What the counts of calls add up to, whatever the counters do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.gateway.backends.envoy.statistics import LATENCY_BOUNDS_MS
from modelyard.gateway.port import UpstreamStatistics
from modelyard.resources.endpoints.call_blocks import shown, spans_of, tally_of, total, with_counts
from modelyard.resources.endpoints.counting import LATENCY_BOUNDS, Counts, added, counted, restored, since

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
    assert found is not None
    ordered = sorted(values)
    exact = ordered[max(0, -(-int(share * len(ordered) * 1000) // 1000) - 1)]
    near = ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    assert exact / 1.3 <= found <= near * 1.3


def test_without_calls_there_is_no_latency() -> None:
    assert percentile({}, 0.5) is None


def percentile(latencies: dict[int, int], share: float) -> float | None:
    """Seconds, as answers tell them."""
    milliseconds = shown(tally_of(Counts(latencies=latencies))).get(f"latencyP{round(share * 100)}Milliseconds")
    assert milliseconds is None or isinstance(milliseconds, float)
    return None if milliseconds is None else milliseconds / 1000


numbered = st.lists(st.tuples(st.integers(0, 239), counts), max_size=12)


@given(numbered)
def test_a_block_holds_what_was_added_to_its_spans_in_any_order(items: list[tuple[int, Counts]]) -> None:
    content, wanted = b"", dict[int, list[Counts]]()
    for number, news in items:
        content = with_counts(content, number, news)
        wanted.setdefault(number, []).append(news)
    assert dict(spans_of(content, 0, 239)) == {number: tally_of(added(all_)) for number, all_ in wanted.items()}
    assert [number for number, _ in spans_of(content, 0, 239)] == sorted(wanted)
    assert {number for number, _ in spans_of(content, 5, 100)} == {number for number in wanted if 5 <= number <= 100}


@given(st.lists(counts, max_size=5))
def test_lanes_add_up_like_counts(items: list[Counts]) -> None:
    assert total(tally_of(item) for item in items) == tally_of(added(items))


def test_the_largest_numbers_have_room() -> None:
    much = Counts(received_bytes=2**62, active_max=2**31, latencies={0: 2**40, len(LATENCY_BOUNDS) - 1: 2**40})
    [(_, tally)] = spans_of(with_counts(with_counts(b"", 7, much), 7, Counts(received_bytes=1)))
    told = shown(tally)
    assert (told["receivedBytes"], told["activeMax"]) == (2**62 + 1, 2**31)
