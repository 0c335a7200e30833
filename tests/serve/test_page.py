"""The page in a browser: search, a result, a question, another adapter, both side by side; on a phone, in the dark.

Needs Chromium (Debian's `chromium`, or UNIADAPTER_CHROMIUM) and Playwright. UNIADAPTER_SCREENSHOTS names a folder for
pictures of it.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from serving import CLIPS

from uniadapter.serve.service import Service
from uniadapter.serve.web import make_app

playwright = pytest.importorskip("playwright.sync_api")
playwright.expect.set_options(timeout=60_000)
CHROMIUM = os.environ.get("UNIADAPTER_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]
SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
}
PATIENCE = 60_000  # milliseconds


@pytest.fixture(scope="module")
def address(service: Service) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(make_app(service, upload_bytes=1 << 20), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://localhost:{port}/"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as runner:
        opened = runner.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(params=SCREENS)
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    context = browser.new_context(**SCREENS[request.param])
    context.set_default_timeout(PATIENCE)
    opened, complaints = context.new_page(), list[str]()
    opened.screen = request.param
    opened.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(address)
    yield opened
    context.close()
    assert not complaints


def picture(page: Any, name: str) -> None:
    if folder := os.environ.get("UNIADAPTER_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{page.screen}-{name}.png"))


def accessible(page: Any) -> None:
    """No serious finding of axe-core, by whose script the page is looked at."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not serious, [(one["id"], [node["html"] for node in one["nodes"]][:2]) for one in serious]
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off at the side"


def search(page: Any, words: str) -> None:
    page.get_by_label("Search words").fill(words)
    playwright.expect(page.locator(".score").first).to_contain_text("fits")


def test_search_result_question_other_adapter_side_by_side(page: Any) -> None:
    page.get_by_text("Say what you look for.").wait_for()
    accessible(page)
    search(page, "a dog")
    assert "q=a+dog" in page.url, "the address can be kept"
    accessible(page)
    picture(page, "results")
    page.locator(".card").first.click()
    page.locator("#why").wait_for()
    assert page.locator("#words button").all_text_contents() == ["a", "dog"]
    accessible(page)
    picture(page, "result")
    page.get_by_label("Question").fill("how many things are there?")
    page.get_by_role("button", name="Ask").click()
    page.locator(".answer").wait_for()
    first = page.locator(".answer .note").text_content()
    page.get_by_label("answered by").select_option("base")
    page.get_by_role("button", name="Ask").click()
    page.locator(".answer .note", has_text="base").wait_for()
    assert first != "base"
    page.get_by_label("answered by").select_option("all, side by side")
    page.get_by_role("button", name="Ask").click()
    page.locator(".answer").nth(2).wait_for()
    page.locator("#words button", has_text="many").wait_for()
    accessible(page)
    picture(page, "answers")
    page.get_by_label("written by").select_option("all, side by side")
    page.get_by_role("button", name="Caption", exact=True).click()
    page.locator(".answer .note", has_text="caption").wait_for()
    assert page.locator(".answer b").count() == 2
    picture(page, "captions")
    page.get_by_role("button", name="More like this").click()
    playwright.expect(page.get_by_label("Search words")).to_have_value(re.compile(r"\./\w+"))
    page.locator(".card").first.wait_for()


def test_clips_play_from_the_moment_that_was_found(page: Any) -> None:
    search(page, "a bus")
    page.get_by_label("Kind of file").select_option("video")
    playwright.expect(page.locator(".card")).to_have_count(CLIPS)
    page.locator(".card").first.click()
    page.locator("#media video").wait_for()
    page.locator("#why").wait_for()
    assert page.locator("#media video").evaluate(
        "(one) => new Promise((done) => { one.ontimeupdate = () => done(one.currentTime); })"
    )
    assert page.get_by_label("answered by").input_value() == "videoqa"
    page.get_by_label("Question").fill("what comes first?")
    page.get_by_label("Question").press("Enter")
    page.locator(".answer").wait_for()
    page.locator("#looks figure").nth(3).wait_for()
    picture(page, "clip")
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#panel")).to_be_hidden()


def test_an_upload_and_one_that_is_none(page: Any, tmp_path: Path, service: Service) -> None:
    page.get_by_text("Say what you look for.").wait_for()
    name = tmp_path / "<b>mine.png"
    shutil.copy(next(row.path for row in service.index.files() if row.kind == "picture"), name)
    page.locator("#file").set_input_files(str(name))
    page.locator("#panel-title", has_text="<b>mine.png").wait_for()
    page.get_by_role("button", name="Caption", exact=True).click()
    page.locator(".answer b").wait_for()
    page.get_by_role("button", name="Close").click()
    big = tmp_path / "big.png"
    big.write_bytes(b"x" * ((1 << 20) + 1))
    page.locator("#file").set_input_files(str(big))
    page.locator("#status", has_text="big.png has more than 1 MB").wait_for()


def test_an_answer_for_a_page_that_was_reloaded_is_dropped(page: Any) -> None:
    search(page, "a dog")
    page.locator(".card").first.click()
    page.get_by_label("Question").fill("is there a dog?")
    page.get_by_label("Question").press("Enter")
    page.reload()
    page.locator(".card").first.wait_for()
    assert page.get_by_label("Search words").input_value() == "a dog"
    assert page.locator(".answer").count() == 0


def test_words_that_were_typed_before_the_server_answered_are_kept_in_the_address(browser: Any, address: str) -> None:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    context.add_init_script(
        "const ask = fetch; let asked = new Promise((done) => { window.answer = done; });"
        "window.fetch = async (path, ...more) => { if (path === 'api/index') await asked; return ask(path, ...more); };"
    )
    page = context.new_page()
    page.goto(address)
    page.get_by_label("Search words").fill("a dog")
    page.evaluate("answer()")
    page.locator(".card").first.wait_for()
    assert "q=a+dog" in page.url
    context.close()


def test_nothing_found(page: Any) -> None:
    search(page, "a dog")
    page.route("**/api/search*", lambda route: route.fulfill(json={"query": "", "results": [], "seconds": 0.01}))
    page.get_by_label("Search words").fill("a kite")
    page.get_by_text("Nothing found").wait_for()
    accessible(page)


def test_a_server_that_is_gone_or_busy(browser: Any, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    page.get_by_text("Say what you look for.").wait_for()
    calls = []

    def busy(route: Any) -> None:
        calls.append(route)
        route.fulfill(status=503, json={"error": "64 requests wait already"}, headers={"Retry-After": "0"})

    page.route("**/api/search*", busy)
    page.get_by_label("Search words").fill("a dog")
    page.get_by_label("Search words").press("Enter")
    page.get_by_text("The server is busy; it was asked three times.").wait_for()
    assert len(calls) >= 3
    page.unroute("**/api/search*")
    page.route("**/api/search*", lambda route: route.abort())
    page.get_by_label("Search words").press("Enter")
    page.get_by_text("the server does not answer: is it still running?").wait_for()
    context.close()
