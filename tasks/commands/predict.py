"""``python -m tasks predict --ckpt_path CHECKPOINT --input FILE``: files in; predictions, curves and events out."""

import csv
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.commands.inputs import file_options, good_inputs, open_task, refuse, result_folder, window_options
from tasks.data.problems import BadInput
from tasks.outputs.events import Event, draw_curve, events_above, write_events
from tasks.outputs.gallery import file_name
from tasks.outputs.predictions import Row, safe, write_predictions
from tasks.task.base import PoolingTask


def predict(args: list[str]) -> Path:
    """Predict files with a trained task.

    Each is predicted as a whole, however long or large it is. With ``--window`` recordings are cut into windows, each a
    clip of its own: ``curve.csv`` has their times and predictions, a picture of each recording its curves, and
    ``events.txt`` where a probability is above ``--threshold``: file, onset, offset, label, tab-separated, as sed_eval
    reads them. An onset lies half a hop before the middle of the first window that is above.

    Args:
        args: As `explain`, and ``--window``, ``--hop``, ``--threshold``.

    Returns:
        The folder.

    Raises:
        BadInput: Naming what cannot be used, after the rest is done.
    """
    own = file_options("predict", __doc__)
    window_options(own)
    own.add_argument("--threshold", type=float, default=0.5, help="of an event's probability")
    chosen = own.parse_args(args)
    path, task = open_task(chosen)
    if chosen.window is None:
        batches, wrong = good_inputs(chosen.input, task.read)
        folder, rows = result_folder(chosen, path, "predicted"), []
        for batch in batches.values():
            batch = task.transfer_batch_to_device(batch, task.device, 0)
            with torch.no_grad():
                rows.append(Row(task.ids(batch)[0], task.predictions(task(batch))[0].cpu()))
            print(f"{rows[-1].id}: {_said(task, rows[-1].predictions)}")
        write_predictions(folder / "predictions.csv", rows, task)
        print(f"Look at: {folder / 'predictions.csv'}")
        refuse(wrong)
        return folder
    if not 0 < chosen.threshold < 1:
        raise BadInput(f"expected a --threshold between 0 and 1, got {chosen.threshold:g}")
    return _curves(task, chosen.input, chosen.window, chosen.hop or chosen.window / 2, chosen.threshold,
                   lambda: result_folder(chosen, path, "predicted"))  # fmt: skip


def _said(task: PoolingTask, predictions: Tensor) -> str:
    if task.kind == "regression":
        return ", ".join(f"{name} {value:.4g}" for name, value in zip(task.classes, predictions.tolist(), strict=True))
    best = int(predictions.argmax())
    return f"{task.classes[best]} (p = {float(predictions[best]):.2f})"


def _curves(
    task: PoolingTask, sources: list[str], window: float, hop: float, threshold: float, folder_of: Callable[[], Path]
) -> Path:
    """Predictions of all windows of all files, as a table, pictures and events."""

    def start(source: str) -> Iterator[tuple[list[float], list[float], Any]]:
        """Open it and read its first windows."""
        windows = task.windows(source, window, hop)
        return itertools.chain([next(windows)], windows)

    started, wrong = good_inputs(sources, start)
    folder, events = folder_of(), list[Event]()
    sort = "prediction {}" if task.kind == "regression" else "p({})"
    with (folder / "curve.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "onset", "offset", *(safe(sort.format(name)) for name in task.classes)])
        for source, windows in started.items():
            begins, ends, found = list[float](), list[float](), list[Tensor]()
            name = Path(source).name
            for some, others, batch in windows:
                batch = task.transfer_batch_to_device(batch, task.device, 0)
                with torch.no_grad():
                    predictions = task.predictions(task(batch)).cpu()
                begins, ends, found = begins + some, ends + others, [*found, predictions]
                for begin, end, row in zip(some, others, predictions.tolist(), strict=True):
                    writer.writerow([safe(name), f"{begin:.3f}", f"{end:.3f}", *(f"{value:.6g}" for value in row)])
            curve = torch.cat(found)
            own = [] if task.kind == "regression" else events_above(name, begins, ends, curve, task.classes, threshold)
            if task.kind == "binary":  # the first class is what is there when there is no event
                own = [event for event in own if event.label == task.classes[1]]
            picture = folder / f"{file_name(name)}_curve.png"
            draw_curve(begins, ends, curve, task.classes, picture, title=name, events=own,
                       threshold=None if task.kind == "regression" else threshold)  # fmt: skip
            events += own
            print(f"{name}: {len(curve)} windows, {len(own)} events; look at: {picture}")
    if task.kind != "regression":
        write_events(folder / "events.txt", events)
    print(f"Look at: {folder / 'curve.csv'}")
    refuse(wrong)
    return folder
