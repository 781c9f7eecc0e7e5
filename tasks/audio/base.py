"""What all data of recordings share."""

from typing import Any

from tasks.audio.clips import Clip, collate_clips
from tasks.audio.crops import SoundCrops
from tasks.data.base import PoolingData


class Recordings(PoolingData):
    """Recordings of any lengths: how they make a batch, what is cut out of one, how long it is."""

    def collate(self, samples: list[Clip]) -> dict[str, Any]:
        """Pad the clips of a batch to one length."""
        return collate_clips(samples)

    def crops(self) -> SoundCrops:
        """Views for training without labels."""
        return SoundCrops()

    def elements(self, sample: Clip) -> int:
        """Samples of the wave."""
        return len(sample["wave"])
