"""Requests on accounts and on containers."""

from __future__ import annotations

from modelyard.objectstore.access import Access, Grants
from modelyard.objectstore.backends.local.model import Container, ContainerNotEmpty, NoSuchContainer
from modelyard.server.doors.objects_answers import HTML, Answer, Headers, refuse, standard
from modelyard.server.doors.objects_headers import container_change, http_date, metadata_headers, timestamp
from modelyard.server.doors.objects_listings import (
    account_listing,
    container_listing,
    empty_listing,
    listing_format,
    listing_request,
)
from modelyard.server.doors.objects_request import (
    MAX_BULK_NAMES,
    MAX_BULK_WRITE_BYTES,
    DoorRequest,
    method_not_allowed,
    options,
)

_ALLOWED = "GET, DELETE, OPTIONS, HEAD, POST, PUT"


async def answer_account(request: DoorRequest) -> Answer:
    """GET, HEAD and POST on an account. Accounts come with their tenants, so PUT and DELETE are forbidden."""
    match request.method:
        case "GET" | "HEAD":
            content_type = listing_format(request)
            request.demand_owner()
            return await _read_account(request, content_type)
        case "POST":
            request.demand_owner()
            await request.store.change_account(request.account, metadata_headers(request.headers, "Account"))
            return Answer(204, [("Content-Type", HTML)])
        case "PUT" | "DELETE":
            request.demand_owner()
            raise refuse(403)
        case "OPTIONS":
            return options(_ALLOWED)
        case _:
            return method_not_allowed(_ALLOWED)


async def answer_container(request: DoorRequest) -> Answer:
    """Everything on a container."""
    match request.method:
        case "GET" | "HEAD":
            return await _read_container(request)
        case "PUT":
            request.demand_owner()
            change = container_change(request.headers)
            is_created = await request.store.put_container(request.account, request.container, change)
            return Answer(201, [("Content-Type", HTML)]) if is_created else standard(202)
        case "POST":
            request.demand_owner()
            return await _change_container(request)
        case "DELETE":
            request.demand_owner()
            return await _delete_container(request)
        case "OPTIONS":
            return options(_ALLOWED)
        case _:
            return method_not_allowed(_ALLOWED)


async def find_home(request: DoorRequest, wanted: Access, *, is_listing: bool = False) -> Container | None:
    """The request's container if the caller may do this with it; None where it does not exist and the caller may know that."""
    try:
        home = await request.store.container(request.account, request.container)
    except NoSuchContainer:
        # Whoever is not the owner learns nothing about which containers exist.
        request.demand(wanted, Grants(request.tenant, request.container, is_set=True), is_listing=is_listing)
        return None
    request.demand(wanted, home.grants, is_listing=is_listing)
    return home


async def _read_account(request: DoorRequest, content_type: str) -> Answer:
    wanted = listing_request(request)
    account = await request.store.account(request.account)
    headers: Headers = [
        ("X-Account-Container-Count", str(account.container_count)),
        ("X-Account-Object-Count", str(account.object_count)),
        ("X-Account-Bytes-Used", str(account.bytes_used)),
        ("X-Timestamp", timestamp(account.created_at)),
        *account.headers.items(),
    ]
    if request.method == "HEAD":
        return empty_listing(request, content_type, headers)
    entries = await request.store.list_containers(request.account, wanted)
    return account_listing(request, content_type, headers, entries)


async def _read_container(request: DoorRequest) -> Answer:
    content_type = listing_format(request)
    home = await find_home(request, Access.READ, is_listing=True)
    if home is None:
        raise refuse(404)
    wanted = listing_request(request)
    headers: Headers = [
        ("X-Container-Object-Count", str(home.object_count)),
        ("X-Container-Bytes-Used", str(home.bytes_used)),
        ("X-Timestamp", timestamp(home.created_at)),
        ("Last-Modified", http_date(home.modified_at)),
        ("X-Bulk-Read", str(MAX_BULK_NAMES)),
        ("X-Bulk-Write", str(MAX_BULK_NAMES)),
        ("X-Bulk-Write-Bytes", str(MAX_BULK_WRITE_BYTES)),
        *home.headers.items(),
    ]
    if request.is_owner:
        headers += [("X-Container-Read", home.read_acl)] if home.read_acl else []
        headers += [("X-Container-Write", home.write_acl)] if home.write_acl else []
    if request.method == "HEAD":
        return empty_listing(request, content_type, headers)
    entries = await request.store.list_objects(home, wanted)
    return container_listing(request, content_type, headers, entries)


async def _change_container(request: DoorRequest) -> Answer:
    change = container_change(request.headers)
    try:
        await request.store.change_container(request.account, request.container, change)
    except NoSuchContainer:
        raise refuse(404) from None
    return Answer(204, [("Content-Type", HTML)])


async def _delete_container(request: DoorRequest) -> Answer:
    try:
        await request.store.delete_container(request.account, request.container)
    except NoSuchContainer:
        raise refuse(404) from None
    except ContainerNotEmpty:
        raise refuse(409) from None
    return Answer(204, [("Content-Type", HTML)])
