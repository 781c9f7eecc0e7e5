"""Weights that others trained: read without running what a file holds, put into a network, and kept fixed."""

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from tasks.data.problems import BadInput

_NAMED = 8  # tensors that a line names
_HOLDERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "encoder", "params")


Own = TypeVar("Own", bound="FromWeights")


class FromWeights(LightningModule):
    """The part of a task that begins its encoder with a file's weights, and keeps it as it is.

    The file is read when a training begins; not when one goes on, or a checkpoint is loaded, where it may be gone.
    """

    encoder: nn.Module
    weights: str | None = None
    frozen = False

    @property
    def network(self) -> nn.Module:
        """The encoder as it was written, without what a modality put around it."""
        for name in ("network", "gnn"):
            inner = getattr(self.encoder, name, None)
            if isinstance(inner, nn.Module):
                return inner
        return self.encoder

    def setup(self, stage: str) -> None:
        """Freeze what is to stay."""
        if self.frozen:
            self.encoder.requires_grad_(False).eval()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint's weights are later ones."""
        self.weights = None

    def on_fit_start(self) -> None:
        """Load the weights, and say what is trained."""
        if self.weights is not None:
            for line in load_weights(self.network, Path(self.weights)):
                rank_zero_info(line)
        if self.frozen:
            still = sum(weight.numel() for weight in self.encoder.parameters())
            every = sum(weight.numel() for weight in self.parameters())
            rank_zero_info(
                f"The encoder is frozen: {still:,} of {every:,} weights get no gradient, and its norms and dropout are "
                "in evaluation mode"
            )

    def train(self: Own, mode: bool = True) -> Own:
        """As a module does; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name; nothing in the file is run.

    Args:
        path: A ``.safetensors`` file, or what ``torch.save`` wrote of a state dict, alone or in a checkpoint.

    Raises:
        BadInput: In one line, if there is none, it is damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise BadInput(f"weights {path}: no such file; give a .safetensors file or a state dict that torch.save wrote")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except Exception as error:  # of the reader in Rust
            raise BadInput(f"weights {path}: not a safetensors file ({error}); give another") from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadInput(
            f"weights {path}: it holds code or objects, which are not loaded, or is damaged; save tensors alone, "
            "torch.save(model.state_dict(), FILE) or safetensors"
        ) from error
    except Exception as error:  # what damaged bytes make of the reader: EOFError, RuntimeError, KeyError, ...
        raise BadInput(f"weights {path}: it is truncated or of another format; give another") from error
    if isinstance(stored, dict) and "spec" in (stored.get("hyper_parameters") or {}):
        raise BadInput(f"weights {path}: a checkpoint of a task; give --model.pretrained, which asks what it has seen")
    found = _tensors(stored)
    if found is None:
        what = f"entries {_few(list(map(str, stored)))}" if isinstance(stored, dict) else f"a {type(stored).__name__}"
        raise BadInput(f"weights {path}: expected tensors by name, got {what}; save model.state_dict()")
    return found


def _tensors(stored: Any) -> dict[str, Tensor] | None:
    """The state dict: the whole, or what has one of the names that it goes by in checkpoints."""
    if not isinstance(stored, Mapping):
        return None
    for name in (None, *_HOLDERS):
        inner = stored if name is None else stored.get(name)
        if isinstance(inner, Mapping) and inner:
            found = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
            if len(found) > len(inner) / 2:
                return found
    return None


def load_weights(network: nn.Module, path: Path) -> list[str]:
    """Put a file's tensors into a network, in place, and say in lines what fits and what does not.

    Names may have a prefix in the file, such as ``module.`` or ``encoder.``: the one with which most of the network's
    are found. What the file lacks, or has in another shape, stays as it was drawn.

    Raises:
        BadInput: If the file cannot be used, or has nothing of the network.
    """
    given, own = read_weights(path), network.state_dict()
    prefix = max(
        _prefixes(list(given), list(own)), key=lambda one: (sum(one + name in given for name in own), -len(one))
    )
    shared = [name for name in own if prefix + name in given]
    taken = {name: given[prefix + name] for name in shared if given[prefix + name].shape == own[name].shape}
    if not taken:
        raise BadInput(
            f"weights {path}: none of its {len(given)} tensors ({_few(list(given))}) has the name and shape of one of "
            f"the network's ({_few(list(own))}); give the weights of this network"
        )
    network.load_state_dict(taken, strict=False)
    said = f" (names begin with {prefix})" if prefix else ""
    lines = [f"Weights of {path}{said}: {len(taken)} of the encoder's {len(own)} tensors are loaded"]
    left = {
        "missing in the file, left as drawn": [name for name in own if name not in shared],
        "unexpected in the file, not used": [name for name in given if name.removeprefix(prefix) not in shared],
        "of another shape, left as drawn": [
            f"{name} {tuple(given[prefix + name].shape)} for {tuple(own[name].shape)}"
            for name in shared
            if name not in taken
        ],
    }
    return lines + [f"  {len(names)} {what}: {_few(names)}" for what, names in left.items() if names]


def _prefixes(given: Sequence[str], own: Sequence[str]) -> set[str]:
    """What may stand before the network's names in the file."""
    ends = {f".{name}" for name in own}
    dots = {(name, place) for name in given for place, letter in enumerate(name) if letter == "."}
    return {"", *(name[: place + 1] for name, place in dots if name[place:] in ends)}


def _few(names: Sequence[str]) -> str:
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
