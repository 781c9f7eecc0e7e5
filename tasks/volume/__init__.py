"""Volumes: MRI and other 3-D images, pooled over space (``b c [d h w]``).

`VolumeTask` is one of MONAI's 3-D networks, a pool and a head. The data classes differ only in where the samples come
from: `CSVData` a table, `BIDSData` a BIDS folder, `DecathlonData` a dataset.json, `PatchData` cubes of scans,
`InsertedLesionData` puts real lesions into healthy heads, and `LesionData` generates head phantoms with and without a
lesion. `write_map` puts a map over the file it explains.
"""

from tasks.extras import require

require("monai", "nibabel", "scipy", extra="volume")

from tasks.volume.bids import BIDSData  # noqa: E402
from tasks.volume.encoders import ENCODERS  # noqa: E402
from tasks.volume.formats import CSVData, DecathlonData  # noqa: E402
from tasks.volume.generated import LesionData  # noqa: E402
from tasks.volume.inserted import InsertedLesionData  # noqa: E402
from tasks.volume.maps import to_file_space, write_map  # noqa: E402
from tasks.volume.patches import PatchData  # noqa: E402
from tasks.volume.pictures import draw_slices  # noqa: E402
from tasks.volume.task import VolumeTask  # noqa: E402
from tasks.volume.transforms import Augment  # noqa: E402

__all__ = [
    "ENCODERS",
    "Augment",
    "BIDSData",
    "CSVData",
    "DecathlonData",
    "InsertedLesionData",
    "LesionData",
    "PatchData",
    "VolumeTask",
    "draw_slices",
    "to_file_space",
    "write_map",
]
