"""Many graphs stored as one, from which a batch is cut without touching its graphs one by one."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Batch, Data
from torch_geometric.data.collate import collate
from torch_geometric.data.separate import separate
from torch_geometric.utils import cumsum


class GraphSet(Dataset[Data]):
    """Graphs in memory, each attribute concatenated over all of them, as PyG's `InMemoryDataset` stores them.

    PyG's loader takes the graphs of a batch out one by one and joins them again. Here torch's loader asks for all of
    them at once (``__getitems__``, which its `Subset` passes on), and index arithmetic on the stored tensors gives
    PyG's `Batch`, equal in every field to ``Batch.from_data_list``. A single graph, ``graphs[i]``, is PyG's `Data`.

    Args:
        graphs: Graphs with the same attributes, of whatever kind PyG can batch.

    Example:
        >>> rings = [torch.stack([torch.arange(n), torch.arange(n).roll(1)]) for n in (3, 5, 4)]
        >>> graphs = GraphSet([Data(x=torch.rand(ring.shape[1], 2), edge_index=ring) for ring in rings])
        >>> graphs[1]
        Data(x=[5, 2], edge_index=[2, 5])
        >>> graphs.__getitems__([2, 0])
        DataBatch(x=[7, 2], edge_index=[2, 7], batch=[7], ptr=[3])
    """

    def __init__(self, graphs: Sequence[Data]):
        self._all, self._slices, _ = collate(type(graphs[0]), list(graphs), increment=False, add_batch=False)
        self._keys = list(graphs[0].to_dict())  # in order, unlike ``keys()``
        self._sizes = torch.tensor([graph.num_nodes for graph in graphs])  # (G,)
        self._batch = Batch(_base_cls=type(graphs[0]))  # empty; its copies are filled
        # Nested, sparse and other special attributes are rare, and left to PyG.
        self._plain = all(_is_plain(self._all[key], slices) for key, slices in self._slices.items())
        if self._plain:
            self._slices = _shared(self._slices)
            self._steps = {key: _steps(graphs, key) for key in self._slices if isinstance(self._all[key], Tensor)}

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, number: int) -> Data:
        number = range(len(self))[number]
        return separate(type(self._all), self._all, number, self._slices, decrement=False)

    def __getitems__(self, numbers: list[int]) -> Batch:
        """The disjoint union of some graphs, in the order of their numbers."""
        if not self._plain:
            return Batch.from_data_list([self[number] for number in numbers])
        chosen = torch.tensor(numbers)  # (B,)
        sizes = self._sizes[chosen]
        batch, cuts, shifts = copy.copy(self._batch), {}, {}
        places: dict[int, tuple[Tensor, Tensor]] = {}  # nodes' attributes stand at the same places, and edges' do
        for key in self._keys:
            value = self._all[key]
            if key == "num_nodes":
                batch._store._num_nodes = sizes.tolist()
                batch.num_nodes = sum(batch._store._num_nodes)
            elif isinstance(value, Tensor):
                slices = self._slices[key]
                if id(slices) not in places:
                    places[id(slices)] = _places(slices, chosen)
                place, cuts[key] = places[id(slices)]
                axis = (self._all.__cat_dim__(key, value, self._all._store) or 0) % value.ndim
                shifts[key] = cumsum(self._steps[key][chosen[:-1]])
                batch[key] = value.index_select(axis, place)
                if int(shifts[key][-1]):
                    each = shifts[key].repeat_interleave(cuts[key].diff(), output_size=len(place))
                    batch[key] += each.view(-1, *[1] * (value.ndim - 1 - axis))
            else:
                batch[key] = [value[number] for number in numbers]
                cuts[key], shifts[key] = torch.arange(len(numbers) + 1), None
        batch.batch = torch.arange(len(numbers)).repeat_interleave(sizes)
        batch.ptr = cumsum(sizes)
        batch._num_graphs, batch._slice_dict, batch._inc_dict = len(numbers), cuts, shifts
        return batch


def _is_plain(value: object, slices: object) -> bool:
    """Whether index arithmetic can batch an attribute: an ordinary tensor, or a list with one entry a graph."""
    if type(value) is Tensor and (value.layout is not torch.strided or value.is_nested):
        return False
    return type(value) in (Tensor, list) and isinstance(slices, Tensor) and slices.ndim == 1


def _shared(slices: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same slices with equal ones being one object."""
    kept: list[Tensor] = []
    for one in slices.values():
        if not any(torch.equal(one, other) for other in kept):
            kept.append(one)
    return {key: next(other for other in kept if torch.equal(one, other)) for key, one in slices.items()}


def _steps(graphs: Sequence[Data], key: str) -> Tensor:
    """By how much each graph raises this attribute of the graphs after it: node numbers by its nodes."""
    return torch.tensor([int(graph.__inc__(key, graph[key], graph._store)) for graph in graphs])


def _places(slices: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Where the elements of the chosen graphs stand in the whole, and where each graph's begin in the batch."""
    first = slices[chosen]
    counts = slices[chosen + 1] - first
    cuts = cumsum(counts)
    place = torch.arange(int(cuts[-1])) + (first - cuts[:-1]).repeat_interleave(counts, output_size=int(cuts[-1]))
    return place, cuts
