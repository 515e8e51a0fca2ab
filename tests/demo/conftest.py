"""The built folder, and a browser for the tests of one file.

Server and browser end with their file: a thread that still polls would count as work that
later tests of the kernels see.
"""

import pytest

import tools.browser
from lightcourse import demo
from tests.demo import browser


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The demo's folder, of the page's sources as they are now."""
    return demo.build(browser.WEB, tmp_path_factory.mktemp("demo") / "dist")


@pytest.fixture(scope="module")
def address(built):
    with browser.served(built) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with tools.browser.launched() as running:
        yield running


@pytest.fixture
def opened(chromium):
    """A function that opens an address in a browser that has kept nothing."""
    contexts = []

    def open_page(address, **settings):
        settings = {"viewport": {"width": 390, "height": 844}} | settings
        contexts.append(chromium.new_context(**settings))
        page = contexts[-1].new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def shared(chromium, address):
    """A page that is ready, for tests that only ask it."""
    page = chromium.new_page()
    page.goto(address)
    browser.wait_until_ready(page)
    yield page
    page.close()
