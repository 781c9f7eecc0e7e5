"""A network of the user's own, or of a library, by the path of its class."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tasks.extras import find_class


def build_network(path: str, arguments: Mapping[str, Any], known: Mapping[str, Any]) -> nn.Module:
    """Build a module by the dotted path of its class, or of a function that returns one.

    Args:
        path: Such as ``torch_geometric.nn.GAT`` or ``mynets.Mine`` (of a file where the command runs).
        arguments: What it is given.
        known: What the data says; filled in where it has an argument of that name that was not given.

    Raises:
        ValueError: If there is no such class, or it does not take the arguments, or what it makes is no module.

    Example:
        >>> build_network("torch.nn.Conv1d", {"out_channels": 8, "kernel_size": 3}, {"in_channels": 2, "edge_dim": 4})
        Conv1d(2, 8, kernel_size=(3,), stride=(1,))
    """
    try:
        made = find_class(path)
    except ValueError as error:
        raise ValueError(f"encoder {path}: {error}") from error
    taken = inspect.signature(made).parameters
    filled = {name: value for name, value in known.items() if name in taken}
    try:
        network = made(**{**filled, **arguments})
    except TypeError as error:
        names = ", ".join(name for name in taken if name not in ("args", "kwargs"))
        raise ValueError(
            f"encoder {path} cannot be built: {error}; it takes {names}: give them as --model.encoder_args.NAME VALUE"
        ) from error
    except Exception as error:  # whatever a class says of its arguments
        raise ValueError(f"encoder {path} cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"encoder {path}: expected a torch.nn.Module, got {type(network).__name__}; name another")
    return network


def passes(network: nn.Module) -> set[str]:
    """The names of what a network's ``forward`` takes."""
    return set(inspect.signature(network.forward).parameters)


def try_out(path: str, network: nn.Module, *inputs: Any, **more: Any) -> Any:
    """What a network makes of an example, without a trace of it.

    Raises:
        ValueError: If it fails.
    """
    training = network.training
    try:
        with torch.no_grad():
            return network.eval()(*inputs, **more)
    except Exception as error:  # whatever a network says of its input
        shapes = ", ".join(str(tuple(one.shape)) for one in (*inputs, *more.values()))
        raise ValueError(f"encoder {path} fails on inputs of {shapes}: {type(error).__name__}: {error}") from error
    finally:
        network.train(training)
