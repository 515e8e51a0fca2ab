"""Which browser of this machine Playwright drives: it fetches none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NAMES += ("msedge", "microsoft-edge", "microsoft-edge-stable")
QUIET = ["--no-sandbox", "--disable-background-networking"]


def path() -> str | None:
    """Return the path of a browser that Playwright drives, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched() -> Iterator:
    """Start the browser; the value is Playwright's, and it ends with the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path(), args=QUIET)
        yield running
        running.close()
