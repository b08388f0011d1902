"""What stands in for `typing.NamedTuple`, `json` and `urllib.parse` behaves as they do."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest

from modelyard.runner import jsons, urls
from modelyard.runner.light import NamedTuple, suppress


class Pair(NamedTuple):
    first: int
    second: str = "two"

    @property
    def both(self) -> str:
        return f"{self.first} {self.second}"


def test_named_tuples_are_made_by_place_and_by_name() -> None:
    pair = Pair(1, second="zwei")
    assert (pair.first, pair.second, pair.both, pair, hash(pair)) == (
        1,
        "zwei",
        "1 zwei",
        (1, "zwei"),
        hash((1, "zwei")),
    )
    assert Pair(1) == Pair(first=1) == Pair(1, "two")
    assert pair._asdict() == {"first": 1, "second": "zwei"}
    assert pair._replace(first=2) == Pair(2, "zwei")
    assert repr(pair) == "Pair(first=1, second='zwei')"
    assert copy.deepcopy(pair) == pickle.loads(pickle.dumps(pair)) == pair
    assert type(copy.copy(pair)) is Pair
    for name in ("first", "third"):
        with pytest.raises(AttributeError):
            setattr(pair, name, 3)


@pytest.mark.parametrize("make", ["Pair()", "Pair(1, '2', 3)", "Pair(1, first=1)", "Pair(1, third=3)"])
def test_named_tuples_refuse_what_is_missing_or_too_much(make: str) -> None:
    with pytest.raises(TypeError, match="Pair"):
        eval(make)


VALUES: list[Any] = [
    None,
    True,
    [1, -2.5, 1e300, 10**30, "", [], {}],
    {"a": {"b": (1, '한글 "\\\n\t\x00\x7f\u2028 \ud800')}, "": False},
]


@pytest.mark.parametrize("value", VALUES)
def test_json_is_what_json_makes_of_it(value: Any) -> None:
    assert jsons.dumps(value) == json.dumps(value)
    for text in (json.dumps(value), json.dumps(value, indent=1), f" \n{jsons.dumps(value)}\t"):
        assert jsons.loads(text) == jsons.loads(text.encode()) == json.loads(text)
    assert jsons.loads('"한글"'.encode()) == "한글"


@pytest.mark.parametrize("text", ["", " ", "{", "[1,]", '{"a" 1}', "1 2", "nul", '"\n"', "[1]]", b'"\xff"'])
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        jsons.loads(text)


@pytest.mark.parametrize("text", ["", "a/b c", "한글 #1?.data", "%41+&=;~-._", "\x00\x7f\\"])
def test_names_are_encoded_as_by_urllib(text: str) -> None:
    assert urls.quote(text) == quote(text, safe="/")
    assert urls.unquote(quote(text, safe="")) == urls.unquote(urls.quote(text)) == text
    fields = {"prefix": text, "limit": "10"}
    assert urls.query(fields) == urlencode(fields, quote_via=quote, safe="")


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/v1/AUTH_x/c/",
        "https://Front.Door:8443/v1/a/b%20c",
        "http://[::1]:80/v1/a/c",
        "https://[::1]/v1",
    ],
)
def test_addresses_are_taken_apart_as_by_urllib(url: str) -> None:
    address, parts = urls.parse(url), urlsplit(url)
    assert (address.is_tls, address.host, address.path) == (
        parts.scheme == "https",
        parts.hostname,
        parts.path.rstrip("/"),
    )
    assert address.port == (parts.port or (443 if parts.scheme == "https" else 80))


@pytest.mark.parametrize(
    "url", ["", "ftp://host/x", "http:///x", "host/x", "http://me@host/x", "http://host/x?y", "http://host:port/x"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        urls.parse(url)


def test_only_what_is_named_is_suppressed() -> None:
    with suppress(KeyError, OSError):
        raise FileNotFoundError
    with pytest.raises(ValueError, match="x"), suppress(KeyError):
        raise ValueError("x")
