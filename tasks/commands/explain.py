"""``python -m tasks explain --ckpt_path CHECKPOINT --input FILE``: one file in; its prediction, picture and map out."""

from pathlib import Path

import torch

from tasks.commands.inputs import file_options, good_inputs, open_task, refuse, result_folder
from tasks.outputs.gallery import Gallery
from tasks.outputs.predictions import Row, write_predictions


def explain(args: list[str]) -> Path:
    """Predict files with a trained task and show why.

    The checkpoint knows its task and how its data was prepared, so neither config nor data is needed; a config only
    says where to look for ``best`` and ``last``. An input is a NIfTI file, a sound file, a graph of a TU folder,
    ``FOLDER/NAME-17``, or for a model of molecules a SMILES. All are read and checked before the first is predicted;
    those that cannot be used are named at the end, with an exit status that is not 0.

    Args:
        args: ``--input FILE [FILE ...]``, ``--ckpt_path FILE`` or ``-c CONFIG --ckpt_path best``, ``--output FOLDER``,
            ``--class NAME``, ``--tile SIZE``.

    Returns:
        The folder, with a picture and a map for each input, ``index.html`` and ``predictions.csv``.

    Raises:
        BadInput: Naming every input that cannot be used, after the others are done, or why the checkpoint cannot.
    """
    own = file_options("explain", __doc__)
    own.add_argument(
        "--class", dest="about", help="class, label or value that maps are about; the predicted one unless given"
    )
    chosen = own.parse_args(args)
    path, task = open_task(chosen)
    batches, wrong = good_inputs(chosen.input, task.read)
    folder = result_folder(chosen, path, "explained")
    gallery, rows = Gallery(folder), []
    for batch in batches.values():
        batch = task.transfer_batch_to_device(batch, task.device, 0)
        (entry,) = gallery.add(task, batch, limit=1, about=chosen.about)
        target = task.target(batch)[0].cpu() if entry.decision.target else None
        rows.append(Row(entry.decision.id, torch.tensor(entry.decision.predictions), target))
        print(entry.decision.title)
        for file in entry.files:
            print(f"Map: {file}")
    write_predictions(folder / "predictions.csv", rows, task)
    page = gallery.write(task)
    print(f"Look at: {page if len(batches) > 1 else gallery.entries[0].picture}")
    refuse(wrong)
    return folder
