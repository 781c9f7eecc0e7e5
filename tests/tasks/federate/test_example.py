"""The experiment of many sites prints what it returns, the same each time, and the mean keeps its promise."""

import pytest
import torch

from examples import federated

SITES = [{"side": 8, "train": 48, "power": 1.0}, {"side": 12, "train": 32, "power": 2.0}]


def test_fields_are_as_full_as_they_say():
    data = federated.Fields(side=24, train=20)
    data.setup()
    line = torch.exp(-(torch.arange(4) - 1.5).square())
    blob = 2 * torch.einsum("i,j,k->ijk", line, line, line)
    for sample in data.datasets["train"]:
        cells = sample["image"][0].unfold(0, 4, 4).unfold(1, 4, 4).unfold(2, 4, 4)
        match = torch.einsum("defijk,ijk->def", cells, blob).abs() / blob.square().sum()
        torch.testing.assert_close((match > 0.5).float().mean(), sample["target"][0])
    bright = torch.stack([sample["image"].mean() for sample in data.datasets["train"]])
    assert bright.abs().max() < 0.1  # half of the blobs are dark: brightness alone tells nothing


def test_the_experiment_prints_a_row_for_each_pool_and_its_rivals(capsys):
    rows = federated.main(rounds=3, sites=SITES, unseen=(16, 24))
    printed = capsys.readouterr().out
    assert list(rows) == [*federated.POOLS, "mean, each site alone", "mean, all in one place"]
    assert all(len(row) == len(SITES) + 2 for row in rows.values())
    for name, row in rows.items():
        assert f"{name:24} " + " ".join(f"{r2:9.3f}" for r2 in row) in printed
    assert rows["mixture, corrected"][2:] == pytest.approx(rows["mean"][2:], abs=0.02)
    assert federated.main(rounds=3, sites=SITES, unseen=(16, 24), mu=0.0) == rows
    assert capsys.readouterr().out == printed


@pytest.mark.slow
def test_the_corrected_mixture_keeps_at_unseen_sizes_what_the_sum_loses():
    rows = federated.main()
    for corrected, mean, total, central in zip(
        *(rows[name][3:] for name in ("mixture, corrected", "mean", "sum", "mean, all in one place")), strict=True
    ):
        assert corrected > mean - 0.05  # they differ by rounding, which training makes larger
        assert central > mean > 0.8 > total
    assert min(rows["mean, each site alone"][:3]) < min(rows["mean"][:3]) < min(rows["mean, all in one place"][:3])
