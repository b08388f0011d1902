"""Moments at the ends of the calendar, which no clock of ours can tell: refused, whatever they are asked of."""

from __future__ import annotations

import pytest
from api_platform import ApiPlatform

from modelyard.kit.paging import Mark, Sort

EDGES = ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")


@pytest.mark.parametrize("moment", EDGES)
async def test_a_moment_at_the_edge_is_refused(api: ApiPlatform, moment: str) -> None:
    headers = {"x-nhn-authorization": f"Bearer {api.keys.access_token}"}
    mark = Mark(Sort("updatedDatetime", is_descending=True), moment, "01a20000-0000-7000-8000-000000000000")
    nobody = "01a20000-0000-7000-8000-000000000000"
    for path, params in (
        ("trainings", {"createdFrom": moment}),
        ("experiments", {"createdTo": moment}),
        ("trainings", {"sort": "-updatedDatetime", "cursor": mark.to_cursor()}),
        (f"endpoints/{nobody}/traffic", {"at": moment}),
        (f"endpoints/{nobody}/statistics", {"to": moment}),
    ):
        answer = await api.http.get(f"/v1.0/appkeys/{api.keys.app_key}/{path}", params=params, headers=headers)
        assert answer.status_code == 400, (path, params, answer.text)
