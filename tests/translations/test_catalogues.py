"""Each English paragraph of a published room has a translation that fits it, and keeps to it."""

import json

import pytest

from tools import notebooks
from tools.translations import catalogue, edition, glossary, keeping

ROOT = notebooks.ROOT
BEGUN = [room for room in catalogue.rooms(ROOT) if (room / catalogue.FILE).exists()]
PUBLISHED = edition.published(ROOT)
FOLDERS = [ROOT / "sources", *BEGUN]


def name(path):
    return path.name


def current(folder):
    return catalogue.common(ROOT) if folder.name == "sources" else catalogue.of_room(folder)


def on_disk(folder):
    return catalogue.read(folder / catalogue.FILE)


def translated(folder):
    """Return (English, Chinese) of what is translated in a file, also where it fits no more."""
    return [(m.id, m.string) for m in on_disk(folder) if m.id and m.string and not m.fuzzy]


@pytest.mark.parametrize("folder", [ROOT / "sources", *PUBLISHED], ids=name)
def test_every_paragraph_has_a_translation_that_fits(folder):
    waiting = [
        f"{' '.join(f'{file}, cell {number}' for file, number in m.locations)}: {m.id}"
        for m in catalogue.waiting(current(folder))
    ]
    told = "\n".join(waiting)
    assert not waiting, f"{folder.name} has English that is new or changed since:\n{told}"


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_a_translation_keeps_what_is_no_prose_and_is_set_as_chinese_is(folder):
    told = [(e, c) for e, chinese in translated(folder) for c in keeping.complaints(e, chinese)]
    assert not told


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_a_translation_uses_the_words_of_the_glossary(folder):
    told = [(e, c) for e, z in translated(folder) for c in glossary.complaints(e, z, ROOT)]
    assert not told


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_a_catalogue_is_written_as_babel_writes_it(folder):
    text = (folder / catalogue.FILE).read_text(encoding="utf-8")
    assert text == catalogue.written(on_disk(folder), folder)


def test_the_glossary_has_every_term_once_and_all_of_its_columns():
    found = glossary.terms(ROOT)
    forms = [form.lower() for term in found for form in term.english]
    assert len(found) > 60 and len(forms) == len(set(forms))
    assert all(all(t.english + t.chinese) and t.meaning and t.meaning_zh for t in found)


ENGLISH = "**Predict:** how large is `w` at 8 bits, with $s$ of 22 million? See [here](a.md)."
CHINESE = "**预测：** 用 8 位时 `w` 有多大，$s$ 有 2200 万个？见[这里](a.md)。"
WRONG = {
    "code": ("`w`", "`v`"),
    "formulas": ("$s$", "$t$"),
    "links": ("a.md", "b.md"),
    "numbers": ("8 位", "4 位"),
    "a blank": ("用 8", "用8"),
    "beside Chinese": ("大，", "大,"),
    "Predict": ("预测", "猜测"),
    "bold": ("：** 用", "：**用"),
}


def test_a_translation_may_move_what_it_keeps():
    assert not list(keeping.complaints(ENGLISH, CHINESE))


@pytest.mark.parametrize("complaint", WRONG)
def test_what_a_translation_loses_is_named(complaint):
    spoilt = CHINESE.replace(*WRONG[complaint])
    assert spoilt != CHINESE
    assert any(complaint in told for told in keeping.complaints(ENGLISH, spoilt))


def test_another_word_for_a_term_is_named():
    assert not list(glossary.complaints("The masks.", "掩码。", ROOT))
    assert "'mask'" in next(glossary.complaints("The masks.", "面具。", ROOT))
    assert not list(glossary.complaints("See `mask` and $mask$.", "见上。", ROOT))


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


NOTEBOOKS = {path.relative_to(ROOT): book for path, book in edition.notebooks_of(ROOT).items()}


def test_the_edition_has_each_notebook_of_its_rooms_and_no_other():
    on_disk = {p.relative_to(ROOT) for p in ROOT.glob("zh/*/*.ipynb")}
    assert on_disk == set(NOTEBOOKS)
    assert {p.stem for p in NOTEBOOKS} == {room.name for room in PUBLISHED}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=str)
def test_a_chinese_notebook_has_the_code_and_results_of_the_english_one(path):
    """So nbval need not run it: what would be compared is what is compared there."""
    ours, theirs = cells(ROOT / path), cells(ROOT.joinpath(*path.parts[1:]))
    assert len(ours) == len(theirs)
    for cell, english in zip(ours, theirs, strict=True):
        if english["cell_type"] == "code":
            assert [without_alt(cell)] == [without_alt(english)]
        else:
            assert cell["id"] == english["id"] and cell["metadata"] == english["metadata"]


def without_alt(cell):
    outputs = [
        {**o, "metadata": {k: v for k, v in o["metadata"].items() if k != "image/png"}}
        if "metadata" in o
        else o
        for o in cell["outputs"]
    ]
    return {**cell, "outputs": outputs}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=str)
def test_a_chinese_notebook_is_what_its_catalogue_makes_of_the_english_one(path):
    import nbformat

    text = (ROOT / path).read_text(encoding="utf-8")
    assert text == nbformat.writes(NOTEBOOKS[path]) + "\n", "run make notebooks"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=str)
def test_the_links_of_a_chinese_notebook_lead_somewhere(path):
    for cell in cells(ROOT / path):
        if cell["cell_type"] != "code":
            for link in edition.LINK.findall("".join(cell["source"])):
                assert (ROOT / path).parent.joinpath(link).exists(), link
