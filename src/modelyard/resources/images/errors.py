"""Sentences of images."""

from __future__ import annotations

from modelyard.kit.errors import Fault, Invalid


class UnknownImage(Invalid):
    """There is no such image."""

    code = 400011

    def __init__(self, image_id: str, known: list[str]) -> None:
        super().__init__([Fault("imageId", f"there is no image '{image_id}'; choose one of: {'; '.join(known)}")])


class UnfitImage(Invalid):
    """The image is for something else."""

    code = 400013

    def __init__(self, name: str, purpose: str, fitting: list[str]) -> None:
        super().__init__(
            [Fault("imageId", f"the image '{name}' is not for {purpose}; choose one of: {'; '.join(fitting)}")]
        )


class NoServingImage(Invalid):
    """No image can serve a model of this format."""

    code = 400012

    def __init__(self, format_code: str) -> None:
        super().__init__(
            [Fault("modelFormatCode", f"no image of this platform can serve a model of format {format_code}")]
        )
