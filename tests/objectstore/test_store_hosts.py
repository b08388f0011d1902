"""The allow-list of hosts: nothing is sent to a store that nobody allowed."""

from __future__ import annotations

from typing import Any, cast

import pytest

from modelyard.objectstore.hosts import HostNotAllowed, RemoteStore, StoreHosts
from modelyard.objectstore.paths import parse_obs_path
from modelyard.objectstore.port import ObjectStore, StoreRefused

OWN, REMOTE = cast("ObjectStore", object()), cast("ObjectStore", object())


def hosts(**limits: Any) -> StoreHosts:
    remote = RemoteStore("s3.example.org:9000", REMOTE, **limits)
    return StoreHosts(OWN, frozenset({"localhost:10443", "localhost"}), {remote.host: remote})


def path(host: str, tenant: str = "t") -> Any:
    return parse_obs_path(f"obs://{host}/v1/AUTH_{tenant}/c/o")


def test_own_names_lead_to_the_own_store() -> None:
    assert hosts().find(path("localhost:10443")) is OWN
    assert hosts().find(path("LOCALHOST")) is OWN
    assert hosts().door_path(path("localhost")) == "/v1/AUTH_t/c/o"


def test_allowed_hosts_lead_to_their_stores() -> None:
    assert hosts().find(path("s3.example.org:9000")) is REMOTE
    assert hosts().door_path(path("s3.example.org:9000")) == "/v1/remote/s3.example.org:9000/v1/AUTH_t/c/o"


@pytest.mark.parametrize(
    "host", ["s3.example.org", "s3.example.org:9001", "169.254.169.254", "localhost:1", "evil.org"]
)
def test_other_hosts_are_refused(host: str) -> None:
    with pytest.raises(HostNotAllowed, match="is not allowed"):
        hosts().find(path(host))
    with pytest.raises(HostNotAllowed):
        hosts().door_path(path(host))


def test_limits_of_a_remote_store() -> None:
    where = path("s3.example.org:9000")
    limited = hosts(project_ids=frozenset({"p1"}))
    assert limited.find(where, project_id="p1") is REMOTE
    with pytest.raises(StoreRefused, match="for this project"):
        limited.find(where, project_id="p2")
    with pytest.raises(StoreRefused, match="AUTH_t"):
        hosts(tenants=frozenset({"other"})).find(where)
    with pytest.raises(StoreRefused, match="only be read"):
        hosts(is_read_only=True).find(where, is_write=True)
    assert hosts(is_read_only=True).find(where) is REMOTE
