"""The way of a browser to a notebook, and every way that must not lead there: signing in, the hand-over between origins, the guard, the end."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from browser_doors import PASSWORD, Doors, make_doors

from modelyard.kit.paging import PageRequest
from modelyard.resources.projects.service import new_project_keys
from modelyard.resources.sessions.model import Opening, SignedIn
from modelyard.resources.sessions.observer import VisitObserver

pytestmark = pytest.mark.slow

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
VISIT = "modelyard_visit"


def visit_of(browser: httpx.AsyncClient, id: str = "") -> str:
    """Its newest visit, or that to one notebook."""
    return next(
        cookie.value or "" for cookie in browser.cookies.jar if cookie.name == VISIT and cookie.domain.startswith(id)
    )


async def test_the_way_in_and_what_reaches_the_notebook(doors: Doors) -> None:
    id = await doors.add_notebook()
    browser = doors.browser()
    first = await browser.get(doors.url(id, "/lab?x=1&y=%2F"))
    assert first.status_code == 302
    assert first.headers["location"].startswith(f"{doors.main}/open/notebook/{id}?path=")
    second = await browser.get(first.headers["location"])
    assert (second.status_code, second.headers["location"][:9]) == (303, "/sign-in?")
    page = await browser.get(doors.main + second.headers["location"])
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    token = re.search(r'name="form" value="([^"]*)"', page.text)
    next = re.search(r'name="next" value="([^"]*)"', page.text)
    assert token is not None and next is not None
    fields = {"form": token.group(1), "name": "ann", "password": PASSWORD, "next": next.group(1).replace("&amp;", "&")}
    third = await browser.post(f"{doors.main}/sign-in", data=fields)
    assert third.status_code == 303
    cookie = next_cookie(third, "modelyard_session")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; ")[1:]) and "Secure" not in cookie
    fourth = await browser.get(doors.main + third.headers["location"])
    assert fourth.headers["location"].startswith(doors.url(id, "/.modelyard/enter?code="))
    fifth = await browser.get(fourth.headers["location"])
    assert (fifth.status_code, fifth.headers["location"], fifth.headers["referrer-policy"]) == (
        302,
        "/lab?x=1&y=%2F",
        "no-referrer",
    )
    cookie = next_cookie(fifth, VISIT)
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; ")[1:]) and "Domain" not in cookie
    browser.cookies.set("theirs", "1", domain=f"{id}.nb.localhost")
    headers = {"x-modelyard-user": "root", "x-modelyard-user-id": "0", "x-modelyard-project": "other"}
    seen = (await browser.get(doors.url(id, "/lab?x=1&y=%2F"), headers=headers)).json()
    assert seen["path"] == "/lab?x=1&y=%2F"
    assert seen["headers"]["cookie"] == "theirs=1"
    assert [seen["headers"][f"x-modelyard-{name}"] for name in ("user", "user-id", "project")] == [
        "ann",
        doors.ann,
        doors.project.id,
    ]
    assert "x-modelyard-access" not in seen["headers"]
    for method in METHODS:
        assert (await browser.request(method, doors.url(id, "/x"))).status_code == 200, method
    # One more thing needs no password any more, and a cookie of its own.
    other = await doors.add_notebook()
    assert (await browser.get(doors.url(other, "/lab"), follow_redirects=True)).json()["path"] == "/lab"
    assert len({cookie.value for cookie in browser.cookies.jar if cookie.name == VISIT}) == 2


def next_cookie(answer: httpx.Response, name: str) -> str:
    return next(header for header in answer.headers.get_list("set-cookie") if header.startswith(f"{name}="))


async def test_over_https_cookies_are_secure_and_of_one_host(doors: Doors) -> None:
    id = await doors.add_notebook()
    browser = doors.browser()
    main = f"https://127.0.0.1:{doors.https_port}"
    page = await browser.get(f"{main}/sign-in")
    token = re.search(r'name="form" value="([^"]*)"', page.text)
    assert token is not None
    answer = await browser.post(f"{main}/sign-in", data={"form": token.group(1), "name": "ann", "password": PASSWORD})
    assert "; Secure" in next_cookie(answer, "__Host-modelyard_session")
    url = doors.origins.url("notebook", id, "/lab", "https")
    assert url == f"https://{id}.nb.localhost:{doors.https_port}/lab"
    seen = await browser.get(url, follow_redirects=True)
    assert seen.json()["path"] == "/lab"
    assert "cookie" not in seen.json()["headers"]
    assert "; Secure" in next_cookie(seen.history[-1], "__Host-modelyard_visit")


async def test_without_a_visit_nothing_passes(doors: Doors) -> None:
    id, other = await doors.add_notebook(), await doors.add_notebook()
    good = visit_of(await doors.visiting(id))
    bob = await doors.users.ensure("bob", PASSWORD)
    keys = new_project_keys()
    neighbour = await doors.projects.ensure("neighbour", keys, member_id=bob.id)
    theirs = await doors.add_notebook(neighbour.id)
    foreign = visit_of(await doors.visiting(theirs, "bob"))
    doors.upstream.requests.clear()
    cases = {
        "none": "",
        "wrong": f"{VISIT}=wrong",
        "empty": f"{VISIT}=",
        "another thing's": f"{VISIT}={good}",
        "another project's": f"{VISIT}={foreign}",
        "as a session": f"modelyard_session={good}",
        "long": f"{VISIT}={'x' * 5000}",
    }
    async with doors.browser() as browser:
        for name, cookie in cases.items():
            headers = {"cookie": cookie, "accept": "*/*"} if cookie else {"accept": "*/*"}
            for method in METHODS:
                answer = await browser.request(method, doors.url(other, "/x"), headers=headers)
                assert answer.status_code == 401, (name, method, answer.status_code)
            status, _, writer = await doors.websocket(other, *([f"cookie: {cookie}"] if cookie else []))
            assert status == "401 Unauthorized", name
            writer.close()
        body = (await browser.get(doors.url(other, "/x"), headers={"accept": "*/*"})).json()
        assert body["header"]["resultCode"] == 401011
        assert "/sign-in" in body["header"]["resultMessage"]
    assert doors.upstream.requests == []


async def test_members_of_other_projects_stay_out(doors: Doors) -> None:
    id = await doors.add_notebook()
    await doors.users.ensure("bob", PASSWORD)
    browser = doors.browser()
    await doors.sign_in(browser, "bob")
    answer = await browser.get(doors.url(id, "/lab"), follow_redirects=True)
    unknown = await browser.get(doors.url("0" * 8, "/lab"), follow_redirects=True)
    assert answer.status_code == unknown.status_code == 404
    assert "There is nothing at this address that you may open" in answer.text
    assert "iris" not in answer.text


async def test_spoofed_words_of_the_gateway_do_not_help(doors: Doors) -> None:
    id, other = await doors.add_notebook(), await doors.add_notebook()
    visit = visit_of(await doors.visiting(id))
    async with doors.browser() as browser:
        for headers in (
            {"x-modelyard-access": f"{doors.project.id}/notebook/{id}"},
            {"X-MODELYARD-ACCESS": f"{doors.project.id}/notebook/{id}"},
            {"x-envoy-original-path": "/", "x-forwarded-host": f"{id}.nb.localhost"},
        ):
            answer = await browser.get(
                doors.url(other, "/x"), headers={"cookie": f"{VISIT}={visit}", **headers}, follow_redirects=False
            )
            assert answer.status_code == 302, headers


async def test_codes_work_once_for_one_thing_in_one_browser_for_a_minute(doors: Doors) -> None:
    id, other = await doors.add_notebook(), await doors.add_notebook()

    async def code_url(browser: httpx.AsyncClient) -> str:
        away = await browser.get(doors.url(id, "/lab"))
        return (await browser.get(away.headers["location"])).headers["location"]

    browser = doors.browser()
    await doors.sign_in(browser)
    url = await code_url(browser)
    thief = doors.browser()
    spent = await thief.get(url)  # a browser that never asked; with it the code is burnt
    assert (spent.status_code, VISIT in thief.cookies) == (403, False)
    assert "This link is used up" in spent.text
    assert (await browser.get(url)).status_code == 403
    url = await code_url(browser)
    assert (await browser.get(url)).status_code == 302
    used = doors.browser()
    used.cookies = httpx.Cookies({"modelyard_state": "x"})
    assert (await used.get(url)).status_code == 403
    assert (await browser.get(url)).headers["location"] == "/"  # loaded again by who is in already
    fresh = doors.browser()
    await doors.sign_in(fresh)
    url = await code_url(fresh)
    assert (await fresh.get(url.replace(id, other))).status_code == 403
    url = await code_url(fresh)
    doors.clock.advance(61)
    assert (await fresh.get(url)).status_code == 403
    for wrong in (
        "/.modelyard/enter",
        "/.modelyard/enter?code=",
        "/.modelyard/enter?code=wrong",
        "/.modelyard/enter?code=%00",
        "/.modelyard/enter?code=a&code=b",
    ):
        assert (await fresh.get(doors.url(id, wrong))).status_code == 403
    assert (await fresh.post(doors.url(id, "/.modelyard/enter?code=x"))).status_code == 405
    assert not any("enter" in request for request in doors.upstream.requests)


async def test_of_many_who_take_a_code_at_once_one_gets_in(doors: Doors) -> None:
    id = await doors.add_notebook()
    target = await doors.notebooks.find_target(id)
    signed_in = (await doors.sessions.sign_in("ann", PASSWORD, "", ""))[1]
    assert target is not None
    code = await doors.visits.code_for_session(target, signed_in, "0" * 64, "/")
    entries = await asyncio.gather(*(doors.visits.enter(code, "notebook", id, "0" * 64) for _ in range(20)))
    assert sum(entry is not None for entry in entries) == 1


async def test_a_caller_of_the_api_opens_a_browser(doors: Doors) -> None:
    id = await doors.add_notebook()
    async with doors.browser() as browser:
        url = f"{doors.main}/v1.0/appkeys/{doors.keys.app_key}/access-codes"
        ask = {"kind": "notebook", "id": id, "path": "/lab/tree/a.ipynb"}
        assert (await browser.post(url, json=ask)).status_code == 401
        headers = {"x-nhn-authorization": f"Bearer {doors.keys.access_token}"}
        given = (await browser.post(url, json=ask, headers=headers)).json()["accessCode"]["url"]
        seen = await browser.get(given, follow_redirects=True)
        assert (seen.json()["path"], str(seen.url)) == ("/lab/tree/a.ipynb", doors.url(id, "/lab/tree/a.ipynb"))
        assert seen.json()["headers"]["x-modelyard-user"].startswith("access%3A")
        assert (await doors.browser().get(given)).status_code == 403
        for wrong, status in (
            ({"kind": "nonsense", "id": id}, 400),
            ({"kind": "notebook", "id": "0"}, 404),
            ({**ask, "path": "//evil"}, 400),
            ({**ask, "path": "http://evil"}, 400),
            ({**ask, "path": "/\\evil"}, 400),
            ({**ask, "path": "/a\r\nset-cookie: x"}, 400),
            ({"kind": 7}, 400),
        ):
            answer = await browser.post(url, json=wrong, headers=headers)
            assert answer.status_code == status, (wrong, answer.text)
        signed = doors.projects.sign_workload(doors.project, "w")
        assert (await browser.post(url, json=ask, headers={"x-easymaker-token": signed})).status_code == 403
        theirs = await doors.add_notebook((await doors.projects.ensure("neighbour", new_project_keys())).id)
        assert (await browser.post(url, json={**ask, "id": theirs}, headers=headers)).status_code == 404


async def test_pages_of_other_origins_can_not_use_a_visit(doors: Doors) -> None:
    id, other = await doors.add_notebook(), await doors.add_notebook()
    visit = visit_of(await doors.visiting(id))
    own = doors.url(id).rstrip("/")
    sibling = doors.url(other).rstrip("/")
    for origin in (sibling, "http://evil.example", "null", own.replace("http:", "https:"), own + ".evil"):
        status, _, writer = await doors.websocket(id, f"cookie: {VISIT}={visit}", f"origin: {origin}")
        assert status == "403 Forbidden", origin
        writer.close()
    status, reader, writer = await doors.websocket(id, f"cookie: {VISIT}={visit}", f"origin: {own}")
    assert status == "101 Switching Protocols"
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.close()
    async with doors.browser() as browser:

        def ask(method: str, **headers: str):
            return browser.request(
                method,
                doors.url(id, "/x"),
                headers={"cookie": f"{VISIT}={visit}", **{k.replace("_", "-"): v for k, v in headers.items()}},
            )

        assert (await ask("POST", origin=sibling)).status_code == 403
        assert (await ask("POST", origin=own)).status_code == 200
        assert (
            await ask("GET", sec_fetch_site="same-site", sec_fetch_mode="no-cors", sec_fetch_dest="script")
        ).status_code == 403
        assert (
            await ask("GET", sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="iframe")
        ).status_code == 403
        assert (
            await ask("GET", sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="document")
        ).status_code == 200
        assert (
            await ask("POST", sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="document")
        ).status_code == 403
        assert (
            await ask("GET", sec_fetch_site="same-origin", sec_fetch_mode="cors", sec_fetch_dest="empty")
        ).status_code == 200


REVOCATIONS = ("signed out", "session revoked", "member no more", "password changed", "token gone")


@dataclass
class Guest:
    """Somebody with a notebook open: a socket and a download."""

    how: str
    id: str
    user_id: str
    browser: httpx.AsyncClient
    visit: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    streaming: asyncio.Task[None]


async def test_what_is_open_ends_with_the_right_to_it(doors: Doors) -> None:
    stays = await doors.visiting(await doors.add_notebook(), "ann")
    guests = [await invited(doors, how) for how in REVOCATIONS]
    observer = asyncio.create_task(VisitObserver(doors.visits, doors.sessions).run())
    routing = asyncio.create_task(reconcile_for_ever(doors))
    try:
        for guest in guests:
            await take_the_right(doors, guest)
        await asyncio.gather(*(ends(doors, guest) for guest in guests))
        for guest in guests:
            # Who may still pass comes back.
            await stays.get(f"{doors.main}/open/notebook/{guest.id}?path=%2F", follow_redirects=True)
            at = visit_of(stays, guest.id)
            status, _, other = await doors.websocket(guest.id, f"cookie: {VISIT}={at}")
            assert status == "101 Switching Protocols", guest.how
            other.close()
    finally:
        for task in (observer, routing):
            task.cancel()
        for guest in guests:
            guest.streaming.cancel()
            guest.writer.close()


async def test_what_is_open_ends_when_the_visit_does(doors: Doors) -> None:
    guest = await invited(doors, "expired")
    observer = asyncio.create_task(VisitObserver(doors.visits, doors.sessions).run())
    routing = asyncio.create_task(reconcile_for_ever(doors))
    try:
        doors.clock.advance(13 * 3600)
        await ends(doors, guest)
    finally:
        for task in (observer, routing, guest.streaming):
            task.cancel()
        guest.writer.close()


async def invited(doors: Doors, how: str) -> Guest:
    """A member of the project with a notebook of their own open."""
    id, name = await doors.add_notebook(), how.replace(" ", "-")
    user = await doors.users.ensure(name, PASSWORD)
    await doors.projects.add_member(doors.project.id, user.id)
    browser = await doors.visiting(id, name)
    if how == "token gone":
        token, _ = await doors.projects.issue_user_token(user.id, timedelta(hours=1))
        headers = {"x-nhn-authorization": f"Bearer {token}"}
        ask = {"kind": "notebook", "id": id}
        given = await browser.post(
            f"{doors.main}/v1.0/appkeys/{doors.keys.app_key}/access-codes", json=ask, headers=headers
        )
        assert (await browser.get(given.json()["accessCode"]["url"])).status_code == 302
    visit = visit_of(browser)
    _, reader, writer = await doors.websocket(id, f"cookie: {VISIT}={visit}")
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    streaming = asyncio.create_task(stream(browser, doors.url(id, "/stream")))
    return Guest(how, id, user.id, browser, visit, reader, writer, streaming)


async def take_the_right(doors: Doors, guest: Guest) -> None:
    """One of the ways in which a right to come in ends."""
    match guest.how:
        case "signed out":
            page = await guest.browser.get(f"{doors.main}/account")
            found = re.search(r'name="form" value="([^"]*)"', page.text)
            assert found is not None
            left = await guest.browser.post(f"{doors.main}/sign-out", data={"form": found.group(1)})
            assert left.status_code == 303
        case "session revoked":
            (signed_in,) = (item for item in (await sign_ins(doors)) if item.user_id == guest.user_id)
            await doors.sessions.revoke(signed_in.id)
        case "member no more":
            await doors.projects.remove_member(doors.project.id, guest.user_id)
        case "password changed":
            await doors.sessions.change_password(guest.how.replace(" ", "-"), PASSWORD, PASSWORD + "!", "")
        case _:
            await doors.projects.revoke_user_tokens(guest.user_id)


async def ends(doors: Doors, guest: Guest) -> None:
    """What the guest has open ends soon, and the way back is shut."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        began = loop.time()
        assert await guest.reader.read() == b"", guest.how
        took = loop.time() - began
        await guest.streaming
    assert took < 20, guest.how  # 10 s on a machine with nothing else to do; it is 6 s there
    refused = await guest.browser.get(doors.url(guest.id, "/x"), headers={"accept": "*/*"})
    assert refused.status_code == 401, guest.how
    status, _, again = await doors.websocket(guest.id, f"cookie: {VISIT}={guest.visit}")
    assert status == "401 Unauthorized", guest.how
    again.close()


async def sign_ins(doors: Doors) -> list[SignedIn]:
    return list((await doors.sessions.list(PageRequest())).items)


async def stream(browser: httpx.AsyncClient, url: str) -> None:
    try:
        async with browser.stream("GET", url) as answer:
            assert answer.status_code == 200
            async for _ in answer.aiter_raw():
                pass
    except httpx.RemoteProtocolError:
        pass  # this is how an answer ends that is cut off


async def reconcile_for_ever(doors: Doors) -> None:
    while True:
        await doors.reconcile_routes()
        await asyncio.sleep(0.05)


async def test_wrong_passwords_are_slowed_down_and_honest_users_get_in(doors: Doors) -> None:
    browser = doors.browser()
    for _ in range(5):
        wrong = await doors.sign_in(browser, password="guess")
        assert wrong.status_code == 401
        assert "The name or the password is wrong." in wrong.text
    held = await doors.sign_in(browser)  # even the right one is not looked at now
    assert held.status_code == 429
    assert int(held.headers["retry-after"]) >= 1
    assert (await browser.post(f"{doors.main}/sign-in", data={})).status_code == 403
    await doors.sessions.sign_in("ann", PASSWORD, "192.0.2.7", "")  # elsewhere the user gets in at once
    doors.clock.advance(2)
    assert (await doors.sign_in(browser)).status_code == 303
    assert (await doors.sign_in(doors.browser(), password="guess")).status_code == 401  # the count began anew


async def test_a_burst_of_guesses_is_no_way_around(doors: Doors) -> None:
    answers = await asyncio.gather(
        *(doors.sign_in(doors.browser(), password=f"guess {number}") for number in range(20))
    )
    looked_at = sum(answer.status_code == 401 for answer in answers)
    assert 5 <= looked_at <= 9  # what was free, and as many as are looked at together
    assert all(answer.status_code in (401, 429) for answer in answers)


async def test_forms_of_other_pages_are_refused(doors: Doors) -> None:
    browser = doors.browser()
    fields = {"name": "ann", "password": PASSWORD}
    assert (await browser.post(f"{doors.main}/sign-in", data=fields)).status_code == 403
    assert (
        await browser.post(
            f"{doors.main}/sign-in", data={**fields, "form": "x"}, headers={"cookie": "modelyard_form=y"}
        )
    ).status_code == 403
    ours = {"cookie": "modelyard_form=x"}
    for headers in (
        {"origin": "http://evil"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        answer = await browser.post(f"{doors.main}/sign-in", data={**fields, "form": "x"}, headers={**ours, **headers})
        assert answer.status_code == 403, headers
        assert "modelyard_session" not in browser.cookies
    answer = await browser.post(
        f"{doors.main}/sign-in", data={**fields, "form": "x"}, headers={**ours, "origin": doors.main}
    )
    assert answer.status_code == 303
    for body in (b"x" * 20000, b"\xff\xfe", b"&" * 1000, b"name=" + b"%" * 500):
        assert (await browser.post(f"{doors.main}/sign-in", content=body, headers=ours)).status_code == 403
    await doors.sign_in(browser)
    await browser.post(f"{doors.main}/sign-out", data={"form": "x"}, headers={"origin": "http://evil"})
    assert (await browser.get(f"{doors.main}/account")).status_code == 200  # still signed in


@pytest.mark.parametrize(
    "next",
    [
        "http://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/%0d%0aset-cookie:x\r\n",
        "javascript:alert(1)",
        "\\\\evil",
        "/a b",
        "",
    ],
)
async def test_nobody_is_led_elsewhere(doors: Doors, next: str) -> None:
    browser = doors.browser()
    answer = await doors.sign_in(browser, next=next)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert (await browser.get(f"{doors.main}/sign-in", params={"next": next})).headers["location"] == "/"
    id = await doors.add_notebook()
    away = await browser.get(doors.url(id, "/x"))
    state = httpx.URL(away.headers["location"]).params["state"]
    there = await browser.get(f"{doors.main}/open/notebook/{id}", params={"path": next, "state": state})
    inside = await browser.get(there.headers["location"])
    assert (inside.status_code, inside.headers["location"]) == (302, "/")


async def test_opening_tells_what_is_going_on(doors: Doors) -> None:
    id = await doors.add_notebook()
    browser = doors.browser()
    await doors.sign_in(browser)
    doors.notebooks.opening = Opening(is_ready=False, is_coming=True, message="The image <is> being built.")
    page = await browser.get(f"{doors.main}/open/notebook/{id}")
    assert page.status_code == 200
    assert '<meta http-equiv="refresh" content="1">' in page.text
    assert "Starting notebook &#x27;&lt;b&gt;iris&lt;/b&gt;&#x27;" in page.text
    assert "The image &lt;is&gt; being built." in page.text
    korean = await browser.get(
        f"{doors.main}/open/notebook/{id}", headers={"accept-language": "ko-KR,ko;q=0.9,en;q=0.8"}
    )
    assert '<html lang="ko">' in korean.text
    doors.notebooks.opening = Opening(is_ready=False, message="It is stopped.")
    page = await browser.get(f"{doors.main}/open/notebook/{id}")
    assert page.status_code == 409
    assert "It is stopped." in page.text


async def test_nothing_of_the_platform_is_served_where_users_code_lives(doors: Doors) -> None:
    id = "0192aaaa-0000-7000-8000-000000000000"
    async with doors.browser() as browser:
        for path in ("/sign-in", "/account", "/v1.0/sessions", "/", "/open/notebook/x", "/health"):
            answer = await browser.get(doors.url(id, path), headers={"accept": "*/*"})
            assert (answer.status_code, answer.json()["header"]["resultCode"]) == (404, 404900)
            page = await browser.get(doors.url(id, path))
            assert page.headers["location"].startswith(f"{doors.main}/open/notebook/{id}")
        for host in ("nb.localhost", "x.y.nb.localhost", f"{'x' * 64}.nb.localhost", ".tb.localhost"):
            answer = await browser.get(f"{doors.main}/sign-in", headers={"host": f"{host}:{doors.port}"})
            assert answer.status_code == (200 if host == "nb.localhost" else 404), host


async def test_admins_see_and_end_sign_ins(doors: Doors) -> None:
    browser = doors.browser()
    await doors.sign_in(browser)
    bob = await doors.users.ensure("bob", PASSWORD)
    tokens = {
        name: (await doors.projects.issue_user_token(user, timedelta(hours=1)))[0]
        for name, user in (("ann", doors.ann), ("bob", bob.id))
    }
    url = f"{doors.main}/v1.0/sessions"
    for headers, status in (
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 403),
        ({"authorization": f"Bearer {tokens['bob']}"}, 403),
        ({"x-nhn-authorization": f"Bearer {doors.keys.access_token}"}, 403),
    ):
        assert (await browser.get(url, headers=headers)).status_code == status
        assert (await browser.delete(f"{url}/x", headers=headers)).status_code == status
    headers = {"authorization": f"Bearer {tokens['ann']}"}
    found = (await browser.get(url, headers=headers)).json()
    assert [item["userName"] for item in found["sessionList"]] == ["ann"]
    assert "token" not in json.dumps(found).lower()
    assert (await browser.delete(f"{url}/{found['sessionList'][0]['sessionId']}", headers=headers)).status_code == 200
    assert (await browser.delete(f"{url}/{found['sessionList'][0]['sessionId']}", headers=headers)).status_code == 404
    assert (await browser.get(f"{doors.main}/account")).status_code == 303


async def test_a_password_is_changed_and_every_sign_in_ends(doors: Doors) -> None:
    browser, other = doors.browser(), doors.browser()
    for each in (browser, other):
        await doors.sign_in(each)
    page = await browser.get(f"{doors.main}/account")
    assert page.text.count("<li>") == 2
    token = re.search(r'name="form" value="([^"]*)"', page.text)
    assert token is not None
    fields = {"form": token.group(1), "old": PASSWORD, "new": "another long password"}
    url = f"{doors.main}/account/password"
    assert (await browser.post(url, data={**fields, "new": "short"})).status_code == 400
    assert (await browser.post(url, data={**fields, "old": "wrong"})).status_code == 401
    assert (await browser.post(url, data={**fields, "form": "wrong"})).status_code == 403
    assert (await browser.post(url, data=fields)).status_code == 200
    for each in (browser, other):
        assert (await each.get(f"{doors.main}/account")).status_code == 303
    assert (await doors.sign_in(browser)).status_code == 401
    assert (await doors.sign_in(browser, password="another long password")).status_code == 303


async def test_sign_ins_end_by_idleness_and_by_age(doors: Doors) -> None:
    browser = doors.browser()
    await doors.sign_in(browser)
    for _ in range(14):
        doors.clock.advance(11.9 * 3600)
        assert (await browser.get(f"{doors.main}/account")).status_code == 200
    doors.clock.advance(2 * 3600)  # a week by now
    assert (await browser.get(f"{doors.main}/account")).status_code == 303
    idle = doors.browser()
    await doors.sign_in(idle)
    doors.clock.advance(12.1 * 3600)
    assert (await idle.get(f"{doors.main}/account")).status_code == 303
    await doors.sessions.keep_house()
    assert await sign_ins(doors) == []


async def test_no_secret_is_in_a_log_or_in_the_database(doors: Doors, tmp_path: Path) -> None:
    id = await doors.add_notebook()
    browser = await doors.visiting(id)
    secrets = [cookie.value for cookie in browser.cookies.jar]
    codes = [re.search(r"code=([^&]+)", str(answer.url)) for answer in (await browser.get(doors.url(id))).history]
    await asyncio.sleep(1.5)  # Envoy writes its log every second
    files = [
        path
        for path in tmp_path.rglob("*")
        if (path.is_file() and path.suffix in (".log", ".db", ".json")) or path.name.endswith("-wal")
    ]
    assert {"access.log", "doors.db"} <= {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        assert not any(secret and secret.encode() in content for secret in secrets), path
        if path.name == "access.log":
            assert b"code=" not in content
            assert b"/.modelyard/enter" in content
    assert codes == []


async def test_on_paths_of_the_main_origin_where_that_is_asked_for(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        doors = await make_doors(tmp_path, stack, is_by_path=True)
        id, other = await doors.add_notebook(), await doors.add_notebook()
        url = f"{doors.main}/~notebook/{id}/lab?x=1"
        assert doors.url(id, "/lab?x=1") == url
        browser = doors.browser()
        away = await browser.get(url)
        assert away.headers["location"].startswith(f"{doors.main}/open/notebook/{id}?")
        await doors.sign_in(browser)
        seen = await browser.get(url, follow_redirects=True)
        assert (seen.json()["path"], str(seen.url)) == (f"/~notebook/{id}/lab?x=1", url)
        assert "cookie" not in seen.json()["headers"]  # the sign-in of the main origin is taken out as well
        cookie = next(header for header in seen.history[-1].headers.get_list("set-cookie") if header.startswith(VISIT))
        assert f"Path=/~notebook/{id}/" in cookie
        assert (await browser.get(f"{doors.main}/~notebook/{other}/x", headers={"accept": "*/*"})).status_code == 401
        gone = await browser.get(f"{doors.main}/~notebook/0192/x", headers={"accept": "*/*"})
        assert gone.json()["header"]["resultCode"] == 404900
