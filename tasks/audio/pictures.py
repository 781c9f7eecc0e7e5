"""Pictures: a log-mel spectrogram, what in it made the decision, and the same evidence along the kept axis."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from tasks.audio.frontend import to_mel

if TYPE_CHECKING:
    from tasks.audio.task import AudioTask


def draw_batch(task: "AudioTask", batch: dict[str, Any], folder: Path, limit: int) -> list[Path]:
    """Draw up to ``limit`` clips of a batch as PNG files named after them.

    The map of the predicted class (of the target, in regression; of the second class, in a binary task) lies over the
    spectrogram: red speaks for it, blue against it. Beside the picture the map is summed over the pooled axis, which
    leaves a curve over frequency (timbre) or over time (rhythm); pooled over both, there are two curves.

    Args:
        task: The trained task.
        batch: Clips as `collate_clips` makes them.
        folder: Where to write.
        limit: Largest number of pictures.

    Returns:
        The files, in the batch's order.
    """
    number = min(limit, len(batch["id"]))
    batch = {name: value[:number] for name, value in batch.items()}
    with torch.no_grad():
        spectrograms, frames = task.spectrogram(batch["wave"], batch["lengths"])
    predictions, maps = task.explain(batch)
    target = task.target(batch)
    files = []
    for i in range(number):
        shown = 0 if maps.shape[1] == 1 else int(predictions[i].argmax()) if task.kind != "regression" else 0
        kept = int(frames[i])
        spectrum = spectrograms[i, 0, :, :kept].cpu()
        # The network's grid is coarser along the pooled axis: every cell is shown as large as what it stands for.
        evidence = stretch(maps[i, shown].cpu(), spectrograms.shape[2:])[:, :kept]
        title = f"{batch['id'][i]}\n{caption(task, target[i], predictions[i])}"
        figure = draw(task, spectrum, evidence, title=title, about=about(task, shown), truth=batch["truth"][i])
        path = folder / f"{file_name(batch['id'][i])}.png"
        figure.savefig(path, dpi=110)
        files.append(path)
    return files


def stretch(cells: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Spread a coarse map (F', T') over a grid (F, T) so that its sum stays.

    Example:
        >>> stretch(torch.tensor([[1.0, 2.0]]), (1, 4))
        tensor([[0.5000, 0.5000, 1.0000, 1.0000]])
    """
    fine = torch.nn.functional.interpolate(cells[None, None], tuple(size), mode="nearest")[0, 0]
    counts = torch.nn.functional.interpolate(
        torch.arange(cells.numel(), dtype=torch.float64).reshape(1, 1, *cells.shape), tuple(size), mode="nearest"
    )
    return fine / torch.bincount(counts.long().flatten(), minlength=cells.numel())[counts.long()[0, 0]]


def caption(task: "AudioTask", target: Tensor, predictions: Tensor) -> str:
    """Target, prediction and its probability (or value) in words."""
    if task.kind == "regression":
        pairs = zip(task.classes, target.tolist(), predictions.tolist(), strict=True)
        return ", ".join(f"{name}: target {value:.4g}, prediction {guess:.4g}" for name, value, guess in pairs)
    if task.kind == "multilabel":
        names = lambda hits: "|".join(name for name, hit in zip(task.classes, hits, strict=True) if hit) or "none"  # noqa: E731
        return f"target {names(target.tolist())}, prediction {names((predictions > 0.5).tolist())}"
    best = int(predictions.argmax())
    sure = float(predictions[best])
    return f"target {task.classes[int(target)]}, prediction {task.classes[best]}, probability {sure:.2f}"


def about(task: "AudioTask", shown: int) -> str:
    """What the map is evidence for."""
    return task.classes[1] if task.kind == "binary" else task.classes[shown]


def draw(
    task: "AudioTask",
    spectrum: Tensor,
    evidence: Tensor,
    *,
    title: str,
    about: str,
    truth: list[tuple[float, float, float, float]] = (),
) -> Figure:
    """Draw one clip.

    Args:
        task: Gives the axes' units and the pooled axis.
        spectrum: Log-mel spectrogram (F, T), 0 to 1.
        evidence: Signed map (F, T).
        title: Above the picture.
        about: What the map is evidence for.
        truth: Boxes (start s, end s, low Hz, high Hz) of known events.

    Returns:
        The figure; write it with ``savefig``.
    """
    hop = task.spectrogram.hop / task.spectrogram.sample_rate
    frequencies = task.spectrogram.frequencies()
    bands, frames = spectrum.shape
    seconds = torch.arange(frames).numpy() * hop
    time_curve, band_curve = task.axis != "time", task.axis != "frequency"
    figure = Figure(figsize=(9, 5.2 if time_curve else 4.2), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen and without touching the user's pyplot state
    grid = figure.add_gridspec(
        2 if time_curve else 1,
        2 if band_curve else 1,
        height_ratios=[1, 3] if time_curve else None,
        width_ratios=[4, 1] if band_curve else None,
    )
    main = figure.add_subplot(grid[-1, 0])
    extent = (-hop / 2, (frames - 0.5) * hop, -0.5, bands - 0.5)
    main.imshow(spectrum.numpy(), origin="lower", aspect="auto", extent=extent, cmap="gray_r", vmin=0, vmax=1)
    limit = float(evidence.abs().quantile(0.995)) or 1.0
    strength = (evidence.abs() / limit).clamp(max=1)
    image = main.imshow(
        evidence.numpy(), origin="lower", aspect="auto", extent=extent, cmap="RdBu_r", vmin=-limit, vmax=limit,
        alpha=(0.75 * strength.sqrt()).numpy(), interpolation="nearest",
    )  # fmt: skip
    figure.colorbar(image, ax=main, label=f"evidence for {about}\n(share of the logit)", pad=0.01)
    for start, end, low, high in truth:
        bottom, top = (float(band_of(value, frequencies)) for value in (low, high))
        main.plot([start, end, end, start, start], [bottom, bottom, top, top, bottom], color="green", lw=0.9)
    ticks = [
        value for value in (125, 250, 500, 1000, 2000, 4000, 8000, 16000) if frequencies[0] <= value <= frequencies[-1]
    ]
    main.set(xlabel="time (s)", ylabel="frequency (Hz)", xlim=extent[:2], ylim=extent[2:])
    main.set_yticks([float(band_of(value, frequencies)) for value in ticks], [str(value) for value in ticks])
    if time_curve:
        beside = figure.add_subplot(grid[0, 0], sharex=main)
        beside.fill_between(seconds, evidence.sum(0).numpy(), step="mid", color="0.75")
        beside.axhline(0, color="black", lw=0.6)
        beside.set(ylabel="summed over\nfrequency")
        beside.tick_params(labelbottom=False)
    if band_curve:
        beside = figure.add_subplot(grid[-1, 1], sharey=main)
        beside.fill_betweenx(torch.arange(bands).numpy(), evidence.sum(1).numpy(), step="mid", color="0.75")
        beside.axvline(0, color="black", lw=0.6)
        beside.set(xlabel="summed over time")
        beside.tick_params(labelleft=False)
    figure.suptitle(title, fontsize="medium")
    return figure


def band_of(hertz: float, frequencies: Tensor) -> float:
    """The (fractional) mel band of a frequency: where it stands on the picture's axis."""
    mels = to_mel(torch.cat([frequencies, frequencies.new_tensor([hertz])]))
    return float((mels[-1] - mels[0]) / (mels[1] - mels[0]))


def file_name(name: str) -> str:
    """A clip's name as a file name: folders and odd characters become underscores."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_.")
