"""What handlers of text have in common: the vocabulary of the archive, and words in a plain form."""

from __future__ import annotations

import html
import re
import unicodedata
from importlib import import_module
from pathlib import Path
from typing import Any

from modelyard.serving.torchserve.torch_handler.base_handler import BaseHandler

torch: Any = import_module("torch")


class TextHandler(BaseHandler):
    """Loads `source_vocab*.pt` (a mapping, word to number) of the archive as `source_vocab`."""

    source_vocab: Any = None

    def initialize(self, context: Any) -> None:
        """Load the model and the vocabulary."""
        super().initialize(context)
        found = sorted(Path(context.system_properties["model_dir"]).glob("source_vocab*.pt"))
        if not found:
            raise FileNotFoundError("the archive holds no source_vocab.pt; add it with --extra-files")
        self.source_vocab = torch.load(found[0], map_location="cpu", weights_only=True)

    def words(self, row: Any) -> list[str]:
        """The words of a row: without markup, accents and punctuation, in lower case."""
        text = row.get("data") or row.get("body")
        text = text.decode("utf-8") if isinstance(text, (bytes, bytearray)) else str(text)
        text = unicodedata.normalize("NFKD", html.unescape(re.sub(r"<[^>]+>", " ", text)).lower())
        return re.findall(r"\w+", "".join(letter for letter in text if not unicodedata.combining(letter)))
