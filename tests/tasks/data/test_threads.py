"""Small pieces of work side by side."""

import threading
import time

import pytest
import torch

from tasks.data.threads import side_by_side


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_each_piece_computes_on_its_own_while_another_does(two_threads):
    both = threading.Barrier(2, timeout=20)  # breaks unless two pieces are worked on at once

    def make(number):
        both.wait()
        return number, torch.get_num_threads()

    assert side_by_side(make, range(4)) == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert torch.get_num_threads() == 2


def test_an_error_is_told_and_torch_has_its_threads_again(two_threads):
    def fail(number):
        raise ValueError(f"number {number}")

    with pytest.raises(ValueError, match="number 0"):
        side_by_side(fail, range(3))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("size", [0, 1, 64, 500])
def test_files_that_are_checked_come_once_and_in_order(size):
    assert side_by_side(lambda number: -number, range(size), "numbers") == [-number for number in range(size)]


def test_after_an_error_nothing_more_is_begun():
    looked = []

    def look(number):
        looked.append(number)
        time.sleep(0.002)
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        side_by_side(look, range(100_000), "numbers")
    assert len(looked) < 500  # of 1563 groups of files
