import math

import pytest
import torch
from lightning.pytorch import Trainer

from tasks.audio import AudioManifest, AudioTask, TimbreData
from tasks.audio.clips import collate_clips
from tasks.data.problems import BadInput

SMALL = {"widths": [4, 6], "mels": 24, "hop_ms": 16, "pattern_s": 0.3}
AXES = ["time", "frequency", "both"]


@pytest.fixture(scope="module")
def data():
    made = TimbreData(train=16, val=4, test=8, batch_size=8)
    made.setup()
    return made


@pytest.fixture
def batch(data):
    return collate_clips([data.datasets["test"][i] for i in range(8)])


def task(data, **options):
    torch.manual_seed(0)
    return AudioTask(data.spec, **(SMALL | options)).eval()


@pytest.mark.parametrize("reduction", ["mean", "max", "attention"])
@pytest.mark.parametrize("pool", AXES)
def test_a_clip_gets_the_same_logits_alone_and_in_a_batch(data, batch, pool, reduction):
    made = task(data, pool=pool, reduction=reduction)
    assert len(set(batch["lengths"].tolist())) > 1
    together = made(batch)
    alone = torch.cat([made(collate_clips([data.datasets["test"][i]])) for i in range(8)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pool", ["time", "both"])
def test_maps_and_bias_sum_to_the_logit(data, batch, pool):
    made = task(data, pool=pool)
    predictions, maps = made.explain(batch)
    logits = made(batch)
    torch.testing.assert_close(maps.sum((2, 3)) + made.head[-1].bias, logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(predictions, logits.softmax(1))


def test_the_map_of_the_rhythm_readout_is_its_slope(data, batch):
    made = task(data, pool="frequency")
    x, frames = made.features(batch)
    x = x.detach().requires_grad_()
    sets = made.sets(x, frames)
    logits = made.readout(sets)(made.pool(x, **sets))
    (slope,) = torch.autograd.grad(logits[:, 2].sum(), x)
    torch.testing.assert_close(made.explain(batch)[1][:, 2], (slope * x).sum(1), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("pool", AXES)
def test_evidence_is_zero_beyond_the_end_of_a_clip(data, batch, pool):
    made = task(data, pool=pool)
    maps = made.explain(batch)[1]
    _, frames = made.features(batch)
    shortest = int(frames.argmin())
    assert frames[shortest] < maps.shape[-1]
    assert not maps[shortest, :, :, int(frames[shortest]) :].any()
    assert maps[shortest].any()


def test_several_vectors_are_read_by_every_readout(data, batch):
    for pool in AXES:
        made = task(data, pool=pool, reduction="attention", queries=3)
        assert made(batch).shape == (8, 4)
        assert made.explain(batch)[1].shape[:2] == (8, 4)


def test_regression_maps_are_in_the_targets_units(tones):
    rows = [{**row, "label": 100.0 * i} for i, row in enumerate(tones.rows)]
    data = AudioManifest(tones.manifest(rows), target="regression", fold=0)
    made = task(data, pool="time")
    batch = next(iter(data.test_dataloader()))
    values, maps = made.explain(batch)
    offset = made.head[-1].bias * made.target_std + made.target_mean
    torch.testing.assert_close(maps.sum((2, 3)) + offset, values, atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("pool", AXES)
def test_mixup_trains_and_mixes_only_in_training(data, pool):
    made = task(data, pool=pool, mixup=0.4)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    before = [parameter.clone() for parameter in made.parameters()]
    trainer.fit(made, datamodule=data)
    assert math.isfinite(trainer.callback_metrics["train/loss"])
    assert any(not torch.equal(old, new) for old, new in zip(before, made.parameters(), strict=True))


def test_the_loss_of_a_mixture_is_the_mixture_of_losses(data, batch, monkeypatch):
    made = task(data, mixup=0.4)
    logged = {}
    monkeypatch.setattr(made, "log", lambda name, value, **how: logged.update({name: (value, how["sync_dist"])}))
    monkeypatch.setattr(made, "log_dict", lambda *_, **__: None)
    torch.manual_seed(3)
    loss = made.training_step(batch, 0)
    torch.manual_seed(3)
    partner = torch.randperm(8)
    share = float(torch.distributions.Beta(0.4, 0.4).sample())
    share = max(share, 1 - share)
    x, frames = made.spectrogram(batch["wave"], batch["lengths"])
    x, frames = share * x + (1 - share) * x[partner], torch.maximum(frames, frames[partner])
    x, frames = made.encoder(x, frames)
    logits = made.head(made.pool(x, **made.sets(x, frames)))
    rows = logits.log_softmax(1)
    expected = -(
        share * rows[range(8), batch["target"]] + (1 - share) * rows[range(8), batch["target"][partner]]
    ).mean()
    torch.testing.assert_close(loss, expected)
    assert logged["train/loss"][0] is loss
    assert logged["train/loss"][1]


def test_a_mixed_loss_that_is_not_finite_names_the_batch(data, batch, monkeypatch):
    made = task(data, mixup=0.4)
    monkeypatch.setattr(made, "log", lambda *_, **__: None)
    monkeypatch.setattr(made, "log_dict", lambda *_, **__: None)
    torch.nn.init.constant_(made.head[-1].weight, float("nan"))
    made.training_step(batch, 7)
    with pytest.raises(BadInput, match=r"the training loss became nan in batch 7 \(samples test_0000, .*lower"):
        made.on_validation_start()


def test_the_rhythm_readout_has_its_own_norm(data):
    with pytest.raises(ValueError, match=r"expected head_norm false with pool: frequency, got true; .* leave it out"):
        task(data, pool="frequency", head_norm=True)
