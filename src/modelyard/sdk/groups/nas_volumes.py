"""NAS volumes."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.resources.storages.schemas import NasVolumeCreate, NasVolumeList, NasVolumeOne, NasVolumeOut
from modelyard.sdk.api import Api
from modelyard.sdk.groups.resource import Kind, Resources

NAS_VOLUMES = Kind(
    word="NAS volume",
    path="/nas-volumes",
    one=NasVolumeOne,
    many=NasVolumeList,
    item=lambda answer: answer.nas_volume,
    items=lambda answer: (answer.nas_volume_list, answer.paging.total_count),
    state=lambda volume: volume.nas_volume_status_code,
)


class AsyncNasVolumes(Resources[NasVolumeOne, NasVolumeList, NasVolumeOut]):
    """`client.nas_volumes`. Paths on a volume are written `nas://{id}:/{path}`."""

    def __init__(self, api: Api) -> None:
        super().__init__(api, NAS_VOLUMES)

    async def create(
        self, name: str, *, description: str | None = None, idempotency_key: str | None = None
    ) -> NasVolumeOut:
        """Create a volume."""
        return await self._create(NasVolumeCreate, {"nasVolumeName": name, "description": description}, idempotency_key)

    async def list(self) -> Sequence[NasVolumeOut]:
        """All volumes."""
        items, _ = await self._page({}, 1, None)
        return items
