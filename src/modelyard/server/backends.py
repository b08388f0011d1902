"""Chooses and makes the backends of the ports from the settings. The only module that knows them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from modelyard.compute.backends.local.backend import LocalCompute
from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.db.engine import Database
from modelyard.easymaker import object_store_hosts, vendor_hosts
from modelyard.gateway.backends.envoy.gateway import EnvoyGateway
from modelyard.gateway.backends.envoy.settings import EnvoySettings, ListenAddress
from modelyard.gateway.certificates import CertificateFiles, OwnCertificate, ensure_certificates
from modelyard.logstore.backends.tantivy.store import TantivyLogs
from modelyard.objectstore.backends.local.blobs import open_blobs
from modelyard.objectstore.backends.local.port import LocalObjects
from modelyard.objectstore.backends.local.store import LocalStore
from modelyard.objectstore.hosts import RemoteStore, StoreHosts
from modelyard.objectstore.port import ObjectStore
from modelyard.resources.sessions.origins import Origins, Scheme
from modelyard.server.home import Home, remember_door_hosts
from modelyard.server.local_compute import make_compute
from modelyard.server.settings import RemoteStoreGroup, Settings


@runtime_checkable
class Closes(Protocol):
    """A store that holds connections."""

    async def close(self) -> None:
        """Close them."""
        ...


@dataclass(frozen=True, slots=True)
class Backends:
    """The outside worlds of one installation."""

    compute: LocalCompute
    environments: EnvironmentStore
    gateway: EnvoyGateway
    objects: LocalStore
    hosts: StoreHosts
    logs: TantivyLogs
    certificates: CertificateFiles
    origins: Origins
    closable: tuple[Closes, ...] = ()


def make_gateway(home: Home, settings: Settings, server_count: int = 1) -> tuple[EnvoyGateway, CertificateFiles]:
    """Envoy, with a certificate that is good. Raises `CertificateUnusable`."""
    certificates = renew_certificates(home, settings)
    gateway = EnvoyGateway(
        EnvoySettings(
            directory=home.gateway,
            http=(ListenAddress(settings.host, settings.http_port),),
            https=(ListenAddress(settings.host, settings.https_port),),
            certificate=certificates.certificate,
            key=certificates.key,
            guards=tuple(home.guard_socket(index) for index in range(server_count)),
            foreign_sockets=home.compute,
            trusted_proxy_count=settings.gateway.trusted_proxies,
            tunnel_names=vendor_hosts(settings.region) if certificates.authority is not None else (),
        )
    )
    return gateway, certificates


def make_origins(settings: Settings) -> Origins:
    """Where browsers find things."""
    group = settings.access
    is_local = settings.host in ("127.0.0.1", "::1", "localhost")
    usual: Scheme = "http" if (group.main_url or ("http:" if is_local else "https:")).startswith("http:") else "https"
    return Origins(
        http=group.main_url or settings.http_url,
        https=group.main_url or settings.https_url,
        usual=usual,
        domain=group.workload_domain,
        is_by_path=group.workloads_on_main_origin,
    )


def renew_certificates(home: Home, settings: Settings) -> CertificateFiles:
    """The certificate that is good now: the user's own, checked, or the platform's, renewed where needed. Raises `CertificateUnusable`."""
    own = None
    if settings.gateway.certificate is not None and settings.gateway.key is not None:
        own = OwnCertificate(settings.gateway.certificate, settings.gateway.key)
    names = (
        *settings.gateway.names,
        settings.door_host,
        *make_origins(settings).certificate_names,
        *vendor_hosts(settings.region),
    )
    return ensure_certificates(home.certificates, names, own)


def make_backends(
    home: Home, settings: Settings, database: Database, *, is_log_reader: bool = False, server_count: int = 1
) -> Backends:
    """All of them. Only one process may write the logs; the others open them as readers."""
    compute, environments = make_compute(home, settings)
    gateway, certificates = make_gateway(home, settings, server_count)
    objects = LocalStore(database, open_blobs(settings.objectstore.url or str(home.objects)))
    own = LocalObjects(objects, implicit_system_grants=settings.objectstore.implicit_system_grants)
    remotes = {group.host.lower(): _remote(group) for group in settings.objectstore.remotes}
    own_names = remember_door_hosts(home, own_hosts(settings)) | _names_of_the_vendor(settings, remotes)
    hosts = StoreHosts(own, own_names, remotes)
    return Backends(
        compute,
        environments,
        gateway,
        objects,
        hosts,
        TantivyLogs(home.log_store, is_reader=is_log_reader),
        certificates,
        make_origins(settings),
        tuple(remote.store for remote in remotes.values() if isinstance(remote.store, Closes)),
    )


def own_hosts(settings: Settings) -> frozenset[str]:
    """Every name, with either port and without, under which the front door is reached."""
    names = {"127.0.0.1", "localhost", "[::1]", settings.door_host, *settings.gateway.names}
    if settings.gateway.public_host:
        names.add(settings.gateway.public_host)
    ports = (settings.http_port, settings.https_port)
    return frozenset({*names, *(f"{name}:{port}" for name in names for port in ports)})


def _names_of_the_vendor(settings: Settings, remotes: Mapping[str, RemoteStore]) -> frozenset[str]:
    """The vendor's object store in scripts means ours, unless an admin has really connected it. Not remembered, since that may change."""
    names = {f"{name}{port}" for name in object_store_hosts(settings.region) for port in ("", ":443")}
    return frozenset(names - remotes.keys())


def _remote(group: RemoteStoreGroup) -> RemoteStore:
    return RemoteStore(
        host=group.host.lower(),
        store=_remote_store(group),
        tenants=frozenset(group.tenants) if group.tenants else None,
        is_read_only=group.is_read_only,
    )


def _remote_store(group: RemoteStoreGroup) -> ObjectStore:
    """Clients of remote stores are loaded only where one is configured: they would cost every start a tenth of a second."""
    if group.kind == "s3":
        from modelyard.objectstore.backends.s3.store import S3Credentials, S3Store  # noqa: PLC0415  # see above

        return S3Store(
            S3Credentials(
                endpoint=group.url or f"https://{group.host}",
                access_key_id=group.user or "",
                secret_access_key=group.password or "",
            )
        )
    from modelyard.objectstore.backends.swift.keystone import SwiftCredentials  # noqa: PLC0415  # see above
    from modelyard.objectstore.backends.swift.store import SwiftStore  # noqa: PLC0415  # see above

    credentials = SwiftCredentials(
        auth_url=group.auth_url or f"https://{group.host}/v2.0", user=group.user or "", password=group.password or ""
    )
    is_plain = (group.url or "").startswith("http://")
    return SwiftStore(group.host, credentials, scheme="http" if is_plain else "https")
