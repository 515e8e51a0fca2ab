"""Notebooks as HTML that asks no other host for anything: slides, and pages to print."""

import shutil
from pathlib import Path

from nbconvert import HTMLExporter, SlidesExporter
from traitlets.config import Config

from tools.instructors import deck

HERE = Path(__file__).parent
REVEAL = HERE / "node_modules" / "reveal.js"
MATHJAX = HERE / "node_modules" / "mathjax" / "es5" / "tex-svg.js"
HIDING = Config(TagRemovePreprocessor={"enabled": True, "remove_input_tags": {deck.NO_CODE}})
NO_PROMPTS = {"exclude_input_prompt": True, "exclude_output_prompt": True}


def copy_assets(target: Path) -> None:
    """Copy reveal.js, MathJax and the style sheets, which all pages share, below ``target``.

    Raises
    ------
    FileNotFoundError
        When npm has not fetched them.
    """
    if not is_installed():
        raise FileNotFoundError(f"npm's files are missing; run: npm ci --prefix {HERE}")
    assets = target / "assets"
    for part in ("dist", "plugin/notes"):
        shutil.copytree(REVEAL / part, assets / "reveal" / part, dirs_exist_ok=True)
    for file in (MATHJAX, HERE / "slides.css", HERE / "page.css"):
        shutil.copy(file, assets)


def is_installed() -> bool:
    """Tell whether npm has fetched what slides and pages need."""
    return MATHJAX.is_file() and (REVEAL / "dist" / "reveal.js").is_file()


def slides(notebook, title: str) -> str:
    """Return a chapter's slides, for a file in a folder beside ``assets``."""
    exporter = SlidesExporter(
        config=HIDING,
        reveal_url_prefix="../assets/reveal",
        reveal_theme="white",  # of the few whose fonts come with it
        **_template("slides"),
    )
    return _export(exporter, deck.notebook_of(deck.slides(notebook)), title)


def page(notebook, title: str) -> str:
    """Return a notebook on one page, for a file in a folder beside ``assets``."""
    return _export(HTMLExporter(**_template("page")), notebook, title)


def _template(name):
    return {
        "template_name": name,
        "extra_template_basedirs": [str(HERE / "templates")],
        **NO_PROMPTS,
    }


def _export(exporter, notebook, title):
    notebook.metadata["title"] = title
    html, _ = exporter.from_notebook_node(notebook)
    return html
