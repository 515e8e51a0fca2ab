r"""Markdown as HTML; what becomes of a formula, ``$…$``, is for the caller to say."""

from collections.abc import Callable
from html import escape


def tex(formula: str) -> str:
    r"""Return a formula as learning platforms want it: ``\(…\)``, which MathJax draws."""
    return rf"\({escape(formula)}\)"


def dollars(formula: str) -> str:
    """Return a formula as notebooks want it: as it was written."""
    return f"${escape(formula)}$"


def paragraphs(text: str, formula: Callable[[str], str]) -> str:
    """Return Markdown as HTML in paragraphs.

    Parameters
    ----------
    text : str
        HTML in it is shown, not obeyed.
    formula : callable
        Given a formula without its dollars, returns HTML.
    """
    return _markdown(formula).render(text).strip()


def one_line(text: str, formula: Callable[[str], str]) -> str:
    """Return Markdown as HTML without a paragraph around it."""
    return _markdown(formula).renderInline(text).strip()


def _markdown(formula):
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    reader = MarkdownIt("commonmark", {"html": False, "xhtmlOut": True})
    # A price, such as 5 $, is no formula: no blank may stand inside of the dollars.
    reader.use(dollarmath_plugin, allow_space=False, allow_digits=False)
    reader.add_render_rule(
        "math_inline", lambda _, tokens, place, *__: formula(tokens[place].content)
    )
    return reader
