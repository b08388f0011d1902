"""The object store's front door: the dialect of OpenStack Swift over the own store, and a way through to remote stores.

Here a request is taken apart and passed to what answers it. Who the caller is is asked of the `authorize` that is given; where bytes and
rows are is the store's business.
"""

from __future__ import annotations

import json
import logging

from starlette.requests import ClientDisconnect, Request
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from modelyard.objectstore.backends.local.model import (
    MAX_META_COUNT,
    MAX_META_TOTAL,
    BlobMissing,
    BlobStoreFull,
    TooMuchMetadata,
)
from modelyard.objectstore.backends.local.store import LocalStore
from modelyard.objectstore.hosts import StoreHosts
from modelyard.server.doors import objects_headers, objects_static
from modelyard.server.doors.objects_answers import PLAIN, Answer, Refusal, refuse
from modelyard.server.doors.objects_bulk import answer_bulk_read, answer_bulk_write
from modelyard.server.doors.objects_containers import answer_account, answer_container
from modelyard.server.doors.objects_copy import answer_copy
from modelyard.server.doors.objects_read import answer_read
from modelyard.server.doors.objects_remote import answer_remote, is_remote
from modelyard.server.doors.objects_request import (
    MAX_ACCOUNT_NAME_BYTES,
    MAX_CONTAINER_NAME_BYTES,
    MAX_LISTING,
    MAX_OBJECT_NAME_BYTES,
    Authorize,
    DoorRequest,
    DoorSettings,
    check_names,
    method_not_allowed,
    options,
    parse_query,
    split_path,
    unauthorized,
)
from modelyard.server.doors.objects_static import answer_delete_manifest, answer_put_manifest
from modelyard.server.doors.objects_write import answer_delete, answer_post, answer_put

_log = logging.getLogger(__name__)

_OBJECT_METHODS = "GET, DELETE, OPTIONS, HEAD, POST, PUT, COPY"


class ObjectDoor:
    """An ASGI application for `/v1/…` and `/info`.

    `hosts` may be None where no remote stores are wanted.
    """

    def __init__(
        self,
        store: LocalStore,
        authorize: Authorize,
        *,
        hosts: StoreHosts | None = None,
        settings: DoorSettings | None = None,
    ) -> None:
        self._store = store
        self._authorize = authorize
        self._hosts = hosts
        self._settings = settings or DoorSettings()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except Refusal as refusal:
            answer = refusal.answer
        except ClientDisconnect:
            return
        except BlobStoreFull:
            answer = refuse(507).answer
        except TooMuchMetadata as error:
            answer = refuse(400, str(error), content_type=PLAIN).answer
        except BlobMissing:
            _log.exception("an object's bytes are missing: %s", scope["path"])
            answer = refuse(503).answer
        await answer.send(scope, receive, send)

    async def _answer(self, http: Request) -> Answer:
        raw_path: bytes = http.scope.get("raw_path") or http.scope["path"].encode()
        if raw_path.rstrip(b"/") == b"/info":
            return self._information()
        principal = None
        token = http.headers.get("x-auth-token") or http.headers.get("x-storage-token")
        if is_remote(raw_path):
            return await answer_remote(http, raw_path, await self._authorize(token), self._hosts)
        account, container, name = split_path(raw_path)
        if token:
            principal = await self._authorize(token)
            if principal is None:
                raise unauthorized(account)
        request = DoorRequest(
            http=http,
            store=self._store,
            settings=self._settings,
            principal=principal,
            account=account,
            container=container,
            name=name,
            query=parse_query(http.scope.get("query_string", b"")),
        )
        if http.method == "PUT" or http.method == "POST":
            check_names(account, container, name)
        if name:
            return await _answer_object(request)
        if container and http.method == "POST" and "bulk-read" in request.query:
            return await answer_bulk_read(request)
        if container and http.method == "POST" and "bulk-write" in request.query:
            return await answer_bulk_write(request)
        if container:
            return await answer_container(request)
        return await answer_account(request)

    def _information(self) -> Answer:
        told = {
            "swift": {
                "version": "2.38.0",
                "max_file_size": self._settings.max_object_bytes,
                "max_account_name_length": MAX_ACCOUNT_NAME_BYTES,
                "max_container_name_length": MAX_CONTAINER_NAME_BYTES,
                "max_object_name_length": MAX_OBJECT_NAME_BYTES,
                "account_listing_limit": MAX_LISTING,
                "container_listing_limit": MAX_LISTING,
                "max_meta_name_length": objects_headers.MAX_META_NAME,
                "max_meta_value_length": objects_headers.MAX_META_VALUE,
                "max_meta_count": MAX_META_COUNT,
                "max_meta_overall_size": MAX_META_TOTAL,
            },
            "slo": {
                "max_manifest_segments": objects_static.MAX_SEGMENTS,
                "max_manifest_size": objects_static.MAX_MANIFEST_BYTES,
                "min_segment_size": 1,
            },
            "dlo": {},
        }
        return Answer(200, [("Content-Type", "application/json; charset=UTF-8")], json.dumps(told).encode())


class ObjectRoute(BaseRoute):
    """Matches by the beginning of the path alone: object names may have characters that no path pattern takes."""

    def __init__(self, door: ObjectDoor) -> None:
        self.door = door

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the door answers this path."""
        if scope["type"] == "http" and (scope["path"] in {"/v1", "/info"} or scope["path"].startswith("/v1/")):
            return Match.FULL, {"endpoint": self.door}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self.door(scope, receive, send)


def object_routes(door: ObjectDoor) -> list[BaseRoute]:
    """What the application adds to its routes (`app.router.routes.extend(object_routes(door))`)."""
    return [ObjectRoute(door)]


async def _answer_object(request: DoorRequest) -> Answer:
    manifest = request.query.get("multipart-manifest")
    match request.method:
        case "GET" | "HEAD":
            return await answer_read(request)
        case "PUT":
            if "x-copy-from" in request.headers:
                return await answer_copy(request)
            return await (answer_put_manifest(request) if manifest == "put" else answer_put(request))
        case "COPY":
            return await answer_copy(request)
        case "POST":
            return await answer_post(request)
        case "DELETE":
            return await (answer_delete_manifest(request) if manifest == "delete" else answer_delete(request))
        case "OPTIONS":
            return options(_OBJECT_METHODS)
        case _:
            return method_not_allowed(_OBJECT_METHODS.removesuffix(", COPY"))
