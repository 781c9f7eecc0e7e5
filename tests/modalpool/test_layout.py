"""Layouts: what they mean, and what is said when they mean nothing."""

import pytest
import torch

from modalpool import Layout, Pool


def reduce_mean(x, layout):
    """The mean over bracketed axes, one axis at a time: what a layout says, read a second way."""
    inside, names = False, []
    for token in layout.replace("[", " [ ").replace("]", " ] ").split():
        if token in "[]":
            inside = token == "["
        else:
            names.append((token, inside))
    at = [name for name, _ in names].index("...") if "..." in dict(names) else None
    if at is not None:
        names[at : at + 1] = [(f"{at}{i}", names[at][1]) for i in range(x.ndim - len(names) + 1)]
    for axis in reversed(range(x.ndim)):
        if names[axis][1]:
            x = sum(x.unbind(axis)) / x.shape[axis]
    return x


@pytest.mark.parametrize(
    ("layout", "shape", "expected", "kept_dims"),
    [
        ("b c f [t]", (2, 3, 4, 5), (2, 3, 4), (2, 3, 4, 1)),
        ("b c [f] t", (2, 3, 4, 5), (2, 3, 5), (2, 3, 1, 5)),
        ("b c [d h w]", (2, 3, 4, 5, 6), (2, 3), (2, 3, 1, 1, 1)),
        ("b c [...]", (2, 3, 4, 5), (2, 3), (2, 3, 1, 1)),
        ("b ... c [t]", (2, 4, 5, 3, 6), (2, 4, 5, 3), (2, 4, 5, 3, 1)),
        ("b [n] c", (2, 5, 3), (2, 3), (2, 1, 3)),
        ("b d c [h w]", (2, 4, 3, 5, 6), (2, 4, 3), (2, 4, 3, 1, 1)),
        ("b c [d] h [w]", (2, 3, 4, 5, 6), (2, 3, 5), (2, 3, 1, 5, 1)),
        ("t c b [f]", (5, 3, 2, 4), (5, 3, 2), (5, 3, 2, 1)),
    ],
)
def test_output_keeps_the_order_of_what_is_not_bracketed(layout, shape, expected, kept_dims):
    x = torch.randn(shape)
    assert Pool(layout)(x).shape == expected
    torch.testing.assert_close(Pool(layout)(x), reduce_mean(x, layout))
    assert Pool(layout, keepdim=True)(x).shape == kept_dims
    torch.testing.assert_close(Pool(layout, keepdim=True)(x).flatten(), Pool(layout)(x).flatten())


@pytest.mark.parametrize(
    ("layout", "shape", "expected", "weights"),
    [
        ("b c f [t]", (2, 4, 5, 6), (2, 3, 4, 5), (2, 3, 2, 5, 6)),
        ("b [n] c", (2, 6, 4), (2, 3, 4), (2, 3, 6, 2)),
        ("d c b [h w]", (5, 4, 2, 3, 6), (5, 4, 2, 3), (5, 2, 2, 3, 3, 6)),
        ("[n] c", (6, 4), (1, 3, 4), (3, 6, 2)),
        ("[n] f c", (6, 5, 4), (1, 3, 5, 4), (3, 6, 5, 2)),
        ("c [h w]", (4, 3, 6), (1, 3, 4), (3, 2, 3, 6)),
    ],
)
def test_several_vectors_come_right_after_the_batch(layout, shape, expected, weights):
    pool = Pool(layout, "attention", channels=4, heads=2, queries=3)
    z, w = pool(torch.randn(shape), return_weights=True)
    assert pool.vectors == 3
    assert z.shape == expected
    assert w.shape == weights


def test_elements_may_lie_on_several_ragged_axes():
    x, labels = torch.randn(3, 4, 5), torch.randint(0, 3, (4, 5))
    z = Pool("c [h w]")(x, index=labels, dim_size=3)
    for k in range(3):
        torch.testing.assert_close(z[k], x[:, labels == k].mean(1))


@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        ("b c [t", "a bracket is not closed"),
        ("b c t]", "']' is out of place"),
        ("b c [[t]]", "'[' is out of place"),
        ("b c [t] t", "a name is used twice"),
        ("b [n]", "it needs an unbracketed channel axis c"),
        ("b [c]", "it needs an unbracketed channel axis c"),
        ("[b] c", "b may not be bracketed"),
        ("b c t", "nothing is bracketed"),
        ("b c (t)", "'(' is out of place"),
    ],
)
def test_a_text_that_is_no_layout(layout, problem):
    with pytest.raises(ValueError, match="expected axis names in the input's order") as error:
        Layout(layout)
    assert problem in str(error.value)
    assert repr(layout) in str(error.value)


def test_a_tensor_of_another_rank():
    with pytest.raises(ValueError, match=r"layout 'b c \[h w\]' describes 4 axes, got a tensor with 5"):
        Pool("b c [h w]")(torch.randn(2, 3, 4, 5, 6))
    with pytest.raises(ValueError, match="leaves nothing to pool"):
        Pool("b c [...]")(torch.randn(2, 3))
