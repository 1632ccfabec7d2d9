"""Two sorted lists as one: newer cells lie over older ones."""

from hypothesis import given
from hypothesis import strategies as st

from logstore.model.folding.sorted_merge import join, overlay

CELLS = st.dictionaries(st.binary(max_size=3), st.one_of(st.none(), st.binary(max_size=2)), max_size=30)


@given(CELLS, CELLS, st.booleans())
def test_a_merge_is_what_dictionaries_say(newer, older, reverse):
    def cells(of):
        return sorted(of.items(), key=lambda item: item[0], reverse=reverse)

    both = sorted(newer.keys() | older.keys(), reverse=reverse)
    assert list(join(cells(newer), cells(older), reverse=reverse)) == [
        ((key, newer[key]) if key in newer else None, (key, older[key]) if key in older else None) for key in both
    ]
    assert list(overlay(cells(newer), cells(older), reverse=reverse)) == cells(older | newer)
