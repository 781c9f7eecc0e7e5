"""Graphs from files: what `torch.save` and PyG's `InMemoryDataset` write."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.separate import separate
from torch_geometric.data.storage import BaseStorage, EdgeStorage, GlobalStorage, NodeStorage

from tasks.data.problems import BadInput

_KNOWN = [Data, DataEdgeAttr, DataTensorAttr, BaseStorage, GlobalStorage, NodeStorage, EdgeStorage]


def read_stored(path: str | Path) -> list[Any]:
    """Read a list of `Data`, one `Data`, or what `InMemoryDataset` stores, ``(data, slices)``; nothing in it is run.

    Args:
        path: A file that `torch.save`, `InMemoryDataset.save` or `InMemoryDataset.collate` and `torch.save` wrote.

    Raises:
        BadInput: If there is no such file or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path} does not exist; give a file of Data objects, or a data set's class path")
    try:
        with torch.serialization.safe_globals(_KNOWN), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        what = "it is damaged, or holds other objects than PyG's Data, tensors and plain values, which are not loaded"
        raise BadInput(f"{path.name}: {what}; save a list of Data with torch.save") from error
    if isinstance(stored, tuple) and len(stored) in (2, 3) and isinstance(stored[1], dict):
        data, slices = stored[:2]
        data = Data.from_dict(data) if isinstance(data, dict) else data
        count = len(next(iter(slices.values()))) - 1
        return [separate(Data, data, number, slices, decrement=False) for number in range(count)]
    if isinstance(stored, Data):
        return [stored]
    if isinstance(stored, list | tuple) and all(isinstance(one, Data) for one in stored):
        return list(stored)
    raise BadInput(f"{path.name}: expected a list of Data objects, got {type(stored).__name__}; save such a list")
