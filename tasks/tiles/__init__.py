"""Inputs too large to be encoded at once: tiles of a scan and chunks of a recording, which are one idea.

`field_of_view` measures how far a network's cells look, `cut` makes tiles that overlap by so much, and `Parts` encodes
them one after the other: their pooled vectors merge to those of one pass, whatever the number of dimensions.
"""

from tasks.tiles.parts import Parts
from tasks.tiles.tiling import Tile, cut
from tasks.tiles.view import View, field_of_view

__all__ = ["Parts", "Tile", "View", "cut", "field_of_view"]
