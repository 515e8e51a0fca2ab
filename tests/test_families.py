"""Every verb on every family: it works, names what it left, or refuses; never anything else."""

import pytest

from tests import families, family_table

# The fixture tries every verb on every family: two minutes and more on a slow, busy machine.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def statuses():
    return family_table.tried()


@pytest.mark.parametrize("verb", family_table.VERBS)
@pytest.mark.parametrize("family", families.FAMILIES)
def test_nothing_fails_later_or_is_silently_wrong(statuses, family, verb):
    told = statuses[family][verb]
    assert told in ("works", "–") or told.startswith(("left and named: ", "refused: ")), told


def test_the_page_says_what_was_tried(statuses):
    assert family_table.PAGE.read_text(encoding="utf-8") == family_table.table(statuses)


def make_unchanged(model, inputs):
    """Return a verb's answer without having done anything."""

    class Report:
        skipped = {}

    return family_table.left(family_table._originals(model), model, Report)


def test_a_verb_that_does_nothing_is_caught():
    assert family_table.status("Llama", make_unchanged).startswith("silently wrong: nothing is")


def test_a_verb_that_fails_later_is_caught():
    assert family_table.status("Llama", lambda m, i: m.nothing).startswith("fails later: Attribute")
