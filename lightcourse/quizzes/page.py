"""A quiz on paper: one page of HTML with its questions, and the answers on a new sheet."""

import base64
import io
from html import escape

from lightcourse.quizzes.read import Quiz, lettered
from lightcourse.quizzes.words import one_line, paragraphs

SIZE = 11  # points, of the text and so of its formulas
STYLE = """
body { font: 11pt/1.4 Georgia, "Times New Roman", serif; max-width: 42em; margin: 2em auto; }
li.question { margin-bottom: 1.2em; break-inside: avoid; }
li.question p { margin: 0 0 .4em; }
ol.choices { list-style: none; padding-left: 0; margin: 0; }
ol.choices > li { padding: .1em 0 .1em 1.6em; text-indent: -1.6em; }
ol.choices > li p { text-indent: 0; }
code { font-size: .9em; }
section.answers { break-before: page; }
.right { font-weight: bold; }
"""


def printed_page(quiz: Quiz) -> bytes:
    """Return a page that a browser prints: the questions, then on a new sheet the answers.

    Nothing in it is fetched: formulas are pictures inside of the page, drawn by Matplotlib.

    Raises
    ------
    ValueError
        When Matplotlib cannot draw a formula.
    """
    title = escape(quiz.title)
    body = (
        f"<section><h1>{title}</h1>\n<ol>{_listed(quiz.questions, _asked)}</ol></section>\n"
        f'<section class="answers"><h1>Answers · {title}</h1>\n'
        f"<ol>{_listed(quiz.questions, _answered)}</ol></section>"
    )
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"/><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body>\n</html>\n"
    )
    return page.encode()


def _listed(questions, write):
    return "\n".join(f'<li class="question">{write(question)}</li>' for question in questions)


def _asked(question):
    choices = [
        f"<li>☐ {letter} · {one_line(choice.text, picture)}</li>"
        for letter, choice in lettered(question.choices)
    ]
    return f'{paragraphs(question.text, picture)}<ol class="choices">{"".join(choices)}</ol>'


def _answered(question):
    answers = [
        f'<li class="{"right" if choice.right else "wrong"}">{"✓" if choice.right else "✗"} '
        f"{letter} · {one_line(choice.explain, picture)}</li>"
        for letter, choice in lettered(question.choices)
    ]
    return f'<ol class="choices">{"".join(answers)}</ol>'


def picture(formula: str) -> str:
    """Return a formula as an image inside of the page, on the line of the text around it.

    Raises
    ------
    ValueError
        When Matplotlib cannot draw it.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser

    font = FontProperties(size=SIZE, math_fontfamily="dejavuserif")
    try:
        width, height, depth, *_ = MathTextParser("path").parse(f"${formula}$", 72, font)
    except ValueError as error:
        raise ValueError(f"Matplotlib cannot draw the formula {formula!r}") from error
    data = base64.b64encode(_drawn(f"${formula}$", font, width, height, depth)).decode()
    return (
        f'<img alt="{escape(formula)}" style="vertical-align: {-depth:.1f}pt" '
        f'src="data:image/svg+xml;base64,{data}"/>'
    )


def _drawn(text, font, width, height, depth):
    """Return an SVG of that many points; the same text gives the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    figure, drawn = Figure(figsize=(width / 72, height / 72)), io.BytesIO()
    figure.text(0, depth / height, text, fontproperties=font)
    with matplotlib.rc_context({"svg.hashsalt": "lightcourse", "svg.fonttype": "path"}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    return drawn.getvalue()
