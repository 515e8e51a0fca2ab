"""What of a chapter's prose a slide shows: headings, questions, formulas, and one short line.

All of it goes into the speaker's notes.
"""

import re

HEADING = re.compile(r"#{1,4} ")
ITEM = re.compile(r"[-*] |\d+\. ")
SENTENCE = re.compile(r".*?[.!?:]\**\)?(?=\s+[\[(A-Z*\"`$√0-9])(?<!e\.g\.)(?<!al\.)")
SHORT = 50  # letters: a question as short as that, such as "Why?", takes the next sentence along
WIDTH = 88  # letters on a line of a slide
LONGEST = 200  # letters of the one short line


def parts(source: str) -> list[str]:
    """Return a markdown cell cut before each of its headings."""
    found = re.split(r"\n(?=#{1,3} )", source)
    return [part.strip() for part in found if part.strip()]


def told(source: str) -> list[tuple[str, str]]:
    """Return what a part shows, block by block, and what the speaker reads there.

    Headings, tables, formulas, captions, questions to the learner, and lists are shown; of a
    list's items the first sentence is. Of all other prose the first sentence stays,
    unless it is in brackets. The speaker
    reads everything, also what is folded.
    """
    pairs, said = [], False
    for block in _blocks(source):
        shown = _kept(block)
        if not shown and not said and not block.startswith(("<details>", "(")):
            shown, said = _cut(first_sentence(block)), True
        pairs.append((shown, _opened(block)))
    return pairs


def _opened(block):
    """Return a block with what is folded in it laid open."""
    return re.sub(
        r"<details><summary>(.*?)</summary>|</details>",
        lambda found: f"**{found[1]}**" if found[1] else "",
        block,
    )


def is_line(block: str) -> bool:
    """Tell whether a block is only the short line that stays of prose."""
    return not _kept(block)


def lines(block: str) -> int:
    """Return how many lines of a slide a block takes, about."""
    if block.startswith("$$"):
        return 3
    wide = sum(1 + len(line) // WIDTH for line in block.splitlines())
    return wide + 1 + (2 if HEADING.match(block) else 0)


def first_sentence(text: str) -> str:
    """Return the first sentence of a text; with the next one, where it only opens the subject."""
    text = " ".join(text.split())
    found = SENTENCE.match(text)
    if not found:
        return text
    asks, names = found[0].endswith("?"), found[0].endswith("**") and ITEM.match(text)
    if len(found[0]) < SHORT and (asks or names):
        return f"{found[0]} {first_sentence(text[found.end() :])}"
    return found[0]


def _cut(line):
    """Return a line that fits: cut at the last word that does, where it is too long."""
    if len(line) <= LONGEST or "$" in line:
        return line
    return line[:LONGEST].rsplit(" ", 1)[0] + " …"


def _blocks(source):
    """Yield headings, paragraphs, and folded parts as a whole."""
    for piece in re.split(r"(<details>.*?</details>)", source, flags=re.DOTALL):
        blocks = [piece] if piece.startswith("<details>") else re.split(r"\n\s*\n", piece)
        for block in filter(None, map(str.strip, blocks)):
            heading, _, rest = block.partition("\n")
            yield from filter(None, (heading, rest) if HEADING.match(heading) else (block,))


def _kept(block):
    """Return a block that a slide shows, as it shows it, or nothing."""
    if block.startswith(("$$", "|", "#", "*Figure:", "!")) or "**Predict:**" in block:
        return block
    if ITEM.match(block):
        return "\n".join(map(first_sentence, re.split(r"\n(?=[-*] |\d+\. )", block)))
    return ""
