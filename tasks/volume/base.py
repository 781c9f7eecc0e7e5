"""What all data of volumes share."""

from typing import Any

from tasks.data.base import PoolingData
from tasks.volume.batches import collate_volumes
from tasks.volume.crops import VolumeCrops


class Volumes(PoolingData):
    """Volumes of any sizes: how they make a batch, what is cut out of one, how large it is."""

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Stack volumes, padded where they differ in size."""
        return collate_volumes(samples)

    def crops(self) -> VolumeCrops:
        """Views for training without labels."""
        return VolumeCrops()

    def elements(self, sample: dict[str, Any]) -> int:
        """Voxels."""
        voxels: int = sample["image"][0].numel()
        return voxels
