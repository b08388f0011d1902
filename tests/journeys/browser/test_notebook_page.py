"""A notebook in a real browser: the sign-in, JupyterLab without a fault, cells, a terminal, output while nobody looks, what a stop takes."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from journey_platform import RunningPlatform, eventually
from playwright.sync_api import Browser, Locator, Page, Route, expect

pytestmark = pytest.mark.slow

PATIENCE = 120_000
WAIT_SECONDS = 240.0
# What pip leaves of an installed package is enough to be missed.
INSTALL = (
    "import pathlib, site; [pathlib.Path(p, 'gone_package-2.0.dist-info').mkdir()"
    " for p in site.getsitepackages()[:1]]; print(6 * 7)"
)
LINES = 120
PRINTS = f"import time\nfor i in range({LINES}): print('line', i, flush=True); time.sleep(0.03)"


def test_a_notebook_as_its_user_sees_it(
    chromium: Browser, page: Page, platform: RunningPlatform, notebook_image: str, screenshots: Path
) -> None:
    client = platform.client
    notebook = client.notebooks.create(
        "in a browser", image=notebook_image, flavor="m2.c1m2", boot_storage_size=10, data_storage_size=10
    )
    client.notebooks.wait(notebook.id, timeout_seconds=WAIT_SECONDS)
    address = f"http://{notebook.id}.nb.localhost:{platform.http_port}"
    trouble = troubles_of(page)

    # Who comes without a code signs in, and arrives.
    page.goto(f"{address}/lab")
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill(platform.credentials["adminPassword"])
    trouble.clear()  # that nobody was signed in
    page.get_by_role("button", name="Sign in").click()
    launcher = page.locator(".jp-Launcher")
    expect(launcher).to_be_visible(timeout=PATIENCE)
    expect(page.locator(".jp-DirListing-item", has_text="cont-init.d")).to_be_visible()
    assert page.url.startswith(f"{address}/lab")
    page.screenshot(path=screenshots / "notebook-launcher.png")

    # Who is faster than the kernel has not typed in vain.
    page.route("**/api/sessions*", late_sessions)
    launcher.locator(".jp-LauncherCard[data-category='Notebook']").first.click()
    run_cell(page, INSTALL)
    page.unroute("**/api/sessions*")
    expect(outputs(page).first).to_have_text("42", timeout=PATIENCE)
    page.keyboard.press("Control+s")
    page.get_by_role("button", name="Rename").click()  # asked at the first save
    expect(page.locator(".jp-DirListing-item", has_text="Untitled.ipynb")).to_be_visible()
    page.screenshot(path=screenshots / "notebook-cell.png")
    assert trouble == []

    # The connection is cut while a cell prints: Envoy ends and is started again. JupyterLab may say so in a dialog, if it asks for something then.
    cut = page.locator("dialog[aria-label^='Server Connection Error']")
    page.add_locator_handler(cut, lambda dialog: dialog.locator(".jp-Dialog-button").last.click())
    run_cell(page, PRINTS)
    expect(outputs(page).last).to_contain_text("line 3\n", timeout=PATIENCE)
    envoy = platform.pid_of("gateway")
    os.kill(envoy, signal.SIGKILL)
    expect(outputs(page).last).to_contain_text(f"line {LINES - 1}", timeout=PATIENCE)
    all_lines_are_there(page)
    page.keyboard.press("Control+s")
    trouble.clear()

    # The page is closed while a cell prints, and another is opened; it goes on where it is.
    run_cell(page, PRINTS.replace("'line'", "'again'"))
    expect(outputs(page).last).to_contain_text("again 3\n", timeout=PATIENCE)
    page.context.close()
    with chromium.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        trouble = troubles_of(page)
        opened = platform.command("notebook", "open", notebook.id, "--print")
        page.goto(opened.stdout.strip())
        expect(page.locator(".jp-NotebookPanel")).to_be_visible(timeout=PATIENCE)
        assert "code=" not in page.url
        expect(outputs(page).last).to_contain_text(f"again {LINES - 1}", timeout=PATIENCE)
        all_lines_are_there(page, "again")
        page.screenshot(path=screenshots / "notebook-outputs.png")

        page.keyboard.press("Control+Shift+l")
        page.locator(".jp-LauncherCard[title*='terminal']").click()
        terminal = page.locator(".jp-Terminal")
        expect(terminal).to_be_visible()
        terminal.click()
        page.wait_for_timeout(500)
        page.keyboard.type("echo $((6*7)) $CONDA_DEFAULT_ENV > ~/easymaker/typed\n")
        eventually(lambda: '"typed"' in json.dumps(content(page, "easymaker")), "it is typed")
        assert eventually(lambda: content(page, "easymaker/typed"), "it is there") == "42 base\n"
        page.screenshot(path=screenshots / "notebook-terminal.png")
        assert trouble == []

        # Nobody saves what this one prints, and the notebook is stopped: it is in the file.
        page.locator(".lm-TabBar-tab", has_text="Untitled.ipynb").click()
        run_cell(page, "print('un' + 'saved')")
        expect(outputs(page).last).to_have_text("unsaved\n", timeout=PATIENCE)
    eventually(lambda: client.notebooks.get(notebook.id).reset_package_list, "what a stop takes is known")
    client.notebooks.stop(notebook.id)
    eventually(lambda: client.notebooks.get(notebook.id).notebook_status_code == "STOPPED", "it is stopped")
    assert "by force" not in "".join(client.notebooks.logs(notebook.id)), "what was printed is written down in time"
    client.notebooks.start(notebook.id)
    client.notebooks.wait(notebook.id, timeout_seconds=WAIT_SECONDS)
    with chromium.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.goto(platform.command("notebook", "open", notebook.id, "--print").stdout.strip())
        notice = page.locator(".Toastify__toast", has_text="The default environment is fresh")
        expect(notice).to_contain_text("gone_package==2.0", timeout=PATIENCE)
        page.wait_for_timeout(1000)  # it glides in
        page.screenshot(path=screenshots / "notebook-reset.png")
        kept = content(page, "easymaker/Untitled.ipynb")
        assert "unsaved" in json.dumps([cell["outputs"] for cell in kept["cells"]])
    client.notebooks.delete(notebook.id, wait=True, timeout_seconds=60)


def troubles_of(page: Page) -> list[str]:
    """What goes wrong on a page from now on: errors it prints, answers that are no success."""
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on(
        "response", lambda answer: trouble.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
    )
    return trouble


def content(page: Page, path: str) -> Any:
    """Of a file or directory of the notebook, as Jupyter tells its page."""
    script = "path => fetch('/api/contents/' + path + '?content=1').then(answer => answer.json())"
    return page.evaluate(script, path)["content"]


def late_sessions(route: Route) -> None:
    """Lets a kernel be slow to come."""
    time.sleep(2.0 if route.request.method == "POST" else 0.0)
    route.continue_()


def run_cell(page: Page, code: str) -> None:
    """Type code into the newest cell and run it, whether its kernel is there or not.

    While its page is young, JupyterLab takes the focus for itself now and then: as a person would, look whether what was typed is there.
    """
    cells = page.locator(".jp-NotebookPanel .jp-CodeCell")
    expect(cells.first).to_be_visible(timeout=PATIENCE)
    cell = cells.nth(cells.count() - 1)
    editor = cell.locator(".cm-content")

    def type_it() -> bool:
        editor.click()
        page.keyboard.press("Control+a")
        page.keyboard.insert_text(code)
        return editor.inner_text().split() == code.split()

    eventually(type_it, "the code is in the cell", pause_seconds=0.3)
    editor.press("Shift+Enter")
    expect(cell.locator(".jp-InputPrompt")).not_to_have_text("[ ]:")


def outputs(page: Page) -> Locator:
    """The outputs of the cells, in order."""
    return page.locator(".jp-NotebookPanel .jp-OutputArea-output")


def all_lines_are_there(page: Page, word: str = "line") -> None:
    """Each once, in order."""
    every = "".join(rf"{word} {number}\s+" for number in range(LINES))
    expect(outputs(page).last).to_have_text(re.compile(rf"^{every}$"), timeout=PATIENCE)
