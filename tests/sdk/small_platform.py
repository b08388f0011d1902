"""A small platform in the test's own process: the real wire shapes over real sockets, with resources that live in dictionaries.

It stands in for the whole server where the SDK's and the command line's own manners are tested (retries, errors, waiting, tables). The
journeys run the same clients against the real one.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from modelyard.kit.backoff import Backoff
from modelyard.kit.ids import new_id
from modelyard.resources.endpoints.schemas import (
    EndpointCreate,
    EndpointModelOut,
    EndpointModelStage,
    EndpointOut,
    EndpointStageCreate,
    EndpointStageOut,
)
from modelyard.resources.experiments.schemas import ExperimentCreate, ExperimentOut
from modelyard.resources.flavors.schemas import FlavorOut
from modelyard.resources.images.schemas import ImageOut
from modelyard.resources.logs.schemas import EventOut
from modelyard.resources.models.schemas import ModelCreate, ModelOut, ModelTraining, ServingOptions
from modelyard.resources.storages.schemas import NasVolumeCreate, NasVolumeOut
from modelyard.resources.trainings.schemas import StorageOut, TrainingCreate, TrainingOut
from modelyard.sdk.api import Patience
from modelyard.wire import Wire

APP_KEY = "app-key"
TOKEN = "token"
TENANT = "tenant"
QUICK = Patience(seconds=5.0, first_seconds=0.5, backoff=Backoff(base_seconds=0.01, limit_seconds=0.05))
IMAGE_NAME = "Ubuntu 22.04 CPU TensorFlow Training"
OUTPUT = "".join(f"line {number} — ü\n" for number in range(40))
COLLECTIONS = {
    "experiments": ("experiment", "experimentList"),
    "trainings": ("training", "trainingList"),
    "models": ("model", "modelList"),
    "endpoints": ("endpoint", "endpointList"),
    "endpoint-stages": ("endpointStage", "endpointStageList"),
    "endpoint-models": ("endpointModel", "endpointModelList"),
    "nas-volumes": ("nasVolume", "nasVolumeList"),
    "images": ("image", "imageList"),
    "flavors": ("flavor", "flavorList"),
}


class Refused(Exception):
    """Becomes an error envelope."""

    def __init__(self, status: int, message: str, faults: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.faults = status, message, faults or []


class SmallPlatform:
    """The state, and one method a request. `refusals` holds statuses that the next calls are answered with, whatever they ask."""

    def __init__(self) -> None:
        self.url = ""
        self.refusals: list[int] = []
        self.calls: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.made: dict[str, tuple[bytes, Response]] = {}
        self.objects: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, list[dict[str, Any]]] = {}
        self.corrupt: set[str] = set()
        self.items: dict[str, dict[str, Any]] = {name: {} for name in COLLECTIONS}
        self.coming: dict[str, list[dict[str, Any]]] = {}
        self._add("flavors", FlavorOut(id="m2.c2m4", name="m2.c2m4", vcpus=2, ram=4096, disk=20))
        self._add("flavors", FlavorOut(id=new_id(), name="m2.c4m8", vcpus=4, ram=8192, disk=20))
        for name, framework in ((IMAGE_NAME, "TENSORFLOW"), ("Ubuntu 22.04 CPU PyTorch Training", "PYTORCH")):
            self._add("images", image_out(name, framework))

    def app(self) -> Starlette:
        routes = [
            Route(f"/v1.0/appkeys/{APP_KEY}/{{path:path}}", self.api, methods=["GET", "POST", "PUT", "DELETE"]),
            Route("/v1/AUTH_{tenant}", self.account),
            Route("/v1/AUTH_{tenant}/{container}", self.container, methods=["GET", "PUT", "HEAD", "DELETE"]),
            Route("/v1/AUTH_{tenant}/{container}/{name:path}", self.object, methods=["GET", "PUT", "HEAD", "DELETE"]),
            Route("/serve/inference", self.infer, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={Refused: refused_answer})

    async def api(self, request: Request) -> Response:
        path = request.path_params["path"]
        self.calls.append((request.method, path))
        self.headers.append(dict(request.headers))
        if self.refusals:
            raise Refused(self.refusals.pop(0), "try again")
        if request.headers.get("x-nhn-authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "the access token is not valid")
        key = request.headers.get("idempotency-key")
        body = await request.body()
        if key in self.made:
            asked, answer = self.made[key]
            if asked != path.encode() + body:
                raise Refused(409, f"the Idempotency-Key '{key}' was used for another request")
            return answer
        answer = self._api(request, path.split("/"), json.loads(body or b"{}"))
        if key is not None:
            self.made[key] = (path.encode() + body, answer)
        return answer

    def _api(self, request: Request, parts: list[str], body: dict[str, Any]) -> Response:
        query = request.query_params
        if parts == ["storage-account"]:
            url = f"{self.url}/v1/AUTH_{TENANT}"
            account = {"tenantId": TENANT, "apiUserId": "api-user", "objectStoreUrl": url}
            return good({"storageAccount": account})
        if parts == ["logs"]:
            return self._search(request)
        kind = parts[0]
        if kind not in COLLECTIONS:
            raise Refused(404, f"no such path {parts}")
        one, many = COLLECTIONS[kind]
        if len(parts) == 1 and request.method == "GET":
            return good({many: (page := self._listed(kind, request))[0], "paging": page[1]})
        if len(parts) == 1:
            return good({one: self._create(kind, body)})
        item = self.items[kind].get(parts[1])
        if item is None:
            raise Refused(404, f"{one} '{parts[1]}' not found")
        action = parts[2] if len(parts) > 2 else ""
        if action == "logs":
            start = int(query.get("offset", "0"))
            raw = OUTPUT.encode()[start : start + 100].decode(errors="ignore").encode()
            end = start + len(raw)
            output = {"text": raw.decode(), "offset": start, "nextOffset": end, "isEnd": end >= len(OUTPUT.encode())}
            return good({"output": output})
        if action == "events":
            event = EventOut(time=datetime.now(UTC), actor="user", new_status_code="CREATE_REQUESTED")
            return good({"eventList": [wire(event)]})
        if action == "stop":
            item["trainingStatusCode"] = "STOPPED"
            return good({})
        if request.method == "DELETE" and kind == "endpoints" and item["endpointStatusCode"] == "ACTIVE":
            self.coming[parts[1]] = [{"endpointStatusCode": "DELETE_IN_PROGRESS"}] * 2
            item["endpointStatusCode"] = "DELETE_IN_PROGRESS"
            return good({})
        if request.method == "DELETE":
            del self.items[kind][parts[1]]
            return good({})
        if request.method == "PUT":
            item.update(body)
        if request.method == "GET" and self.coming.get(parts[1]):
            item.update(self.coming[parts[1]].pop(0))
        elif item.get("endpointStatusCode") == "DELETE_IN_PROGRESS":
            del self.items[kind][parts[1]]
            raise Refused(404, "the endpoint is gone")
        if action == "build":
            item["imageStatusCode"] = "READY"
        return good({one: item})

    def _listed(self, kind: str, request: Request) -> tuple[list[Any], dict[str, Any]]:
        found = list(self.items[kind].values())
        query = request.query_params
        for name in ("experimentId", "endpointId", "endpointStageId"):
            if query.get(name):
                found = [
                    item for item in found if query[name] in {item.get(name), item.get("experiment", {}).get("id")}
                ]
        names = [value for key in query for value in query.getlist(key) if key.endswith("NameList")]
        names = names[0].split(",") if len(names) == 1 else names
        found = [item for item in found if not names or item["name"] in names]
        page, limit = int(query.get("page", "1")), int(query.get("limit", "0"))
        part = found[(page - 1) * limit : page * limit] if limit else found
        part = [{name: value for name, value in item.items() if name != "lastLogLines"} for item in part]
        return part, {"totalCount": len(found), "page": page, "limit": limit or None}

    def _create(self, kind: str, body: dict[str, Any]) -> Any:
        shapes = {
            "experiments": (ExperimentCreate, experiment_out),
            "trainings": (TrainingCreate, self._training_out),
            "models": (ModelCreate, self._model_out),
            "endpoints": (EndpointCreate, self._endpoint_out),
            "endpoint-stages": (EndpointStageCreate, self._stage_out),
            "nas-volumes": (NasVolumeCreate, volume_out),
        }
        shape, make = shapes[kind]
        try:
            made = make(shape.model_validate(body))
        except ValidationError as error:
            faults = [{"field": str(item["loc"][0]), "message": item["msg"]} for item in error.errors()]
            raise Refused(400, "the request has wrong values", faults) from error
        if kind != "endpoint-stages" and any(item["name"] == made.name for item in self.items[kind].values()):
            raise Refused(409, f"the name '{made.name}' is taken")
        return self._add(kind, made)

    def _training_out(self, body: TrainingCreate) -> TrainingOut:
        id = new_id()
        if body.entry_point == "missing.py":
            raise Refused(400, "wrong", [{"field": "entryPoint", "message": "there is no missing.py in the source"}])
        end: dict[str, Any] = {"trainingStatusCode": "COMPLETE", "exitCode": 0}
        if body.entry_point == "broken.py":
            end = {
                "trainingStatusCode": "FAIL_TRAIN",
                "statusReason": "ScriptFailed",
                "statusMessage": "the script ended with exit code 1",
                "lastLogLines": ["Traceback (most recent call last):", "ValueError: no"],
            }
        self.coming[id] = [
            {"trainingStatusCode": "CREATE_IN_PROGRESS", "statusMessage": "installing requirements"},
            {"trainingStatusCode": "RUNNING", "statusMessage": None},
            {"trainingStatusCode": "RUNNING", "statusMessage": None},
            end,
        ]
        experiment = self.items["experiments"].get(body.experiment_id or "")
        return TrainingOut(
            **common(id, body.training_name, body.description),
            training_id=id,
            training_name=body.training_name,
            training_status_code="CREATE_REQUESTED",
            experiment=None if experiment is None else ExperimentOut.model_validate(experiment),
            image=ImageOut.model_validate(self.items["images"][body.image_id]),
            flavor=FlavorOut.model_validate(self.items["flavors"][body.flavor_id]),
            instance_count=body.instance_count,
            source_dir_uri=body.source_dir_uri,
            entry_point=body.entry_point,
            model_upload_uri=body.model_upload_uri,
            timeout_minutes=body.timeout_minutes,
            elapsed_time_seconds=3,
            hyperparameter_list=body.hyperparameter_list,
            dataset_list=body.dataset_list,
            data_storage_list=[StorageOut(storage_size=10)],
            use_log=body.use_log,
            use_torchrun=body.use_torchrun,
        )

    def _model_out(self, body: ModelCreate) -> ModelOut:
        id = new_id()
        trained = self.items["trainings"].get(body.training_id or "")
        return ModelOut(
            **common(id, body.model_name, body.description),
            model_id=id,
            model_name=body.model_name,
            model_status_code="ACTIVE",
            model_format_code=body.model_format_code or "TENSORFLOW",
            model_upload_uri=body.model_upload_uri or "obs://127.0.0.1/v1/AUTH_tenant/out",
            training=None if trained is None else ModelTraining.model_validate(trained),
        )

    def _endpoint_out(self, body: EndpointCreate) -> EndpointOut:
        id = new_id()
        stage = self._stage(id, "default", body.endpoint_model_resource_list, body.flavor_id, is_default=True)
        active = {**wire(stage), "endpointStageStatusCode": "ACTIVE"}
        self.coming[id] = [{"endpointStatusCode": "ACTIVE"}, {"endpointStageList": [active]}]
        return EndpointOut(
            **common(id, body.endpoint_name, body.description),
            endpoint_id=id,
            endpoint_name=body.endpoint_name,
            endpoint_status_code="CREATE_REQUESTED",
            apigw_app_key="gw",
            apigw_region="kr1",
            apigw_service_id="service",
            apigw_status_code="ACTIVE",
            endpoint_url=f"{self.url}/serve",
            endpoint_stage_list=[stage],
        )

    def _stage_out(self, body: EndpointStageCreate) -> EndpointStageOut:
        models = body.endpoint_model_resource_list
        return self._stage(body.endpoint_id, body.apigw_stage_name, models, body.flavor_id, is_default=False)

    def _stage(self, endpoint_id: str, name: str, models: Any, flavor_id: str, *, is_default: bool) -> EndpointStageOut:
        id = new_id()
        place = EndpointModelStage(stage_id=id, deploy_status="ACTIVE", stage_url=f"{self.url}/serve")
        served = [
            EndpointModelOut(
                **common(model_id := new_id(), name, None),
                endpoint_model_id=model_id,
                endpoint_id=endpoint_id,
                endpoint_stage_id=id,
                endpoint_model_status_code="ACTIVE",
                model_id=item.model_id,
                model=ModelOut.model_validate(self.items["models"][item.model_id]),
                stage=place,
                running_pod_count=1,
                pod_count=1,
                serving_options=item.serving_options or ServingOptions(),
                apigw_endpoint_uri=f"{self.url}/serve{item.apigw_resource_uri or '/inference'}",
            )
            for item in models
        ]
        stage = EndpointStageOut(
            **common(id, name, None),
            endpoint_stage_id=id,
            endpoint_stage_name=name,
            endpoint_id=endpoint_id,
            endpoint_stage_status_code="DEPLOY_IN_PROGRESS",
            apigw_stage_id=id,
            apigw_stage_name=name,
            apigw_stage_url="127.0.0.1/serve",
            deploy_status="ACTIVE",
            is_default_stage=is_default,
            default_stage=is_default,
            flavor=FlavorOut.model_validate(self.items["flavors"][flavor_id]),
            node_count=1,
            pod_count=1,
            running_node_count=1,
            running_pod_count=1,
            endpoint_model_list=served,
        )
        for item in served:
            self._add("endpoint-models", item)
        self._add("endpoint-stages", stage)
        self.coming[id] = [{"endpointStageStatusCode": "ACTIVE"}]
        return stage

    def _search(self, request: Request) -> Response:
        query = request.query_params
        if query.get("query") == "(":
            raise Refused(400, "the query ends where ')' was expected (position 2)")
        lines = [{"body": f"{number}", "logLevel": "INFO", "time": "2026-01-01T00:00:00Z"} for number in range(7)]
        start = int(query.get("cursor", "0"))
        end = start + min(3, int(query.get("limit", "3")))
        cursor = str(end) if end < len(lines) else None
        return good({"logList": lines[start:end], "totalCount": len(lines), "cursor": cursor})

    def _add(self, kind: str, resource: Wire) -> Any:
        item = wire(resource)
        self.items[kind][item["id"]] = item
        return item

    async def account(self, request: Request) -> Response:
        found = [
            {"name": name, "count": len(objects), "bytes": sum(map(len, objects.values()))}
            for name, objects in sorted(self.objects.items())
            if name > request.query_params.get("marker", "")
        ]
        return JSONResponse(found)

    async def container(self, request: Request) -> Response:
        check_store_token(request)
        name = request.path_params["container"]
        if request.method == "PUT":
            self.objects.setdefault(name, {})
            return Response(status_code=201)
        if name not in self.objects:
            return Response("<html><h1>Not Found</h1></html>", status_code=404)
        if request.method == "HEAD":
            return Response(status_code=204)
        if request.method == "DELETE":
            if self.objects[name]:
                return Response("<html><h1>Conflict</h1></html>", status_code=409)
            del self.objects[name]
            return Response(status_code=204)
        query = request.query_params
        prefix, delimiter, marker = query.get("prefix", ""), query.get("delimiter"), query.get("marker", "")
        rows: dict[str, dict[str, Any]] = {}
        for key, content in sorted(self.objects[name].items()):
            rest = key[len(prefix) :]
            if not key.startswith(prefix):
                continue
            if delimiter and delimiter in rest:
                folded = prefix + rest.split(delimiter)[0] + delimiter
                rows[folded] = {"subdir": folded}
            else:
                row: dict[str, Any] = {"name": key, "bytes": len(content), "hash": md5(content)}
                rows[key] = row | ({"slo_etag": "x"} if f"{name}/{key}" in self.manifests else {})
        listed = [row for key, row in rows.items() if key > marker]
        return JSONResponse(listed[: int(query.get("limit", "10000"))])

    async def object(self, request: Request) -> Response:
        check_store_token(request)
        name = request.path_params["container"]
        key = unquote(request.scope["raw_path"].decode().split("/", 4)[4].split("?")[0])
        place = f"{name}/{key}"
        if name not in self.objects:
            return Response(status_code=404)
        if request.method == "PUT":
            content = await request.body()
            if request.query_params.get("multipart-manifest") == "put":
                self.manifests[place] = json.loads(content)
                parts = [part["path"].lstrip("/").split("/", 1) for part in self.manifests[place]]
                content = b"".join(self.objects[container][path] for container, path in parts)
            if request.headers.get("etag") not in {None, md5(content)}:
                return Response("md5 mismatch", status_code=422)
            self.objects[name][key] = content
            return Response(status_code=201, headers={"ETag": md5(content)})
        if key not in self.objects[name]:
            return Response(status_code=404)
        if request.method == "DELETE":
            del self.objects[name][key]
            for part in self.manifests.pop(place, []) if "multipart-manifest" in request.query_params else []:
                container, path = part["path"].lstrip("/").split("/", 1)
                del self.objects[container][path]
            return Response(status_code=204)
        content = self.objects[name][key]
        headers = {"ETag": md5(content)}
        if place in self.manifests:
            headers = {"ETag": '"composed"', "X-Static-Large-Object": "True"}
        sent = bytes([content[0] ^ 1]) + content[1:] if place in self.corrupt else content
        return Response(sent, headers=headers)

    async def infer(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        body = await request.json()
        if "instances" not in body:
            return JSONResponse({"error": 'expected {"instances": [...]}'}, status_code=400)
        return JSONResponse({"predictions": [sum(row) for row in body["instances"]]})


@contextmanager
def running(platform: SmallPlatform) -> Iterator[SmallPlatform]:
    """Serve the platform on a free loopback port."""
    server = uvicorn.Server(uvicorn.Config(platform.app(), host="127.0.0.1", port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        if time.monotonic() > deadline:
            raise TimeoutError("the small platform did not start")
        time.sleep(0.005)
    platform.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield platform
    finally:
        server.should_exit = True
        thread.join(10)


def check_store_token(request: Request) -> None:
    if request.headers.get("x-auth-token") != TOKEN:
        raise Refused(403, "no write permission on the container; grant it to api-user")


async def refused_answer(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    header = {"isSuccessful": False, "resultCode": error.status * 1000 + 1, "resultMessage": error.message}
    faults = {"faults": error.faults} if error.faults else {}
    return JSONResponse({"header": header, **faults}, status_code=error.status, headers={"x-request-id": "request-1"})


def good(payload: dict[str, Any]) -> Response:
    return JSONResponse({"header": {"isSuccessful": True, "resultCode": 0, "resultMessage": "SUCCESS"}, **payload})


def wire(resource: Wire) -> dict[str, Any]:
    return resource.model_dump(mode="json", by_alias=True)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def common(id: str, name: str, description: str | None) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "id": id,
        "name": name,
        "description": description,
        "app_key": APP_KEY,
        "created_datetime": now,
        "updated_datetime": now,
    }


def image_out(name: str, framework: str) -> ImageOut:
    id = new_id()
    return ImageOut(
        id=id,
        name=name,
        image_id=id,
        image_name=name,
        image_type_code="NORMAL",
        group_type_code="TRAINING",
        group_type_code_list=["TRAINING"],
        core_type_code="CPU",
        framework_code=framework,
        framework_version="1",
        python_version="3.11",
        image_status_code="NOT_BUILT",
    )


def experiment_out(body: ExperimentCreate) -> ExperimentOut:
    id = new_id()
    return ExperimentOut(
        **common(id, body.experiment_name, body.description),
        experiment_id=id,
        experiment_name=body.experiment_name,
        experiment_status_code="ACTIVE",
    )


def volume_out(body: NasVolumeCreate) -> NasVolumeOut:
    id = new_id()
    return NasVolumeOut(
        **common(id, body.nas_volume_name, None), nas_volume_id=id, nas_volume_name=body.nas_volume_name
    )
