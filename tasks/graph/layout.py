"""Where a picture puts the nodes of a graph: in a second or less, whatever its size, and the same at every call."""

import networkx
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import KDTree
from torch import Tensor

_UNTANGLED = 150  # nodes up to which networkx, which compares all pairs, is quick
_PIVOTS = 30


def node_positions(edge_index: Tensor, nodes: int) -> np.ndarray:
    """Place the nodes so that distances look like numbers of edges; the same places at every call.

    Up to 150 nodes as Kamada and Kawai (1989) for a connected graph, else by springs (Fruchterman and Reingold 1991).
    Larger ones by distances to a few pivots (Brandes and Pich 2007, https://doi.org/10.1007/978-3-540-70904-6_6), then
    by springs among near nodes; parts that are not connected stand side by side. The longest extent lies flat.

    Args:
        edge_index: (2, E) arcs.
        nodes: Number of nodes; nodes without edges count too.

    Returns:
        (N, 2) coordinates.
    """
    ends = edge_index.t().numpy()
    if nodes > _UNTANGLED:
        return _side_by_side(ends, nodes)
    graph = networkx.Graph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from(ends.tolist())
    if nodes and networkx.is_connected(graph):
        found = networkx.kamada_kawai_layout(graph)
    else:
        found = networkx.spring_layout(graph, method="force", iterations=50, seed=0)
    return _flat(np.array([found[node] for node in range(nodes)]).reshape(nodes, 2))


def _flat(places: np.ndarray) -> np.ndarray:
    """Turn the longest extent into the horizontal."""
    if len(places) < 2:
        return places
    places = places - places.mean(0)
    turned: np.ndarray = places @ np.linalg.svd(places, full_matrices=False)[2].T
    return turned


def _side_by_side(ends: np.ndarray, nodes: int) -> np.ndarray:
    """Lay out each connected part, and put the parts on shelves, from large to small."""
    links = coo_array((np.ones(len(ends)), ends.T), shape=(nodes, nodes)).tocsr()
    links = (links + links.T).tocsr()
    links.data[:] = 1
    part = connected_components(links, directed=False)[1]
    order = np.argsort(part, kind="stable")
    parts = sorted(np.split(order, np.cumsum(np.bincount(part))[:-1]), key=len, reverse=True)
    laid = [_flat(_relaxed(links[members][:, members])) for members in parts]
    laid = [places - places.min(0) for places in laid]
    width = max(laid[0][:, 0].max() + 1, 1.4 * sum((places.max(0) + 1).prod() for places in laid) ** 0.5)
    found, corner, height = np.empty((nodes, 2)), np.zeros(2), 0.0
    for members, places in zip(parts, laid, strict=True):
        wide, high = places.max(0) + 1
        if corner[0] and corner[0] + wide > width:
            corner, height = np.array([0.0, corner[1] - height]), 0.0
        found[members] = places + corner - (0, high)
        corner[0] += wide
        height = max(height, high)
    return found


def _relaxed(links: coo_array) -> np.ndarray:
    """Places of a connected part whose edges are about 1 long."""
    nodes = links.shape[0]
    if nodes == 1:
        return np.zeros((1, 2))
    rng = np.random.default_rng(0)
    first, second = links.tocoo().coords
    places = _pivoted(links) + rng.normal(0, 0.05, (nodes, 2))  # twins, such as leaves of one node, come apart
    degrees = np.bincount(first, minlength=nodes)[:, None]
    near = min(8, nodes)
    for reach in np.linspace(2.5, 1.0, max(10, min(30, 60_000 // nodes))):  # from far to near, so that branches unfold
        along = places[second] - places[first]
        length = np.linalg.norm(along, axis=1, keepdims=True).clip(1e-9)
        pull = np.stack([np.bincount(first, each, nodes) for each in (along * (1 - 1 / length)).T], 1) / degrees
        gaps, others = KDTree(places).query(places, near)
        away = places[:, None] - places[others]
        push = (away * ((reach - gaps).clip(0) / gaps.clip(1e-9))[..., None]).sum(1) / near
        places = places + 0.4 * pull + 0.5 * push
    return places


def _pivoted(links: coo_array) -> np.ndarray:
    """Brandes and Pich's multidimensional scaling of the distances to pivots, each the farthest from those before."""
    distances = [dijkstra(links, unweighted=True, indices=0)]
    while len(distances) < min(_PIVOTS, links.shape[0]):
        farthest = int(np.min(distances, axis=0).argmax())
        distances.append(dijkstra(links, unweighted=True, indices=farthest))
    squares = np.stack(distances, 1) ** 2  # (N, P)
    centred = squares.mean(1, keepdims=True) + squares.mean(0) - squares - squares.mean()
    plane = np.linalg.eigh(centred.T @ centred)[1][:, -2:][:, ::-1]
    places = centred @ plane if plane.shape[1] == 2 else np.pad(centred @ plane, ((0, 0), (0, 1)))
    first, second = links.tocoo().coords
    length = np.linalg.norm(places[first] - places[second], axis=1).mean()
    scaled: np.ndarray = places / max(length, 1e-9)
    return scaled
