"""Models on both databases: looked at, counted, named, copied, and gone."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from modelyard.control.reconciler import Outcome
from modelyard.control.tables import WorkItemRow
from modelyard.control.work import Lease, WorkQueue
from modelyard.db.engine import Database
from modelyard.kit.errors import Invalid, NotFound
from modelyard.kit.paging import PageRequest
from modelyard.objectstore.hosts import StoreHosts
from modelyard.resources.models.errors import ModelHasAliases, ModelNotUsable, NameOfArchive
from modelyard.resources.models.reconciler import InspectionSettings, ModelReconciler
from modelyard.resources.models.repository import ModelFilter
from modelyard.resources.models.schemas import ModelChange, ModelCreate, ModelOut
from modelyard.resources.models.service import KIND, Models
from modelyard.resources.projects.model import Caller, TokenKind
from modelyard.resources.projects.service import Projects, new_project_keys
from modelyard.resources.projects.tokens import TokenSigner
from modelyard.resources.storages.schemas import NasVolumeCreate
from modelyard.resources.storages.service import Storages
from modelyard.server.schema import all_metadata


@dataclass
class Registry:
    """The service, its reconciler, and a volume to put artifacts on."""

    models: Models
    storages: Storages
    reconciler: ModelReconciler
    queue: WorkQueue
    database: Database
    caller: Caller
    volume_id: str
    volume: Path
    copies: Path

    async def create(self, name: str, path: str, format_code: str = "SKLEARN", **fields: Any) -> ModelOut:
        body = {"modelName": name, "modelFormatCode": format_code, "modelUploadUri": f"nas://{self.volume_id}:/{path}"}
        made = await self.models.create(self.caller, ModelCreate.model_validate(body | fields))
        await self.drain()
        return await self.models.get(self.caller, made.id)

    async def drain(self) -> None:
        """Do what is due."""
        while items := await self.queue.claim([KIND], 1):
            outcome: Outcome = await self.reconciler.reconcile(items[0].key, Lease(items[0]))
            assert outcome is not None
            async with self.database.write() as session:
                row = await session.get(WorkItemRow, (KIND, items[0].key))
                if row is not None:
                    await session.delete(row)

    def put(self, path: str, content: bytes = b"\x80\x04N.") -> None:
        place = self.volume / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


@pytest.fixture
async def registry(database_url: str, tmp_path: Path) -> AsyncIterator[Registry]:
    database = Database(database_url)
    async with database.engine.begin() as connection:
        for metadata in all_metadata():
            await connection.run_sync(metadata.create_all)
    projects = Projects(database, TokenSigner(b"0" * 32))
    caller = Caller(await projects.ensure("test", new_project_keys()), "tester", TokenKind.ACCESS)
    hosts = StoreHosts(cast("Any", None), frozenset())
    copies = tmp_path / "copies"
    storages = Storages(database, hosts, door_url="", volumes_root=tmp_path / "nas", copies_root=copies)
    volume = await storages.create_volume(caller, NasVolumeCreate.model_validate({"nasVolumeName": "v"}))
    models = Models(database, cast("Any", None), storages)
    reconciler = ModelReconciler(database, projects, storages, InspectionSettings(copy_bytes=1000))
    queue = WorkQueue(database, "test")
    place = tmp_path / "nas" / volume.id
    yield Registry(models, storages, reconciler, queue, database, caller, volume.id, place, copies)
    await database.close()


async def test_a_model_shows_what_was_found(registry: Registry) -> None:
    registry.put("m/model.joblib")
    registry.put("m/notes/read me.txt", b"hello")
    model = await registry.create("iris", "m")
    assert (model.model_status_code, model.model_version, model.alias_list) == ("ACTIVE", 1, [])
    assert model.artifact is not None
    assert (model.artifact.artifact_kind_code, model.artifact.load_path) == ("SKLEARN", "model.joblib")
    assert [(file.file_name, file.size_bytes) for file in model.artifact.file_list] == [
        ("model.joblib", 4), ("notes/read me.txt", 5),
    ]  # fmt: skip
    assert (model.artifact.size_bytes, model.artifact.file_count) == (9, 2)
    assert (model.artifact.digest or "").startswith("sha256:")
    again = await registry.create("iris", "m")
    assert again.artifact is not None and again.artifact.digest == model.artifact.digest
    events = await registry.models.events(registry.caller, model.id)
    assert [event.new_state for event in events] == ["CREATE_IN_PROGRESS", "ACTIVE"]


async def test_versions_are_counted_for_each_name_and_never_given_twice(registry: Registry) -> None:
    registry.put("m/model.joblib")
    first, second, other = [await registry.create(name, "m") for name in ("iris", "iris", "rose")]
    assert [model.model_version for model in (first, second, other)] == [1, 2, 1]
    await registry.models.delete(registry.caller, second.id)
    third = await registry.create("iris", "m")
    assert third.model_version == 3
    renamed = await registry.models.change(registry.caller, other.id, ModelChange.model_validate({"modelName": "iris"}))
    assert (renamed.model_name, renamed.model_version) == ("iris", 4)
    found = await registry.models.list(registry.caller, ModelFilter(names=["iris"], versions=[3]), PageRequest(1, None))
    assert [model.id for model in found.items] == [third.id]


async def test_an_alias_means_one_version_of_a_name(registry: Registry) -> None:
    registry.put("m/model.joblib")
    models, caller = registry.models, registry.caller
    first, second = [await registry.create("iris", "m") for _ in range(2)]
    assert (await models.set_alias(caller, first.id, "production")).alias_list == ["production"]
    assert (await models.set_alias(caller, second.id, "production")).alias_list == ["production"]
    assert (await models.get(caller, first.id)).alias_list == []
    found = await models.list(caller, ModelFilter(names=["iris"], aliases=["production"]), PageRequest(1, None))
    assert [model.id for model in found.items] == [second.id]
    with pytest.raises(ModelHasAliases, match="'production'"):
        await models.change(caller, second.id, ModelChange.model_validate({"modelName": "rose"}))
    with pytest.raises(NotFound):
        await models.drop_alias(caller, first.id, "production")
    for wrong in ("", "1", "two words", "a/b", "x" * 65):
        with pytest.raises(Invalid):
            await models.set_alias(caller, first.id, wrong)
    await models.delete(caller, second.id)
    assert (await models.set_alias(caller, first.id, "production")).alias_list == ["production"]
    assert (await models.drop_alias(caller, first.id, "production")).alias_list == []


async def test_a_broken_artifact_is_told_and_can_not_be_used(registry: Registry) -> None:
    registry.put("broken/model.onnx", b"no graph")
    model = await registry.create("broken", "broken", "ONNX")
    assert (model.model_status_code, model.status_reason) == ("CREATE_FAILED", "BAD_ARTIFACT")
    assert "model.onnx is no ONNX model" in (model.status_message or "")
    with pytest.raises(ModelNotUsable, match="no ONNX model"):
        await registry.models.set_alias(registry.caller, model.id, "production")
    async with registry.database.write() as session:
        with pytest.raises(ModelNotUsable):
            await registry.models.hold(session, registry.caller.project.id, model.id)
    await registry.models.delete(registry.caller, model.id)


async def test_a_new_name_mends_an_archive_and_nothing_else(registry: Registry) -> None:
    (registry.volume / "archive").mkdir(parents=True)
    with zipfile.ZipFile(registry.volume / "archive" / "iris.mar", "w") as target:
        manifest = {"model": {"modelName": "iris", "handler": "h.py", "modelVersion": "1"}}
        target.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        target.writestr("h.py", "")
    model = await registry.create("rose", "archive", "PYTORCH")
    assert model.model_status_code == "CREATE_FAILED"
    assert "has the model 'iris', but the model is called 'rose'" in (model.status_message or "")
    rename = ModelChange.model_validate({"modelName": "iris"})
    assert (await registry.models.change(registry.caller, model.id, rename)).model_status_code == "CREATE_IN_PROGRESS"
    await registry.drain()
    assert (await registry.models.get(registry.caller, model.id)).model_status_code == "ACTIVE"
    with pytest.raises(NameOfArchive, match="must stay 'iris'"):
        await registry.models.change(registry.caller, model.id, ModelChange.model_validate({"modelName": "rose"}))


async def test_a_copy_outlives_its_path_and_goes_with_the_model(registry: Registry) -> None:
    registry.put("m/deep/model.joblib")
    model = await registry.create("kept", "m", keepsCopy=True)
    assert model.model_status_code == "ACTIVE" and model.keeps_copy
    plain = await registry.create("plain", "m")
    assert model.artifact is not None and plain.artifact is not None
    assert model.artifact.digest == plain.artifact.digest
    shutil.rmtree(registry.volume / "m")
    async with registry.database.read() as session:
        found = await registry.models.find(session, registry.caller.project.id, model.id)
    assert found is not None and found.source_uri == f"copy://{model.id}"
    await registry.storages.check_copy(registry.caller.project, found.source_uri)
    location = await registry.storages.locate(registry.caller.project, found.source_uri)
    [copied] = [path for path in Path(cast("Any", location).root).rglob("*") if path.is_file()]
    assert copied.read_bytes() == b"\x80\x04N." and copied.stat().st_mode & 0o222 == 0
    await registry.models.delete(registry.caller, model.id)
    assert (await registry.models.get(registry.caller, model.id)).model_status_code == "DELETE_IN_PROGRESS"
    await registry.drain()
    with pytest.raises(NotFound):
        await registry.models.get(registry.caller, model.id)
    assert [path for path in registry.copies.rglob("*") if path.is_file()] == []


async def test_what_is_too_large_for_a_copy_is_told(registry: Registry) -> None:
    registry.put("large/model.joblib", b"\x80" + b"0" * 2000)
    model = await registry.create("large", "large", keepsCopy=True)
    assert model.model_status_code == "CREATE_FAILED"
    assert "too large for a copy" in (model.status_message or "")


async def test_links_that_were_left_on_a_volume_are_not_followed(registry: Registry, tmp_path: Path) -> None:
    secret = tmp_path / "secret.joblib"
    secret.write_bytes(b"\x80\x04N.")
    (registry.volume / "linked").mkdir(parents=True)
    (registry.volume / "linked" / "model.joblib").symlink_to(secret)
    assert (await registry.create("linked", "linked")).model_status_code == "CREATE_FAILED"
