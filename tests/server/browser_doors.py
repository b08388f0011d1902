"""The doors around signing in, behind a real Envoy, with a target that tells what reaches it. All of it is the product's but the target."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from modelyard.control.work import Lease, WorkQueue
from modelyard.db.engine import Database
from modelyard.gateway.backends.envoy.gateway import EnvoyGateway
from modelyard.gateway.backends.envoy.settings import EnvoySettings, ListenAddress
from modelyard.gateway.certificates import ensure_certificates
from modelyard.gateway.port import Route, Rule, Upstream
from modelyard.gateway.port import Target as Address
from modelyard.kit.ids import new_id
from modelyard.resources.projects.access import project_access
from modelyard.resources.projects.model import Project
from modelyard.resources.projects.service import ProjectKeys, Projects, new_project_keys
from modelyard.resources.projects.tokens import TokenSigner
from modelyard.resources.routes.model import AccessSpec, RouteSpec, RuleSpec, UpstreamSpec
from modelyard.resources.routes.reconciler import RouteReconciler
from modelyard.resources.routes.service import KIND, Routes
from modelyard.resources.sessions.access import Visits
from modelyard.resources.sessions.model import Opening, SessionLimits, Target
from modelyard.resources.sessions.origins import Origins
from modelyard.resources.sessions.router import create_admin_router, create_router
from modelyard.resources.sessions.service import Sessions
from modelyard.resources.users.service import Users
from modelyard.server import schema
from modelyard.server.doors.guard import ENTER, Guard
from modelyard.server.doors.sign_in import create_router as create_pages
from modelyard.server.problems import add_problem_handlers
from modelyard.server.workload_hosts import WorkloadHosts
from modelyard.testing.clock import ShiftedClock
from modelyard.testing.ports import free_port

PASSWORD = "correct horse battery staple"


@dataclass
class Notebooks:
    """Something to visit (`Openable`)."""

    projects: dict[str, str] = field(default_factory=dict)
    opening: Opening = field(default_factory=lambda: Opening(is_ready=True))

    async def find_target(self, id: str) -> Target | None:
        project = self.projects.get(id)
        return None if project is None else Target("notebook", id, project, "notebook '<b>iris</b>'")

    async def open_target(self, target: Target, actor: str) -> Opening:
        return self.opening


class Upstreams:
    """A target that tells as JSON what reached it, echoes WebSockets, and streams for ever at `/stream`."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = lines[0].split(" ")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)
                }
                self.requests.append(f"{method} {path}")
                if headers.get("upgrade") == "websocket":
                    writer.write(
                        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
                    )
                    while chunk := await reader.read(65536):
                        writer.write(chunk)
                    return
                if path == "/stream":
                    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                    while True:
                        writer.write(b"1\r\nx\r\n")
                        await writer.drain()
                        await asyncio.sleep(0.1)
                await reader.readexactly(int(headers.get("content-length", "0")))
                content = json.dumps({"path": path, "headers": headers}).encode()
                length = f"content-length: {len(content)}\r\n\r\n".encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + length + content)
        except (EOFError, OSError):
            pass
        finally:
            writer.close()


@dataclass
class Doors:
    """All that there is, and short ways to do things."""

    port: int
    https_port: int
    database: Database
    clock: ShiftedClock
    users: Users
    projects: Projects
    sessions: Sessions
    visits: Visits
    routes: Routes
    gateway: EnvoyGateway
    queue: WorkQueue
    notebooks: Notebooks
    upstream: Upstreams
    upstream_socket: Path
    origins: Origins
    project: Project
    keys: ProjectKeys
    ann: str
    """The id of the user `ann`, a member of the project, and an admin; her password is `PASSWORD`."""

    @property
    def main(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def browser(self) -> httpx.AsyncClient:
        """A client with a cookie jar, which resolves `*.localhost` as browsers do."""
        return httpx.AsyncClient(transport=_Loopback(), timeout=20, headers={"accept": "text/html"})

    async def add_notebook(self, project_id: str | None = None) -> str:
        """Something to visit, with its guarded route. Its id."""
        id = new_id()
        project_id = project_id or self.project.id
        self.notebooks.projects[id] = project_id
        place = self.origins.place("notebook", id)
        spec = RouteSpec(
            owner_kind="notebook",
            owner_id=id,
            title="notebook",
            prefix=place.prefix,
            host=place.host,
            rules=(RuleSpec(path="/", upstreams=("main",), is_prefix=True),),
            upstreams=(UpstreamSpec(name="main", addresses=(str(self.upstream_socket),)),),
            timeout_seconds=0.0,
            access=AccessSpec(project_id=project_id, kind="notebook", target_id=id),
        )
        async with self.database.write() as session:
            await self.routes.put(session, id, project_id, spec, actor="test")
        await self.reconcile_routes()
        return id

    async def reconcile_routes(self) -> None:
        reconciler = RouteReconciler(self.database, self.gateway)
        while items := await self.queue.claim([KIND], 5):
            for item in items:
                await reconciler.reconcile(item.key, Lease(item))
                await self.queue.finish(item)

    def url(self, id: str, path: str = "/") -> str:
        return self.origins.url("notebook", id, path)

    async def sign_in(
        self, browser: httpx.AsyncClient, name: str = "ann", password: str = PASSWORD, next: str = "/"
    ) -> httpx.Response:
        """Fill in the form."""
        page = await browser.get(f"{self.main}/sign-in", params={"next": next})
        token = re.search(r'name="form" value="([^"]*)"', page.text)
        fields = {"form": token.group(1) if token else "", "name": name, "password": password, "next": next}
        return await browser.post(f"{self.main}/sign-in", data=fields)

    async def visiting(self, id: str, name: str = "ann") -> httpx.AsyncClient:
        """A browser whose user has signed in and opened the notebook."""
        browser = self.browser()
        assert (await self.sign_in(browser, name)).status_code == 303
        seen = await browser.get(self.url(id, "/lab"), follow_redirects=True)
        assert (seen.status_code, seen.json()["path"]) == (200, "/lab"), seen.text
        return browser

    async def websocket(self, id: str, *headers: str) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
        """Ask for a WebSocket; the status line, and the connection."""
        host = self.url(id).partition("://")[2].rstrip("/")
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = "".join(f"{header}\r\n" for header in headers)
        writer.write(
            f"GET /ws HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            f"sec-websocket-version: 13\r\nsec-websocket-key: eHh4eHh4eHh4eHh4eHh4eA==\r\n{lines}\r\n".encode()
        )
        async with asyncio.timeout(20):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        return head.split("\r\n")[0].removeprefix("HTTP/1.1 "), reader, writer


class _Loopback(httpx.AsyncBaseTransport):
    """Resolves every name below localhost to this machine, as browsers do (RFC 6761, section 6.3)."""

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport(verify=False)  # its own certificate, looked at elsewhere

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host.endswith(".localhost"):
            request = httpx.Request(
                request.method,
                request.url.copy_with(host="127.0.0.1"),
                headers=request.headers,  # the host's name among them
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": request.url.host},
            )
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def make_doors(
    tmp_path: Path, stack: AsyncExitStack, *, is_by_path: bool = False, database_url: str | None = None
) -> Doors:
    """Everything, ended with the stack."""
    http, https = free_port(), free_port()
    origins = Origins(f"http://127.0.0.1:{http}", f"https://127.0.0.1:{https}", is_by_path=is_by_path)
    clock = ShiftedClock()
    database = Database(database_url or f"sqlite+aiosqlite:///{tmp_path}/doors.db")
    stack.push_async_callback(database.close)
    async with database.engine.begin() as connection:
        for metadata in schema.all_metadata():
            await connection.run_sync(metadata.create_all)
    certificates = ensure_certificates(tmp_path / "tls", origins.certificate_names)
    gateway = EnvoyGateway(
        EnvoySettings(
            tmp_path / "gw",
            http=(ListenAddress(port=http),),
            https=(ListenAddress(port=https),),
            worker_count=1,
            certificate=certificates.certificate,
            key=certificates.key,
            guards=(tmp_path / "guard.sock",),
        )
    )
    projects = Projects(database, TokenSigner(b"k" * 32), clock, is_alive=_lives)
    users, routes = Users(database, clock), Routes(gateway)
    sessions = Sessions(database, users, projects, SessionLimits(), clock)
    visits = Visits(database, sessions, projects, routes, clock)
    notebooks = Notebooks()
    visits.targets["notebook"] = notebooks
    ann = await users.ensure("ann", PASSWORD, is_admin=True)
    keys = new_project_keys()
    project = await projects.ensure("iris", keys, member_id=ann.id)
    app = FastAPI()
    add_problem_handlers(app)
    app.include_router(create_router(visits, origins, project_access(projects), enter=ENTER))
    app.include_router(create_admin_router(sessions))
    app.include_router(create_pages(sessions, visits, origins))
    app.add_middleware(WorkloadHosts, origins=origins)
    for application, name in ((app, "server"), (Guard(visits, origins), "guard")):
        await _listen(application, tmp_path / f"{name}.sock", stack)
    upstream = Upstreams()
    target = await asyncio.start_unix_server(upstream.serve, tmp_path / "target.sock")
    stack.callback(target.close)
    await gateway.start()
    stack.push_async_callback(gateway.stop)
    own = Upstream("main", (Address(str(tmp_path / "server.sock")),))
    await gateway.put_route(Route("platform", "", (Rule("/", ("main",), is_prefix=True),), (own,)))
    return Doors(
        http,
        https,
        database,
        clock,
        users,
        projects,
        sessions,
        visits,
        routes,
        gateway,
        WorkQueue(database, "test"),
        notebooks,
        upstream,
        tmp_path / "target.sock",
        origins,
        project,
        keys,
        ann.id,
    )


async def _listen(application: Any, path: Path, stack: AsyncExitStack) -> None:
    config = uvicorn.Config(application, uds=str(path), log_config=None, lifespan="off", ws="none", proxy_headers=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())

    async def stop() -> None:
        server.should_exit = True
        await serving

    stack.push_async_callback(stop)
    while not server.started:
        await asyncio.sleep(0.01)


async def _lives(_workload_id: str) -> bool:
    return True
