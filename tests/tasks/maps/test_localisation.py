"""Metrics of weak localisation against loops and against other libraries."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import average_precision_score
from torch import nn

from tasks.maps.grids import upsample
from tasks.maps.localisation import BestIoU, EnergyInside, MapAveragePrecision, PointingGame
from tasks.maps.thresholds import otsu, select

METRICS = [PointingGame, MapAveragePrecision, EnergyInside, BestIoU]


def samples(shape=(5, 6), count=4, seed=0, ties=False):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(count, *shape, generator=generator)
    maps = (maps * 2).round() / 2 if ties else maps
    return (
        maps,
        torch.rand(count, *shape, generator=generator) < 0.3,
        torch.rand(count, *shape, generator=generator) < 0.8,
    )


def precision_by_loop(values, truth):
    """Every distinct value is a threshold: precision there, times what recall it adds."""
    total = reached = 0.0
    for cut in sorted(set(values), reverse=True):
        marked = [t for v, t in zip(values, truth, strict=True) if v >= cut]
        recall = sum(marked) / sum(truth)
        total, reached = total + (recall - reached) * sum(marked) / len(marked), recall
    return total


def iou_by_loop(values, truth, cut):
    marked = [v >= cut for v in values]
    both = sum(m and t for m, t in zip(marked, truth, strict=True))
    return both / sum(m or t for m, t in zip(marked, truth, strict=True))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(30,), (5, 6), (3, 4, 5)])
def test_values_are_those_of_loops(shape, masked, ties):
    maps, truths, valids = samples(shape, ties=ties)
    metrics = {cls.__name__: cls() for cls in METRICS}
    expected = {name: [] for name in metrics}
    curves = []
    for one, truth, valid in zip(maps, truths, valids, strict=True):
        hidden = torch.where(valid, one, torch.nan) if masked else one  # what may not be looked at may be anything
        for metric in metrics.values():
            metric.update(hidden, truth, valid if masked else None)
        keep = valid if masked else torch.ones_like(valid)
        values, there = one[keep].tolist(), truth[keep].tolist()
        best = [t for v, t in zip(values, there, strict=True) if v == max(values)]
        expected["PointingGame"].append(sum(best) / len(best))
        expected["MapAveragePrecision"].append(precision_by_loop(values, there))
        inside = sum(max(v, 0) for v, t in zip(values, there, strict=True) if t)
        expected["EnergyInside"].append(inside / sum(max(v, 0) for v in values))
        cuts = (torch.arange(1, 101) / 100 * max(values)).clamp(max=max(values)).tolist()
        curves.append([iou_by_loop(values, there, cut) for cut in cuts])
    expected["BestIoU"] = np.mean(curves, 0).max()
    for name, metric in metrics.items():
        assert metric.compute().item() == pytest.approx(np.mean(expected[name]), abs=1e-6), name
    assert metrics["BestIoU"].threshold == pytest.approx((np.mean(curves, 0).argmax() + 1) / 100)


def test_average_precision_is_scikit_learns():
    maps, truths, _ = samples((40,), count=1)
    metric = MapAveragePrecision()
    metric.update(maps[0], truths[0])
    assert metric.compute().item() == pytest.approx(average_precision_score(truths[0].numpy(), maps[0].numpy()))


def test_a_random_map_scores_its_share_of_true_elements():
    generator, truth = torch.Generator().manual_seed(0), torch.zeros(20, 20, dtype=torch.bool)
    truth[:5, :8] = True  # a tenth
    pointing, precision, energy = PointingGame(), MapAveragePrecision(), EnergyInside()
    for _ in range(300):
        for metric in (pointing, precision, energy):
            metric.update(torch.randn(20, 20, generator=generator), truth)
    assert pointing.compute().item() == pytest.approx(0.1, abs=0.06)
    assert precision.compute().item() == pytest.approx(0.1, abs=0.03)
    assert energy.compute().item() == pytest.approx(0.1, abs=0.01)
    constant = PointingGame()
    constant.update(torch.zeros(20, 20), truth)
    assert constant.compute().item() == pytest.approx(0.1)


def test_pointing_beside_the_truth():
    truth = torch.zeros(7, 7, dtype=torch.bool)
    truth[3, 3] = True
    for step, near in [((0, 2), True), ((2, 0), True), ((2, 2), False), ((0, 3), False)]:
        signed_map = torch.zeros(7, 7)
        signed_map[3 + step[0], 3 + step[1]] = 1.0
        metric = PointingGame(tolerance=2)
        metric.update(signed_map, truth)
        assert metric.compute().item() == near


def test_nothing_to_be_found_is_skipped():
    for cls in METRICS:
        metric = cls()
        metric.update(torch.randn(4), torch.zeros(4, dtype=torch.bool))
        assert math.isnan(metric.compute().item())
        metric.update(torch.arange(4.0), torch.tensor([False, False, False, True]))
        assert metric.compute().item() > 0


def test_a_map_that_speaks_against_everything():
    truth = torch.tensor([True, False, False])
    for cls in (EnergyInside, BestIoU):
        metric = cls()
        metric.update(torch.tensor([-1.0, -2.0, -3.0]), truth)
        assert metric.compute().item() == 0


def test_merging_processes_is_seeing_all():
    maps, truths, _ = samples(count=6)
    for cls in METRICS:
        whole, parts = cls(), [cls(), cls()]
        for i, (one, truth) in enumerate(zip(maps, truths, strict=True)):
            whole.update(one, truth)
            parts[i % 2].update(one, truth)
        for name in ("total", "count"):  # what torchmetrics does with dist_reduce_fx="sum"
            setattr(parts[0], name, getattr(parts[0], name) + getattr(parts[1], name))
        torch.testing.assert_close(parts[0].compute(), whole.compute())


@pytest.mark.parametrize("rule", ["fixed", "relative", "top", "otsu"])
def test_iou_at_a_given_threshold_is_that_of_the_marked_elements(rule):
    maps, truths, _ = samples((5, 6))
    metric, shares = BestIoU(0.2, rule=rule), []
    for one, truth in zip(maps, truths, strict=True):
        metric.update(one, truth)
        marked = select(one, rule, 0.2)
        shares.append((marked & truth).sum().item() / (marked | truth).sum().item())
    assert metric.compute().item() == pytest.approx(np.mean(shares))
    assert metric.threshold == pytest.approx(0.2)


def test_thresholds_tried_in_the_maps_unit():
    metric = BestIoU(rule="fixed", candidates=[-5.0, 0.0, 2.0, 5.0])
    metric.update(torch.tensor([1.0, 3.0, 4.0]), torch.tensor([False, True, True]))
    assert (metric.compute().item(), metric.threshold) == (1.0, 2.0)


def test_marked_elements():
    values = torch.tensor([[-2.0, 0.5], [1.0, 4.0]])
    assert select(values, "fixed", -2.5).all()
    assert select(values, "fixed", 1.0).tolist() == [[False, False], [True, True]]
    assert select(values, "relative", 0.25).tolist() == [[False, False], [True, True]]
    assert select(values, "relative", 1.0).tolist() == [[False, False], [False, True]]
    assert not select(-values.abs(), "relative", 0.1).any()
    assert select(values, "top", 0.75).tolist() == [[False, True], [True, True]]
    assert not select(values, "top", 0.0).any()


@pytest.mark.parametrize("seed", range(5))
def test_otsu_by_trying_every_split(seed):
    values = np.random.default_rng(seed).normal(size=60).round(1)  # with ties
    best = max(
        sorted(set(values.tolist()))[:-1],
        key=lambda cut: np.mean(values <= cut)
        * np.mean(values > cut)
        * (values[values <= cut].mean() - values[values > cut].mean()) ** 2,
    )
    assert otsu(torch.from_numpy(values)) == best
    assert not select(torch.ones(4), "otsu").any()


@pytest.mark.parametrize(("grid", "size"), [((7,), (28,)), ((5, 6), (15, 12)), ((3, 4, 2), (9, 10, 7))])
def test_cells_that_tile_the_input_are_torchs_interpolation(grid, size):
    maps = torch.randn(2, 3, *grid)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(grid)]
    expected = nn.functional.interpolate(maps, size, mode=mode, align_corners=False)
    torch.testing.assert_close(upsample(maps, size), expected)


@pytest.mark.parametrize(("stride", "first"), [(4, 0), (2, 0.5), ([3, 2, 1], [1.0, 0.0, 0.0])])
def test_cells_elsewhere_are_scipys_interpolation(stride, first):
    grid, size = torch.randn(4, 5, 6), (13, 11, 7)
    steps, starts = np.broadcast_to(stride, 3), np.broadcast_to(first, 3)
    cells = [(np.arange(n) - b) / a for n, a, b in zip(size, steps, starts, strict=True)]
    where = np.stack(np.meshgrid(*cells, indexing="ij"))
    expected = ndimage.map_coordinates(grid.numpy(), where, order=1, mode="nearest")
    fine = upsample(grid, size, stride=stride, first=first)
    torch.testing.assert_close(fine, torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("stride", "first"), [(4, 0), (2, 0.5), (None, None), (1, 0)])
def test_totals_are_kept(stride, first):
    grid = torch.randn(2, 4, 3, dtype=torch.float64)
    fine = upsample(grid, (16, 12), stride=stride, first=first, totals=True)
    torch.testing.assert_close(fine.sum((1, 2)), grid.sum((1, 2)))


def test_a_peak_stays_where_it_was():
    for first, stride in [(0, 4), (1.0, 3), (1.0, 4)]:
        grid = torch.zeros(6)
        grid[4] = 1.0
        assert int(upsample(grid, [30], stride=stride, first=first).argmax()) == first + 4 * stride


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            r"truth: expected bool of the map's shape \(3,\), got torch.bool of shape \(4,\)",
            (torch.rand(3), torch.ones(4) > 0),
        ),
        (r"truth: expected bool of the map's shape \(3,\), got torch.float32", (torch.rand(3), torch.ones(3))),
        (
            r"valid: expected bool .*\(2,\); bring the map to the input's grid first",
            (torch.rand(3), torch.ones(3) > 0, torch.ones(2) > 0),
        ),
        ("signed_map: expected finite numbers, got nan", (torch.tensor([1.0, torch.nan]), torch.ones(2) > 0)),
    ],
)
def test_what_does_not_fit(message, call):
    with pytest.raises(ValueError, match=message):
        PointingGame().update(*call)


def test_options_that_mean_nothing():
    with pytest.raises(ValueError, match="rule: expected fixed, relative, top or otsu, got 'best'"):
        select(torch.rand(3), "best", 0.5)
    with pytest.raises(ValueError, match="threshold: expected a number for the rule 'top', got None"):
        select(torch.rand(3), "top")
    with pytest.raises(ValueError, match="candidates: expected thresholds in the map's unit for the rule 'fixed'"):
        BestIoU(rule="fixed")
    with pytest.raises(ValueError, match=r"maps: expected at least the 3 axes of size=\(4, 4, 4\), got \(2, 2\)"):
        upsample(torch.rand(2, 2), (4, 4, 4))


def test_the_code_of_the_page_runs():
    page = (Path(__file__).parents[3] / "docs" / "maps.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    assert len(blocks) == 2
    exec("\n".join(blocks), {})
