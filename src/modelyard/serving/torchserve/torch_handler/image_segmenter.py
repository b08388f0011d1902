"""The class of each pixel of an image, with its probability."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from modelyard.serving.torchserve.torch_handler.vision_handler import VisionHandler

torch: Any = import_module("torch")
transforms: Any = import_module("torchvision.transforms")


class ImageSegmenter(VisionHandler):
    """Models of torchvision's segmentation family, whose answer has the key `out`."""

    image_processing = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )

    def postprocess(self, data: Any) -> list[Any]:
        """For each image height × width × [class, probability]."""
        probability, index = torch.max(torch.softmax(data["out"], dim=1), dim=1, keepdim=True)
        return torch.stack([index.type(data["out"].dtype), probability], dim=4).squeeze(1).tolist()
