"""PyG's DiffPool as the judge of learned regions on graphs (Ying et al. 2018, eq. 3 and 4, section 3.3)."""

import pytest
import torch
from every import close

pytest.importorskip("torch_geometric", reason="torch-geometric is not installed: pip install 'modalpool[graph]'")
from torch_geometric.nn import dense_diff_pool
from torch_geometric.utils import to_dense_adj, to_dense_batch

from modalpool import Pool
from modalpool.losses import region_losses

SIZES, CHANNELS, REGIONS = torch.tensor([5, 1, 8]), 4, 3
GRAPH = torch.repeat_interleave(torch.arange(3), SIZES)
COUNT = len(GRAPH)


@pytest.fixture(params=["linear", "mlp"])
def pool(request):
    torch.manual_seed(0)
    options = {"channels": CHANNELS, "regions": REGIONS, "score": request.param, "score_channels": 6}
    return Pool("[n] c", "regions", **options).double()


@pytest.fixture
def x():
    return torch.randn(COUNT, CHANNELS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def edges():
    """Directed, so that a transposed A' is seen; some within each graph but the single node."""
    ends = torch.randint(COUNT, (2, 60), generator=torch.Generator().manual_seed(2))
    return ends[:, GRAPH[ends[0]] == GRAPH[ends[1]]].unique(dim=1)


def scores(pool, x):
    """The assignment before its softmax, from the pool's weights and nothing of its code."""
    layer = pool.reduction.scores
    return layer.content(x if layer.hidden is None else layer.hidden(x).tanh())


def diffpool(pool, x, edges):
    dense, mask = to_dense_batch(x, GRAPH)
    s = to_dense_batch(scores(pool, x), GRAPH)[0]
    return dense_diff_pool(dense, to_dense_adj(edges, GRAPH).to(x.dtype), s, mask)


def assigned(pool, x):
    """Pooled vectors, DiffPool's S (N, K) from the weights that are handed out, and each region's mass (3, K)."""
    z, w = pool(x, index=GRAPH, dim_size=3, return_weights=True)
    mass = torch.zeros(3, REGIONS, dtype=x.dtype).index_add(0, GRAPH, scores(pool, x).softmax(-1))
    return z, w.squeeze(-1).T * mass[GRAPH], mass


def test_pooled_vectors_are_diffpools_over_the_mass_and_so_are_gradients(pool, x, edges):
    slope = torch.randn(3, REGIONS, CHANNELS, generator=torch.Generator().manual_seed(3), dtype=x.dtype)

    def with_gradient(function):
        at = x.clone().requires_grad_()
        y = function(at)
        return [y, *torch.autograd.grad((y * slope).sum(), [at, *pool.parameters()])]

    def ours(at):
        z, _, mass = assigned(pool, at)
        return z * mass[..., None]

    expected = with_gradient(lambda at: diffpool(pool, at, edges)[0])
    for mine, theirs in zip(with_gradient(ours), expected, strict=True):
        close(mine, theirs, ulp=1024)


def test_the_coarse_adjacency_comes_from_the_weights(pool, x, edges):
    _, s, _ = assigned(pool, x)
    close(s.sum(1), torch.ones(COUNT, dtype=x.dtype), ulp=16)
    source, target = edges
    linked = s[source, :, None] * s[target, None, :]
    adjacency = torch.zeros(3, REGIONS, REGIONS, dtype=x.dtype).index_add(0, GRAPH[source], linked)
    close(adjacency, diffpool(pool, x, edges)[1], ulp=1024)


def test_the_entropy_is_diffpools_less_its_padding(pool, x, edges):
    """PyG's mean counts the padding of a batch; ours are the nodes alone."""
    theirs = diffpool(pool, x, edges)[3]
    ours = region_losses(pool, x, index=GRAPH, dim_size=3).entropy
    padded = 3 * int(SIZES.max())
    torch.testing.assert_close(ours, theirs * padded / COUNT)
