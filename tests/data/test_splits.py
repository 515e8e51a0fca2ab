"""Splits that leak nothing, whatever is split."""

from hypothesis import given
from hypothesis import strategies as st

from lightcourse.data import splits


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from("ab")), min_size=1))
def test_assign_keeps_groups_together_and_serves_every_stratum(pairs):
    pairs = [(stratum + group, stratum) for group, stratum in pairs]
    dealt = splits.assign(*zip(*pairs, strict=True))
    assert dealt == splits.assign(*zip(*pairs, strict=True))
    of_group = {}
    for (group, _), split in zip(pairs, dealt, strict=True):
        assert of_group.setdefault(group, split) == split
    for stratum in "ab":
        names = {group for group, s in pairs if s == stratum}
        found = {of_group[name] for name in names}
        assert len(found) == min(3, len(names))
