"""HTML as PDF, printed by a browser of this machine."""

from pathlib import Path

READY = "() => !window.MathJax || (MathJax.startup && MathJax.startup.promise.then(() => true))"


def print_page(chromium, html: Path) -> Path:
    """Print an HTML file, slides one to a sheet, and return the PDF, which lies beside it."""
    tab, pdf = chromium.new_page(), html.with_suffix(".pdf")
    slides = html.parent.name == "slides"
    tab.goto(html.resolve().as_uri() + ("?print-pdf" if slides else ""))
    tab.wait_for_function(READY)
    if slides:
        tab.wait_for_selector(".pdf-page")
    tab.pdf(path=pdf, prefer_css_page_size=slides, format="A4", print_background=True)
    tab.close()
    return pdf
