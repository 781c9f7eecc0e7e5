"""The rival of pooling: every element keeps a place of its own, and fully connected layers read them all."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modalpool import Pool
from modalpool.reductions import Count, Reduction, State
from modalpool.sets import RaggedSets, Sets
from tasks.data.problems import BadInput


class Flatten(Reduction):
    """Give each element of a set a place: z_k = x_k, one vector for each of K places.

    It is no pooling: K is fixed when it is built, and another order of the elements is another input. Elements that a
    mask leaves out, and places behind the last node of a graph, are zero. Nodes stand in the order in which they are
    stored, which means nothing, so what reads them is not permutation invariant.

    Args:
        sizes: Sizes of the pooled axes; of sets that an index describes, the largest number of elements.

    Example:
        >>> pool = Pool("b c [h w]", Flatten([2, 2]))
        >>> pool(torch.arange(4.0).view(1, 1, 2, 2)).flatten(1)
        tensor([[0., 1., 2., 3.]])
    """

    needs_whole = "flatten: expected the whole input at once, got parts; pool, which can join them"

    def __init__(self, sizes: Sequence[int]):
        super().__init__()
        self.sizes = list(sizes)
        self.vectors = self.places = torch.Size(self.sizes).numel()

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`: parts of a set would not know their places."""
        return False

    def partial(
        self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False
    ) -> tuple[State, Tensor | None]:
        """See `Reduction.partial`.

        Raises:
            BadInput: If a set has more elements than there are places, or another size where nothing masks the rest.
        """
        here = sets.clean(x)  # (elements, C), zero where a mask leaves out
        if isinstance(sets, RaggedSets):
            index, lengths = sets.segments.index, sets.segments.lengths
            self._check([int(lengths.max()) if len(lengths) else 0], padded=True)
            order = index.argsort(stable=True)
            first = (lengths.cumsum(0) - lengths)[index[order]]
            place = torch.empty_like(index).scatter_(0, order, torch.arange(len(index), device=x.device) - first)
            z = here.new_zeros(len(lengths), self.places, x.shape[-1]).index_put((index, place), here)
        else:
            found = list(x.shape[-1 - len(self.sizes) : -1])
            self._check(found, padded=sets.mask is not None)
            room = [part for size, wanted in zip(reversed(found), reversed(self.sizes), strict=True)
                    for part in (0, wanted - size)]  # fmt: skip
            z = nn.functional.pad(here, (0, 0, *room)).flatten(-1 - len(self.sizes), -2)
            place = torch.arange(self.places, device=x.device).view(self.sizes)[tuple(map(slice, found))]
        if not with_weights:
            return (z,), None
        weight = nn.functional.one_hot(place, self.places).to(here)
        return (z,), weight[..., None].expand(*x.shape[:-1], -1, 1)

    def _check(self, found: list[int], *, padded: bool) -> None:
        if found == self.sizes or (padded and all(map(int.__le__, found, self.sizes))):
            return
        raise BadInput(
            f"flatten: expected {'at most ' if padded else ''}{by(self.sizes)} elements, got {by(found)}; "
            "fully connected layers are built for one size: bring the input to it, or pool"
        )

    def finalize(self, state: State, count: Count) -> Tensor:
        """See `Reduction.finalize`."""
        return state[0]

    def extra_repr(self) -> str:
        """The sizes."""
        return f"sizes={self.sizes}"


def by(sizes: list[int]) -> str:
    """Sizes as they are read: 8 x 8 x 8."""
    return " x ".join(map(str, sizes))


def flatten_pool(layout: str, sizes: Sequence[int], channels: int) -> Pool:
    """Stand in for a pool, keeping all elements: those of the axes that it would keep, too.

    Example:
        >>> flatten_pool("b c f [t]", [5, 7], channels=3)(torch.zeros(2, 3, 5, 7)).shape
        torch.Size([2, 35, 3])
    """
    names = layout.replace("[", " ").replace("]", " ").split()
    return Pool(
        " ".join(name if name in ("b", "c") else f"[{name}]" for name in names), Flatten(sizes), channels=channels
    )


def fully_connected(widths: Sequence[int], *, dropout: float = 0.0) -> nn.Sequential:
    """Flatten, then layers from ``widths[0]`` to ``widths[-1]`` numbers, each behind dropout and before a ReLU.

    As in AlexNet and VGG, whose last layer, without a ReLU, follows.
    """
    layers = [nn.Sequential(nn.Dropout(dropout), nn.Linear(*both), nn.ReLU()) for both in itertools.pairwise(widths)]
    return nn.Sequential(nn.Flatten(1), *layers)
