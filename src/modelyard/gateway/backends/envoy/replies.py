"""What the gateway says when it answers a request itself, in the platform's envelope.

A client reads one form of error whoever speaks, so Envoy's plain texts are replaced. `resultCode` is the HTTP status times a thousand plus
a number; the gateway's numbers begin at 900 so that they are never taken for one of the API's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

CONTENT_TYPE = "application/json; charset=utf-8"
RETRY_AFTER_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Reply:
    """One kind of answer: for an HTTP status and, where given, one of Envoy's response flags or a method. `headers` replace Envoy's own."""

    status: int
    number: int
    sentence: str
    flags: tuple[str, ...] = ()
    method: str = ""
    headers: tuple[tuple[str, str], ...] = ()


REPLIES = (
    Reply(
        400,
        900,
        "The request is not valid: it is malformed HTTP, or its path has a '.' or '..' segment or a backslash.",
    ),
    Reply(
        401,
        900,
        "This address asks for an API key: send a valid one in the header x-api-key. The project's members make and revoke keys.",
        headers=(("www-authenticate", "ApiKey"),),
    ),
    Reply(
        403,
        900,
        "This address may not be called from where the request comes from: the client's address is not on its allow-list.",
    ),
    Reply(
        404,
        910,
        "This is no proxy to elsewhere: tunnels lead to the names of the official client's hosts, on port 443.",
        method="CONNECT",
    ),
    Reply(404, 900, "Nothing is served at this address."),
    Reply(408, 900, "The request took too long to arrive."),
    Reply(413, 900, "The request body is larger than this address allows."),
    Reply(426, 900, "This version of HTTP is not supported: use HTTP/1.1 or HTTP/2."),
    Reply(
        429,
        900,
        "This address, or the API key, has had as many requests as it is allowed: send it again after the seconds in Retry-After.",
    ),
    Reply(431, 900, "The request's headers are too large."),
    Reply(502, 900, "The service behind this address gave an answer that is not valid HTTP."),
    Reply(503, 901, "No instance of the service behind this address is ready.", ("UH", "NC")),
    Reply(503, 902, "The service behind this address can't be reached.", ("UF",)),
    Reply(
        503,
        903,
        "The service behind this address ended the connection before it answered. It may have begun with the request, so the gateway sends"
        " nothing but GET and HEAD again by itself; send it again where doing it twice does no harm, as with a prediction.",
        ("UC", "UR", "LR"),
    ),
    Reply(503, 904, "The service behind this address has too many requests at the moment.", ("UO", "URX")),
    Reply(503, 905, "The platform can't be asked who may pass at the moment; it is probably starting.", ("UAEX",)),
    Reply(503, 900, "The service behind this address is not available at the moment."),
    Reply(504, 900, "The service behind this address did not answer in time."),
)


def local_replies() -> Json:
    """The `local_reply_config` of a connection manager."""
    return {
        "mappers": [
            *(_mapper(reply) for reply in REPLIES if reply.flags),
            _guards_own(),
            _answers(),
            *(_mapper(reply) for reply in REPLIES if not reply.flags),
        ],
        "body_format": _body("%RESPONSE_CODE%999", "The gateway answered this request itself."),
    }


def _guards_own() -> Json:
    """What the guard says to those that it does not let pass (a redirection, a page, an envelope) goes out as it is."""
    return {
        "filter": {"response_flag_filter": {"flags": ["UAEX"]}},
        "body_format_override": {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}},
    }


def _answers() -> Json:
    """What a route answers by itself."""
    comparison = {"op": "EQ", "value": {"default_value": 200, "runtime_key": "modelyard.none"}}
    text = {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}, "content_type": CONTENT_TYPE}
    return {"filter": {"status_code_filter": {"comparison": comparison}}, "body_format_override": text}


def _mapper(reply: Reply) -> Json:
    # Envoy wants the name of a runtime override with every comparison; nothing sets this one.
    comparison = {"op": "EQ", "value": {"default_value": reply.status, "runtime_key": "modelyard.none"}}
    condition: Json = {"status_code_filter": {"comparison": comparison}}
    if reply.flags:
        condition = {"and_filter": {"filters": [condition, {"response_flag_filter": {"flags": list(reply.flags)}}]}}
    if reply.method:
        asked = {"name": ":method", "string_match": {"exact": reply.method}}
        condition = {"and_filter": {"filters": [condition, {"header_filter": {"header": asked}}]}}
    mapper: Json = {
        "filter": condition,
        "body_format_override": _body(str(reply.status * 1000 + reply.number), reply.sentence),
    }
    headers = (*reply.headers, *([("retry-after", str(RETRY_AFTER_SECONDS))] if reply.status == 503 else []))
    if headers:
        mapper["headers_to_add"] = [
            {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for name, value in headers
        ]
    return mapper


def _body(code: str, sentence: str) -> Json:
    text = f'{{"header":{{"isSuccessful":false,"resultCode":{code},"resultMessage":"{sentence}"}}}}'
    return {"text_format_source": {"inline_string": text}, "content_type": CONTENT_TYPE}
