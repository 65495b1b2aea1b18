"""The site as its readers see it: every page in a real browser, on a desk and on a phone, light and dark."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urldefrag

import pytest

from tests.shipped import site
from tests.support.browser import AXE, CHROMIUM, NO_AXE, Browser
from tests.support.waiting import until
from tests.support.web import Web

pytestmark = pytest.mark.slow

LOOKS = [(site.DESK, "light"), (site.PHONE, "dark"), (site.PHONE, "light"), (site.DESK, "dark")]
_SEEN = """(() => ({
  wide: document.documentElement.scrollWidth,
  links: [...new Set([...document.querySelectorAll("a[href]")].map(link => link.href))],
  names: [...document.querySelectorAll("[id]")].map(part => part.id),
  blank: [...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.src),
}))()"""
# What axe looks at costs most of the time: all rules once, and those that width and scheme decide once more.
_AXE = """axe.run(%s, {resultTypes: ["violations"], %s}).then(found => found.violations.map(
  each => `${each.impact}: ${each.id}: ${each.nodes.map(node => node.html.slice(0, 120)).slice(0, 3)}`))"""
_DECIDED = 'runOnly: ["color-contrast", "link-in-text-block", "scrollable-region-focusable"]'
_EXAMINED = {
    (site.PHONE, "light"): _AXE % ("'.md-main'", _DECIDED),
    (site.DESK, "dark"): _AXE % ("document", ""),
}
# Each page would make the index of the search anew, a second of processor: its own test has it.
_SEARCH = ["*/workers/search*"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Web, Path]]:
    folder = tmp_path_factory.mktemp("site")
    done = site.build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    with Web(folder) as web:
        yield web, folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    with Browser() as browser:
        yield browser


def wait_for(browser: Browser, expression: str) -> Any:
    """What an expression says as soon as it says something."""
    return until(lambda: browser.value(expression))


class Tour(NamedTuple):
    """What was found on all pages."""

    wrong: list[str]
    axe: list[str]
    links: dict[str, set[str]]
    """For each page the addresses that it leads to."""
    names: dict[str, set[str]]
    """For each page where on it a link may lead to."""


def visit(served: tuple[Web, Path], browser: Browser) -> Tour:
    """Each page once, seen in all ways."""
    web, folder = served
    found = Tour([], [], {}, {})
    browser.ask("Network.setBlockedURLs", urls=_SEARCH)
    for path in site.pages(folder):
        browser.go(f"{web.url}/{path}")
        if AXE.is_file():
            browser.value(f"{AXE.read_text()};0")
        for width, scheme in LOOKS:
            browser.look(width, scheme)
            where, hue = f"{path} at {width}, {scheme}", {"light": "default", "dark": "slate"}[scheme]
            wait_for(browser, f"document.body.dataset.mdColorScheme == '{hue}'")
            seen = browser.value(_SEEN)
            found.wrong.extend(f"{where}: {each}" for each in _wrong(seen, width))
            if AXE.is_file() and (width, scheme) in _EXAMINED:
                found.axe.extend(f"{where}: {each}" for each in browser.value(_EXAMINED[width, scheme]))
            found.names[path], found.links[path] = set(seen["names"]), set(seen["links"])
    browser.ask("Network.setBlockedURLs", urls=[])
    return found


def _wrong(seen: dict[str, Any], width: int) -> Iterator[str]:
    if seen["wide"] > width:
        yield f"it is {seen['wide']} pixels wide"
    yield from (f"no picture {source}" for source in seen["blank"])


def test_it_builds_without_a_broken_link_and_with_the_reference_of_the_program(served: tuple[Web, Path]) -> None:
    assert "drydock store verify" in (served[1] / "reference/cli/index.html").read_text()
    assert "performance-cores" in (served[1] / "reference/profile/index.html").read_text()


def test_every_page_is_for_everybody_fits_and_leads_to_what_exists(served: tuple[Web, Path], browser: Browser) -> None:
    """One test, because the tour is what takes long."""
    here, tour = f"{served[0].url}/", visit(served, browser)
    assert len(tour.names) > 40
    assert tour.wrong == []
    assert list(_leading_nowhere(tour, here)) == []
    assert sum(map(len, tour.links.values())) > 1000
    assert [url for url in set(browser.requests) if not url.startswith((here, "data:"))] == []
    assert len(browser.requests) > len(tour.names)
    assert browser.said == []
    assert tour.axe == []
    if not AXE.is_file():
        pytest.skip(f"all but this: {NO_AXE}")


def _leading_nowhere(tour: Tour, here: str) -> Iterator[str]:
    """Links to pages of this site, or to places on them, that do not exist."""
    for path, targets in tour.links.items():
        for target in targets:
            to, name = urldefrag(target.removeprefix(here))
            if target.startswith(here) and (to not in tour.names or (name and name not in tour.names[to])):
                yield f"{path}: {target}"


def test_the_search_finds_a_page(served: tuple[Web, Path], browser: Browser) -> None:
    browser.look(site.DESK, "light")
    browser.go(f"{served[0].url}/")
    browser.value("document.querySelector('[data-md-component=search-query]').focus()")
    browser.ask("Input.insertText", text="rollback")
    results = ".md-search-result__link"
    found = wait_for(browser, f"[...document.querySelectorAll('{results}')].map(each => each.pathname).join(' ')")
    assert "/how-to/store/" in found.split()
    browser.value(f"document.querySelector('{results}[href*=\"how-to/store\"]').click()")
    wait_for(browser, "location.pathname == '/how-to/store/'")


def test_a_copied_console_can_be_pasted(served: tuple[Web, Path], browser: Browser) -> None:
    """What was typed, with its here-document, and neither prompts nor what was printed."""
    origin = served[0].url
    browser.ask("Browser.grantPermissions", permissions=["clipboardReadWrite"], origin=origin)
    browser.look(site.DESK, "light")
    browser.go(f"{origin}/tutorial/")
    console = "[...document.querySelectorAll('.language-console')].find(each => each.innerText.includes('RATE = {'))"
    wait_for(browser, f"{console}?.querySelector('[data-clipboard-target]') != null")
    browser.value(f"{console}.querySelector('[data-clipboard-target]').click()")
    wait_for(browser, "document.querySelector('.md-dialog--active') != null")
    assert browser.value("navigator.clipboard.readText()").splitlines() == [
        "cat >>profiles/tug.toml <<'END'",
        "",
        "[env]",
        'RATE = { default = "0.5" }',
        "END",
        "drydock render tug",
        "drydock run tug",
        "RATE=0.1 drydock run tug",
    ]


def test_a_reader_can_choose_a_scheme(served: tuple[Web, Path], browser: Browser) -> None:
    browser.look(site.DESK, "dark")
    browser.go(f"{served[0].url}/")
    seen = []
    for _ in range(3):
        browser.value("document.querySelector('form[data-md-component=palette] label:not([hidden])').click()")
        time.sleep(0.1)
        seen.append(browser.value("document.body.dataset.mdColorScheme"))
    assert seen == ["default", "slate", "slate"], "light, dark, as the system is"
