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
