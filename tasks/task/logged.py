"""What loggers are told of a task's hyper-parameters."""

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.parsing import AttributeDict

LONGEST = 100
"""Entries of a list that loggers are given whole."""


class LoggedBriefly(LightningModule):
    """A module whose loggers are given the length of a long list, such as a vocabulary; a checkpoint has the list."""

    @property
    def hparams_initial(self) -> AttributeDict:
        """The hyper-parameters as loggers write them."""
        return AttributeDict(_brief(dict(super().hparams_initial)))


def _brief(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _brief(one) for key, one in value.items()}
    if isinstance(value, list | tuple) and len(value) > LONGEST:
        return f"{len(value)} values"
    return value
