"""Which files are looked at before training."""

from tasks.data.checking import DRAWN, drawn


def test_a_thousand_are_drawn_the_same_ones_for_a_seed():
    items = list(range(5000))
    assert drawn(items, "all", 0) == drawn(items, "header", 0) == items
    some = drawn(items, "sample", 0)
    assert some == sorted(set(some)) == drawn(items, "sample", 0) != drawn(items, "sample", 1)
    assert len(some) == DRAWN
    assert drawn(items[:DRAWN], "sample", 0) == items[:DRAWN]
