"""The page, in a real browser: Debian's Chromium, driven by playwright."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cases.served_runs import serving

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian: apt install chromium)")

SECONDS = 60.0  # a busy machine takes long to draw


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # Root, as in containers, has no sandbox of its own to start in.
        arguments = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


class Page:
    """A page of the service, with what it complained of.

    Args:
        browser: Where to open it.
        address: Of the page.
        options: Of the browser's context.
    """

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self._context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.faults: list[str] = []
        self.hosts: set[str] = set()
        self.page = self._context.new_page()
        self.page.set_default_timeout(1000 * SECONDS)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.goto(address)

    def wait(self, expression: str) -> None:
        """Wait until an expression holds in the page (playwright's own way needs eval, which the policy forbids)."""
        until = time.monotonic() + SECONDS
        while not self.page.evaluate(expression):
            assert time.monotonic() < until, f"{expression}: {self.text('body')}"
            self.page.wait_for_timeout(50)

    def settle(self) -> None:
        """Wait until the lists are there with all their reasons."""
        self.wait(
            "document.querySelectorAll('.entry').length > 0 && !document.querySelector('.stale') && "
            "[...document.querySelectorAll('.reason')].every((reason) => reason.textContent)"
        )

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def items(self, column: int = 0) -> list[str]:
        found: list[str] = self.page.evaluate(
            f"[...document.querySelectorAll('.column')[{column}].querySelectorAll('.entry')].map((e) => e.dataset.item)"
        )
        return found

    def item_with_paths(self) -> str:
        """Return an item that paths lead to: it has a second reason."""
        told = "[...document.querySelectorAll('.entry')].find((entry) => entry.textContent.includes('; ')).dataset.item"
        return str(self.page.evaluate(told))

    def choose(self, field: str, text: str) -> None:
        """Type into a field with suggestions and take the first, by the keyboard."""
        self.page.fill(field, "")
        self.page.type(field, text)
        self.page.wait_for_selector(f"{field} + ul li")
        self.page.keyboard.press("Enter")


@pytest.fixture
def page(browser: Any, port: int) -> Iterator[Page]:
    page = Page(browser, f"http://127.0.0.1:{port}/")
    page.wait("document.querySelector('#about').textContent.includes('users')")
    yield page
    assert page.faults == []
    assert page.hosts == {f"127.0.0.1:{port}"}  # nothing comes from elsewhere
    page._context.close()


def test_stranger_gets_lists_with_reasons_from_three_titles(page: Page) -> None:
    for title in ("item-01", "item-02", "item-03"):
        page.choose("#title-input", title)
    page.wait("document.querySelectorAll('#liked li').length === 3")
    page.wait("document.querySelector('#status').textContent.includes('for 3 titles')")
    page.settle()
    assert len(page.items(0)) == len(page.items(1)) == 10
    assert {"item-01", "item-02", "item-03"}.isdisjoint(page.items())
    assert "InductiveKGAT" in page.text(".column:nth-child(1) h3")
    assert "EASE" in page.text(".column:nth-child(2) h3")
    for fact in ("from 3 past items", "novelty", "coverage", "on both lists"):
        assert fact in page.text(".column .facts")
    assert page.page.url.endswith("#like=item-01&like=item-02&like=item-03")
    page.page.reload()  # the address keeps the taste
    page.settle()
    assert page.text("#status").startswith("10 recommendations for 3 titles")


def test_likes_and_dislikes_change_a_strangers_list(page: Page) -> None:
    page.choose("#title-input", "item-05")
    page.settle()
    liked, disliked = page.items()[:2]
    page.page.click(f".entry[data-item='{liked}'] .like")
    page.wait("document.querySelectorAll('#liked li').length === 2")
    page.settle()
    assert liked not in page.items()
    page.page.click(f".entry[data-item='{page.items()[0]}'] .dislike")
    page.wait("document.querySelector('#not-liked-count').textContent === '1'")
    page.settle()
    assert liked not in page.items()
    page.page.click("#clear")
    page.wait("document.querySelectorAll('.entry').length === 0")
    assert disliked


def test_users_like_is_kept_and_heeded(page: Page) -> None:
    page.page.click("text=A user")
    page.choose("#user-input", "user-07")
    page.settle()
    first = page.items()[0]
    page.page.click(f".entry[data-item='{first}'] .like")
    page.wait(f"![...document.querySelectorAll('.entry')].some((entry) => entry.dataset.item === '{first}')")
    page.wait("document.querySelector('#past li').textContent.includes('liked here')")
    page.settle()
    again = page.items()[0]
    page.page.click(f".entry[data-item='{again}'] .dislike")
    page.wait("document.querySelector('#disliked-count').textContent === '1'")
    page.page.reload()
    page.settle()
    assert {first, again}.isdisjoint([*page.items(0), *page.items(1)])


def test_why_shows_shares_and_a_picture_of_the_paths(page: Page) -> None:
    page.page.goto(page.page.url.split("#")[0] + "#user=user-11")
    page.page.reload()
    page.settle()
    page.page.focus(f".entry[data-item='{page.item_with_paths()}'] .why")
    page.page.keyboard.press("Enter")  # by the keyboard
    page.page.wait_for_selector("#why[open] .bars li")
    assert page.page.evaluate("document.activeElement.id") == "why-title"
    shares = page.page.evaluate(
        "[...document.querySelectorAll('.share')].map((share) => parseFloat(share.textContent))"
    )
    assert shares == sorted(shares, reverse=True)
    nodes = page.page.evaluate("document.querySelectorAll('#why svg .node.past').length")
    assert nodes == page.page.evaluate("document.querySelectorAll('#why .sentences li').length") > 0
    assert page.page.evaluate("document.querySelectorAll('#why svg .node.item').length") == 1
    page.page.keyboard.press("Escape")
    page.wait("!document.querySelector('#why').open")
    assert "why" in page.page.evaluate("document.activeElement.className")  # back where one was


def test_paths_have_their_own_sentences_whatever_else_is_said(page: Page) -> None:
    told: list[str] = []

    def with_modalities(route: Any) -> None:
        answer = route.fetch()
        why = answer.json()
        told[:] = why["sentences"][len(why["sentences"]) - len(why["paths"]) :]
        why["sentences"] += ["its image adds 0.12 to the score"] * (1 + len(why["paths"]))
        route.fulfill(response=answer, json=why)

    page.page.route("**/explain", with_modalities)
    page.page.goto(page.page.url.split("#")[0] + "#user=user-11")
    page.page.reload()
    page.settle()
    assert "its image" not in page.page.inner_text("#lists")
    page.page.click(f".entry[data-item='{page.item_with_paths()}'] .why")
    page.page.wait_for_selector("#why[open] .sentences li")
    assert page.page.eval_on_selector_all("#why .sentences li", "all => all.map((one) => one.textContent)") == told


def test_one_model_or_two(page: Page) -> None:
    page.choose("#title-input", "item-09")
    page.settle()
    page.page.uncheck("#compare")
    page.wait("document.querySelectorAll('.column').length === 1")
    page.page.select_option("#k", "5")
    page.wait("document.querySelectorAll('.entry').length === 5")
    page.settle()


def test_calls_are_listed_with_their_times(page: Page) -> None:
    page.page.click("text=Calls of this page")
    rows = page.text("#calls").splitlines()
    assert rows[-1].split()[:3] == ["GET", "/health", "200"]
    assert float(rows[-1].split()[3]) >= float(rows[-1].split()[4]) > 0


def test_nothing_found_and_mistakes_are_said(page: Page) -> None:
    page.page.goto(page.page.url.split("#")[0] + "#user=nobody")
    page.page.reload()
    page.wait("document.querySelector('#status').textContent.includes('there is no such user')")
    assert page.page.evaluate("document.querySelector('#status').getAttribute('role')") == "status"
    page.faults.clear()  # the browser notes each 404


def test_everything_has_a_name_for_a_screen_reader(page: Page) -> None:
    page.choose("#title-input", "item-04")
    page.settle()
    nameless = page.page.evaluate(
        """[...document.querySelectorAll('button, input, select, a, dialog, summary, section')].filter((element) =>
            !(element.getAttribute('aria-label') || element.getAttribute('aria-labelledby') || element.innerText ||
              (element.labels && element.labels.length))).map((element) => element.outerHTML)"""
    )
    assert nameless == []
    ids = page.page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))
    assert page.page.evaluate("document.documentElement.lang") == "en"


CONTRAST = """(scheme) => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (!/^rgba\\(.*, 0\\)$|transparent/.test(colour)) return colour;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  return [...document.querySelectorAll('p, button, h1, h2, h3, label, span, a, summary, li, td')]
    .filter((element) => element.checkVisibility() && element.textContent.trim() && !element.disabled)
    .map((element) => {
      const [one, two] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
      return [(one + 0.05) / (two + 0.05), element.outerHTML.slice(0, 80)];
    }).filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_apart_and_nothing_overflows_a_phone(browser: Any, port: int, scheme: str) -> None:
    size = {"width": 360, "height": 740}
    page = Page(browser, f"http://127.0.0.1:{port}/#user=user-11", viewport=size, color_scheme=scheme)
    page.settle()
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 360
    page.wait("document.getAnimations().length === 0")
    assert page.page.evaluate(CONTRAST) == []  # WCAG AA
    page.page.click(f".entry[data-item='{page.item_with_paths()}'] .why")
    page.page.wait_for_selector("#why[open] svg")
    assert page.page.evaluate(
        "document.querySelector('#why').scrollWidth <= document.querySelector('#why').clientWidth"
    )
    assert page.page.evaluate(CONTRAST) == []
    assert page.faults == []
    page._context.close()


def test_read_only_service_with_keys(browser: Any, runs: tuple[Path, Path], tmp_path: Path) -> None:
    from graphrec.serving.server.keys import new_key

    key = new_key(tmp_path / "keys", "page", "read")
    arguments = (str(runs[0]), "--read-only", "--keys", str(tmp_path / "keys"))
    with serving(*arguments, log=tmp_path / "log") as (port, _):
        page = Page(browser, f"http://127.0.0.1:{port}/#user=user-03")
        page.page.wait_for_selector("#key-form")
        page.page.fill("#key", key)
        page.page.click("#key-form button")
        page.settle()
        assert page.page.is_disabled(".entry .like")
        assert page.page.is_enabled(".entry .why")
        assert not page.page.is_visible("#key-form")
        assert not page.page.is_visible("#compare-part")
        assert "read-only" in page.text("#about")
        page.page.click("text=Your taste")  # a stranger's likes stay in the browser
        page.choose("#title-input", "item-01")
        page.settle()
        assert page.page.is_enabled(".entry .like")
        page._context.close()
        page = Page(browser, f"http://127.0.0.1:{port}/#like=item-01&like=item-02")  # a taste waits for the key, too
        page.wait("document.querySelector('#status').textContent.includes('API key')")
        page.page.fill("#key", key)
        page.page.click("#key-form button")
        page.settle()
        assert page.text("#status").startswith("10 recommendations for 2 titles")
        assert page.page.url.endswith("#like=item-01&like=item-02")
        page._context.close()
