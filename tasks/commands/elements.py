"""Figures of element features over their inputs, and how well clusters of them agree with what is known."""

import re
import statistics
from pathlib import Path
from typing import Any

import torch
from matplotlib.colors import to_rgb
from torch import Tensor
from torch.utils.data import Subset

from tasks.commands.checkpoints import untrained
from tasks.commands.tables import write_csv
from tasks.data.base import PoolingData
from tasks.frozen.elements import PALETTE, Elements, agreement, element_sample
from tasks.maps.thresholds import otsu
from tasks.task.base import PoolingTask

RANDOM = ", random network"


def draw_elements(task: PoolingTask, data: PoolingData, folder: Path, *, samples: int, clusters: int) -> Path:
    """Draw test samples with their elements' features, and measure the clusters on all test samples.

    Components and clusters are fitted to the training part (the test part, where there is none to train on), without
    labels. What is known of elements is the task's `truth`, and where the task shows an intensity
    (`PoolingTask.rival_maps`) which elements are bright, by Otsu's threshold: tissue and air, sound and silence. The
    same is measured of the network with random weights.

    Args:
        task: A trained task.
        data: Its data.
        folder: Gets ``elements/`` with the pictures, and ``elements.csv``, a row for each sample.
        samples: How many are drawn, evenly spread.
        clusters: How many clusters there are.

    Returns:
        The folder of the pictures.
    """
    torch.manual_seed(0)
    tasks = {"": task.eval(), RANDOM: untrained(task, task.spec).eval()}
    fitted = data.still("train" if "train" in data.datasets else "test")
    elements = {
        name: Elements(element_sample(one, data.loader(fitted, False)), clusters) for name, one in tasks.items()
    }
    palette = torch.tensor([to_rgb(colour) for colour in PALETTE])
    test: Any = data.still("test")
    drawn = set(torch.linspace(0, len(test) - 1, min(samples, len(test))).round().long().tolist())
    pictures = folder / "elements"
    pictures.mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    for batch in data.loader(Subset(test, range(len(test))), False):
        batch = task.transfer_batch_to_device(batch, task.device, 0)
        colours = elements[""].colours(task, batch)
        both = {name: elements[name].labels(one, batch) for name, one in tasks.items()}
        labels = both[""]
        known = {
            what + name: agreement(found, truth)
            for what, truth in _known(task, batch).items()
            for name, found in both.items()
        }
        for number, name in enumerate(task.ids(batch)):
            if len(rows) in drawn:
                panels = {
                    "first three components": colours[number],
                    f"{clusters} clusters": palette[labels[number] % len(palette)],
                }
                task.paint(batch, number, panels, name, pictures / (re.sub(r"[^\w.-]", "_", name) + ".png"))
            rows.append({"id": name, **{what: values[number] for what, values in known.items()}})
    write_csv(folder / "elements.csv", rows)
    for what in [name for name in list(rows[0])[1:] if not name.endswith(RANDOM)]:
        own, random = (_spread([row[name] for row in rows]) for name in (what, what + RANDOM))
        print(f"{clusters} clusters and {what}: adjusted Rand index {own}, of a random network {random}")
    print(f"{len(drawn)} pictures: {pictures}")
    return pictures


def _spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def _known(task: PoolingTask, batch: Any) -> dict[str, list[Tensor]]:
    """What is known of the elements of each sample, by name."""
    known = {}
    truth = task.truth(batch)
    if truth is not None:
        known["truth"] = truth
    intensity = task.rival_maps(batch).get("intensity")
    if intensity is not None:
        known["bright"] = [one > otsu(one) for one in intensity]
    return known
