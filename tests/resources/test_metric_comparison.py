"""Which runs of a comparison, in which order: filters and sorting on parameters and metrics."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import pytest
from metric_places import CALLER, EXPERIMENT, KnownRuns, make_metric_tables, points, run

from modelyard.db.engine import Database
from modelyard.kit.errors import Invalid
from modelyard.kit.paging import PageRequest
from modelyard.resources.metrics.comparison import Figures, choose, parse
from modelyard.resources.metrics.service import Comparison, ComparisonRequest, Metrics

RUNS = [
    run("a", minute=1, lr="0.1", optimizer="Adam"),
    run("b", minute=2, lr="0.02", optimizer="sgd"),
    run("c", minute=3, state="FAIL_TRAIN", lr="1e-3"),
    run("d", minute=4, **{"odd name=1": "x"}),
]
FIGURES = {
    "a": {"loss": Figures(0.5, 9, 10, 0.1, 3, 2.0, 0)},
    "b": {"loss": Figures(0.3, 9, 10, 0.2, 4, 1.0, 0), "val/acc": Figures(0.9, 9, 10, 0.1, 0, 0.9, 9)},
    "c": {"loss": Figures(math.nan, 2, 3)},
}


def chosen(*filters: str, sort: tuple[str, ...] = ()) -> str:
    wanted, faults = parse(filters, sort)
    assert faults == []
    return "".join(each.id for each in choose(RUNS, FIGURES, wanted))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metrics.loss<0.4", "b"),
        ("metrics.loss:min<=0.1", "a"),
        ("metrics.loss:max>=1", "ab"),
        ("metrics.loss:steps>=9", "ab"),
        ("metrics.val/acc>0.5", "b"),
        ("metrics.nothing>0", ""),
        ("parameters.lr=0.10", "a"),
        ("params.lr=0.001", "c"),
        ("parameters.lr>0.01", "ab"),
        ("parameters.lr!=0.1", "bcd"),
        ("parameters.optimizer=sgd", "b"),
        ("parameters.optimizer~AD", "a"),
        ('parameters."odd name=1"=x', "d"),
        ("state=COMPLETE", "abd"),
        ("name~of c", "c"),
        ("created>=2026-01-01T00:03", "cd"),
        ("  metrics.loss  <  0.4  ", "b"),
    ],
)
def test_a_filter_on_any_column(text: str, expected: str) -> None:
    assert chosen(text) == expected


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (("metrics.loss",), "bacd"),
        (("-metrics.loss",), "abcd"),
        (("parameters.lr",), "cbad"),
        (("-parameters.lr",), "abcd"),
        (("parameters.optimizer",), "abcd"),
        (("-created",), "dcba"),
        (("state", "-name"), "dbac"),
    ],
)
def test_sorting_is_by_number_where_all_are_and_what_is_missing_comes_last(
    sort: tuple[str, ...], expected: str
) -> None:
    assert chosen(sort=sort) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "loss<1",
        "metrics.loss",
        "metrics.loss<",
        "metrics.loss<x",
        "metrics.loss~1",
        'parameters."a=1',
        "colour=red",
    ],
)
def test_a_bad_filter_is_told_with_an_example(text: str) -> None:
    _, faults = parse([text, "also bad"], ["sideways"])
    assert [fault.field for fault in faults] == ["filter", "filter", "sort"]


@pytest.fixture
async def metrics(database_url: str) -> AsyncIterator[Metrics]:
    database = Database(database_url)
    await make_metric_tables(database)
    known = Metrics(database)
    for index, each in enumerate(RUNS[:3]):
        await known.write(KnownRuns(RUNS), CALLER, each.id, 0, [*points("loss", [3.0, 1.0 + index, math.nan, 5.0])])
        await known.write(KnownRuns(RUNS), CALLER, each.id, 1, points("loss", [100.0]))
    await known.write(KnownRuns(RUNS), CALLER, "b", 1, points("only on one", [7.0]))
    yield known
    await database.close()


async def compare(metrics: Metrics, page: PageRequest | None = None, **wanted: tuple[str, ...]) -> Comparison:
    return await metrics.compare(
        KnownRuns(RUNS), CALLER, EXPERIMENT, ComparisonRequest(**wanted), page or PageRequest()
    )


async def test_the_table_has_all_names_and_the_first_instance_s_figures(metrics: Metrics) -> None:
    found = await compare(metrics)
    assert found.parameter_names == ["lr", "odd name=1", "optimizer"]
    assert found.metric_names == ["loss", "only on one"]
    assert [each.id for each in found.runs.items] == ["d", "c", "b", "a"]
    loss = found.figures["b"]["loss"]
    assert (loss.last, loss.last_step, loss.low, loss.low_step, loss.high, loss.point_count) == (5.0, 3, 2.0, 1, 5.0, 4)
    assert found.figures["b"]["only on one"].last == 7.0
    assert "d" not in found.figures


async def test_pages_names_filters_and_order_work_together(metrics: Metrics) -> None:
    found = await compare(
        metrics, PageRequest(2, 1), names=("only on one",), filters=("metrics.loss:min<3",), sort=("metrics.loss:min",)
    )
    assert [each.id for each in found.runs.items] == ["b"]
    assert found.runs.total_count == 2
    assert list(found.figures["b"]) == ["only on one"]
    with pytest.raises(Invalid) as refused:
        await compare(metrics, filters=("x",), sort=("y",), names=tuple(map(str, range(101))))
    assert [fault.field for fault in refused.value.faults] == ["filter", "sort", "name"]
