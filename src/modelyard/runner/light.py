"""What the runner uses of heavy modules of the standard library, without loading them.

Every training waits, and pays, for the runner's start. `typing`, `collections`, `contextlib` and all that they bring take as long as the
interpreter itself, for a few lines that are needed of them. For type checkers all of this is the standard library's.
"""

from __future__ import annotations

__all__ = ["NamedTuple", "cast", "suppress"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import suppress
    from typing import NamedTuple, cast
else:
    from _collections import _tuplegetter

    class _NamedTupleType(type):
        """Makes classes whose instances are tuples, of fields that the class annotates."""

        def __new__(mcs, name, bases, content):
            if bases != (tuple,):
                fields = tuple(content.get("__annotations__", ()))
                content["_fields"] = fields
                content["_field_defaults"] = {field: content[field] for field in fields if field in content}
                content.update({field: _tuplegetter(place, "") for place, field in enumerate(fields)})
                content["__slots__"] = ()
            return super().__new__(mcs, name, bases, content)

    class NamedTuple(tuple, metaclass=_NamedTupleType):
        """As `typing.NamedTuple`."""

        __slots__ = ()

        def __new__(cls, *values, **named):
            fields = cls._fields
            if len(values) > len(fields):
                raise TypeError(f"{cls.__name__} takes {len(fields)} values, not {len(values)}")
            rest = fields[len(values) :]
            if rest:
                given = {**cls._field_defaults, **named}
                try:
                    values += tuple([given[field] for field in rest])
                except KeyError as missing:
                    raise TypeError(f"{cls.__name__} needs {missing}") from None
            if not named.keys() <= set(rest):
                raise TypeError(f"{cls.__name__} does not take {sorted(named.keys() - set(rest))}")
            return tuple.__new__(cls, values)

        def __getnewargs__(self):
            return tuple(self)

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

        def _asdict(self):
            return dict(zip(self._fields, self))  # noqa: B905 - strict= came with Python 3.10

        def _replace(self, **named):
            return type(self)(**{**self._asdict(), **named})

    class suppress:
        """As `contextlib.suppress`."""

        def __init__(self, *kinds):
            self._kinds = kinds

        def __enter__(self):
            return None

        def __exit__(self, kind, _error, _trace):
            return kind is not None and issubclass(kind, self._kinds)

    def cast(_kind, value):
        """As `typing.cast`."""
        return value
