"""The wire form that every door of the REST API speaks: camelCase names, one envelope around every answer.

The envelope and the names are those of the product's own client, which parses strictly: what is text goes as a string, a number as a number,
moments as ISO 8601 with an offset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from modelyard.kit.errors import Blocker, UserError
from modelyard.kit.names import MAX_DESCRIPTION_CHARACTERS, name_fault, text_fault

MAX_TAGS = 10
MAX_DELETIONS = 100


class Wire(BaseModel):
    """A shape on the wire. Unknown fields are ignored (older and newer clients send more than we read)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Header(Wire):
    """The head of every answer: 0 is success; an error's code is its HTTP status times a thousand plus a number of its own."""

    is_successful: bool = True
    result_code: int = 0
    result_message: str = "SUCCESS"


class Fault(Wire):
    """One field of a request that is wrong."""

    field: str
    message: str


class BlockerOut(Wire):
    """What stands in the way of a deletion."""

    resource_type: str
    id: str
    name: str


class BlockedBy(Wire):
    """Beside the head of a refused deletion: what has to go first. There are more when `hasMoreBlockers`."""

    blocker_list: list[BlockerOut]
    has_more_blockers: bool = False


def blocked_by(error: UserError) -> BlockedBy:
    """The wire form of what stands in the way."""
    return BlockedBy(blocker_list=blockers_out(error.blockers), has_more_blockers=error.has_more_blockers)


def blockers_out(blockers: Sequence[Blocker]) -> list[BlockerOut]:
    """The wire form of things that stand in the way."""
    return [BlockerOut(resource_type=item.kind, id=item.id, name=item.name) for item in blockers]


class DeletionOut(Wire):
    """What became of one of several that were to be deleted. A `resultCode` above 0 says that it was not, and `resultMessage` why."""

    id: str
    is_successful: bool
    result_code: int
    result_message: str
    blocker_list: list[BlockerOut] = []
    has_more_blockers: bool = False


class DeletionList(Wire):
    """What became of each. A head with the `resultCode` 1 means that some were not deleted."""

    header: Header = Header()
    result_list: list[DeletionOut]


class Paging(Wire):
    """Which part of a list this is. `limit` is absent when the whole list was asked for.

    Long lists are not counted to their end: where `isTotalCountExact` is false there are `totalCount` or more. `nextCursor` gives the
    page after this one, and is absent on the last one.
    """

    total_count: int
    is_total_count_exact: bool = True
    page: int
    limit: int | None = None
    next_cursor: str | None = None


class Empty(Wire):
    """An answer without a payload."""

    header: Header = Header()


class Tag(Wire):
    """A key and a value of the user's own."""

    tag_key: str
    tag_value: str = ""


def _checked_name(value: str) -> str:
    fault = name_fault(value)
    if fault is not None:
        raise ValueError(fault)
    return value


def _checked_description(value: str | None) -> str | None:
    if value is not None and len(value) > MAX_DESCRIPTION_CHARACTERS:
        raise ValueError(f"must have at most {MAX_DESCRIPTION_CHARACTERS} characters (it has {len(value)})")
    fault = None if value is None else text_fault(value, may_have_lines=True)
    if fault is not None:
        raise ValueError(fault)
    return value


def _checked_line(value: str) -> str:
    fault = text_fault(value)
    if fault is not None:
        raise ValueError(fault)
    return value


def _checked_tags(value: list[Tag]) -> list[Tag]:
    if len(value) > MAX_TAGS:
        raise ValueError(f"must have at most {MAX_TAGS} tags (it has {len(value)})")
    for tag in value:
        if not 1 <= len(tag.tag_key) <= 64:
            raise ValueError("a tag's key must have 1 to 64 characters")
        if len(tag.tag_value) > 255:
            raise ValueError("a tag's value must have at most 255 characters")
        if text_fault(tag.tag_key) or text_fault(tag.tag_value):
            raise ValueError("a tag must not contain control characters")
    keys = [tag.tag_key for tag in value]
    if len(set(keys)) != len(keys):
        raise ValueError("each tag key may be used once")
    return value


def _none_as_empty(value: Any) -> Any:
    return [] if value is None else value


def fields_of(value: Any) -> dict[str, Any] | None:
    """A copy of a raw JSON object, for validators that look at it before its fields are checked; None for anything else."""
    if not isinstance(value, dict):
        return None
    return {str(key): item for key, item in cast(dict[Any, Any], value).items()}


Line = Annotated[str, AfterValidator(_checked_line)]
"""Text without control characters."""
Id = Annotated[str, Field(max_length=64), AfterValidator(_checked_line)]
"""What may be an id; whether it is one is for the lookup to tell."""
Name = Annotated[str, AfterValidator(_checked_name)]
Description = Annotated[str | None, AfterValidator(_checked_description)]
Tags = Annotated[list[Tag], BeforeValidator(_none_as_empty), AfterValidator(_checked_tags)]
Moment = Annotated[datetime, PlainSerializer(lambda moment: moment.isoformat(timespec="milliseconds"), return_type=str)]
NoneAsEmpty = BeforeValidator(_none_as_empty)
"""For list fields: clients before 2.1 send null for an absent list."""


class ResourceOut(Wire):
    """What every resource shows.

    `id` and `name` repeat the resource's own `xxxId` and `xxxName`: the command line of clients 2.1.0 to 2.1.3 reads them.
    `statusReason` is a stable word, `statusMessage` the sentence for a person.
    """

    id: str
    name: str
    description: str | None = None
    app_key: str
    tag_list: list[Tag] = []
    status_reason: str | None = None
    status_message: str | None = None
    created_datetime: Moment
    updated_datetime: Moment


class Change(Wire):
    """A change of what people read: fields that are absent stay as they are."""

    name: Name | None = None
    description: Description = None
    tag_list: Tags | None = None


def plain(complaint: Mapping[str, Any]) -> str:
    """What pydantic finds wrong with a value (an item of `ValidationError.errors()`), for whoever wrote it: in words, without the field's name."""
    words = _PLAIN.get(complaint["type"])
    if words is None:
        return str(complaint["msg"]).removeprefix("Value error, ")
    return words.format(**complaint.get("ctx", {}))


_A_MOMENT = "must be a moment with its offset, such as 2026-01-31T09:00:00+09:00"
_PLAIN = {
    "missing": "must be given",
    "extra_forbidden": "is not known",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "too_long": "must have at most {max_length} items (it has {actual_length})",
    "too_short": "must have at least {min_length} item(s), not {actual_length}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_type": "must be text",
    "list_type": "must be a list",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number, and not as large",
    "finite_number": "must be a finite number",
    "multiple_of": "must be a multiple of {multiple_of}",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "datetime_type": _A_MOMENT,
    "datetime_parsing": _A_MOMENT,
    "datetime_from_date_parsing": _A_MOMENT,
    "timezone_aware": _A_MOMENT,
}
"""Complaints that pydantic words for programmers, by its names for them."""
