"""The built pages in a real browser: nothing asks another host, everything has room."""

import pytest

from tests.instructors.small import CHAPTER
from tools import browser
from tools.instructors import deck, pages, paper

pytest.importorskip("playwright.sync_api")
if browser.path() is None or not pages.is_installed():
    missing = "a browser" if pages.is_installed() else "what `make instructors` takes from npm"
    pytest.skip(f"slides were not looked at: {missing} is missing", allow_module_level=True)

READ = """() => [...document.querySelectorAll(".slides section:not(:has(section))")]
.map((section) => {
  const place = Reveal.getIndices(section);
  Reveal.slide(place.h, place.v);
  const cells = [...section.querySelectorAll(".jp-Cell")].filter((c) => !c.closest("aside"));
  return {
    notes: section.querySelector("aside.notes").textContent.trim(),
    bottom: Math.max(...cells.map((cell) => cell.offsetTop + cell.offsetHeight)),
    pictures: [...section.querySelectorAll("img")].map((img) => img.naturalWidth * img.height),
    formulas: section.querySelectorAll("mjx-container svg").length,
  };
})"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("instructors")
    pages.copy_assets(target)
    for kind, write in {"slides": pages.slides, "keys": pages.page}.items():
        (target / kind).mkdir()
        (target / kind / "small.html").write_text(write(CHAPTER, "small"), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def chromium():
    with browser.launched() as running:
        yield running


@pytest.fixture(params=["slides", "keys"])
def opened(request, chromium, folder):
    """A page, and what it asked for and complained of."""
    page, troubles = chromium.new_page(viewport={"width": 1280, "height": 720}), []
    # Of the others one, about a slow network, comes where the machine is busy.
    page.on("console", lambda said: said.type == "error" and troubles.append(said.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda asked: asked.url[:5] in ("file:", "data:") or troubles.append(asked))
    page.goto((folder / request.param / "small.html").as_uri())
    page.wait_for_function(paper.READY)
    yield request.param, page, troubles
    page.close()


def test_no_page_asks_another_host_or_complains(opened):
    _, page, troubles = opened
    assert page.locator("mjx-container svg").count() > 0
    assert troubles == []


def test_each_slide_has_room_and_something_to_say(opened):
    kind, page, _ = opened
    if kind == "keys":
        assert page.locator("section").count() == 0
        return
    found, slides = page.evaluate(READ), deck.slides(CHAPTER)
    assert len(found) == len(slides) == page.evaluate("Reveal.getTotalSlides()")
    assert all(slide["notes"] for slide in found)
    assert max(slide["bottom"] for slide in found) <= 720
    assert [bool(slide["pictures"]) for slide in found] == [slide.figure for slide in slides]
    assert found[2]["pictures"][0] > 400
    assert found[1]["formulas"] > 0


@pytest.mark.parametrize(("kind", "sheets"), [("slides", 6), ("keys", 2)])
def test_they_print_a_sheet_for_each_slide(chromium, folder, kind, sheets):
    pdf = paper.print_page(chromium, folder / kind / "small.html")
    count = pdf.read_bytes().count(b"/Type /Page\n")
    assert count == sheets if kind == "slides" else 1 <= count <= sheets


def test_what_is_folded_is_open_on_paper(opened):
    kind, page, _ = opened
    assert page.locator("details[open]").count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.locator("details").count() == (2 if kind == "keys" else 0)


def test_without_npm_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "MATHJAX", tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="npm's files are missing; run: npm ci --prefix"):
        pages.copy_assets(tmp_path)
