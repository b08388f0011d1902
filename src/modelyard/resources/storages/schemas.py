"""Wire shapes of NAS volumes."""

from __future__ import annotations

from modelyard.wire import Description, Header, Name, Paging, ResourceOut, Wire


class NasVolumeCreate(Wire):
    """`POST /nas-volumes`."""

    nas_volume_name: Name
    description: Description = None


class NasVolumeOut(ResourceOut):
    """A volume; its paths are written `nas://{nasVolumeId}:/{path}`."""

    nas_volume_id: str
    nas_volume_name: str
    nas_volume_status_code: str = "ACTIVE"


class NasVolumeList(Wire):
    """`GET /nas-volumes`."""

    header: Header = Header()
    nas_volume_list: list[NasVolumeOut]
    paging: Paging


class NasVolumeOne(Wire):
    """One volume."""

    header: Header = Header()
    nas_volume: NasVolumeOut


class StorageAccountOut(Wire):
    """The system account of the platform in the project's tenant, and where its own object store is."""

    tenant_id: str
    api_user_id: str
    object_store_url: str


class StorageAccountOne(Wire):
    """`GET /storage-account`."""

    header: Header = Header()
    storage_account: StorageAccountOut
