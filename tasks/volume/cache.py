"""Where preprocessed volumes are kept."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import monai
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.transforms import Compose

from tasks.volume.load import MISSING

Cache = Literal["none", "memory", "disk"]


def cached(
    items: list[dict[str, Any]], steps: Compose, cache: Cache, folder: Path, made_by: Mapping[str, Any]
) -> Dataset:
    """A dataset that keeps the results of its steps up to the first random one.

    Args:
        items: Its samples before the steps: files under ``image``, ``mask`` and ``pool_mask``.
        steps: The steps.
        cache: Where.
        folder: Of ``"disk"``.
        made_by: What the result depends on, each setting with a folder of its own in it.
    """
    if cache == "memory":
        return CacheDataset(items, steps, num_workers=2, progress=False)
    if cache == "disk":
        # MONAI names a cached file by its item alone: another preprocessing, another version of it, or a changed
        # image or mask must not find it.
        for item in items:
            names = [*item["image"], *(item[name] for name in ("mask", "pool_mask") if name in item)]
            files = [Path(name) for name in names if name != MISSING]
            item["changed"] = [(file.stat().st_mtime_ns, file.stat().st_size) for file in files]
        given = (sorted(made_by.items()), monai.__version__, torch.__version__)
        name = hashlib.sha256(repr(given).encode()).hexdigest()[:12]
        return PersistentDataset(items, steps, cache_dir=folder / name)
    return Dataset(items, steps)
