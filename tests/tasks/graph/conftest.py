import numpy as np
import pytest


@pytest.fixture
def write_tu(tmp_path):
    """Write graphs as a TU folder: `write_tu(graphs, labels=True, attributes=True)`; returns the root."""

    def write(graphs, *, name="SMALL", labels=True, attributes=True, root=tmp_path):
        raw = root / name / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        optional = [key for key in ("edge_labels", "edge_attributes") if key in graphs[0]]
        lines = {
            key: [] for key in ("A", "graph_indicator", "graph_labels", "node_labels", "node_attributes", *optional)
        }
        first = 1
        for number, graph in enumerate(graphs, start=1):
            lines["A"] += [f"{first + i}, {first + j}" for i, j in graph["edges"]]
            lines["graph_indicator"] += [str(number)] * graph["nodes"]
            lines["graph_labels"].append(str(graph["label"]))
            lines["node_labels"] += [str(label) for label in graph["node_labels"]]
            lines["node_attributes"] += [", ".join(map(repr, row)) for row in graph["node_attributes"]]
            for key in optional:
                lines[key] += [", ".join(map(repr, row)) if isinstance(row, list) else str(row) for row in graph[key]]
            first += graph["nodes"]
        left_out = [key for key, wanted in (("node_labels", labels), ("node_attributes", attributes)) if not wanted]
        for key, text in lines.items():
            if key not in left_out:
                (raw / f"{name}_{key}.txt").write_text("\n".join(text) + "\n")
        return root

    return write


@pytest.fixture
def small_graphs():
    """Make random small graphs, with every class, node label, loop and repeated arc that a file may hold."""

    def make(count=24, seed=0):
        rng = np.random.default_rng(seed)
        graphs = []
        for number in range(count):
            nodes = int(rng.integers(2, 8))
            arcs = rng.integers(nodes, size=(int(rng.integers(1, 12)), 2)).tolist()
            graphs.append(
                {
                    "nodes": nodes,
                    "edges": [tuple(arc) for arc in arcs + [arc[::-1] for arc in arcs]],
                    "label": (-1, 1, 5)[number % 3],
                    # 3 to 5 without a gap: PyG has a column for every label in the range, also for absent ones.
                    "node_labels": [3 + (node if number == 0 else int(rng.integers(3))) % 3 for node in range(nodes)],
                    "node_attributes": rng.normal(size=(nodes, 2)).round(3).tolist(),
                }
            )
        graphs[0]["nodes"], graphs[0]["edges"] = 3, [(0, 1), (1, 0)]
        graphs[0]["node_labels"], graphs[0]["node_attributes"] = [3, 4, 5], [[0.5, 1.0], [2.0, 3.0], [4.0, 5.0]]
        return graphs

    return make
