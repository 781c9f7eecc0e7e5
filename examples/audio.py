"""Where is the formant? Learn it from generated sounds by pooling over time, then see what the decision looked at.

Every sound is a buzz of random pitch that starts at a random moment; its class is the frequency of one formant. Time
says nothing about the class, so time is what is pooled: one vector per frequency is left for a linear layer. Run it
from the repository:

    python examples/audio.py

It trains for less than half a minute on a CPU and draws what decided one test sound into audio.png.
"""

import torch
import torchaudio
from matplotlib.figure import Figure
from torch import nn

from modalpool import Pool, contributions
from tasks.audio.sounds import FORMANTS, make_timbre, to_hertz

RATE, HOP, BANDS = 16000, 128, 40  # Hz, samples (8 ms), mel bands


def make_batch(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list]:
    """Log-mel spectrograms (B, 1, F, T), numbers of valid frames (B,), classes (B,), and the boxes of the sounds."""
    waves, labels, truth = make_timbre(number, sample_rate=RATE, seed=seed)
    frames = torch.tensor([len(wave) // HOP + 1 for wave in waves])
    mel = torchaudio.transforms.MelSpectrogram(
        RATE, n_fft=256, hop_length=HOP, n_mels=BANDS, f_min=100, pad_mode="constant"
    )
    power = mel(nn.utils.rnn.pad_sequence(waves, batch_first=True))  # (B, F, T)
    decibels = 10 * (power / power.amax((1, 2), keepdim=True)).clamp(min=1e-5).log10()
    return (decibels / 50 + 1)[:, None], frames, torch.tensor(labels), truth


class Timbre(nn.Module):
    """Convolutions that keep both axes, a pool over time, and a linear layer over channels and frequencies."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        )  # fmt: skip
        self.pool = Pool("b c f [t]", "mean", channels=8)
        self.head = nn.Sequential(nn.Flatten(1), nn.Linear(8 * BANDS, len(FORMANTS)))

    def forward(self, x: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes); frames beyond a clip's length count for nothing."""
        return self.head(self.pool(self.encoder(x), lengths=frames))


def main(train: int = 160, test: int = 80, epochs: int = 6, picture: str = "audio.png") -> tuple[float, float]:
    """Train, test, explain; returns the accuracy and the share of sounds whose strongest cell is in the buzz."""
    torch.manual_seed(0)
    x, frames, labels, _ = make_batch(train, seed=0)
    model = Timbre()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for epoch in range(epochs):
        for rows in torch.randperm(train).split(16):
            loss = nn.functional.cross_entropy(model(x[rows], frames[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}  loss {loss.item():.3f}")

    model.eval()
    x, frames, labels, truth = make_batch(test, seed=1)
    with torch.no_grad():
        features = model.encoder(x)
    logits, maps = contributions(model.pool, model.head, features, lengths=frames)  # maps: (B, classes, F, T)
    guess = logits.argmax(1)
    accuracy = (guess == labels).float().mean().item()

    # The map is exact: a sound's cells and the head's bias add up to its logit. So does it point at the buzz?
    evidence = maps[torch.arange(test), guess]  # (B, F, T) for the class that was predicted
    moments = evidence.flatten(1).argmax(1) % evidence.shape[-1] * HOP / RATE
    hits = sum(boxes[0][0] < moment < boxes[0][1] for moment, boxes in zip(moments.tolist(), truth, strict=True)) / test
    print(f"test accuracy {accuracy:.3f}; the strongest cell is within the buzz in {hits:.0%} of the sounds")

    figure = Figure(figsize=(8, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    kept, limit = int(frames[0]), evidence[0].abs().max().item()
    place = {"origin": "lower", "aspect": "auto", "extent": (0, kept * HOP / RATE, 0, BANDS)}
    panels[0].imshow(x[0, 0, :, :kept].numpy(), cmap="gray_r", **place)
    image = panels[1].imshow(evidence[0, :, :kept].numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, **place)
    figure.colorbar(image, label="share of the logit")
    start, end, low, high = truth[0][0]
    figure.suptitle(f"a buzz from {start:.2f} to {end:.2f} s with a formant from {low:.0f} to {high:.0f} Hz")
    names = [f"{to_hertz(mel):.0f} Hz" for mel in FORMANTS]
    panels[0].set(title=f"target {names[labels[0]]}", xlabel="time (s)", ylabel="mel band")
    panels[1].set(title=f"evidence for {names[guess[0]]}", xlabel="time (s)")
    figure.savefig(picture, dpi=110)
    print(f"look at: {picture}")
    return accuracy, hits


if __name__ == "__main__":
    main()
