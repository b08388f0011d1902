"""What is wrong with a value is said for whoever wrote it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from modelyard.wire import plain


class Colour(StrEnum):
    RED = "RED"
    BLUE = "BLUE"


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (int, "x", "must be a whole number"),
        (int, 1.5, "must be a whole number"),
        (float, "x", "must be a number"),
        (Annotated[float, Field(allow_inf_nan=False)], float("inf"), "must be a finite number"),
        (Annotated[int, Field(ge=1)], 0, "must be at least 1"),
        (Annotated[int, Field(lt=10)], 10, "must be less than 10"),
        (Annotated[int, Field(multiple_of=10)], 11, "must be a multiple of 10"),
        (str, 1, "must be text"),
        (Annotated[str, Field(max_length=3)], "long", "must have at most 3 characters"),
        (Annotated[list[int], Field(max_length=1)], [1, 2], "must have at most 1 items (it has 2)"),
        (bool, "maybe", "must be true or false"),
        (list[int], 1, "must be a list"),
        (dict[str, int], 1, "must be an object"),
        (Colour, "GREEN", "must be 'RED' or 'BLUE'"),
        (Literal["a", "b"], "c", "must be 'a' or 'b'"),
        (datetime, "soon", "must be a moment with its offset, such as 2026-01-31T09:00:00+09:00"),
        (AwareDatetime, "2026-01-31T09:00:00", "must be a moment with its offset, such as 2026-01-31T09:00:00+09:00"),
        (Shape, {}, "must be given"),
        (Shape, {"size": 1, "weight": 2}, "is not known"),
    ],
)
def test_complaints_are_in_plain_words(kind: Any, value: object, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    assert [plain(each) for each in caught.value.errors()] == [words]
