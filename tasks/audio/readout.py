"""From the pooled vectors along the kept axis to the outputs."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from tasks.audio.encoder import valid_frames, zero_beyond


class PatternReadout(nn.Module):
    """Look for learned rhythms at every moment of a recording, so that a shift of it changes nothing.

    A few convolutions over time, then one template per output, ``window`` frames long, compared with every stretch of
    the recording; a smooth maximum over the stretches is the logit:

        logit_k = τ log mean_t exp(s_k(t) / τ),  s_k(t) = <template_k, features from t to t + window>

    The network has no other access to time, so moving the sound only moves the best stretch. A loop is compared beyond
    its end with its own beginning, as if it went on; any other recording only with stretches inside it, filled up with
    silence where it is shorter than the window.

    Args:
        channels: Channels of the pooled vectors.
        outputs: Number of logits.
        hidden: Channels of the convolutions.
        layers: Number of convolutions; each halves the number of frames.
        window: Length of the templates, in frames after the convolutions.
        loop: The recordings are loops: their end goes on with their beginning.
        dropout: On the features that the templates see.

    Shape:
        (B, C, T), or (B, K, C / K, T), and valid frames (B,) to (B, outputs).
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        hidden: int = 32,
        layers: int = 2,
        window: int = 32,
        loop: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.window, self.loop = window, loop
        widths = [channels] + [hidden] * layers
        self.norm = nn.BatchNorm1d(channels)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(before, after, 5, stride=2, padding=2, bias=False), nn.BatchNorm1d(after), nn.ReLU()
            )
            for before, after in pairwise(widths)
        )
        self.dropout = nn.Dropout(dropout)
        self.templates = nn.Conv1d(widths[-1], outputs, window)
        self.sharpness = nn.Parameter(torch.zeros(()))  # log 1/τ

    def forward(self, z: Tensor, frames: Tensor) -> Tensor:
        """Compare the pooled frames with the templates."""
        z = zero_beyond(self.norm(z.flatten(1, -2)), frames)  # several vectors per frame are channels, too
        for layer in self.layers:
            frames = (frames - 1) // 2 + 1
            z = zero_beyond(layer(z), frames)
        if self.loop:
            after = (
                torch.arange(z.shape[-1] + self.window - 1, device=z.device) % frames[:, None]
            )  # (B, T + window - 1)
            z = z.gather(2, after[:, None].expand(-1, z.shape[1], -1))
            stretches = frames
        else:
            z = nn.functional.pad(z, (0, max(0, self.window - z.shape[-1])))
            stretches = (frames - self.window + 1).clamp(min=1)
        scores = self.templates(self.dropout(z))  # (B, K, stretches)
        mask = valid_frames(stretches, scores.shape[-1])[:, None]
        sharp = self.sharpness.exp()
        best = (scores * sharp).masked_fill(~mask, float("-inf")).logsumexp(-1)
        logits: Tensor = (best - stretches[:, None].to(best).log()) / sharp
        return logits
