"""Every limit and chunk size there is: when a fast path is taken, and how much it works on at a time.

They decide what a call takes, in time or memory, and never a number of its result. Those of the CPU were tuned on one
processor (AMD EPYC of the Zen 5 kind, one thread, torch 2.11; docs/speed.md has the race), those of the GPU are
reasoned, and measured once, on an H200. They are read as ``tuning.NAME``, so one assignment changes them everywhere.

Three words: a *chunk* is what is cut off because the whole is large; a *run* is the elements of a set that one running
sum adds up, for accuracy; a *tile*, Triton's word, is what a program of a GPU holds at a time.
"""

from __future__ import annotations

import os

TRITON = os.environ.get("MODALPOOL_TRITON") != "0"
"""Whether a GPU gets the Triton kernels, where there is Triton; docs/speed.md has what they are worth on a card."""

# --- a CPU: sizes, in values unless said otherwise

FEW = 2**14
"""Up to which input a call is as long as the number of its operations: ragged sets take shorter steps, dense sets the
definition."""
MANY = 2**21
"""Above which size nothing is written down beside the input: rules work in chunks, half-precision means widen one at a
time, and dense attention without a gradient writes no weights."""
RULE_CHUNK = 2**20
"""A chunk that goes through a whole rule, forward and backward: four megabytes in float32."""
CHUNK = 2**19
"""A chunk that goes through a loop inside a kernel: two megabytes in float32."""
HALF_CHUNKS = 2
"""Chunks that half-precision values take at a time when they are only widened and added up."""
SUM_CHUNKS = 4
"""Chunks that values take at a time when they are only added up."""
NEAR = 2**12
"""Size of a matrix up to which a product keeps it at hand for every row: then its result is turned, not the rows."""
WIDE = 48
"""Channels from which on a sparse product adds up rows in order, from memory, faster than `torch.embedding_bag`."""
PAIRED = 96
"""Channels from which on a product with two vectors takes less time than with one."""
RUN = 128
"""Elements the definition adds up one after the other before their sum is closed, and the sums are added in float64: a
float32 running sum over a million equal numbers drifts by percents."""
ROW_RUN = 512
"""The same for rows on a CPU, where every run costs a row of its own."""
SHORT = 1024
"""Elements up to which one running sum is good enough."""
LISTED = 256
"""Numbers up to which a list is looked at faster than a tensor."""

# --- a CPU: ranges in which shorter formulas are exact enough

MODERATE = 16.0
"""How far from zero a score may be to be raised as it is: e^16 is exact to a few ulp, and so is a sum of a few."""
VAST = 1e30
"""The largest sum of powers or exponentials, and its inverse the least, that is not near a limit of float32."""
FAR = 1e18
"""Up to which sum of exponentials (its inverse: from which) dense scores are moderate: e^41."""

# --- a GPU

TILE = 1024
"""Values of a tile; with 4 warps two loads of 16 bytes per thread."""
UNROLL = 4
"""Tiles that are loaded before the first is used."""
STEPS = 8
"""Additions in float32 before a running sum is closed."""
LAUNCHES = 8192
"""Chunks of sets beyond which they grow instead of becoming more; several waves on any card."""
NARROW = 8
"""Columns of a tile where neighbours in a set, not channels, are neighbours in memory."""
COLUMNS = 128
"""Columns of a tile otherwise, at most."""
GRADIENT_COLUMNS = 1024
"""Columns of a tile where a gradient sums over channels: so many that most elements lie in one tile."""
JOIN_COLUMNS = 32
"""Columns of a tile that joins the chunks of a set, at most."""
