"""Where the answer is known, the maps of the trained demos find it, and what needs no network does not."""

import csv

import pytest
from toy import ROOT

from tasks.__main__ import main
from tasks.commands.judge import OURS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "raw", "bar"),
    [
        pytest.param("graph/motifs", "degree", 0.8, id="graph"),
        pytest.param("audio/events", "intensity", 0.8, id="audio"),
        pytest.param("volume/lesions_fine", "intensity", 0.7, id="volume"),  # large lesions are found in part
    ],
)
def test_the_maps_of_a_trained_demo_find_the_truth(tmp_path, monkeypatch, config, raw, bar):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    flags = ["-c", str(ROOT / "configs" / f"{config}.yaml"), "--run.name=demo", "--trainer.accelerator=cpu"]
    main(["fit", *flags, "--outputs.maps=0", "--trainer.enable_progress_bar=false"])
    main(["judge", *flags, "--ckpt_path=best", "--curves=0"])
    with (tmp_path / "runs/demo/version_0/localisation.csv").open() as file:
        rows = {row["map"]: (float(row["pointing"]), float(row["precision"])) for row in csv.DictReader(file)}
    pointing, precision = rows[OURS]
    assert pointing >= 0.95
    assert precision >= bar
    for name in (raw, "random"):
        assert rows[name][0] < 0.6, name
        assert rows[name][1] < 0.5, name
