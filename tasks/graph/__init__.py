"""Graphs: any TU folder or PyG graphs, PyG's encoders, and node maps of what made a decision.

`GraphTask` is the model, `TUData` reads TU folders, `MoleculeData` tables of SMILES, `PyGData` whatever PyG has;
`MotifData` and `BondData` make graphs whose deciding nodes are known, `GraphData` is the base for graphs of your own.
"""

from tasks.extras import require

require("torch_geometric", extra="graph")

from tasks.graph.data import GraphData, TUData  # noqa: E402
from tasks.graph.generated import BondData, MotifData, motif_graph  # noqa: E402
from tasks.graph.molecules import MoleculeData  # noqa: E402
from tasks.graph.pyg import PyGData  # noqa: E402
from tasks.graph.task import GraphTask  # noqa: E402

__all__ = ["BondData", "GraphData", "GraphTask", "MoleculeData", "MotifData", "PyGData", "TUData", "motif_graph"]
