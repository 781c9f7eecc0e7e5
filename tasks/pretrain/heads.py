"""What losses read of a vector: a projection to contrast, or scores of prototypes to distil."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.pretrain.gather import standardised


def projection(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """SimCLR's projection head: two linear layers with a ReLU between; what is kept of a network ends before it."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class PrototypeHead(nn.Module):
    """DINO's head: a perceptron to a short vector of length 1, and its cosine with each of K prototypes.

    Caron et al. 2021, appendix C: weight normalisation whose lengths are fixed at 1, and no bias. (lightly's and
    DINOv2's, parametrised by torch's hook, cannot be copied; here prototypes are normalised as they are used.) Before
    it, vectors are standardised over the batch (`tasks.pretrain.gather.standardised`): pooled features of a small
    network behind a ReLU point nearly the same way, and so would their words, from which nothing is learned.

    Args:
        inputs: Numbers of a vector.
        prototypes: K.
        hidden: Neurons of the two hidden layers.
        bottleneck: Numbers of the short vector.

    Shape:
        (n, inputs) to (n, K), between -1 and 1.
    """

    def __init__(self, inputs: int, prototypes: int, *, hidden: int = 256, bottleneck: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, x: Tensor) -> Tensor:
        """Score the prototypes."""
        short = functional.normalize(self.layers(standardised(x)), dim=-1)
        scores: Tensor = short @ functional.normalize(self.prototypes, dim=-1).T
        return scores
