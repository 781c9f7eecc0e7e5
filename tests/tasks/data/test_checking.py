"""Files that are looked at side by side before training."""

import threading

import pytest
import torch

from tasks.data.checking import DRAWN, drawn, side_by_side


@pytest.mark.parametrize("size", [0, 1, 64, 500])
def test_every_item_once_and_in_order_whoever_looks(size):
    who = set()

    def look(item):
        who.add(threading.get_ident())
        return -item

    assert list(side_by_side(look, range(size), "numbers")) == [(number, -number) for number in range(size)]
    assert threading.get_ident() not in who


def test_an_error_ends_the_look_and_gives_threads_back():
    looked, threads = [], torch.get_num_threads()

    def look(item):
        looked.append(item)
        if item == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        list(side_by_side(look, range(100_000), "numbers"))
    assert len(looked) < 100_000
    assert torch.get_num_threads() == threads


def test_a_thousand_are_drawn_the_same_ones_for_a_seed():
    items = list(range(5000))
    assert drawn(items, "all", 0) == drawn(items, "header", 0) == items
    some = drawn(items, "sample", 0)
    assert some == sorted(set(some)) == drawn(items, "sample", 0) != drawn(items, "sample", 1)
    assert len(some) == DRAWN
    assert drawn(items[:DRAWN], "sample", 0) == items[:DRAWN]
