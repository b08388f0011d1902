"""JSON by the standard library's own C functions, without its package: that one compiles regular expressions while it is loaded, which takes
as long as the start of the interpreter."""

from __future__ import annotations

__all__ = ["dumps", "loads"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from json import dumps, loads
else:
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    def _refuse(value):
        raise TypeError(f"{type(value).__name__} is not for JSON")

    class _Rules:
        """What the scanner asks for: see `json.JSONDecoder`."""

        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        memo: dict = {}

        @staticmethod
        def parse_constant(name):
            return float(name)

    _scan = make_scanner(_Rules())
    _encode = make_encoder(None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, True)

    def loads(text):
        """As `json.loads`, for UTF-8."""
        if not isinstance(text, str):
            text = bytes(text).decode()
        text = text.strip(" \t\r\n")
        try:
            value, end = _scan(text, 0)
        except StopIteration as error:
            raise ValueError(f"expected a value at character {error.value}") from None
        if end != len(text):
            raise ValueError(f"more than one value: the second begins at character {end}")
        return value

    def dumps(content):
        """As `json.dumps`: ASCII."""
        return "".join(_encode(content, 0))
