"""Access lists: the decision and its words. Their grammar is compared with Swift's in tests/conformance/swift."""

from __future__ import annotations

import pytest

from modelyard.objectstore.access import Access, BadAccessList, Grants, Principal, clean_access_list, denial, may

OWNER = Principal("t", "owner")
SYSTEM = Principal("t", "api", is_system_account=True)
OTHER = Principal("u", "someone")


def grants(read: str | None = None, write: str | None = None) -> Grants:
    return Grants("t", "c", read, write, is_set=bool(read or write))


@pytest.mark.parametrize(
    ("principal", "read", "is_allowed"),
    [
        (OWNER, None, True),
        (OWNER, "u:x", True),
        (SYSTEM, None, True),
        (SYSTEM, "t:api", True),
        (SYSTEM, "t:*", True),
        (SYSTEM, "*:api", True),
        (SYSTEM, "*:*", True),
        (SYSTEM, "t", True),
        (SYSTEM, "t:other", False),
        (SYSTEM, "u:api", False),
        (SYSTEM, ".r:*", True),
        (OTHER, None, False),
        (OTHER, "u:someone", True),
        (OTHER, "t:*", False),
        (OTHER, "x:y,u:*", True),
        (None, None, False),
        (None, "*:*", False),
        (None, ".r:*", True),
    ],
)
def test_reading(principal: Principal | None, read: str | None, is_allowed: bool) -> None:
    assert may(principal, Access.READ, grants(read)) is is_allowed


def test_lists_are_separate() -> None:
    assert not may(SYSTEM, Access.WRITE, grants(read="t:api"))
    assert may(SYSTEM, Access.WRITE, grants(write="t:api"))
    assert not may(SYSTEM, Access.READ, grants(write="t:api"))
    assert not may(OTHER, Access.WRITE, grants(read=".r:*,*:*"))


def test_system_account_without_implicit_grants() -> None:
    assert not may(SYSTEM, Access.READ, grants(), implicit_system_grants=False)
    assert not may(Principal("u", "api", is_system_account=True), Access.READ, grants())


def test_listing_by_referrer_needs_its_own_word() -> None:
    assert not may(None, Access.READ, grants(".r:*"), is_listing=True)
    assert may(None, Access.READ, grants(".r:*,.rlistings"), is_listing=True)
    assert not may(None, Access.READ, grants(".rlistings"), is_listing=True)


def test_scopes_bind_even_owners() -> None:
    reader = Principal("t", "owner", scopes=frozenset({"objects:read"}))
    assert may(reader, Access.READ, grants())
    assert not may(reader, Access.WRITE, grants())
    assert "objects:write" in denial(reader, Access.WRITE, grants())
    assert not may(Principal("t", "owner", scopes=frozenset()), Access.READ, grants())


def test_denial_says_what_to_grant() -> None:
    said = denial(SYSTEM, Access.READ, grants())
    assert "read permission on container 'c' of AUTH_t" in said
    assert "'t:api' to X-Container-Read" in said


@pytest.mark.parametrize("text", [".bad:x", ".r:", ".r:-", ".r:."])
def test_bad_lists(text: str) -> None:
    with pytest.raises(BadAccessList):
        clean_access_list("X-Container-Read", text)
    with pytest.raises(BadAccessList):
        clean_access_list("X-Container-Write", ".r:*")
