"""The poolings that speech has names for, from their configs, beside float64 code as speech toolkits write it."""

from pathlib import Path

import pytest
import torch
import yaml

from modalpool import Pool

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "audio"


def from_config(name, channels):
    options = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"]["init_args"]
    torch.manual_seed(0)
    return Pool("b c [t]", channels=channels, **options).double()


@pytest.fixture
def padded():
    """Channels over time of three clips with NaN behind their ends, and their lengths."""
    x, lengths = torch.randn(3, 10, 37, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), [37, 20, 5]
    for one, length in zip(x, lengths, strict=True):
        one[:, length:] = torch.nan
    return x, torch.tensor(lengths)


def test_x_vectors(padded):
    """Statistics pooling, one clip after the other."""
    x, lengths = padded
    expected = []
    for one, length in zip(x, lengths.tolist(), strict=True):
        frames = one[:, :length]
        mean = frames.sum(1) / length
        expected.append(torch.cat([mean, ((frames - mean[:, None]) ** 2).sum(1).div(length).sqrt()]))
    torch.testing.assert_close(
        from_config("xvector", 10)(x, lengths=lengths), torch.stack(expected), rtol=1e-12, atol=0
    )


def test_x_vectors_with_the_deviation_of_a_sample(padded):
    """Toolkits that call ``Tensor.std`` divide by one less than the frames."""
    x, lengths = padded
    pool = Pool("b c [t]", ["mean", "std"], correction=1)
    expected = [torch.cat([one[:, :n].mean(1), one[:, :n].std(1)]) for one, n in zip(x, lengths.tolist(), strict=True)]
    torch.testing.assert_close(pool(x, lengths=lengths), torch.stack(expected), rtol=1e-12, atol=0)


def test_ecapa(padded):
    """Attentive statistics with global context, padded: 1x1 convolutions of x, mean and deviation, a masked softmax."""
    x, lengths = padded
    pool = from_config("ecapa", 10)
    rule = pool.reduction
    mask = (torch.arange(x.shape[2]) < lengths[:, None])[:, None].double()
    x0 = x.nan_to_num() * mask

    def statistics(weight):
        mean = (weight * x0).sum(2)
        return mean, (weight * (x0 - mean[..., None]) ** 2).sum(2).sqrt()

    mean, std = statistics(mask / mask.sum(2, keepdim=True))
    seen = torch.cat([x0, mean[..., None].expand_as(x0), std[..., None].expand_as(x0)], 1)
    first = torch.cat([rule.hidden.weight, rule.around.weight], 1)[..., None]
    scores = torch.nn.functional.conv1d(seen, first, rule.hidden.bias).tanh()
    scores = torch.nn.functional.conv1d(scores, rule.score.weight[..., None])
    weight = scores.masked_fill(mask == 0, float("-inf")).softmax(2)
    z, w = pool(x, lengths=lengths, return_weights=True)
    torch.testing.assert_close(z, torch.cat(statistics(weight), 1), rtol=1e-10, atol=1e-12)
    assert torch.equal(w[:, :10][mask.expand_as(w[:, :10]) == 0], torch.zeros(int((mask == 0).sum()) * 10).double())
