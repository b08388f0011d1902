"""The small HTTP client against answers of every shape, byte for byte."""

import io
import socket
import threading
import time

import pytest

from modelyard.runner.http1 import Connection, ProtocolBroken


@pytest.fixture
def serve():
    """Answer each request on one connection with the next of the given bytes, then close; the requests' heads and bodies are kept."""
    listeners = []

    def start(*answers: bytes, read_body: bool = True):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        received: list[bytes] = []

        def run() -> None:
            try:
                sock, _ = listener.accept()
            except OSError:  # closed before anybody asked
                return
            with sock:
                for answer in answers:
                    received.append(take(sock, read_body))
                    sock.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        return Connection("127.0.0.1", listener.getsockname()[1], is_tls=False, timeout_seconds=5), received

    yield start
    for listener in listeners:
        listener.close()


def take(sock: socket.socket, read_body: bool) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(4096)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    sizes = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    while read_body and sizes and len(body) < sizes[0]:
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


def answer(*lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode() + body


def test_two_answers_on_one_connection(serve) -> None:
    connection, received = serve(answer("Content-Length: 3", "X-A: 1", body=b"abc"), answer("Content-Length: 0"))
    first = connection.request("GET", "/a?b=c", {"X-Auth-Token": "t"})
    assert not connection.is_idle
    assert (first.status, first.headers["x-a"], first.read()) == (200, "1", b"abc")
    assert connection.is_idle
    assert connection.request("HEAD", "/b", {}).read() == b""
    assert received[0].startswith(b"GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"X-Auth-Token: t\r\n" in received[0]


def test_chunks_with_extensions_and_a_trailer(serve) -> None:
    body = b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n"
    connection, _ = serve(answer("Transfer-Encoding: chunked", body=body), answer("Content-Length: 1", body=b"z"))
    assert connection.request("GET", "/", {}).read() == b"abc0123456789"
    assert connection.is_idle
    assert connection.request("GET", "/", {}).read() == b"z"


def test_a_body_without_a_length_ends_with_the_connection(serve) -> None:
    connection, _ = serve(answer(body=b"all of it"))
    response = connection.request("GET", "/", {})
    assert response.read() == b"all of it"
    assert not connection.is_idle


def test_interim_answers_are_passed_over(serve) -> None:
    connection, _ = serve(b"HTTP/1.1 100 Continue\r\n\r\n" + answer("Content-Length: 2", body=b"ok"))
    assert connection.request("GET", "/", {}).read() == b"ok"


@pytest.mark.parametrize(
    ("status", "method"), [("204 No Content", "DELETE"), ("304 Not Modified", "GET"), ("200 OK", "HEAD")]
)
def test_answers_without_a_body(serve, status, method) -> None:
    length = "" if status.startswith("204") else "Content-Length: 5\r\n"
    connection, _ = serve(f"HTTP/1.1 {status}\r\n{length}\r\n".encode())
    assert connection.request(method, "/", {}).read() == b""
    assert connection.is_idle


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nConnection: close\r\n", b"HTTP/1.0 200 OK\r\n"])
def test_who_wants_to_close_is_not_used_again(serve, head) -> None:
    connection, _ = serve(head + b"Content-Length: 1\r\n\r\nx")
    assert connection.request("GET", "/", {}).read() == b"x"
    assert not connection.is_idle


@pytest.mark.parametrize(
    "broken",
    [
        answer("Content-Length: 10", body=b"only"),
        answer("Transfer-Encoding: chunked", body=b"A\r\nonly"),
        answer("Transfer-Encoding: chunked", body=b"3\r\nabcXX"),
        answer("Transfer-Encoding: chunked", body=b"zz\r\n"),
        answer("Transfer-Encoding: chunked", body=b"3\r\nabc\r\n"),
    ],
)
def test_a_body_that_breaks_off_is_an_error(serve, broken) -> None:
    connection, _ = serve(broken)
    with pytest.raises(ProtocolBroken):
        connection.request("GET", "/", {}).read()


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70000 + b"\r\n\r\n",
    ],
)
def test_what_is_not_an_answer_is_an_error(serve, broken) -> None:
    connection, _ = serve(broken)
    with pytest.raises(ProtocolBroken):
        connection.request("GET", "/", {})


def test_an_early_refusal_of_a_large_body_is_read(serve) -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"
    connection, _ = serve(refusal, read_body=False)
    size = 50_000_000
    response = connection.request("PUT", "/", {}, io.BytesIO(bytes(size)), size)
    assert response.status == 413
    assert not connection.is_idle


def test_an_empty_body_says_so(serve) -> None:
    connection, received = serve(answer("Content-Length: 0"))
    connection.request("PUT", "/", {}).read()
    assert b"Content-Length: 0\r\n" in received[0]


def test_a_header_cannot_smuggle_a_second_one(serve) -> None:
    connection, _ = serve()
    with pytest.raises(ValueError, match="line break"):
        connection.request("GET", "/", {"X-Auth-Token": "a\r\nX-Other: b"})


def test_silence_ends_with_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection("127.0.0.1", listener.getsockname()[1], is_tls=False, timeout_seconds=0.3)
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            connection.request("GET", "/", {})
        assert time.monotonic() - begun < 30
