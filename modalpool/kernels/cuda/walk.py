"""Which rows a program works on, and how wide its tile is: what all Triton kernels share.

Elements are seen as ``(A, B, P, …)``. Dense sets are the pairs (a, b) and have P elements each. Ragged sets lie one
after the other along P (A = B = 1) and begin at ``ptr``; ``order`` says where their elements really are.

A set of more than ``rows`` elements is worked on in chunks by several programs, which leave a result each; a second
kernel joins those. Which program does what depends on nothing but the sizes, so results are the same in every run and
no program waits for another. Ragged chunks need no table: set s may use the numbers from ``ptr[s] // rows`` up to
``ptr[s + 1] // rows`` for its later chunks, and those ranges never overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from modalpool.kernels import tuning

UNROLL = tl.constexpr(tuning.UNROLL)
STEPS = tl.constexpr(tuning.STEPS)
LOG2E = tl.constexpr(1.4426950408889634)


class Walk(NamedTuple):
    """How the sets are laid out; kernels take it as one argument."""

    ptr: Tensor | None
    order: Tensor | None
    sets: int
    size: int  # P of dense sets
    inner: int  # B
    rows: int  # of a chunk
    chunks: int  # of each dense set; of all ragged sets together, besides the first of each
    along: int | None  # 1 where neighbours in a dense set are neighbours in memory


def walk_over(x: Tensor, ptr: Tensor | None, order: Tensor | None, rows: int) -> tuple[Walk, int]:
    """Split the places of ``x`` ``(A, B, P, …)`` into chunks: how, and how many there are.

    Args:
        x: Elements.
        ptr: Where ragged sets begin, ``(S + 1,)``, or None.
        order: Element at each place, ``(P,)``, or None.
        rows: Rows of a program between two closed sums.
    """
    outer, inner, size = x.shape[:3]
    sets = outer * inner if ptr is None else ptr.shape[0] - 1
    while size > rows * tuning.LAUNCHES:
        rows *= 2
    chunks = triton.cdiv(size, rows) if ptr is None else size // rows
    items = sets * chunks if ptr is None else sets + chunks
    along = 1 if ptr is None and _along(x) else None
    if ptr is not None:
        size = 0  # in no kernel for ragged sets, so none is compiled for what it is a multiple of
    return Walk(ptr, order, sets, size, inner, rows, chunks, along), items


def _along(x: Tensor) -> bool:
    """Whether elements of a set are closer in memory than channels of an element."""
    return x.stride(2) == 1 and (x.shape[-1] == 1 or x.stride(-1) != 1)


def tiles_over(x: Tensor, ptr: Tensor | None, order: Tensor | None, *, widest: int) -> tuple[dict[str, int], int]:
    """A tile of N rows and C channels, and its warps, for ``x (A, B, P, …, D)``; and how many lie side by side."""
    size, width = x.shape[2], x.shape[-1]
    if order is None and _along(x):
        widest = min(widest, tuning.NARROW)
    columns = min(triton.next_power_of_2(width), widest)
    mean = size if ptr is None else size // max(ptr.shape[0] - 1, 1)
    rows = min(max(tuning.TILE // columns, 1), triton.next_power_of_2(max(triton.cdiv(mean, tuning.UNROLL), 1)))
    warps = min(max(rows * columns // 256, 1), 8)
    return {"N": rows, "C": columns, "num_warps": warps}, triton.cdiv(width, columns)


@triton.jit
def _last_set(ptr, sets, bound):
    """The last set that begins before ``bound``."""
    low = tl.zeros((), tl.int64)
    high = tl.zeros((), tl.int64) + sets
    while high - low > 1:
        middle = (low + high) // 2
        before = tl.load(ptr + middle) < bound
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    return low


@triton.jit
def take_chunk(walk, item):
    """Chunk number ``item``: its set, its first place, the place after its last, the row of its own result.

    Also whether it is the set alone, and whether it exists at all: a few numbers stay unused.
    """
    if walk.ptr is None:
        owner = item // walk.chunks
        low = (item - owner * walk.chunks) * walk.rows
        high = tl.minimum(low + walk.rows, walk.size)
        return owner, low, high, item, walk.chunks == 1, item >= 0
    else:
        later = item < walk.chunks  # long sets first
        owner = item - walk.chunks
        if later:
            owner = _last_set(walk.ptr, walk.sets, (item + 1) * walk.rows)
        begin = tl.load(walk.ptr + owner)
        end = tl.load(walk.ptr + owner + 1)
        number = tl.where(later, item - begin // walk.rows + 1, 0)
        low = begin + number * walk.rows
        high = tl.minimum(low + walk.rows, end)
        # Sets of several chunks are longer than one, so twice the chunks before them leave room for all.
        return owner, low, high, 2 * begin // walk.rows + number, end - begin <= walk.rows, (number == 0) | (low < end)


@triton.jit
def chunks_of(walk, item):
    """Set number ``item`` of those in several chunks: the set, the row of its first result, how many there are.

    Ragged sets are found by their second chunk; every other number has nothing to join.
    """
    if walk.ptr is None:
        return item, item * walk.chunks, item * 0 + walk.chunks
    else:
        owner = _last_set(walk.ptr, walk.sets, (item + 1) * walk.rows)
        begin = tl.load(walk.ptr + owner)
        length = tl.load(walk.ptr + owner + 1) - begin
        second = (item == begin // walk.rows) & (length > walk.rows)
        return owner, 2 * begin // walk.rows, tl.where(second, tl.cdiv(length, walk.rows), 0)


@triton.jit
def enter(walk, pid, G, tiles, C: tl.constexpr):
    """What a program works on: its group, its channels, its item, and the chunk that `take_chunk` tells of."""
    tile, pid = pid % tiles, pid // tiles
    g, item = pid % G, pid // G
    owner, low, high, slot, alone, exists = take_chunk(walk, item)
    return g, tile * C + tl.arange(0, C), item, owner, low, high, slot, alone, exists


@triton.jit
def put(out, rooms, owner, slot, width, place, value, chunk_value, good, alone, exists):
    """Write the result of a set, or that of its chunk to a room of its own; both have ``width`` numbers a row."""
    if rooms is None:
        tl.store(out + owner * width + place, value.to(out.dtype.element_ty), mask=good)
    else:
        tl.store(out + owner * width + place, value.to(out.dtype.element_ty), mask=good & alone)
        tl.store(rooms + slot * width + place, chunk_value, mask=good & exists & (alone == 0))


@triton.jit
def enter_join(walk, tiles, C: tl.constexpr):
    """What a program joins: the set, the row of its first result, how many there are, and which of their numbers."""
    pid = tl.program_id(0).to(tl.int64)
    owner, first, count = chunks_of(walk, pid // tiles)
    return owner, first, count, pid % tiles * C + tl.arange(0, C)


@triton.jit
def rooms_from(first, start, count, c, width, N: tl.constexpr):
    """Where the results of some chunks are, and which of them there are."""
    chunk = start + tl.arange(0, N)
    return (first + chunk)[:, None] * width + c[None, :], (chunk < count)[:, None] & (c < width)[None, :]


@triton.jit
def origin(walk, owner, strides):
    """Where the elements of a set begin: strides of A and B come first."""
    if walk.ptr is None:
        return owner // walk.inner * strides[0] + owner % walk.inner * strides[1]
    else:
        return owner * 0


@triton.jit
def offset(walk, owner, g, tensor, strides):
    """How far into a tensor ``(A, B, P, G, …)``, which may be None, group g of a set begins."""
    if tensor is None:
        return owner * 0
    else:
        return origin(walk, owner, strides) + g * strides[3]


@triton.jit
def rows_from(walk, low, high, steps):
    """The rows at places ``low + steps``, and which of them come before ``high``."""
    place = low + steps
    # Dense chunks are full tiles, and the compiler knows what the size is a multiple of.
    valid = place < (walk.size if walk.ptr is None else high)
    if walk.order is None:
        return place, valid
    else:
        return tl.load(walk.order + place, mask=valid, other=0), valid


@triton.jit
def load_rows(many, strides, begin, row, valid):
    """Multiplicities of rows of what begins somewhere, and which rows are there."""
    if many is None:
        return valid, valid
    else:
        times = tl.load(many + begin + row * strides[2], mask=valid, other=0)
        return times, valid & (times != 0)


@triton.jit
def load_tile(walk, many, x, place, valid, there, wide, other):
    """Values of ``valid`` rows that are ``there``, which has as many axes as ``place``; ``other`` for the rest.

    A row that is not there is not read, except where that would cut up reads of neighbouring rows.
    """
    if many is None:
        return tl.load(x + place, mask=valid & wide, other=other)
    elif walk.along is None:
        return tl.load(x + place, mask=there & wide, other=other)
    else:
        return tl.where(there, tl.load(x + place, mask=valid & wide, other=other), other)


@triton.jit
def largest(top):
    """The largest along axis 0; `tl.max` passes over what is not a number."""
    broken = tl.max((top != top).to(tl.int32), 0) > 0
    return tl.where(broken, float("nan"), tl.max(top, 0))


@triton.jit
def load_values(walk, x, xs, many, ms, many_at, low, high, steps, d, D, other, ACC):
    """A tile of values, their multiplicities, which of them are there, and the rows and whether they are in the chunk.

    What is not there is ``other``.
    """
    row, valid = rows_from(walk, low, high, steps)
    times, there = load_rows(many, ms, many_at, row, valid)
    place = row[:, None] * xs[2] + d[None, :] * xs[4]
    value = load_tile(walk, many, x, place, valid[:, None], there[:, None], (d < D)[None, :], other).to(ACC)
    return value, times.to(ACC)[:, None], there[:, None], row, valid
