"""Which store an `obs://` path belongs to: the allow-list.

A path's host is written by users, so it decides nothing by itself. The platform's own names lead to its own store, names that an admin
allowed lead to remote stores with the admin's credentials, and everything else is refused before a byte is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelyard.objectstore.paths import ObsPath
from modelyard.objectstore.port import ObjectStore, StoreRefused


@dataclass(frozen=True, slots=True)
class RemoteStore:
    """A store elsewhere that an admin has allowed.

    Attributes:
        host: as in `obs://` paths, with the port where there is one; lower case.
        store: speaks to it with the admin's credentials.
        tenants: accounts (without `AUTH_`) that may be reached there; None allows all that the credentials reach.
        project_ids: projects that may use it; None means all.
        is_read_only: refuse everything that writes.
    """

    host: str
    store: ObjectStore
    tenants: frozenset[str] | None = None
    project_ids: frozenset[str] | None = None
    is_read_only: bool = False


class HostNotAllowed(StoreRefused):
    """The path's host is neither the platform nor a store that an admin has allowed."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"The object store host '{host}' is not allowed. Use the platform's own object store, or ask an admin to allow this host."
        )
        self.host = host


class StoreHosts:
    """Finds the store of a path.

    `own_hosts` are the names under which the platform's front door is reached (with ports, and each also without).
    """

    def __init__(
        self, own: ObjectStore, own_hosts: frozenset[str], remotes: Mapping[str, RemoteStore] | None = None
    ) -> None:
        self.own = own
        self._own_hosts = frozenset(host.lower() for host in own_hosts)
        self._remotes = {host.lower(): remote for host, remote in (remotes or {}).items()}

    def is_own(self, path: ObsPath) -> bool:
        """Whether the path lies in the platform's own store."""
        return path.host in self._own_hosts

    def remote(self, host: str) -> RemoteStore:
        """The remote store of a host. Raises `HostNotAllowed`."""
        remote = self._remotes.get(host.lower())
        if remote is None:
            raise HostNotAllowed(host)
        return remote

    def find(self, path: ObsPath, *, project_id: str | None = None, is_write: bool = False) -> ObjectStore:
        """The store that keeps this path. Raises `HostNotAllowed` or `StoreRefused`."""
        if self.is_own(path):
            return self.own
        remote = self.remote(path.host)
        check_remote(remote, path.tenant, project_id=project_id, is_write=is_write)
        return remote.store

    def check(self, path: ObsPath, *, project_id: str | None = None, is_write: bool = False) -> None:
        """Raise unless the path may be used. Sends nothing."""
        self.find(path, project_id=project_id, is_write=is_write)

    def door_path(self, path: ObsPath) -> str:
        """Where workloads reach this path at the platform's own front door (percent-encoded, beginning with `/`)."""
        if self.is_own(path):
            return path.url_path
        self.remote(path.host)
        return f"/v1/remote/{path.host}{path.url_path}"


def check_remote(remote: RemoteStore, tenant: str, *, project_id: str | None, is_write: bool) -> None:
    """Raise `StoreRefused` unless a project may reach this account of a remote store."""
    if remote.project_ids is not None and project_id not in remote.project_ids:
        raise StoreRefused(
            f"The object store '{remote.host}' is not allowed for this project. Ask an admin to allow it."
        )
    if remote.tenants is not None and tenant not in remote.tenants:
        raise StoreRefused(
            f"The account 'AUTH_{tenant}' of the object store '{remote.host}' is not allowed. Ask an admin to allow it."
        )
    if is_write and remote.is_read_only:
        raise StoreRefused(f"The object store '{remote.host}' may only be read from.")
