"""What handlers of images have in common: bytes, base64 text or numbers become a batch of tensors."""

from __future__ import annotations

import base64
import io
from importlib import import_module
from typing import Any

from modelyard.serving.torchserve.torch_handler.base_handler import BaseHandler

torch: Any = import_module("torch")
Image: Any = import_module("PIL.Image")


class VisionHandler(BaseHandler):
    """Derived classes set `image_processing`, which makes a tensor of an image."""

    image_processing: Any

    def preprocess(self, data: Any) -> Any:
        """A batch of images: each row's `data` or `body` is a file's bytes, its base64 text, or nested numbers."""
        images: list[Any] = []
        for row in data:
            image = row.get("data") or row.get("body")
            if isinstance(image, str):
                image = base64.b64decode(image)
            if isinstance(image, (bytes, bytearray)):
                images.append(self.image_processing(Image.open(io.BytesIO(image)).convert("RGB")))
            else:
                images.append(torch.tensor(image, dtype=torch.float32))
        return torch.stack(images).to(self.device)
