"""Bodies that no program of good will sends: each is refused, and told what is wrong with it."""

from __future__ import annotations

import pytest
from api_platform import ApiPlatform


@pytest.mark.parametrize("path", ["/v2/log", "/v2.0/tokens"])
@pytest.mark.parametrize("body", [b"", b"[" * 100_000, b'{"a": "\xff"}', b"1" * 5000])
async def test_doors_that_anybody_reaches_refuse_it_too(api: ApiPlatform, path: str, body: bytes) -> None:
    answer = await api.http.post(path, content=body)
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "must be given"),
        (b'"', "is not JSON"),
        (b"[1]", "must be an object"),
        (b'{"a": "\xff"}', "no UTF-8 text"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (b'{"trainingName": ' + b"1" * 5000 + b"}", "thousands of digits"),
        (b'{"trainingName": "\\ud800"}', "control characters"),
        (b'{"instanceCount": 1e999}', "instanceCount: must be"),
    ],
)
async def test_a_body_that_makes_no_sense_is_refused(api: ApiPlatform, body: bytes, words: str) -> None:
    headers = {"x-nhn-authorization": f"Bearer {api.keys.access_token}", "content-type": "application/json"}
    path = f"/v1.0/appkeys/{api.keys.app_key}/trainings"
    answer = await api.http.post(path, content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["header"]["resultMessage"], answer.text
