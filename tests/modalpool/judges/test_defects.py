"""Defects measured in other libraries, shown to be absent here; D1 to D13 number what was found."""

import pytest
import torch

from modalpool import Pool, contributions
from modalpool.functional import label_pool


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [3000, 100_000])
@pytest.mark.parametrize("way", ["ptr", "index"])
def test_d1_ragged_mean_in_half_precision(dtype, size, way):
    """torch.segment_reduce adds up in bfloat16: its mean of 100 000 is off by 0.99; a float16 count overflows."""
    torch.manual_seed(0)
    x = (torch.randn(size, 4) + 1).to(dtype)
    sets = {"ptr": torch.tensor([0, size])} if way == "ptr" else {"index": torch.zeros(size).long(), "dim_size": 1}
    error = (Pool("[n] c")(x, **sets).double() - x.double().mean(0)).abs().max()
    assert error <= 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", ["attention", "softmax"])
def test_d1_attention_over_70_000_equal_elements_in_half_precision(name):
    """A float16 softmax denominator of 70 000 is infinite, and the result exactly zero."""
    pool = Pool("[n] c", name, channels=2)
    z = pool(torch.ones(70_000, 2).half(), index=torch.zeros(70_000).long(), dim_size=1)
    assert torch.equal(z, torch.ones(1, 2).half())


def test_d1_a_masked_mean_of_large_half_numbers():
    """A float16 sum of 1024 times 100 is infinite."""
    mask = torch.arange(2048) < 1024
    assert Pool("b c [t]")(torch.full((1, 1, 2048), 100.0).half(), mask=mask[None]).item() == 100.0


@pytest.mark.parametrize("name", ["mean", "sum", "std", "var", "logsumexp", "max"])
def test_d2_jagged_pooling_trains(name):
    """torch's own jagged mean and sum have no backward; std and logsumexp do not exist."""
    values = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    jagged = torch.nested.nested_tensor_from_jagged(values, torch.tensor([0, 3, 3, 7]))
    z = Pool("b [n] c", name)(jagged)
    (grad,) = torch.autograd.grad(z.square().sum(), values)
    z = torch.stack([Pool("[n] c", name)(part)[0] for part in (values[:3], values[:0], values[3:])])
    (expected,) = torch.autograd.grad(z.square().sum(), values)
    torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("empty", range(3))
def test_d3_an_empty_set_leaves_the_others_alone(empty):
    """One empty bag zeroes every bag of the batch in torchmil's MeanPool."""
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[empty] = False
    x = torch.randn(3, 5, 2)
    z = Pool("b [n] c")(x, mask=mask)
    others = [s for s in range(3) if s != empty]
    torch.testing.assert_close(z[others], x.mean(1)[others])
    assert (z[empty] == 0).all()


def test_d4_without_lengths_all_frames_count():
    """NeMo's attentive pooling looks at one frame when it is given no lengths."""
    pool, x = Pool("b c [t]", "attention", channels=4), torch.randn(2, 4, 9)
    torch.testing.assert_close(pool(x), pool(x, lengths=torch.tensor([9, 9])))


@pytest.mark.parametrize("way", ["ptr", "index"])
def test_d5_empty_sets_agree_and_infinities_stay(way):
    """PyG's power mean of nothing is 0.0464, and its ptr path turns the maximum of [inf, 1] into 0."""
    sets = {"ptr": torch.tensor([0, 2, 2])} if way == "ptr" else {"index": torch.tensor([0, 0]), "dim_size": 2}
    x = torch.tensor([[float("inf")], [1.0]])
    assert Pool("[n] c", "max")(x, **sets).flatten().tolist() == [float("inf"), 0.0]
    for name in ("mean", "max", "softmax", "std", "power", "logsumexp", "sum", "var", "min"):
        assert Pool("[n] c", name)(torch.ones(2, 1), **sets)[1].item() == 0.0


@pytest.mark.parametrize("offset", [10.0, 1000.0])
@pytest.mark.parametrize("layout", ["[n] c", "b [n] c"])
def test_d6_variance_far_from_zero(offset, layout):
    """E[x²] - E[x]² in float32 gives a variance of 6.69 for mean 1000, standard deviation 1."""
    torch.manual_seed(0)
    x = torch.randn(10_000, 3) + offset
    z = Pool(layout, "var")(x if layout == "[n] c" else x[None])
    torch.testing.assert_close(z[0].double(), x.double().var(0, correction=0), rtol=2e-6, atol=0)


@pytest.mark.parametrize("kind", ["one_frame", "constant", "zero_weights"])
def test_d7_std_has_a_gradient_where_it_is_zero(kind):
    """The gradient of sqrt(0) is infinite: one frame, a constant recording or zero weights train to NaN elsewhere."""
    x = torch.ones(1, 2, 1 if kind == "one_frame" else 5, requires_grad=True)
    weight = torch.zeros(1, 5) if kind == "zero_weights" else None
    z = Pool("b c [t]", "std")(x, weight=weight)
    z.sum().backward()
    assert (z == 0).all()
    assert (x.grad == 0).all()


def test_d8_the_order_of_a_list_does_not_matter():
    """A fused kernel elsewhere loses the maximum when it comes second, and has no backward."""
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    sets = {"index": torch.tensor([0, 1, 0, 1, 1, 0]), "dim_size": 2}
    for names in (["sum", "max"], ["max", "sum"]):
        z = Pool("[n] c", names)(x, **sets)
        expected = torch.cat([Pool("[n] c", name)(x, **sets) for name in names], dim=1)
        torch.testing.assert_close(z, expected)
        assert torch.autograd.gradcheck(lambda t, names=names: Pool("[n] c", names)(t, **sets), x)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_d9_label_maps_in_any_rank_by_any_reduction(rank):
    """A label pooling elsewhere takes only images, and gives the mean whatever is asked for."""
    x = torch.randn(2, 3, *range(4, 4 + rank))
    labels = (torch.arange(2 * x[0, 0].numel()) % 3).reshape(2, *range(4, 4 + rank))
    layout = "b c [" + " ".join("xyz"[:rank]) + "]"
    z = label_pool(x, layout, labels, regions=3, reduction="max")
    for b in range(2):
        for k in range(3):
            torch.testing.assert_close(z[b, k], x[b][:, labels[b] == k].amax(1))
    with pytest.raises(ValueError, match=r"labels: expected values from 0 to 2 \(regions=3\), got 1 to 3"):
        label_pool(x, layout, labels + 1, regions=3)


def test_d10_a_map_for_every_sample_of_a_batch():
    """A 3D map elsewhere mixes the samples of a batch."""
    x, head = torch.randn(3, 4, 2, 3, 5), torch.nn.Linear(4, 2)
    _, maps = contributions(Pool("b c [d h w]"), head, x)
    alone = torch.cat([contributions(Pool("b c [d h w]"), head, sample[None])[1] for sample in x])
    torch.testing.assert_close(maps, alone)


def test_d11_the_gradient_of_a_float16_volume():
    """At 128³ the gradient g / N of a float16 mean is exactly zero; rescaled it is not, and the mean is the same."""
    x = torch.ones(1, 1, 128, 128, 128, dtype=torch.float16, requires_grad=True)
    grads = {}
    for scale in ("mean", "sqrt", "sum", 1000.0):
        z = Pool("b c [d h w]", "mean", grad_scale=scale)(x)
        assert torch.equal(z, x.mean((2, 3, 4)))
        grads[scale] = torch.autograd.grad(0.01 * z.sum(), x)[0].flatten()[0].item()
    assert grads["mean"] == 0
    assert grads["sqrt"] == pytest.approx(0.01 / 128**1.5, rel=2e-2)
    assert grads["sum"] == pytest.approx(0.01, rel=2e-3)
    assert grads[1000.0] == pytest.approx(0.01 / 1000, rel=2e-2)


@pytest.mark.parametrize("name", ["mean", "max", "std", "softmax", "attention"])
def test_d12_second_order_on_ragged_sets(name):
    """segment_reduce and embedding_bag have no second derivative, and segment_csr returns a detached first one."""
    pool = Pool("[n] c", name, channels=2).double()
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda t: pool(t, ptr=torch.tensor([0, 2, 5])).square(), x)


@pytest.mark.slow
def test_d13_a_pyramid_of_a_volume_exports_with_any_size(tmp_path):
    """Adaptive pooling of a volume does not export to ONNX, not even with fixed sizes."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    pool = Pool("b c [d h w]", "pyramid", levels=[1, 2]).eval()
    x = torch.randn(2, 3, 4, 5, 6)
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    path = tmp_path / "pyramid.onnx"
    torch.onnx.export(pool, (x,), path, dynamo=True, dynamic_shapes=(sizes,), verbose=False)
    session = onnxruntime.InferenceSession(path)
    for shape in ((2, 3, 4, 5, 6), (3, 3, 7, 4, 6)):
        x = torch.randn(shape)
        (z,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(z), pool(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hidden", [255, -1, -(2**40)])
@pytest.mark.parametrize("reduction", ["mean", "max", ["mean", "std"]])
def test_labels_under_a_mask_may_be_anything(hidden, reduction):
    """255 marks what is to be ignored in segmentation, -1 elsewhere."""
    torch.manual_seed(0)
    x, labels = torch.rand(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    mask = torch.rand(2, 4, 5) > 0.3
    z = label_pool(x, "b c [h w]", torch.where(mask, labels, hidden), regions=3, mask=mask, reduction=reduction)
    torch.testing.assert_close(z, label_pool(x, "b c [h w]", labels, regions=3, mask=mask, reduction=reduction))
