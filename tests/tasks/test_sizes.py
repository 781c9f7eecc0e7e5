"""The size experiment: its answers are the right ones, its laws agree where they must, and it writes what it says."""

import importlib.util

import pytest
import torch
from toy import ROOT

spec = importlib.util.spec_from_file_location("sizes", ROOT / "examples" / "sizes.py")
sizes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sizes)


def test_graphs_count_red_nodes_beside_red_ones():
    torch.manual_seed(0)
    (x, edges, index), count, nodes = sizes.Graphs()(3, 20)
    red = x[:, 0] == 1
    for graph in range(3):
        found = {
            target
            for source, target in edges.T.tolist()
            if index[target] == graph and red[target] and red[source] and index[source] == graph
        }
        assert count[graph] == len(found)
    assert (nodes, x.shape) == (20, (60, 2))


@pytest.mark.parametrize("modality", ["audio", "volume"])
def test_grids_count_their_patterns(modality):
    torch.manual_seed(0)
    grids = sizes.Grids(modality)
    (x,), count, cells = grids(4, 3)
    energy = torch.nn.functional.unfold(x, 4, stride=4) if modality == "audio" else None
    if energy is None:
        energy = x.unfold(2, 4, 4).unfold(3, 4, 4).unfold(4, 4, 4).reshape(4, -1, 64).transpose(1, 2)
    template = grids.pattern.flatten()
    match = torch.einsum("bpc,p->bc", energy, template) / template.square().sum()
    assert torch.equal((match > 0.5).sum(1), count.long())
    assert cells == match.shape[1]


def test_laws_start_at_one_scale_and_the_corrected_one_is_the_mean_at_every_size():
    x = torch.randn(2, 1, 8, 8, 8)
    outputs = []
    for options in sizes.pools(512).values():
        torch.manual_seed(0)
        outputs.append(sizes.Network("volume", 512, **options)(x))
    for output in outputs[1:]:  # 8 x 8 x 8 is the reference size
        torch.testing.assert_close(output, outputs[0])
    larger = x.repeat(1, 1, 2, 1, 1)
    found = {}
    for name in ("mean", "mixture, corrected"):
        torch.manual_seed(0)
        network = sizes.Network("volume", 512, **sizes.pools(512)[name])
        found[name] = network(larger)
        network.encoder = torch.nn.Conv3d(1, 16, 1)  # sees no border
        torch.testing.assert_close(network(larger), network(x))
    torch.testing.assert_close(found["mixture, corrected"], found["mean"])


def test_a_learned_exponent_does_not_move_the_scale():
    """At the reference size the answer is the same whatever the exponent, so that only other sizes can teach it."""
    torch.manual_seed(0)
    network = sizes.Network("volume", 512, **sizes.pools(512)["learned"])
    at, twice = torch.randn(2, 1, 8, 8, 8), torch.randn(2, 1, 8, 8, 16)
    before = network(at), network(twice)
    with torch.no_grad():
        network.pool.reduction.raw_beta += 0.5
    torch.testing.assert_close(network(at), before[0])
    bias = network.head.bias
    torch.testing.assert_close(network(twice) - bias, (before[1] - bias) * 2**0.5)


def test_the_experiment_writes_a_row_for_each_pool_task_size_and_seed(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sizes.FACTORS, "audio", [1, 2])
    monkeypatch.setitem(sizes.SMALL, "audio", (1, 2))
    chosen = {name: options for name, options in sizes.pools(100).items() if name in ("mixture", "learned")}
    monkeypatch.setattr(sizes, "pools", lambda reference: chosen)
    rows = sizes.main("audio", steps=2, seeds=2, folder=tmp_path)
    assert {row["pool"] for row in rows} == {"mixture", sizes.IN_USE, "learned"}
    assert len(rows) == 3 * 2 * 2 * 2
    assert all(row["error"] > 0 for row in rows)
    kinds = {(row["pool"], row["task"], row["seed"], row["times"]) for row in rows}
    assert len(kinds) == len(rows)
    assert len((tmp_path / "sizes_audio.csv").read_text().splitlines()) == 1 + len(rows)
    assert (tmp_path / "sizes_audio.png").stat().st_size > 10_000
    assert "learned" in capsys.readouterr().out
