"""Use cases of images: the catalogue, and having an image's environment built before it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.compute.port import Environment
from modelyard.control.transitions import born, move
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import NotFound
from modelyard.resources.images import repository
from modelyard.resources.images.catalog import CatalogImage, Group, choose_image, load_catalog, to_environment
from modelyard.resources.images.errors import NoServingImage, UnfitImage, UnknownImage
from modelyard.resources.images.lifecycle import LIFECYCLE, EnvironmentState
from modelyard.resources.images.model import EnvironmentView
from modelyard.resources.images.schemas import ImageOut
from modelyard.resources.images.table import EnvironmentRow, WaiterRow
from modelyard.resources.workloads.model import EnvironmentSpec

KIND = "environment"
PLATFORM_PROJECT = "platform"


class Images:
    """The images on offer, and their environments.

    Args:
        overlay: the admin's catalogue file, read again when it has changed.
        is_present: whether the backend has an environment now; the record may be wrong about that.
    """

    def __init__(
        self,
        database: Database,
        overlay: Path,
        is_present: Callable[[Environment], bool],
        *,
        has_gpu: bool = False,
        python_versions: tuple[str, ...] = (),
    ) -> None:
        self._database = database
        self._overlay = overlay
        self._is_present = is_present
        self._has_gpu = has_gpu
        self._python_versions = python_versions
        self._stamp = self._overlay_stamp()
        self._images = self._load()

    def list(self) -> tuple[CatalogImage, ...]:
        """All images that can be chosen."""
        stamp = self._overlay_stamp()
        if stamp != self._stamp:
            self._images = self._load()
            self._stamp = stamp
        return self._images

    def get(self, image_id: str) -> CatalogImage:
        """The image with this id or name. Raises `UnknownImage`."""
        image = self.find(image_id)
        if image is None:
            raise UnknownImage(image_id, [known.name for known in self.list()])
        return image

    def get_for(self, group: Group, image_id: str) -> CatalogImage:
        """The image with this id or name, for a use. Raises `UnknownImage` and `UnfitImage`, which offer those that are."""
        fitting = [known.name for known in self.list() if group in known.groups]
        image = self.find(image_id)
        if image is None:
            raise UnknownImage(image_id, fitting)
        if group not in image.groups:
            raise UnfitImage(image.name, f"{group.lower()}s", fitting)
        return image

    def find(self, image_id: str) -> CatalogImage | None:
        """The image with this id or name, if there still is one."""
        return next((image for image in self.list() if image_id in (image.id, image.name)), None)

    def for_serving(self, format_code: str, version: str | None) -> CatalogImage:
        """The image whose environment serves models of a format best. Raises `NoServingImage`."""
        able = [image for image in self.list() if {"SERVING", "TRAINING"} & {*image.groups}]
        image = choose_image(able, format_code, version)
        if image is None:
            raise NoServingImage(format_code)
        return image

    async def need(self, session: AsyncSession, image: CatalogImage, kind: str, key: str) -> EnvironmentView:
        """Have the image's environment there for (kind, key), which is woken when something changes; how far it is now.

        An environment that could not be built is tried again for everyone who newly asks; who has waited is told the failure, once.
        """
        return await self.need_environment(session, to_environment(image), kind, key)

    async def need_environment(
        self, session: AsyncSession, environment: Environment, kind: str, key: str
    ) -> EnvironmentView:
        """The same for an environment that is no image's."""
        row = await repository.by_digest(session, environment.digest)
        if row is None:
            row = _new_row(environment)
            born(session, LIFECYCLE, row, actor=f"{kind}:{key}")
            session.add(row)
            await session.flush()
        if self._is_present(environment):
            if row.state != EnvironmentState.READY.value and row.state != EnvironmentState.BUILDING.value:
                move(session, LIFECYCLE, row, EnvironmentState.READY)
            if row.state == EnvironmentState.READY.value:
                await repository.drop_waiter(session, row.id, kind, key)
                return EnvironmentView(row.id, EnvironmentState.READY, None)
        is_waiting = await repository.waiter(session, row.id, kind, key) is not None
        if row.state == EnvironmentState.BUILD_FAILED.value and is_waiting:
            await repository.drop_waiter(session, row.id, kind, key)
            return EnvironmentView(row.id, EnvironmentState.BUILD_FAILED, row.message)
        if not is_waiting:
            session.add(WaiterRow(environment_id=row.id, kind=kind, key=key))
        if row.state != EnvironmentState.BUILDING.value:
            row.generation += 1
            move(session, LIFECYCLE, row, EnvironmentState.BUILDING, message="The build is about to start.")
            await enqueue(session, KIND, row.id)
        return EnvironmentView(row.id, EnvironmentState.BUILDING, row.message)

    async def release(self, session: AsyncSession, image_id: str, kind: str, key: str) -> None:
        """(kind, key) does not wait for the image's environment any more."""
        image = self.find(image_id)
        if image is not None:
            await repository.drop_waiter(session, to_environment(image).digest, kind, key)

    async def build(self, image_id: str, *, actor: str) -> ImageOut:
        """Have the image's environment built now, if it is not there."""
        image = self.find(image_id)
        if image is None:
            raise NotFound("image", image_id)
        async with self._database.write() as session:
            await self.need(session, image, "request", actor[:64])
        return (await self.show((image,)))[0]

    async def show(self, images: tuple[CatalogImage, ...] | None = None) -> list[ImageOut]:
        """Images in wire form, with the states of their environments."""
        shown = self.list() if images is None else images
        digests = {to_environment(image).digest for image in shown}
        async with self._database.read() as session:
            rows = {row.id: row for row in await repository.by_digests(session, digests)}
        return [self._image_out(image, rows) for image in shown]

    def _image_out(self, image: CatalogImage, rows: Mapping[str, EnvironmentRow]) -> ImageOut:
        environment = to_environment(image)
        row = rows.get(environment.digest)
        state = EnvironmentState.NOT_BUILT if row is None else EnvironmentState(row.state)
        if state in (EnvironmentState.NOT_BUILT, EnvironmentState.READY):
            state = EnvironmentState.READY if self._is_present(environment) else EnvironmentState.NOT_BUILT
        return image_out(image, state, row.message if row is not None else None)

    def _load(self) -> tuple[CatalogImage, ...]:
        return load_catalog(self._overlay, has_gpu=self._has_gpu, python_versions=self._python_versions)

    def _overlay_stamp(self) -> tuple[int, int] | None:
        try:
            status = self._overlay.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_size


def environment_spec(image: CatalogImage) -> EnvironmentSpec:
    """The image's environment as workloads ask for it."""
    return _spec(to_environment(image))


def image_out(image: CatalogImage, state: EnvironmentState, message: str | None) -> ImageOut:
    """The wire form."""
    return ImageOut(
        id=image.id,
        name=image.name,
        image_id=image.id,
        image_name=image.name,
        image_type_code="PUBLIC",
        group_type_code=image.groups[0],
        group_type_code_list=[*image.groups],
        core_type_code=image.core_type,
        framework_code=image.framework,
        framework_version=image.framework_version,
        python_version=image.python_version,
        description=image.description or None,
        is_default=image.is_default,
        image_status_code=state.value,
        status_message=message if state in (EnvironmentState.BUILDING, EnvironmentState.BUILD_FAILED) else None,
    )


def _new_row(environment: Environment) -> EnvironmentRow:
    now = utc_now()
    return EnvironmentRow(
        id=environment.digest,
        project_id=PLATFORM_PROJECT,
        name=environment.name,
        spec=_spec(environment).model_dump(mode="json"),
        status={},
        tags=[],
        desired="run",
        state=LIFECYCLE.initial.value,
        generation=1,
        created_at=now,
        updated_at=now,
    )


def _spec(environment: Environment) -> EnvironmentSpec:
    return EnvironmentSpec(
        name=environment.name,
        python=environment.python,
        requirements=environment.requirements,
        core_type=environment.core_type,
    )
