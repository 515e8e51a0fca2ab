"""What a translation keeps of its original, and how Chinese is set: complaints about a paragraph.

Code, formulas, links' targets, tags, numbers, marks and the frame of lists, tables and headings
stay as they are, in whatever order the sentence wants them.
"""

import re
from collections import Counter
from collections.abc import Iterator

from markdown_it import MarkdownIt

from tools import notebooks

CODE = re.compile(r"`[^`]+`|<code>.*?</code>")
FORMULA = re.compile(r"\$\$.+?\$\$|\$(?![\s$])[^$]*?(?<!\s)\$", re.DOTALL)
TARGET = re.compile(r"(?<=\])\([^)\s]+\)|https?://[^\s)>]+|(?<=arXiv )\d{4}\.\d{5}")
FIELD = re.compile(r"\{[a-z]+\}")
TAG = re.compile(r"</?[a-z]+[^>]*>")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:[  ]?(thousand|million|billion|万|亿|千))?")
TIMES = {"thousand": 1e3, "千": 1e3, "万": 1e4, "million": 1e6, "亿": 1e8, "billion": 1e9}
# What a paragraph begins with says what it is: an English beginning, and its Chinese one.
BEGINNINGS = {
    "*Figure: ": "*图：",
    "**Why": "**为什么",
    "**You need": "**你需要",
}
HAN = r"[\u3400-\u9fff]"
SETTING = {
    rf"{HAN}[A-Za-z0-9`$]|[A-Za-z0-9`$]{HAN}": "a blank is wanted between Chinese and Latin",
    rf"{HAN}\**[,;:?!](?!\S*[/=])|[,;:?!]{HAN}": "beside Chinese it is ，；：？！",
    r"[ \t][，。；：？！、）]|[，。；：？！、（][ \t]+(?=[^\s★])": "no blank beside ，。；：？！、",
    rf"\({HAN}|{HAN}\)": "brackets around Chinese are （）",
    rf"{HAN}\"|\"{HAN}": "quotation marks around Chinese are “ ”",
}


def complaints(english: str, chinese: str) -> Iterator[str]:
    """Yield in what a translation leaves its original, or the rules of setting Chinese."""
    for name, parts in (("code", CODE), ("formulas", FORMULA), ("fields", FIELD)):
        yield from _differ(name, *(Counter(parts.findall(text)) for text in (english, chinese)))
    bare = [_without(text, CODE, FORMULA) for text in (english, chinese)]
    yield from _differ("links", *(Counter(TARGET.findall(text)) for text in bare))
    yield from _differ("tags", *(Counter(TAG.findall(text)) for text in bare))
    words = [_without(text, TARGET, TAG, FIELD) for text in bare]
    yield from _differ("numbers", *map(_numbers, words))
    yield from _differ("marks", *(Counter(re.findall("[★✓✗☐]", text)) for text in words))
    if english.count("**Predict") != chinese.count("**预测"):
        yield "**Predict** is **预测**, in either as often"
    yield from _differ("the frame", _frame(english), _frame(chinese))
    yield from _emphasis(english, chinese)
    yield from _begins(english, chinese)
    yield from _set(chinese)


def _without(text, *parts):
    for part in parts:
        text = part.sub(" ", text)
    return text


def _differ(name, wanted, found):
    if wanted != found:
        parts = [f"lacks {dict(wanted - found)}"] if wanted - found else []
        parts += [f"adds {dict(found - wanted)}"] if found - wanted else []
        yield f"{name}: {', '.join(parts)}"


def _numbers(text):
    """Count numbers by value: 22 million is 2200 万. A full stop or comma at the end is none."""
    found = []
    for match in NUMBER.finditer(text):
        digits = re.match(r"[\d,]+(?:\.\d+)?", match[0])[0].rstrip(",").replace(",", "")
        found.append(f"{float(digits) * TIMES.get(match[1], 1):.12g}")
    return Counter(found)


def _frame(text):
    """Count headings, list items and table rows: by what their lines begin with."""
    lines = re.findall(r"(?m)^[ \t]*(#{1,6} |[-*] |\d+\. |\||---$)", text)
    return Counter("1." if line[0].isdigit() else line.strip() for line in lines)


def _emphasis(english, chinese):
    """Emphasis that Markdown reads: beside Chinese punctuation ** may stay two stars."""
    kinds = [_emphasized(text) for text in (english, chinese)]
    if kinds[0]["strong_open"] != kinds[1]["strong_open"]:
        bold = [kind["strong_open"] for kind in kinds]
        yield f"bold parts: {bold[0]} in English, {bold[1]} here (see ** beside ，。： or “”)"
    if kinds[1]["left over"] > kinds[0]["left over"]:
        yield "a star stays visible: Markdown reads no ** or * between punctuation and a letter"


def _emphasized(text):
    text = FORMULA.sub("x", text)
    tokens = MarkdownIt("commonmark").enable("table").parse(TAG.sub(" ", text))
    inline = [child for token in tokens for child in token.children or []]
    found = Counter(token.type for token in inline)
    found["left over"] = sum(t.content.count("*") for t in inline if t.type == "text")
    return found


def _begins(english, chinese):
    for ours, theirs in BEGINNINGS.items():
        if english.startswith(ours) and not chinese.startswith(theirs):
            yield f"it begins with {ours!r}, so with {theirs!r} here"
    if notebooks.HEADING.fullmatch(english) and not notebooks.HEADING.fullmatch(chinese):
        yield "the chapter's heading is '# NN · 主题 — 承诺', with blanks around · and —"


def _set(chinese):
    for part, stand_in in ((CODE, "`x`"), (FORMULA, "$x$"), (TARGET, "x")):
        chinese = part.sub(stand_in, chinese)
    plain = re.sub(r"(?m)^[ \t]*(-|\d+\.)[ \t]", "", re.sub(r" *\| *", "\n", chinese))
    for pattern, rule in SETTING.items():
        if found := re.search(pattern, plain):
            place = plain[max(0, found.start() - 8) : found.end() + 8]
            yield f"{rule}: {place!r}"
