import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from tasks.audio import AudioTask, RhythmData, TimbreData
from tasks.audio.frontend import LogMel
from tasks.audio.sounds import INTERVALS, SIXTEENTH, make_rhythm, make_timbre, rhythm_patterns

RATE = 16000


@pytest.mark.parametrize("make", [make_timbre, make_rhythm])
def test_the_same_seed_gives_the_same_sound(make):
    first, again, other = make(8, seed=1), make(8, seed=1), make(8, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first[0], again[0], strict=True))
    assert first[1:] == again[1:]
    assert not torch.equal(first[0][0][:1000], other[0][0][:1000])


def test_the_parts_and_folds_are_different_draws():
    one, two = TimbreData(train=4, val=4, test=4, fold=0), TimbreData(train=4, val=4, test=4, fold=1)
    assert one.spec == two.spec
    waves = [data.datasets[part][0]["wave"][:500] for data in (one, two) for part in ("train", "val", "test")]
    assert all(not torch.equal(a, b) for i, a in enumerate(waves) for b in waves[:i])


def test_a_formant_is_where_the_truth_says():
    front = LogMel(RATE, mels=40, window_ms=16, hop_ms=8, f_min=100, range_db=60)
    waves, labels, truth = make_timbre(12, seed=0)
    for wave, boxes in zip(waves, truth, strict=True):
        x, _ = front(wave[None], torch.tensor([len(wave)]))
        start, end, low, high = boxes[0]
        inside = x[0, 0, :, round((start + 0.06) / 0.008) : round((end - 0.06) / 0.008)].mean(1)
        assert low < front.frequencies()[inside.argmax()] < high
    assert sorted(set(labels)) == [0, 1, 2, 3]


def test_all_rhythms_have_the_same_intervals_in_another_cyclic_order():
    patterns = rhythm_patterns()
    rotations = {tuple(sorted(order[i:] + order[:i] for i in range(4))) for order in patterns}
    assert len(patterns) == len(rotations) == 6
    assert all(sorted(order) == sorted(INTERVALS) for order in patterns)


def test_hits_follow_the_pattern_of_their_class():
    waves, labels, truth = make_rhythm(12, seed=0)
    for wave, label, boxes in zip(waves, labels, truth, strict=True):
        length = len(wave) / RATE
        moments = torch.tensor([box[0] for box in boxes], dtype=torch.float64)
        steps = ((moments.roll(-1) - moments) % length / SIXTEENTH).round().int().tolist()
        pattern = list(rhythm_patterns()[label]) * 2
        assert any(steps == pattern[i:] + pattern[:i] for i in range(8))
        # Where a hit begins there is more sound than just before: the boxes belong to the samples.
        for moment in moments.tolist():
            first = round(moment * RATE)
            loud = wave.roll(-first)[80:560].square().mean()
            assert loud > 2 * wave.roll(-first + 640)[:480].square().mean()


def test_the_spectrum_over_all_mel_bands_is_the_same_in_every_class():
    """What pooling over frequency sees of a timbre: the sorted levels of the bands, not their places."""
    front = LogMel(RATE, mels=40, window_ms=16, hop_ms=8, f_min=100, range_db=50)
    waves, labels, _ = make_timbre(160, seed=0)
    levels = torch.stack(
        [front(wave[None], torch.tensor([len(wave)]))[0][0, 0].mean(1).sort().values for wave in waves]
    )
    means = torch.stack([levels[torch.tensor(labels) == label].mean(0) for label in range(4)])
    assert (means - means.mean(0)).abs().max() < 0.3 * levels.std(0).mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "right", "options"),
    [
        pytest.param(TimbreData, "time", {"mels": 40, "window_ms": 16, "hop_ms": 8, "mask_frames": 20}, id="timbre"),
        pytest.param(
            RhythmData, "frequency", {"mels": 32, "window_ms": 32, "hop_ms": 16, "mask_bands": 6, "pattern_s": 1.75,
                                      "pattern_channels": 16}, id="rhythm",
        ),
    ],
)  # fmt: skip
def test_only_the_right_axis_learns(data, right, options):
    accuracy = {}
    for pool in ("time", "frequency", "both"):
        seed_everything(0, verbose=False)
        made = data(test=400)
        task = AudioTask(
            made.spec,
            pool=pool,
            position=False,
            widths=[8, 16],
            f_min=100,
            range_db=50,
            lr=4e-3,
            weight_decay=1e-2,
            **options,
        )
        trainer = Trainer(
            max_epochs=25, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(task, datamodule=made)
        accuracy[pool] = trainer.test(task, datamodule=made, verbose=False)[0]["test/acc"]
    chance = 1 / len(made.classes)
    spread = (chance * (1 - chance) / 400) ** 0.5
    assert accuracy.pop(right) > 0.95
    assert all(value < chance + 4 * spread for value in accuracy.values()), accuracy
