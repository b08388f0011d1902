"""Boxes around the things in an image."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from modelyard.serving.torchserve.torch_handler.vision_handler import VisionHandler

torch: Any = import_module("torch")
transforms: Any = import_module("torchvision.transforms")


class ObjectDetector(VisionHandler):
    """Models of torchvision's detection family."""

    image_processing = transforms.Compose([transforms.ToTensor()])
    threshold = 0.5

    def postprocess(self, data: Any) -> list[Any]:
        """For each image a list of `{label: [x1, y1, x2, y2], "score": …}` above the threshold, best first as the model gives them."""
        answers: list[Any] = []
        for found in data:
            rows = zip(found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True)
            answers.append(
                [{self._label(label): box, "score": score} for box, label, score in rows if score > self.threshold]
            )
        return answers

    def _label(self, index: int) -> str:
        return str((self.mapping or {}).get(str(index), index))
