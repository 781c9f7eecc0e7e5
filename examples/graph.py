"""Which motif is hidden in this graph, and which nodes give it away?

A PyG network, a `modalpool.Pool` as its readout, a linear head, plain PyTorch around them. Run it from the repository:

    python examples/graph.py

It trains for less than a minute on a CPU and draws the nodes that decided one test graph into graph.png.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GIN

from modalpool import Pool, contributions
from tasks.graph.generated import motif_graph
from tasks.graph.pictures import draw_graph

CLASSES = ["square", "house"]  # two motifs of five nodes, six edges and equal degrees


def make_graphs(count: int, seed: int) -> list[Data]:
    """Random graphs with a motif; every node is given the same feature, so only the wiring can tell."""
    rng = np.random.default_rng(seed)
    graphs = []
    for number in range(count):
        label, nodes = number % 2, int(rng.integers(15, 31))
        edge_index, truth = motif_graph(CLASSES[label], nodes=nodes, extra=3, rng=rng)
        graphs.append(Data(x=torch.ones(nodes + 5, 1), edge_index=edge_index, y=torch.tensor([label]), truth=truth))
    return graphs


class Classifier(nn.Module):
    """Encoder, pool, head: exchange "mean" for "attention", "sum", "max" and nothing else changes."""

    def __init__(self, reduction: str = "mean", hidden: int = 32):
        super().__init__()
        self.encoder = GIN(1, hidden, num_layers=3, out_channels=hidden, norm="batch_norm", jk="cat")
        self.pool = Pool("[n] c", reduction, channels=hidden)  # nodes of all graphs in a row, pooled graph by graph
        self.head = nn.Linear(self.pool.out_channels, len(CLASSES))

    def nodes(self, batch):
        """Features of all nodes, (N, hidden)."""
        return self.encoder(batch.x, batch.edge_index).relu()

    def forward(self, batch):
        """Logits, (B, classes)."""
        return self.head(self.pool(self.nodes(batch), index=batch.batch, dim_size=batch.num_graphs))

    def explain(self, batch):
        """The logits, (B, classes), and how much every node added to them, (N, classes)."""
        return contributions(self.pool, self.head, self.nodes(batch), index=batch.batch, dim_size=batch.num_graphs)


def main(train: int = 800, test: int = 200, epochs: int = 20, picture: str = "graph.png") -> tuple[float, float]:
    """Train, test, explain; returns the accuracy and the share of graphs whose strongest node is in the motif."""
    torch.manual_seed(0)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    loader = DataLoader(make_graphs(train, seed=0), batch_size=32, shuffle=True)
    for epoch in range(epochs):
        model.train()
        losses = []
        for batch in loader:
            loss = nn.functional.cross_entropy(model(batch), batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1:2d}  loss {np.mean(losses):.3f}")

    model.eval()
    batch = next(iter(DataLoader(make_graphs(test, seed=1), batch_size=test)))
    with torch.no_grad():
        logits, maps = model.explain(batch)
    accuracy = (logits.argmax(1) == batch.y).float().mean().item()

    # The map is exact: a graph's nodes and the head's bias add up to its logit. So does it point at the motif?
    evidence = maps[torch.arange(len(maps)), logits.argmax(1)[batch.batch]]  # (N,) for the class that was predicted
    strongest = [nodes.argmax() for nodes in evidence.split(batch.ptr.diff().tolist())]
    hits = np.mean([bool(batch[number].truth[node]) for number, node in enumerate(strongest)])
    print(f"test accuracy {accuracy:.3f}; the strongest node is one of the motif's in {hits:.0%} of the graphs")

    graph = batch[1]  # a house
    title = f"prediction {CLASSES[logits[1].argmax()]}, target {CLASSES[graph.y]}"
    words = {"title": title, "label": "adds to the logit of 'house'", "truth_label": "the hidden motif"}
    draw_graph(graph.edge_index, maps[batch.ptr[1] : batch.ptr[2], 1], Path(picture), truth=graph.truth, **words)
    print(f"look at: {picture}")
    return accuracy, float(hits)


if __name__ == "__main__":
    main()
