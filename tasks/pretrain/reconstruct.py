"""Masked reconstruction: what is hidden is to be guessed from what is left."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tasks.pretrain.elements import Sizes, hide, rows, vectors
from tasks.pretrain.heads import projection
from tasks.pretrain.losses import reconstruction_loss
from tasks.pretrain.masks import patches
from tasks.pretrain.objective import Objective, Step
from tasks.task.base import PoolingTask


class Reconstruct(Objective):
    """A masked autoencoder of elements: MAE on grids (He et al. 2022), GraphMAE on graphs (Hou et al. 2022).

    Boxes or balls of elements show a learned token to the encoder; a small perceptron guesses from the features of
    each hidden element what was there: a node's features, or the part of the input that a cell stands for.

    Args:
        sizes: Of the task.
        hidden: Neurons of the decoder's hidden layer.
        share: Of the elements that is hidden.
        measure: `reconstruction_loss`'s kind; None = "cosine" where elements are nodes, else "mse".
    """

    def __init__(
        self, sizes: Sizes, *, hidden: int = 256, share: float = 0.5, measure: Literal["mse", "cosine"] | None = None
    ):
        super().__init__()
        inputs = sizes.inputs or 0
        numbers = inputs * int(torch.tensor(sizes.cell).prod()) if sizes.cell else inputs
        self.cell, self.share = sizes.cell, share
        self.measure: Literal["mse", "cosine"] = measure or ("mse" if sizes.cell else "cosine")
        self.decoder = projection(sizes.features, hidden, numbers)
        self.token = nn.Parameter(torch.zeros(inputs))

    def step(self, student: PoolingTask, teacher: PoolingTask | None, views: Sequence[Any], progress: float) -> Step:
        """The loss of a batch, over the global views."""
        losses, pooled = [], []
        for view in views[:2]:
            hidden = hide(student, view, self.token, self.share, self.cell)
            x, sets = student.encode(hidden.batch)
            elements, there, sample = rows(student, x, sets)
            chosen = hidden.rows(student, x) & there
            wanted = self._wanted(student, view, x)[chosen]
            made = self.decoder(elements[chosen])
            z = vectors(student, x, sets)
            losses.append(reconstruction_loss(made, wanted, sample[chosen], len(z), self.measure))
            pooled.append(z)
        return Step(torch.stack(losses).mean(), pooled[0], {})

    def _wanted(self, task: PoolingTask, view: Any, x: Tensor) -> Tensor:
        """What each element of the features is to say of the input, (E, numbers); no gradient goes there."""
        given = task.inputs(view)
        assert given is not None
        axes = task.pool.layout.axes(x.ndim)
        given = given.detach()
        if axes.batch is None:
            return given
        given, x = (one.movedim((axes.batch, axes.channel), (0, 1)) for one in (given, x))
        return patches(given, x.shape[2:], self.cell).flatten(0, -2)
