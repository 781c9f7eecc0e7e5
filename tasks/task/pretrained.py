"""Begin with what another training learned: the weights of its network, not of its head."""

from itertools import chain

from torch import Tensor, nn, no_grad

from tasks.data.problems import BadInput

OWN = ("head.", "class_weights", "target_mean", "target_std")
"""What belongs to the targets, and stays as it is; the metrics too."""


@no_grad()
def take_weights(task: nn.Module, source: nn.Module, where: str = "pretrained") -> None:
    """Copy the network of one task into another of the same architecture, whatever their targets are.

    The encoder, and what its input is normalised with, have to be the same; a pool's own weights are taken where they
    are.

    Args:
        task: What begins so.
        source: What was trained.
        where: Stands before the error's message.

    Raises:
        BadInput: If the networks differ.

    Example:
        >>> first, second = (nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, k)}) for k in (3, 4))
        >>> take_weights(second, first)
        >>> bool((second["encoder"].weight == first["encoder"].weight).all())
        True
    """
    own, theirs = _network(task), _network(source)
    differ = [
        f"{name}: expected {_shape(own.get(name))}, got {_shape(theirs.get(name))}"
        for name in dict.fromkeys([*own, *theirs])
        if not name.startswith("pool.") and _shape(own.get(name)) != _shape(theirs.get(name))
    ]
    if differ:
        more = f" (and {len(differ) - 1} more)" if len(differ) > 1 else ""
        raise BadInput(f"{where} is another network ({differ[0]}{more}); give the options that it was trained with")
    for name, value in own.items():
        if name in theirs and theirs[name].shape == value.shape:
            value.copy_(theirs[name])


def _network(task: nn.Module) -> dict[str, Tensor]:
    named = chain(task.named_parameters(), task.named_buffers())
    return {name: value for name, value in named if not name.startswith(OWN) and not name.startswith("metrics.")}


def _shape(value: Tensor | None) -> str:
    return "none" if value is None else str(tuple(value.shape))
