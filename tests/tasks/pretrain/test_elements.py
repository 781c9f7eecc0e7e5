"""Elements, whatever the modality: what is hidden is what is guessed, and what is padding is neither."""

import pytest
import torch
from lightning.pytorch import seed_everything
from pretraining import make

from tasks.audio import AudioTask
from tasks.audio.clips import collate_clips
from tasks.audio.crops import SoundCrops
from tasks.graph import GraphTask, MotifData
from tasks.pretrain.elements import hide, measure, rows
from tasks.pretrain.task import PretrainTask
from tasks.task.embedding import embed_batch
from tasks.volume import VolumeTask
from tasks.volume.batches import collate_volumes

SOUND = {"kind": "binary", "classes": ["a", "b"], "channels": 1, "sample_rate": 8000, "class_counts": [1, 1]}
VOLUME = {"kind": "binary", "classes": ["a", "b"], "channels": 1, "class_counts": [1, 1]}


def sound(padding=0.0, lengths=(8000, 5000, 3000)):
    generator = torch.Generator().manual_seed(0)
    waves = [torch.randn(length, generator=generator) for length in lengths]
    batch = collate_clips(
        [{"wave": wave, "target": torch.tensor(0), "id": str(i), "truth": []} for i, wave in enumerate(waves)]
    )
    for wave, length in zip(batch["wave"], lengths, strict=True):
        wave[length:] = padding
    return AudioTask(SOUND, widths=[4, 8], mels=16), batch


def volume(padding=0.0, shapes=((16, 12, 12), (8, 12, 12))):
    generator = torch.Generator().manual_seed(0)
    samples = [{"image": torch.rand(1, *one, generator=generator), "affine": torch.eye(4), "id": "x"} for one in shapes]
    batch = collate_volumes(samples)
    batch["image"][1, :, 8:] = padding
    return VolumeTask(VOLUME, width=4, levels=2, depth=1), batch


def graph():
    data = MotifData(train=8, val=4, test=4)
    task = GraphTask(data.spec, hidden=8, layers=2)
    still = data.still("train")
    return task, data.collate([still[i] for i in range(4)])


CASES = {"sound": sound, "volume": volume, "graph": graph}


@pytest.mark.parametrize("case", CASES)
def test_rows_are_the_elements_that_are_embedded(case):
    task, batch = CASES[case]()
    task.eval()
    with torch.no_grad():
        x, there, own = rows(task, *task.encode(batch))
        expected = embed_batch(task, batch).features
    assert own.max() + 1 == len(expected)
    for number, features in enumerate(expected):
        assert torch.equal(x[there & (own == number)], features)


@pytest.mark.parametrize("case", CASES)
def test_hidden_elements_are_those_whose_input_is_the_token(case):
    """Of the input exactly the share shows the token, and nothing else has changed."""
    torch.manual_seed(0)
    task, batch = CASES[case]()
    sizes = measure(task, batch)
    token = torch.full((sizes.inputs,), 7.0)
    hidden = hide(task, batch, token, 0.4, sizes.cell)
    before, after = task.inputs(batch), task.inputs(hidden.batch) if case != "sound" else hidden.batch["spectrogram"]
    changed = (after == 7.0).all(task.pool.layout.axes(before.ndim).channel)
    same = (after == before).all(task.pool.layout.axes(before.ndim).channel)
    assert bool((changed ^ same).all())
    assert 0.2 < float(changed.float().mean()) < 0.6
    x, _ = task.encode(hidden.batch)
    marked = hidden.rows(task, x)
    assert 0.2 < float(marked.float().mean()) < 0.6


def test_the_token_of_a_cell_reaches_all_of_its_inputs():
    """A feature that is hidden has seen nothing of the input under its own cell but the token."""
    torch.manual_seed(0)
    task, batch = volume(shapes=((16, 12, 12), (16, 12, 12)))
    task.eval()  # kernels of 2 with stride 2 and none else would see their cell alone: here that is checked by gradient
    sizes = measure(task, batch)
    batch["image"].requires_grad_()
    hidden = hide(task, batch, torch.zeros(1), 0.3, sizes.cell)
    (gradient,) = torch.autograd.grad(task.encode(hidden.batch)[0].square().sum(), batch["image"])
    from tasks.pretrain.masks import onto

    covered = onto(hidden.mask, batch["image"].shape[2:], sizes.cell)
    assert not gradient[:, 0][covered].any()
    assert gradient[:, 0][~covered].any()


@pytest.mark.parametrize("options", [
    {"objective": "ntxent"}, {"objective": "dino", "ibot": 1.0}, {"objective": "masked"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("case", ["sound", "volume"])
def test_padding_reaches_no_loss(case, options):
    losses = []
    for padding in (0.0, 5.0):
        seed_everything(0, verbose=False)
        task, batch = CASES[case](padding)
        module = PretrainTask(task, hidden=16, **options)
        module.build_objective(measure(task, batch))
        module.train()
        torch.manual_seed(3)
        crops = SoundCrops() if case == "sound" else None
        views = [crops.view(batch, (0.5, 1.0)) for _ in range(3)] if crops else [batch] * 3
        losses.append(module.objective.step(module.student, module.teacher, views, 0.5).loss)
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


def test_the_loss_of_sets_of_one_element_is_a_number():
    """Nothing is left to guess it from."""
    module, _ = make("masked")
    module.build_objective(measure(module.student, {"x": torch.randn(4, 1, 4), "id": list("abcd")}))
    step = module.objective.step(module.student, None, [{"x": torch.randn(4, 1, 4)}] * 2, 0.0)
    assert step.loss.isfinite()
