"""The door for people: signing in and out, the account, and `/open`, the way from the main origin to a notebook or a TensorBoard.

Forms carry what a cookie of the same browser says (double submit), and a form that another origin's page sends is refused by `Origin` as well.
Every redirection goes to a path of ours or to an address that is made from a kind and an id; none to an address that a caller names.
"""

from __future__ import annotations

import hmac
import re
import secrets
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from modelyard.kit.paging import PageRequest
from modelyard.resources.sessions.access import Visits, path_fault
from modelyard.resources.sessions.errors import SignInFailed, TooManyFailures
from modelyard.resources.sessions.model import SignedIn
from modelyard.resources.sessions.origins import Origins, Scheme, opening_path
from modelyard.resources.sessions.service import Sessions
from modelyard.resources.users.model import MIN_PASSWORD_CHARACTERS
from modelyard.server.cookies import Cookie, cookie_value, set_cookie
from modelyard.server.doors.guard import ENTER
from modelyard.server.doors.pages import Language, Page, account_page, language, page, page_headers, said, sign_in_page

_MAX_FORM_BYTES = 16 * 1024
_MAX_FORM_FIELDS = 20
_SIGN_INS_SHOWN = 50
_LOOK_AGAIN_SECONDS = 1
_STATE = re.compile(r"[0-9a-f]{64}")
ACCOUNT = "/account"


def create_router(sessions: Sessions, visits: Visits, origins: Origins) -> APIRouter:
    """The routes. None of them is in the OpenAPI document: they are pages."""
    door = _Door(sessions, visits, origins)
    router = APIRouter(include_in_schema=False)
    router.add_api_route("/sign-in", door.show_sign_in, methods=["GET"])
    router.add_api_route("/sign-in", door.sign_in, methods=["POST"])
    router.add_api_route("/sign-out", door.sign_out, methods=["POST"])
    router.add_api_route(ACCOUNT, door.show_account, methods=["GET"])
    router.add_api_route("/account/password", door.change_password, methods=["POST"])
    router.add_api_route("/open/{kind}/{id}", door.open, methods=["GET"])
    return router


class _Door:
    def __init__(self, sessions: Sessions, visits: Visits, origins: Origins) -> None:
        self._sessions = sessions
        self._visits = visits
        self._origins = origins

    async def show_sign_in(self, request: Request) -> Response:
        """The form, or where it leads for somebody who is signed in."""
        next = _local(request.query_params.get("next"))
        if await self._signed_in(request) is not None:
            return _to(next)
        return self._form(request, next)

    async def sign_in(self, request: Request) -> Response:
        """Check name and password."""
        form = await _form(request)
        next, name = _local(form.get("next")), form.get("name", "")[:64]
        words = _language(request)
        if not _is_ours(request, form):
            return self._form(request, next, name=name, fault=said("stale", words), status=403)
        try:
            token, found = await self._sessions.sign_in(
                name, form.get("password", ""), client_address(request), request.headers.get("user-agent", "")
            )
        except SignInFailed:
            return self._form(request, next, name=name, fault=said("wrong", words), status=401)
        except TooManyFailures as refusal:
            fault = said("wait", words, seconds=refusal.seconds)
            answer = self._form(request, next, name=name, fault=fault, status=429)
            answer.headers["Retry-After"] = str(refusal.seconds)
            return answer
        answer = _to(next)
        cookie = set_cookie(Cookie.SESSION, token, is_secure=_is_secure(request), until=found.expires_at)
        answer.headers.append("Set-Cookie", cookie)
        return answer

    async def sign_out(self, request: Request) -> Response:
        """End this browser's sign-in."""
        if not _is_ours(request, await _form(request)):
            return _to(ACCOUNT)
        token = _cookie(request, Cookie.SESSION)
        if token is not None:
            await self._sessions.sign_out(token)
        answer = _to("/sign-in")
        answer.headers.append("Set-Cookie", set_cookie(Cookie.SESSION, "", is_secure=_is_secure(request)))
        return answer

    async def show_account(self, request: Request) -> Response:
        """Who is signed in, and where."""
        signed_in = await self._signed_in(request)
        return _to(f"/sign-in?next={ACCOUNT}") if signed_in is None else await self._account(request, signed_in)

    async def change_password(self, request: Request) -> Response:
        """Another password; all sign-ins of this user end."""
        form, words = await _form(request), _language(request)
        signed_in = await self._signed_in(request)
        if signed_in is None:
            return _to(f"/sign-in?next={ACCOUNT}")
        if not _is_ours(request, form):
            return await self._account(request, signed_in, fault=said("stale", words), status=403)
        old, new = form.get("old", ""), form.get("new", "")
        if len(new) < MIN_PASSWORD_CHARACTERS:
            return await self._account(request, signed_in, fault=said("too_short", words), status=400)
        try:
            await self._sessions.change_password(signed_in.user_name, old, new, client_address(request))
        except SignInFailed:
            return await self._account(request, signed_in, fault=said("wrong", words), status=401)
        except TooManyFailures as refusal:
            fault = said("wait", words, seconds=refusal.seconds)
            return await self._account(request, signed_in, fault=fault, status=429)
        return self._form(request, ACCOUNT, name=signed_in.user_name, fault=said("changed", words))

    async def open(self, request: Request, kind: str, id: str) -> Response:
        """Lead a member to a thing, having it started where that is needed.

        Query: `path` within the thing; `state`, from the thing's own origin, ties the code to the browser. Without it the browser is sent there to
        get one: it comes back with it.
        """
        path, state = _local(request.query_params.get("path")), request.query_params.get("state", "")
        state = state if _STATE.fullmatch(state) else ""
        signed_in = await self._signed_in(request)
        if signed_in is None:
            return _to(_with_next(opening_path(kind, id, path, state)))
        words, scheme = _language(request), _scheme(request)
        target = await self._visits.find_target(kind, id, signed_in)
        if target is None:
            return _page(page(Page.NOT_FOUND, words, link=ACCOUNT), 404)
        opening = await self._visits.open(target, f"user:{signed_in.user_id}")
        if not opening.is_ready:
            again = opening_path(kind, id, path, state)
            title, message = target.title, opening.message
            if opening.is_coming:
                content = page(
                    Page.STARTING, words, link=again, title=title, message=message, again_seconds=_LOOK_AGAIN_SECONDS
                )
                return _page(content)
            return _page(page(Page.NOT_READY, words, link=again, title=title, message=message), 409)
        if not state:
            return _to(self._origins.url(kind, id, path, scheme))
        code = await self._visits.code_for_session(target, signed_in, state, path)
        return _to(self._origins.url(kind, id, f"{ENTER}?code={code}", scheme))

    async def _signed_in(self, request: Request) -> SignedIn | None:
        token = _cookie(request, Cookie.SESSION)
        return None if token is None else await self._sessions.find(token)

    def _form(self, request: Request, next: str, *, name: str = "", fault: str = "", status: int = 200) -> Response:
        token = _cookie(request, Cookie.FORM) or secrets.token_urlsafe(32)
        content = sign_in_page(_language(request), form=token, next=next, name=name, fault=fault)
        return self._with_form(request, content, token, status)

    async def _account(self, request: Request, signed_in: SignedIn, *, fault: str = "", status: int = 200) -> Response:
        token = _cookie(request, Cookie.FORM) or secrets.token_urlsafe(32)
        found = await self._sessions.list(PageRequest(1, _SIGN_INS_SHOWN), signed_in.user_id)
        places = [
            (f"{each.created_at:%Y-%m-%d %H:%M}", each.address, each.user_agent, each.id == signed_in.id)
            for each in found.items
        ]
        content = account_page(_language(request), form=token, name=signed_in.user_name, sign_ins=places, fault=fault)
        return self._with_form(request, content, token, status)

    def _with_form(self, request: Request, content: bytes, token: str, status: int) -> Response:
        # Browsers hold the answer's redirections to this as well, and a sign-in leads on to the thing that was to be opened.
        targets = " ".join(("'self'", *self._origins.patterns(_scheme(request))))
        answer = Response(content, status, page_headers(targets))
        answer.headers.append("Set-Cookie", set_cookie(Cookie.FORM, token, is_secure=_is_secure(request)))
        return answer


def client_address(request: Request) -> str:
    """Whom the gateway says that it talks to: the last entry is its own, what comes before is the client's word."""
    return request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()


def _scheme(request: Request) -> Scheme:
    return "https" if request.headers.get("x-forwarded-proto") == "https" else "http"


def _is_secure(request: Request) -> bool:
    return _scheme(request) == "https"


def _language(request: Request) -> Language:
    return language(request.headers.get("accept-language", ""))


def _cookie(request: Request, cookie: Cookie) -> str | None:
    return cookie_value(request.headers.get("cookie", ""), cookie, is_secure=_is_secure(request))


def _local(path: str | None) -> str:
    """A path of ours that somebody names, or `/`."""
    return path if path and path_fault(path) is None else "/"


def _with_next(path: str) -> str:
    return f"/sign-in?{urlencode({'next': path})}"


def _to(where: str) -> Response:
    return RedirectResponse(where, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})


def _page(content: bytes, status: int = 200) -> Response:
    return Response(content, status, page_headers())


async def _form(request: Request) -> dict[str, str]:
    """The form's first values; empty for what is no form, or too large for one of ours."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > _MAX_FORM_BYTES:
            return {}
    try:
        fields = parse_qs(content.decode(errors="replace"), keep_blank_values=True, max_num_fields=_MAX_FORM_FIELDS)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def _is_ours(request: Request, form: dict[str, str]) -> bool:
    """Whether one of our pages in this browser has sent the form."""
    origin = request.headers.get("origin")
    if origin is not None and origin.lower() != f"{_scheme(request)}://{request.headers.get('host', '').lower()}":
        return False
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    token = _cookie(request, Cookie.FORM)
    return token is not None and hmac.compare_digest(token.encode(), form.get("form", "").encode())
