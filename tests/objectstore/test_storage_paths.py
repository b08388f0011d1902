"""Storage paths: what is one, what is refused and with which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.objectstore.paths import (
    BadStoragePath,
    NasPath,
    ObsPath,
    parse_nas_path,
    parse_obs_path,
    parse_storage_path,
)

HEAD = "obs://store.example.org/v1/AUTH_t1"


def test_obs_path_is_taken_apart() -> None:
    path = parse_storage_path("obs://Store.example.org:10443/v1/AUTH_t1/data/iris/train.csv")
    assert path == ObsPath("store.example.org:10443", "v1", "t1", "data", "iris/train.csv")
    assert isinstance(path, ObsPath)
    assert path.account == "AUTH_t1"
    assert path.base_name == "train.csv"
    assert path.url_path == "/v1/AUTH_t1/data/iris/train.csv"
    assert str(path) == "obs://store.example.org:10443/v1/AUTH_t1/data/iris/train.csv"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (f"{HEAD}/c", ""),
        (f"{HEAD}/c/", ""),
        (f"{HEAD}/c/dir/", "dir"),
        (f"{HEAD}/c/a b", "a b"),
        (f"{HEAD}/c/a%20b", "a b"),
        (f"{HEAD}/c/%ED%95%9C", "한"),
        (f"{HEAD}/c/한", "한"),
        (f"{HEAD}/c/100%.csv", "100%.csv"),
        (f"{HEAD}/c/50%25off", "50%off"),
        (f"{HEAD}/c/what%3F", "what?"),
        (f"{HEAD}/c/...", "..."),
        (f"{HEAD}/c/.hidden/..x", ".hidden/..x"),
    ],
)
def test_obs_path_of(text: str, path: str) -> None:
    found = parse_obs_path(text)
    assert found.path == path
    assert parse_obs_path(str(found)) == found


def test_directory_prefix_and_children() -> None:
    root = parse_obs_path(f"{HEAD}/c")
    assert root.directory_prefix == ""
    assert root.child("a/b").child("c").path == "a/b/c"
    assert root.child("a").directory_prefix == "a/"
    assert root.child("50%2e").path == "50%2e"
    for bad in ("..", "a/../b", "", "/a", "a//b", "a\0b", "x" * 1025):
        with pytest.raises(BadStoragePath):
            root.child(bad)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a storage path was expected"),
        ("/etc/passwd", "a storage path was expected"),
        ("http://h/v1/AUTH_t/c", "a storage path was expected"),
        ("OBS://h/v1/AUTH_t/c", "a storage path was expected"),
        ("obs://h", "incomplete"),
        ("obs://h/v1/AUTH_t", "incomplete"),
        ("obs://h/v1/AUTH_t/", "incomplete"),
        ("obs:///v1/AUTH_t/c", "where a host name was expected"),
        ("obs://user@h/v1/AUTH_t/c", "where a host name was expected"),
        ("obs://h:99999/v1/AUTH_t/c", "1 to 65535"),
        ("obs://h:0/v1/AUTH_t/c", "1 to 65535"),
        ("obs://h:x/v1/AUTH_t/c", "where a host name was expected"),
        ("obs://a..b/v1/AUTH_t/c", "where a host name was expected"),
        ("obs://h\n/v1/AUTH_t/c", "where a host name was expected"),
        ("obs://-h/v1/AUTH_t/c", "where a host name was expected"),
        ("obs://h/one/AUTH_t/c", "where a version such as 'v1' was expected"),
        ("obs://h//AUTH_t/c", "where a version such as 'v1' was expected"),
        ("obs://h/v1/t/c", "where AUTH_{tenant} was expected"),
        ("obs://h/v1/AUTH_/c", "where AUTH_{tenant} was expected"),
        ("obs://h/v1/AUTH_../c", "where AUTH_{tenant} was expected"),
        (f"{HEAD}/../c", "'.' or '..'"),
        (f"{HEAD}/c/../d", "'.' or '..'"),
        (f"{HEAD}/c/./d", "'.' or '..'"),
        (f"{HEAD}/c/..", "'.' or '..'"),
        (f"{HEAD}/c/%2e%2e/d", "'.' or '..'"),
        (f"{HEAD}/c/.%2E/d", "'.' or '..'"),
        (f"{HEAD}/c/%252e%252e/d", "encoded twice"),
        (f"{HEAD}/c/a%252fb", "encoded twice"),
        (f"{HEAD}/c/..%2fd", "hides a slash"),
        (f"{HEAD}/c%2fd/e", "hides a slash"),
        (f"{HEAD}/c//d", "empty segment"),
        (f"{HEAD}/c/d//", "empty segment"),
        (f"{HEAD}/c//", "empty segment"),
        (f"{HEAD}/c/a%00b", "control character"),
        (f"{HEAD}/c/a\0b", "control character"),
        (f"{HEAD}/c/a\nb", "control character"),
        (f"{HEAD}/c/a%0ab", "control character"),
        (f"{HEAD}/c/a\\b", "backslash"),
        (f"{HEAD}/c/a%5cb", "backslash"),
        (f"{HEAD}/c/a?b", "'?' or '#'"),
        (f"{HEAD}/c/a#b", "'?' or '#'"),
        (f"{HEAD}/c/%ff", "not UTF-8"),
        (f"{HEAD}/c/\ud800", "control character"),
        (f"{HEAD}/c/{'x' * 1025}", "longer than 1024 bytes"),
        (f"{HEAD}/{'c' * 257}/x", "at most 256 bytes"),
    ],
)
def test_obs_path_refused(text: str, said: str) -> None:
    with pytest.raises(BadStoragePath) as caught:
        parse_storage_path(text)
    assert said in str(caught.value)


def test_nas_path() -> None:
    path = parse_storage_path("nas://my-nas_1:/models/v1/")
    assert path == NasPath("my-nas_1", "models/v1")
    assert str(path) == "nas://my-nas_1:/models/v1"
    assert parse_nas_path("nas://n:/") == NasPath("n")
    assert NasPath("n").child("a").child("b/c") == NasPath("n", "a/b/c")


@pytest.mark.parametrize(
    "text",
    [
        "nas://",
        "nas://n",
        "nas://n/x",
        "nas://:/x",
        "nas://../x:/y",
        "nas://n:/../x",
        "nas://n:/a//b",
        "nas://n:/%2e%2e",
        "nas://n:/a\0",
        "nas://n:/a\\b",
    ],
)
def test_nas_path_refused(text: str) -> None:
    with pytest.raises(BadStoragePath):
        parse_nas_path(text)


@given(st.text(max_size=60))
def test_whatever_is_taken_is_harmless_and_survives_writing(tail: str) -> None:
    try:
        path = parse_obs_path(f"{HEAD}/c/{tail}")
    except BadStoragePath:
        return
    segments = path.path.split("/") if path.path else []
    assert all(segment not in {"", ".", ".."} and "\\" not in segment and "\0" not in segment for segment in segments)
    assert parse_obs_path(str(path)) == path
