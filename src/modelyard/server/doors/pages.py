"""The plain pages around signing in, in English and Korean. They need no script; everything that comes from outside is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from html import escape
from typing import Literal
from urllib.parse import quote

Language = Literal["en", "ko"]

STYLE = """
:root { color-scheme: light dark;
  --ink: #1c2430; --soft: #5c6675; --line: #d5dae1; --paper: #fff; --ground: #f4f6f9; --accent: #1d5fd1; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebf0; --soft: #9aa4b2; --line: #38414d; --paper: #1a2029; --ground: #11151b; --accent: #6b9cf0; --bad: #ff8a80; }
}
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, "Noto Sans KR", sans-serif; }
main { width: min(25rem, calc(100vw - 2rem)); background: var(--paper); border: 1px solid var(--line); border-radius: 12px; padding: 2rem; }
h1 { font-size: 1.25rem; margin: 0 0 1rem; display: flex; gap: .6rem; align-items: center; overflow-wrap: anywhere; }
h1 img { width: 1.75rem; height: 1.75rem; }
p { margin: 0 0 1rem; overflow-wrap: anywhere; }
label { display: block; margin: 0 0 1rem; color: var(--soft); font-size: .9rem; }
input { display: block; width: 100%; margin-top: .25rem; padding: .6rem .7rem; font: inherit; color: var(--ink); background: var(--paper);
  border: 1px solid var(--line); border-radius: 8px; }
input:focus-visible, button:focus-visible, a:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
button { width: 100%; padding: .65rem; font: inherit; font-weight: 600; color: #fff;
  background: #1d5fd1; border: 0; border-radius: 8px; cursor: pointer; }
button.second { color: var(--ink); background: transparent; border: 1px solid var(--line); margin-top: .75rem; }
a { color: var(--accent); }
.bad { color: var(--bad); }
.soft { color: var(--soft); font-size: .9rem; }
ul { padding: 0; margin: 0 0 1rem; list-style: none; }
li { border-top: 1px solid var(--line); padding: .6rem 0; font-size: .9rem; overflow-wrap: anywhere; }
.dots { display: inline-block; width: 1.4em; text-align: left; overflow: hidden; vertical-align: bottom; animation: dots 1.2s steps(4) infinite; }
@keyframes dots { from { width: 0; } to { width: 1.4em; } }
@media (prefers-reduced-motion: reduce) { .dots { animation: none; } }
"""


# In the page itself: pages of the guard lie on origins where nothing else of the platform's is served.
_ICON = "data:image/svg+xml," + quote(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#1d5fd1"/>'
    '<path d="M7 23V9l9 8 9-8v14" fill="none" stroke="#fff" stroke-width="3.2" stroke-linecap="round"/></svg>'
)


def page_headers(form_action: str = "'none'") -> dict[str, str]:
    """The headers of every page. `form_action`: where forms may lead, redirections of their answers included (CSP level 3)."""
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action {form_action}; frame-ancestors 'none'; base-uri 'none'"
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        # With "no-referrer" browsers send `Origin: null` with forms, which could not be told from another page's.
        "Referrer-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


class Page(StrEnum):
    """The pages that say one thing."""

    CODE_SPENT = "code_spent"
    NOT_FOUND = "not_found"
    STARTING = "starting"
    NOT_READY = "not_ready"


_WORDS: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "sign_in": "Sign in",
        "name": "User name",
        "password": "Password",
        "wrong": "The name or the password is wrong.",
        "wait": "Too many sign-ins have failed lately. Try again in {seconds} s.",
        "stale": "This form was open for too long, or cookies are turned off. Try again.",
        "to_open": "to open {title}",
        "hint": "<code>modelyard credentials</code> shows an admin's name and password.",
        "signed_in": "Signed in as {name}",
        "sign_out": "Sign out",
        "sign_ins": "Where you are signed in",
        "this_one": "this browser",
        "since": "{since} UTC, {address}",
        "change_password": "Change password",
        "old_password": "Current password",
        "new_password": "New password (12 characters or more)",
        "too_short": "The new password must have at least 12 characters.",
        "changed": "The password is changed. Sign in with the new one; all other sign-ins have ended.",
        "code_spent.title": "This link is used up",
        "code_spent": "A link like this works once, for a minute, in the browser that asked for it.",
        "code_spent.link": "Open it again",
        "not_found.title": "Nothing here",
        "not_found": "There is nothing at this address that you may open. "
        "It may have been deleted, or belong to a project that you are no member of.",
        "not_found.link": "Your account",
        "starting.title": "Starting {title}",
        "starting": "This page opens it by itself as soon as it is ready",
        "starting.link": "Look now",
        "not_ready.title": "{title} can't be opened",
        "not_ready": "",
        "not_ready.link": "Try again",
    },
    "ko": {
        "sign_in": "로그인",
        "name": "사용자 이름",
        "password": "비밀번호",
        "wrong": "이름 또는 비밀번호가 올바르지 않습니다.",
        "wait": "최근에 실패한 로그인이 너무 많습니다. {seconds}초 후에 다시 시도하세요.",
        "stale": "양식을 너무 오래 열어 두었거나 쿠키가 꺼져 있습니다. 다시 시도하세요.",
        "to_open": "{title} 열기",
        "hint": "관리자의 이름과 비밀번호는 <code>modelyard credentials</code>로 확인할 수 있습니다.",
        "signed_in": "{name}(으)로 로그인됨",
        "sign_out": "로그아웃",
        "sign_ins": "로그인된 위치",
        "this_one": "이 브라우저",
        "since": "{since} UTC, {address}",
        "change_password": "비밀번호 변경",
        "old_password": "현재 비밀번호",
        "new_password": "새 비밀번호(12자 이상)",
        "too_short": "새 비밀번호는 12자 이상이어야 합니다.",
        "changed": "비밀번호가 변경되었습니다. 새 비밀번호로 로그인하세요. 다른 모든 로그인은 종료되었습니다.",
        "code_spent.title": "이미 사용된 링크입니다",
        "code_spent": "이 링크는 요청한 브라우저에서 1분 안에 한 번만 사용할 수 있습니다.",
        "code_spent.link": "다시 열기",
        "not_found.title": "찾을 수 없습니다",
        "not_found": "이 주소에는 열 수 있는 항목이 없습니다. 삭제되었거나, 회원이 아닌 프로젝트의 항목일 수 있습니다.",
        "not_found.link": "내 계정",
        "starting.title": "{title} 시작 중",
        "starting": "준비가 되면 이 페이지에서 자동으로 열립니다",
        "starting.link": "지금 확인",
        "not_ready.title": "{title}을(를) 열 수 없습니다",
        "not_ready": "",
        "not_ready.link": "다시 시도",
    },
}


def language(accept: str) -> Language:
    """The language that a browser asks for (RFC 9110, section 12.5.4); English where it wants neither."""
    best: tuple[float, Language] = (0.0, "en")
    for part in accept.split(","):
        tag, _, parameters = part.strip().partition(";")
        weight = re.search(r"q=([0-9.]{1,5})", parameters)
        try:
            quality = float(weight.group(1)) if weight else 1.0
        except ValueError:
            continue
        primary = tag.strip().lower().partition("-")[0]
        if primary in ("en", "ko") and quality > best[0]:
            best = (quality, "ko" if primary == "ko" else "en")
    return best[1]


def said(key: str, language: Language, **values: object) -> str:
    """The words, with the values escaped."""
    return _WORDS[language][key].format(**{name: escape(str(value)) for name, value in values.items()})


def page(
    kind: Page,
    language: Language,
    *,
    link: str = "",
    title: str = "",
    message: str = "",
    again_seconds: int | None = None,
) -> bytes:
    """A page that says one thing and offers one link; it loads itself again where `again_seconds` says so."""
    text = escape(message) or said(kind, language)
    if again_seconds is not None:
        text = f'{text}<span class="dots" aria-hidden="true">…</span>'
    offer = f'<p><a href="{escape(link)}">{said(f"{kind}.link", language)}</a></p>' if link else ""
    body = f'<p role="status">{text}</p>{offer}'
    return document(said(f"{kind}.title", language, title=title), body, language, again_seconds=again_seconds)


def sign_in_page(
    language: Language, *, form: str, next: str, name: str = "", title: str = "", fault: str = ""
) -> bytes:
    """The sign-in. `fault` is text of ours."""
    trouble = f'<p class="bad" role="alert">{fault}</p>' if fault else ""
    reason = f'<p class="soft">{said("to_open", language, title=title)}</p>' if title else ""
    first, second = ("", " autofocus") if name else (" autofocus", "")
    body = f"""{reason}{trouble}<form method="post" action="/sign-in">
<input type="hidden" name="form" value="{escape(form)}"><input type="hidden" name="next" value="{escape(next)}">
<label>{said("name", language)}<input name="name" autocomplete="username" maxlength="64" required value="{escape(name)}"{first}></label>
<label>{said("password", language)}<input name="password" type="password" autocomplete="current-password" maxlength="1024" required{second}></label>
<button>{said("sign_in", language)}</button></form>
<p class="soft" style="margin:1rem 0 0">{said("hint", language)}</p>"""
    return document(said("sign_in", language), body, language)


def account_page(
    language: Language, *, form: str, name: str, sign_ins: Sequence[tuple[str, str, str, bool]], fault: str = ""
) -> bytes:
    """Who is signed in, and where: (since, address, browser, is this one)."""
    places = "".join(
        f"<li>{escape(agent) or '—'}<br><span class=soft>{said('since', language, since=since, address=address)}"
        f"{' · ' + said('this_one', language) if is_this else ''}</span></li>"
        for since, address, agent, is_this in sign_ins
    )
    hidden = f'<input type="hidden" name="form" value="{escape(form)}">'
    trouble = f'<p class="bad" role="alert">{fault}</p>' if fault else ""
    body = f"""<p class="soft">{said("sign_ins", language)}</p><ul>{places}</ul>
<form method="post" action="/account/password">{hidden}{trouble}
<label>{said("old_password", language)}<input name="old" type="password" autocomplete="current-password" maxlength="1024" required></label>
<label>{said("new_password", language)}<input name="new" type="password" autocomplete="new-password" minlength="12" maxlength="1024" required></label>
<button>{said("change_password", language)}</button></form>
<form method="post" action="/sign-out">{hidden}<button class="second">{said("sign_out", language)}</button></form>"""
    return document(said("signed_in", language, name=name), body, language)


def document(heading: str, body: str, language: Language, *, again_seconds: int | None = None) -> bytes:
    """A whole page around HTML that is escaped already."""
    again = f'<meta http-equiv="refresh" content="{again_seconds}">' if again_seconds is not None else ""
    return f"""<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{again}
<title>{heading} · Modelyard</title><link rel="icon" href="{_ICON}"><style>{STYLE}</style></head>
<body><main><h1><img src="{_ICON}" alt="">{heading}</h1>{body}</main></body></html>
""".encode()
