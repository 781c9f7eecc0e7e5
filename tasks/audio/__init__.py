"""Sound: log-mel spectrograms pooled over time (timbre), over frequency (rhythm), or over both.

`AudioTask` is the network; `AudioManifest` reads recordings that a table lists; `TimbreData`, `RhythmData` and
`EventData` make sounds with a known answer. Recordings are decoded by soundfile, spectrograms are computed by
torchaudio on the device.
"""

from tasks.extras import require

require("torchaudio", "soundfile", extra="audio")

from tasks.audio.data import AudioManifest  # noqa: E402
from tasks.audio.generated import EventData, RhythmData, TimbreData  # noqa: E402
from tasks.audio.task import AudioTask  # noqa: E402

__all__ = ["AudioManifest", "AudioTask", "EventData", "RhythmData", "TimbreData"]
