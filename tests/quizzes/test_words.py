"""Markdown to HTML: code, emphasis, formulas, and what must not be taken for any of them."""

import pytest

from lightcourse.quizzes.words import dollars, one_line, paragraphs, tex


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain", "plain"),
        ("*much* and **more**", "<em>much</em> and <strong>more</strong>"),
        ("`a < b`", "<code>a &lt; b</code>"),
        ("`2**(bits - 1)` and 3 * 4 * 5", "<code>2**(bits - 1)</code> and 3 * 4 * 5"),
        ("<b>bold</b> & so", "&lt;b&gt;bold&lt;/b&gt; &amp; so"),
        (r"$\frac{a}{b} < 1$", r"\(\frac{a}{b} &lt; 1\)"),
        ("$x_1$ and $x_2$", r"\(x_1\) and \(x_2\)"),
        ("`$x$`", "<code>$x$</code>"),
        ("5 $ and 7 $", "5 $ and 7 $"),
        (r"\$5", "$5"),
    ],
)
def test_one_line(text, html):
    assert one_line(text, tex) == html


def test_notebooks_keep_the_dollars():
    assert one_line("$a < b$ *so*", dollars) == "$a &lt; b$ <em>so</em>"


def test_paragraphs_stand_apart():
    assert paragraphs("One.\n\nTwo $T^2$.", tex) == "<p>One.</p>\n<p>Two \\(T^2\\).</p>"
