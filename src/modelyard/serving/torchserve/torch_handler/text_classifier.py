"""The most probable class of a text, for models that take word numbers and offsets (an embedding bag)."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from typing import Any

from modelyard.serving.torchserve.torch_handler.text_handler import TextHandler
from modelyard.serving.torchserve.utils.util import map_class_to_label

torch: Any = import_module("torch")


class TextClassifier(TextHandler):
    """Looks up words and pairs of neighbouring words in the vocabulary."""

    ngrams = 2

    def preprocess(self, data: Any) -> Any:
        """The numbers of all rows in one tensor, and where each row begins."""
        numbers: list[int] = []
        offsets: list[int] = []
        for row in data:
            offsets.append(len(numbers))
            words = self.words(row)
            pairs = [" ".join(pair) for pair in pairwise(words)] if self.ngrams > 1 else []
            numbers += [self.source_vocab[word] for word in words + pairs if word in self.source_vocab]
        return torch.tensor(numbers, dtype=torch.int64), torch.tensor(offsets, dtype=torch.int64)

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Probabilities, one row per text."""
        with torch.inference_mode():
            return torch.softmax(self.model(*(part.to(self.device) for part in data)), dim=1)

    def postprocess(self, data: Any) -> list[Any]:
        """For each text an object, class name to probability."""
        return map_class_to_label(data.tolist(), self.mapping)
