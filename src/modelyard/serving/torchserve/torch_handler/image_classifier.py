"""The most probable classes of an image."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from modelyard.serving.torchserve.torch_handler.vision_handler import VisionHandler
from modelyard.serving.torchserve.utils.util import map_class_to_label

torch: Any = import_module("torch")
transforms: Any = import_module("torchvision.transforms")


class ImageClassifier(VisionHandler):
    """Models with ImageNet's preprocessing."""

    topk = 5
    image_processing = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )

    def set_max_result_classes(self, topk: int) -> None:
        """How many classes are answered."""
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """How many classes are answered."""
        return self.topk

    def postprocess(self, data: Any) -> list[Any]:
        """For each image an object, class name to probability."""
        probabilities, classes = torch.topk(torch.softmax(data, dim=1), min(self.topk, data.shape[1]), dim=1)
        return map_class_to_label(probabilities.tolist(), self.mapping, classes.tolist())
