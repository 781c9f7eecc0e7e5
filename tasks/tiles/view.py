"""How far a network's cells look, along one axis: measured by a gradient, not worked out by hand."""

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

_MAX_POOLS = {nn.MaxPool1d: nn.AvgPool1d, nn.MaxPool2d: nn.AvgPool2d, nn.MaxPool3d: nn.AvgPool3d}
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
_ROUNDING = 1e-12  # of float64, through many layers


@dataclass(frozen=True)
class View:
    """What cells see along one axis of the input.

    Blocks of ``period`` elements become ``cells`` cells each, and every block is treated alike: block k, which begins
    with element ``k * period``, becomes cells ``k * cells`` and on.
    """

    period: int
    cells: int
    before: int
    """Elements before a block that its cells look at."""
    after: int
    """Elements behind it."""
    whole: bool = False
    """Cells look at everything (a norm with the input's own statistics, attention), or at places by their number: no
    tile has the cells of the whole. Then the period is the stride, and nothing is known of what is before and after."""

    def within(self, size: int) -> "View":
        """Itself; of what sees the whole, one that reads a quarter of a tile around it, which is not enough."""
        return replace(self, before=size // 4, after=size // 4) if self.whole else self


def field_of_view(
    module: nn.Module,
    call: Callable[[nn.Module, Tensor], Tensor],
    shape: Sequence[int],
    axis: int,
    *,
    largest: int,
) -> View:
    """Measure what the cells of a network see along an axis of its input.

    A copy of the network in float64 gets positive weights, means in place of maxima, and a positive input, so that no
    path through it is closed or cancels another. Where the gradient of a block's cells is not zero is what they see.
    The block is the smallest number of elements by which moving the input only moves the cells.

    Args:
        module: The network, in any mode; it stays as it is.
        call: How it is called: from the (copied) network and an input to features, whose axis of the same number,
            counted from the end, is the one that is measured.
        shape: Of an input; its size along the axis is where measuring begins, and is doubled as needed.
        axis: Which axis, counted from the end: -1 is the last.
        largest: Where doubling ends: what looks farther sees the whole.

    Returns:
        The view, ``whole`` where the cells see everything.

    Raises:
        ValueError: If cells are not evenly spaced.

    Example:
        >>> conv = nn.Conv1d(1, 1, 5, stride=2, padding=2)
        >>> field_of_view(conv, lambda net, x: net(x), (1, 1, 16), -1, largest=64)
        View(period=2, cells=1, before=2, after=1, whole=False)
    """
    network = _open(module)
    size = shape[axis]
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        while True:
            spaced = _spacing(network, call, shape, axis, size)
            for multiple in _MULTIPLES if spaced else ():
                period, cells = (multiple * number for number in spaced or ())
                if period <= size // 4 and _moves(network, call, shape, axis, size, period, cells):
                    found = _look(network, call, shape, axis, 2 * size, period, cells)
                    if found is not None:
                        return found
                    break
            if 2 * size > largest:
                if not spaced:
                    raise ValueError("expected evenly spaced cells, more of them for a longer input, got others")
                return View(*spaced, 0, 0, whole=True)
            size *= 2


def _open(module: nn.Module) -> nn.Module:
    """A copy through which something of every element reaches all that may ever see it."""
    network = copy.deepcopy(module).double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    upwards = [module.weight for module in network.modules() if isinstance(module, _ConvTransposeNd)]
    for name, weight in network.named_parameters():
        if weight.ndim > 1:  # averages with random weights, so that numbers stay near one and none fades
            drawn = torch.rand(weight.shape, generator=generator, dtype=torch.float64) + 0.5
            sums = len(weight) if any(weight is one for one in upwards) else weight[0].numel()
            weight.copy_(drawn.to(weight.device) / sums)
        else:
            weight.fill_(0.0 if "bias" in name else 1.0)
    for name, value in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.fill_(float(name.endswith("var")))
    _without_maxima(network)
    return network


def _without_maxima(network: nn.Module) -> None:
    for name, child in network.named_children():
        for given, mean in _MAX_POOLS.items():
            if type(child) is given:
                pads = {"padding": child.padding, "ceil_mode": child.ceil_mode}
                setattr(network, name, mean(child.kernel_size, child.stride, **pads))
        _without_maxima(child)


def _input(network: nn.Module, shape: Sequence[int], axis: int, size: int) -> Tensor:
    """Random numbers around one, some of them large: what only looks at their mean is still told apart."""
    sizes = list(shape)
    sizes[axis] = size
    device = next((value.device for value in network.parameters()), torch.device("cpu"))
    return (torch.rand(sizes, dtype=torch.float64) ** 4 * 4 + 0.1).to(device)


def _cells(network: nn.Module, call: Callable[..., Tensor], shape: Sequence[int], axis: int, size: int) -> int:
    with torch.no_grad():
        return call(network, _input(network, shape, axis, size)).shape[axis]


def _spacing(
    network: nn.Module, call: Callable[..., Tensor], shape: Sequence[int], axis: int, size: int
) -> tuple[int, int] | None:
    """The fewest elements p that always make q cells more; None where an input of this size does not tell."""
    count = functools.cache(functools.partial(_cells, network, call, shape, axis))
    more = count(2 * size) - count(size)
    if more < 4:
        return None
    for q in range(1, 5):  # more - 1 < size q / p < more + 1
        for p in range(size * q // (more + 1), size * q // (more - 1) + 2):
            if p and all(count(size + n * p) - count(size) == n * q for n in (1, 2, 3, size // p)):
                return p, q
    return None


def _moves(
    network: nn.Module, call: Callable[..., Tensor], shape: Sequence[int], axis: int, size: int, period: int, cells: int
) -> bool:
    """Whether moving an input by a period only moves its cells, as those in the middle show."""
    x = _input(network, shape, axis, 2 * size + period)
    with torch.no_grad():
        early, late = (call(network, x.narrow(axis, start, 2 * size)) for start in (0, period))
    begin, wide = early.shape[axis] // 2, min(4 * cells, early.shape[axis] // 8)
    first, second = early.narrow(axis, begin, wide), late.narrow(axis, begin - cells, wide)
    return bool((first - second).abs().max() <= _ROUNDING * first.abs().max())


def _look(
    network: nn.Module, call: Callable[..., Tensor], shape: Sequence[int], axis: int, size: int, period: int, cells: int
) -> View | None:
    """What the block in the middle sees; None where that reaches an end of the input."""
    block = size // period // 2
    x = _input(network, shape, axis, size).requires_grad_()
    with torch.enable_grad():
        seen = call(network, x).narrow(axis, block * cells, cells)
        (gradient,) = torch.autograd.grad(seen.sum(), x)
    there = gradient.movedim(axis, 0).flatten(1).ne(0).any(1).nonzero().flatten()
    if not len(there):
        return None
    first, last = int(there[0]), int(there[-1])
    if first == 0 or last == size - 1:
        return None
    begin = block * period
    return View(period, cells, max(begin - first, 0), max(last + 1 - begin - period, 0))
