"""Access lists and tokens: the same requests to a real Swift and to ours give the same statuses.

The bodies of 401 and 403 differ on purpose: ours name the missing permission. The platform's implicit grants to the system account are
switched off here, because Swift has none.
"""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow

OBJECT = ("PUT", "/C/o", {}, b"x")
USERS = ("owner", "system", "stranger", "")


def by_everybody(*requests: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return [(*request, *(None, None)[len(request) - 2 :], user) for request in requests for user in USERS]


READS = by_everybody(("GET", "/C/o"), ("HEAD", "/C/o"), ("GET", "/C"), ("HEAD", "/C"))

SCENARIOS: dict[str, list[tuple[Any, ...]]] = {
    "access-none": [
        OBJECT,
        *READS,
        *by_everybody(("GET", "/nowhere"), ("GET", "/nowhere/o"), ("GET", "/C/none"), ("DELETE", "/C/none")),
        *by_everybody(("HEAD", "/C/o", {"X-Auth-Token": "rubbish"})),
        ("POST", "/C/o", {}, None, "system"),
        ("PUT", "/C/o", {}, b"y", "system"),
        ("PUT", "/C/o", {}, b"y", ""),
        ("DELETE", "/C/o", {}, None, "stranger"),
        ("COPY", "/C/o", {"Destination": "C/p"}, None, "system"),
        ("PUT", "/nowhere/o", {}, b"", "system"),
    ],
    "access-of-accounts-and-containers": [
        ("GET", "", {}, None, "system"),
        ("HEAD", "", {}, None, "stranger"),
        ("GET", "", {}, None, ""),
        ("POST", "", {"X-Account-Meta-A": "x"}, None, "system"),
        ("PUT", "/made-by-system", {}, None, "system"),
        ("POST", "/C", {}, None, "system"),
        ("DELETE", "/C", {}, None, "system"),
        ("DELETE", "/C", {}, None, ""),
        ("PUT", "//v1/AUTH_other/x"),
        ("GET", "//v1/AUTH_other"),
        ("GET", "//v1/AUTH_unknown/c/o"),
    ],
    "access-read-for-a-user": [
        OBJECT,
        ("POST", "/C", {"X-Container-Read": "tenant:system"}),
        *READS,
        ("DELETE", "/C/o", {}, None, "system"),
        ("HEAD", "/C"),
        ("POST", "/C", {"X-Remove-Container-Read": "x"}),
        *READS,
    ],
    "access-write-for-a-user": [
        ("POST", "/C", {"X-Container-Write": "tenant:system"}),
        ("PUT", "/C/o", {}, b"1", "system"),
        *READS,
        ("POST", "/C/o", {"X-Object-Meta-A": "1"}, None, "system"),
        ("POST", "/C", {"X-Container-Meta-A": "1"}, None, "system"),
        ("COPY", "/C/o", {"Destination": "C/p"}, None, "system"),
        ("DELETE", "/C/o", {}, None, "system"),
        ("DELETE", "/C", {}, None, "system"),
    ],
    "access-read-and-write": [
        ("PUT", "/C", {"X-Container-Read": "tenant:system", "X-Container-Write": "tenant:system"}),
        ("PUT", "/C/o", {}, b"1", "system"),
        ("COPY", "/C/o", {"Destination": "C/p"}, None, "system"),
        ("GET", "/C/p", {}, None, "system"),
        ("HEAD", "/C", {}, None, "system"),
        ("PUT", "/C/stranger", {}, b"1", "stranger"),
    ],
    "access-other-tenant": [
        OBJECT,
        ("POST", "/C", {"X-Container-Read": "other:stranger"}),
        *READS,
        ("POST", "/C", {"X-Container-Write": "other:stranger"}),
        ("PUT", "/C/p", {}, b"1", "stranger"),
        ("GET", "/C"),
    ],
    "access-everybody-with-referrers": [
        OBJECT,
        ("POST", "/C", {"X-Container-Read": ".r:*"}),
        *READS,
        ("POST", "/C", {"X-Container-Read": ".r:*,.rlistings"}),
        *READS,
        ("POST", "/C", {"X-Container-Read": ".rlistings"}),
        *READS,
        ("POST", "/C", {"X-Container-Read": ".r:good.org,.r:.fine.org,.r:-bad.fine.org"}),
        ("GET", "/C/o", {}, None, ""),
        ("GET", "/C/o", {"Referer": "http://good.org/page"}, None, ""),
        ("GET", "/C/o", {"Referer": "http://x.good.org/page"}, None, ""),
        ("GET", "/C/o", {"Referer": "http://x.fine.org/page"}, None, ""),
        ("GET", "/C/o", {"Referer": "http://bad.fine.org/page"}, None, ""),
        ("GET", "/C/o", {"Referer": "rubbish"}, None, ""),
        ("PUT", "/C/o", {"Referer": "http://good.org/"}, b"1", ""),
    ],
    "access-list-forms": [
        step
        for text in (
            "tenant:system",
            " tenant:system , other:stranger ",
            "tenant:* , *:*,  other:stranger, .ref:foo.com, .r:-bad.com",
            ".r:*",
            ".r:",
            ".r:-",
            ".r:.",
            ".r:*.x.com",
            ".referrer:foo.com",
            ".rlistings",
            ".bad:x",
            ".x",
            "a:b:c",
            "a b",
            ",,",
            "",
            "*",
        )
        for step in (("POST", "/C", {"X-Container-Read": text}), ("HEAD", "/C"))
    ]
    + [
        ("POST", "/C", {"X-Container-Write": ".r:*"}),
        ("POST", "/C", {"X-Container-Write": ".bad:x"}),
        ("PUT", "/C", {"X-Container-Write": "tenant:system"}),
        ("HEAD", "/C"),
        ("POST", "/C", {"X-Remove-Container-Write": "x"}),
        ("HEAD", "/C"),
    ],
    "access-to-segments": [
        ("PUT", "/C/p/1", {}, b"1"),
        ("PUT", "/C/dlo", {"X-Object-Manifest": "C/p/"}, b""),
        ("PUT", "/C/slo?multipart-manifest=put", {}, b'[{"path": "/C/p/1"}]'),
        ("POST", "/C", {"X-Container-Read": "tenant:system"}),
        ("GET", "/C/dlo", {}, None, "system"),
        ("GET", "/C/slo", {}, None, "system"),
        ("GET", "/C/dlo", {}, None, "stranger"),
        ("GET", "/C/slo", {}, None, "stranger"),
        ("POST", "/C", {"X-Container-Write": "tenant:system"}),
        ("DELETE", "/C/slo?multipart-manifest=delete", {}, None, "system"),
    ],
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_same_answers(both: Any, name: str) -> None:
    both.play(name, SCENARIOS[name])
