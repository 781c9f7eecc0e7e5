"""One subject's files, as a trained task is given them: what `predict`, `explain` and their like read."""

from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose

from tasks.data.problems import BadInput
from tasks.volume.checks import check_volume
from tasks.volume.load import BODIES, MISSING
from tasks.volume.transforms import preprocessing


def read_files(source: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Read and prepare one subject's image.

    Args:
        source: Its file; of several sequences all files with commas between, an empty name where one is missing, and
            last the mask to pool in, if the training's data named one.
        spec: The task's (`tasks.task.base.PoolingTask.spec`).

    Returns:
        A batch of one, whose target is not known.

    Raises:
        BadInput: Naming every file that cannot be used, or how many are expected.
    """
    options = spec["preprocessing"]
    inside = options.get("pool_mask")
    masked = inside is not None and inside not in BODIES
    volumes = spec.get("volumes", 1)
    names = spec.get("images", ["image"]) if volumes == 1 else ["image"]  # several volumes are in one file
    files = [source] if Path(source).exists() else source.split(",")
    if len(files) != len(names) + masked:
        wanted = [*names, *[f"the mask {inside}"] * masked]
        count = f"{len(wanted)} file{'s' * (len(wanted) > 1)}"
        raise BadInput(
            f"{source}: expected {count}, {', '.join(wanted)}, with commas between, got {len(files)}; name them in "
            "this order, and nothing between the commas where one is missing"
        )
    images, masks = files[: len(names)], files[len(names) :]
    there = [file for file in images if file != MISSING]
    if not there:
        raise BadInput(f"{source}: expected at least one file, got none")
    looks: list[tuple[str, dict[str, Any]]] = [(file, {"volumes": volumes}) for file in there]
    looks += [(file, {"role": "inside"}) for file in masks]
    lie = spec.get("orientation", "check")
    wrong = [f"{file}: {what}" for file, one in looks if (what := check_volume(Path(file), orientation=lie, **one))]
    if wrong:
        raise BadInput("; ".join(wrong))
    sample = {"image": images, "id": Path(there[0]).name, **({"pool_mask": masks[0]} if masks else {})}
    sample = Compose(preprocessing(**options))(sample)
    batch = {name: sample[name][None] for name in ("image", "affine", "pool_mask") if name in sample}
    return {**batch, "target": torch.full((1, 1), torch.nan), "id": [sample["id"]], "path": [there[0]]}
