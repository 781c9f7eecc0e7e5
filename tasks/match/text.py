"""Text encoders: strings to features of their positions, which a masked pool makes one vector of."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class TextEncoder(nn.Module):
    """Strings to features. One's own, around a language model for example, has these three and nothing else."""

    channels: int
    """C."""

    options: dict[str, Any]
    """Arguments that make it again, in plain values, for checkpoints."""

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features (B, N, C) of B texts, and how many positions each has, (B,); N = 1 for a sentence's vector."""
        raise NotImplementedError


class CharacterTransformer(TextEncoder):
    """A small transformer over the bytes of a text, with sine positions (Vaswani et al. 2017); it has no vocabulary.

    Padding is masked in every layer, and an end-of-text token stands behind each text, which CLIP pools alone.

    Args:
        channels: C.
        layers: Blocks, normalised before each part.
        heads: Heads of attention.
        dropout: In them.

    Example:
        >>> encoder = CharacterTransformer(channels=16, layers=1, heads=2).eval()
        >>> x, lengths = encoder(["CCO", "c1ccccc1"])
        >>> x.shape, lengths.tolist()
        (torch.Size([2, 9, 16]), [4, 9])
    """

    END = 256

    def __init__(self, *, channels: int = 64, layers: int = 2, heads: int = 4, dropout: float = 0.0):
        super().__init__()
        if channels % heads or channels % 2:
            raise ValueError(f"channels: expected a multiple of 2 and of heads, {heads}, got {channels}; change one")
        self.channels = channels
        self.options = {"channels": channels, "layers": layers, "heads": heads, "dropout": dropout}
        self.symbols = nn.Embedding(self.END + 2, channels, padding_idx=self.END + 1)
        block = nn.TransformerEncoderLayer(
            channels, heads, 4 * channels, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(channels), enable_nested_tensor=False)

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """See `TextEncoder.forward`."""
        device = self.symbols.weight.device
        tokens = [torch.tensor([*text.encode(), self.END]) for text in texts]
        lengths = torch.tensor([len(one) for one in tokens], device=device)
        padded = nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=self.END + 1).to(device)
        x = self.symbols(padded) * math.sqrt(self.channels) + self._positions(padded.shape[1]).to(device)
        return self.blocks(x, src_key_padding_mask=padded == self.END + 1), lengths

    def _positions(self, count: int) -> Tensor:
        rate = torch.exp(torch.arange(0, self.channels, 2) * (-math.log(10_000.0) / self.channels))
        angle = torch.arange(count)[:, None] * rate
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
