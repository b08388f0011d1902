"""The door on a real socket, before a model of a few lines that sleeps when it is told to."""

from __future__ import annotations

import asyncio
import json
import socket as unix_socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from modelyard.serving.batching import BatchedTensors
from modelyard.serving.config import ServingConfig
from modelyard.serving.contract import Signature, Tensors, TensorSpec
from modelyard.serving.desk import Desk
from modelyard.serving.door import Door
from modelyard.serving.errors import BadRequest
from modelyard.serving.http1 import Server
from modelyard.serving.inference_log import InferenceLog
from modelyard.serving.paths import ServedName
from modelyard.serving.service import TensorService

PREDICT = "/v1/models/m:predict"


class Doubler:
    """Doubles numbers; sleeps as many seconds as `wait` says; fails on negative numbers."""

    platform = "numpy"
    default_signature = "double"

    def __init__(self) -> None:
        inputs = (TensorSpec("x", "float32", (None,)), TensorSpec("wait", "float32", (None,)))
        self.signatures = {"double": Signature("double", inputs, (TensorSpec("y", "float32", (None,)),))}
        self.threads: set[str] = set()

    def predict(self, signature: Signature, inputs: Tensors) -> Tensors:
        self.threads.add(threading.current_thread().name)
        wait = float(inputs["wait"].max())
        if wait:
            time.sleep(wait)
        if inputs["x"].min() == -1:
            raise ZeroDivisionError("minus one")
        if inputs["x"].min() == -2:
            raise BadRequest("not minus two")
        return {"y": inputs["x"] * np.float32(2)}

    def close(self) -> None:
        self.threads.clear()


class Shop:
    def __init__(self, client: httpx.AsyncClient, door: Door, desk: Desk, model: Doubler) -> None:
        self.client, self.door, self.desk, self.model = client, door, desk, model

    async def ask(self, x: float = 1, wait: float = 0) -> httpx.Response:
        return await self.client.post(PREDICT, json={"instances": [{"x": x, "wait": wait}]})


@pytest.fixture
async def open_shop(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def start(
            *,
            is_loaded: bool = True,
            threads: int = 1,
            may_be_done_here: bool = False,
            log: InferenceLog | None = None,
            **settings: Any,
        ) -> Shop:
            shop = _shop(tmp_path / "s.sock", is_loaded, threads, may_be_done_here, log, settings)
            return await stack.enter_async_context(shop)

        yield start


@asynccontextmanager
async def _shop(
    socket: Path,
    is_loaded: bool,
    threads: int,
    may_be_done_here: bool,
    log: InferenceLog | None,
    settings: dict[str, Any],
) -> AsyncIterator[Shop]:
    config = ServingConfig("/nowhere", "m", **settings)
    desk = Desk(queue_size=config.queue_size, deadline_seconds=config.deadline_seconds)
    desk.open(threads, may_be_done_here=may_be_done_here)
    door, model = Door(config, desk, log), Doubler()
    if is_loaded:
        runtime = BatchedTensors(model, config, lambda: desk.in_flight) if config.max_batch_size > 1 else model
        door.open(TensorService(runtime, ServedName("m", "1")))
    listener = unix_socket.socket(unix_socket.AF_UNIX)
    listener.bind(str(socket))
    server = Server(door)
    await server.listen(listener, backlog=100)
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://m", timeout=20) as client:
        yield Shop(client, door, desk, model)
    server.stop()
    await server.wait_closed()
    desk.close()


async def test_predictions_and_metrics(open_shop: Any) -> None:
    shop = await open_shop()
    assert (await shop.ask(3)).json() == {"predictions": [6.0]}
    answer = await shop.ask(3)
    assert answer.headers["content-type"] == "application/json"
    assert (await shop.client.post(PREDICT, content=b"nope")).status_code == 400
    text = (await shop.client.get("/metrics")).text
    assert 'modelyard_serving_requests_total{model="m",code="200"} 2' in text
    assert 'modelyard_serving_requests_total{model="m",code="400"} 1' in text
    assert 'modelyard_serving_request_seconds_bucket{model="m",le="+Inf"} 3' in text
    assert 'modelyard_serving_ready{model="m"} 1' in text


async def test_a_v2_body_on_the_v1_path_is_answered_in_v2(open_shop: Any) -> None:
    shop = await open_shop()
    tensors = [
        {"name": name, "shape": [1], "datatype": "FP32", "data": [value]} for name, value in (("x", 4), ("wait", 0))
    ]
    outputs = (await shop.client.post(PREDICT, json={"inputs": tensors})).json()["outputs"]
    assert outputs == [{"name": "y", "datatype": "FP32", "shape": [1], "data": [8.0]}]


async def test_before_the_model_is_loaded(open_shop: Any) -> None:
    shop = await open_shop(is_loaded=False)
    for path, status in (
        ("/v2/health/live", 200),
        ("/", 200),
        ("/v1/models/m", 200),
        ("/v2/health/ready", 503),
        ("/v2/models/m/ready", 503),
        ("/v2/models/m", 503),
        ("/v1/models/m/metadata", 503),
    ):
        assert (await shop.client.get(path)).status_code == status, path
    answer = await shop.ask()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (await shop.client.get("/v1/models/m")).json()["model_version_status"][0]["state"] == "LOADING"


async def test_wrong_paths_and_methods(open_shop: Any) -> None:
    shop = await open_shop()
    lost = await shop.client.post("/inference", json={})
    assert lost.status_code == 404
    assert "/v1/models/m:predict" in lost.json()["error"]
    wrong = await shop.client.get(PREDICT)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


async def test_bodies_over_the_limit_are_refused(open_shop: Any) -> None:
    shop = await open_shop(max_body_bytes=1000)
    body = json.dumps({"instances": [{"x": 1, "wait": 0}]}).encode()
    assert (await shop.client.post(PREDICT, content=body + b" " * (1000 - len(body)))).status_code == 200
    assert (await shop.client.post(PREDICT, content=body + b" " * 1000)).status_code == 413

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    assert (await shop.client.post(PREDICT, content=chunks())).status_code == 413
    compressed = await shop.client.post(PREDICT, content=b"x", headers={"content-encoding": "gzip"})
    assert compressed.status_code == 415
    assert (await shop.ask()).status_code == 200


async def test_what_a_model_raises_is_told_and_logged(open_shop: Any, capfd: pytest.CaptureFixture[str]) -> None:
    shop = await open_shop()
    failed = await shop.ask(-1)
    assert (failed.status_code, failed.json()) == (500, {"error": "the model raised ZeroDivisionError: minus one"})
    assert "Traceback" in capfd.readouterr().err
    refused = await shop.ask(-2)
    assert refused.status_code == 400
    assert refused.json()["error"].startswith("not minus two. The signature 'double' wants 'x' float32 [*]")


async def test_a_full_queue_answers_429(open_shop: Any) -> None:
    shop = await open_shop(queue_size=2)
    first: list[asyncio.Task[Any]] = []
    for wait in (2.0, 0.0, 0.0):  # behind the first
        first.append(asyncio.create_task(shop.ask(wait=wait)))
        while shop.desk.in_flight < len(first):
            await asyncio.sleep(0.005)
    assert shop.desk.waiting == 2
    refused = await shop.ask()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert [answer.status_code for answer in await asyncio.gather(*first)] == [200, 200, 200]
    assert (await shop.ask()).status_code == 200


async def test_probes_are_answered_while_the_model_works(open_shop: Any) -> None:
    shop = await open_shop()
    slow = asyncio.create_task(shop.ask(wait=2.0))
    while not shop.desk.in_flight:
        await asyncio.sleep(0.005)
    assert (await shop.client.get("/v2/health/ready")).status_code == 200
    assert not slow.done()
    assert (await slow).status_code == 200


async def test_the_deadline_answers_504_and_a_stuck_model_is_not_ready(open_shop: Any) -> None:
    shop = await open_shop(deadline_seconds=0.2)
    answers = await asyncio.gather(shop.ask(wait=2.0), shop.ask(wait=0.0))
    assert [answer.status_code for answer in answers] == [504, 504]
    assert shop.desk.in_flight, "nobody has waited for the model"
    assert (await shop.client.get("/v2/health/ready")).status_code == 503
    deadline = time.monotonic() + 10
    while shop.desk.in_flight:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert (await shop.client.get("/v2/health/ready")).status_code == 200
    assert (await shop.ask()).status_code == 200


async def test_small_quick_requests_are_answered_without_a_thread(open_shop: Any) -> None:
    shop = await open_shop(may_be_done_here=True, threads=2)
    main = threading.current_thread().name
    for _ in range(200):
        assert (await shop.ask()).status_code == 200
        if main in shop.model.threads:
            break
    assert main in shop.model.threads
    shop.model.threads.clear()
    await shop.ask(wait=0.05)  # one slow answer sends the next ones to the threads again
    shop.model.threads.clear()
    await shop.ask()
    assert main not in shop.model.threads
    shop.model.threads.clear()
    large = {"instances": [{"x": 1, "wait": 0}] * 1000}
    assert (await shop.client.post(PREDICT, json=large)).status_code == 200
    assert main not in shop.model.threads


async def test_draining_says_not_ready_and_still_answers(open_shop: Any) -> None:
    shop = await open_shop()
    shop.door.drain()
    assert (await shop.client.get("/v2/health/ready")).status_code == 503
    answer = await shop.ask()
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")


async def test_every_inference_has_an_id(open_shop: Any) -> None:
    shop = await open_shop()
    ids = [(await shop.ask()).headers["x-inference-id"] for _ in range(3)]
    assert len(set(ids)) == 3
    refused = await shop.client.post(PREDICT, content=b"nope")
    assert refused.status_code == 400 and refused.headers["x-inference-id"]
    for given, is_kept in (("order-17:a.b_c", True), ("x" * 65, False), ("two words", False)):
        answer = await shop.client.post(PREDICT, content=b"nope", headers={"X-Inference-Id": given})
        assert (answer.headers["x-inference-id"] == given) is is_kept
    assert "x-inference-id" not in (await shop.client.get("/v2/health/ready")).headers


async def test_inferences_are_logged_with_their_id(open_shop: Any) -> None:
    written: list[bytes] = []
    log = InferenceLog(sample_rate=1.0, max_bytes=40, write=written.append)
    shop = await open_shop(log=log)
    first = await shop.ask(3)
    second = await shop.client.post(PREDICT, content=b"n" * 100)
    log.close()
    assert all(line.startswith(b"\x1e{") and line.endswith(b"}\n") and line.count(b"\n") == 1 for line in written)
    lines = [json.loads(line[1:]) for line in written]
    assert [line["action"] for line in lines] == ["Inference.Request", "Inference.Response"] * 2
    assert [line["inferenceId"] for line in lines] == [first.headers["x-inference-id"]] * 2 + [
        second.headers["x-inference-id"]
    ] * 2
    assert json.loads(lines[0]["body"]) == {"instances": [{"x": 3, "wait": 0}]}
    assert json.loads(lines[1]["body"]) == {"predictions": [6.0]}
    assert [line.get("status") for line in lines] == [None, 200, None, 400]
    assert [line["level"] for line in lines] == ["INFO", "INFO", "INFO", "WARNING"]
    assert lines[2]["body"] == "n" * 40 + "…"
    text = (await shop.client.get("/metrics")).text
    assert 'inference_log_lines_total{model="m"} 4' in text


async def test_a_log_that_can_not_be_written_holds_nobody_up(open_shop: Any) -> None:
    is_free = threading.Event()
    log = InferenceLog(sample_rate=1.0, max_bytes=100, write=lambda line: is_free.wait(30), queue_size=4)
    shop = await open_shop(log=log)
    try:
        for _ in range(20):
            assert (await shop.ask()).status_code == 200
        dropped = log.dropped_count
        assert dropped >= 40 - 4 - 1
        assert f'inference_log_dropped_total{{model="m"}} {dropped}' in (await shop.client.get("/metrics")).text
    finally:
        is_free.set()
        log.close()


async def test_requests_that_are_there_together_are_predicted_together(open_shop: Any) -> None:
    shop = await open_shop(threads=16, max_batch_size=8, max_batch_delay_ms=200.0, cpus=1)
    calls: list[int] = []
    predict = shop.model.predict

    def watched(signature: Signature, inputs: Tensors) -> Tensors:
        calls.append(len(inputs["x"]))
        return predict(signature, inputs)

    shop.model.predict = watched
    slow = asyncio.create_task(shop.ask(100, wait=0.3))  # what comes meanwhile has to wait, and goes together
    await asyncio.sleep(0.1)
    answers = await asyncio.gather(*(shop.ask(number) for number in range(12)))
    assert [answer.json()["predictions"] for answer in answers] == [[2.0 * number] for number in range(12)]
    assert (await slow).json() == {"predictions": [200.0]}
    assert calls[0] == 1 and sum(calls) == 13
    assert max(calls) <= 8 and len(calls) <= 5
    assert 'batched_rows_total{model="m"} 13' in (await shop.client.get("/metrics")).text


async def test_a_lone_caller_does_not_wait_for_a_batch(open_shop: Any) -> None:
    shop = await open_shop(threads=4, max_batch_size=8, max_batch_delay_ms=30_000.0, cpus=1)
    began = time.monotonic()
    for _ in range(3):
        assert (await shop.ask()).status_code == 200
    assert time.monotonic() - began < 30


async def test_a_bad_value_fails_alone(open_shop: Any) -> None:
    shop = await open_shop(threads=16, max_batch_size=8, max_batch_delay_ms=200.0, cpus=1)
    slow = asyncio.create_task(shop.ask(100, wait=0.3))
    await asyncio.sleep(0.1)
    answers = await asyncio.gather(*(shop.ask(number) for number in (1, -1, -2, 4)))
    assert [answer.status_code for answer in answers] == [200, 500, 400, 200]
    await slow


async def test_a_large_tensor_is_streamed_as_it_is(open_shop: Any) -> None:
    shop = await open_shop(max_body_bytes=100 * 2**20)
    values = np.arange(3_000_000, dtype="<f4")
    head = {
        "inputs": [
            {
                "name": "x",
                "shape": [len(values)],
                "datatype": "FP32",
                "parameters": {"binary_data_size": values.nbytes},
            },
            {"name": "wait", "shape": [1], "datatype": "FP32", "data": [0]},
        ],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(head).encode()
    answer = await shop.client.post(
        "/v2/models/m/infer",
        content=text + values.tobytes(),
        headers={"inference-header-content-length": str(len(text))},
    )
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    length = int(answer.headers["inference-header-content-length"])
    [output] = json.loads(answer.content[:length])["outputs"]
    assert output["shape"] == [3_000_000]
    assert np.array_equal(np.frombuffer(answer.content[length:], "<f4"), values * 2)
