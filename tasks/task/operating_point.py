"""Where a binary task's probability becomes a yes: chosen on validation data, never on those that are reported."""

import math
import warnings

from torch import Tensor, nn
from torchmetrics.classification import BinaryROC


class OperatingPoint(nn.Module):
    """The threshold with the largest sensitivity + specificity on the validation data (Youden 1950).

    Attributes:
        threshold: The last one chosen; a probability above it counts as positive. NaN where none could be: before
            there was a validation, or where a class was absent in it.

    Example:
        >>> import torch
        >>> point = OperatingPoint()
        >>> point.update(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0, 0, 1, 1]))
        >>> point.choose()
        >>> point.threshold
        0.25
    """

    def __init__(self) -> None:
        super().__init__()
        self.threshold = math.nan
        self.roc = BinaryROC(validate_args=False)  # joins the processes of a distributed run

    def update(self, probability: Tensor, target: Tensor) -> None:
        """Take a validation batch in."""
        self.roc.update(probability, target)

    def choose(self) -> None:
        """Choose from all batches since the last choice, half way between two probabilities that occurred."""
        if not self.roc.update_count:
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No (positive|negative) samples")  # then there is no threshold
            false_alarms, hits, thresholds = self.roc.compute()
        self.roc.reset()
        self.threshold = math.nan
        if float(hits[-1]) == float(false_alarms[-1]) == 1.0:  # both classes occurred
            best = int((hits - false_alarms).argmax())
            self.threshold = round(float(thresholds[best : best + 2].mean()), 6)
