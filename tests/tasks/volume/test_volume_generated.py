"""Phantoms: a known answer that no global statistic gives away."""

import pytest
import torch

from tasks.volume.generated import LesionData, Phantoms, same_histogram


@pytest.fixture(scope="module")
def phantoms():
    return Phantoms(range(60), size=24).samples


def test_half_have_a_lesion_and_the_mask_says_where(phantoms):
    for sample in phantoms:
        assert bool(sample["mask"].any()) == bool(sample["target"])
    assert sum(sample["target"] for sample in phantoms) == 30
    volumes = [int(sample["mask"].sum()) for sample in phantoms if sample["target"]]
    assert min(volumes) >= 8
    assert max(volumes) < 0.05 * 24**3


def test_same_seed_same_volumes_whatever_else_is_made():
    alone, among = Phantoms(range(5, 6), size=16, seed=3)[0], Phantoms(range(4, 8), size=16, seed=3)[1]
    assert torch.equal(alone["image"], among["image"])
    assert torch.equal(alone["mask"], among["mask"])
    assert not torch.equal(alone["image"], Phantoms(range(5, 6), size=16, seed=4)[0]["image"])


def test_all_histograms_are_equal(phantoms):
    """So every statistic that does not look at places is the same for ill and healthy heads."""
    first = phantoms[0]["image"].flatten().sort().values
    for sample in phantoms[1:]:
        assert torch.equal(sample["image"].flatten().sort().values, first)


def test_same_histogram_keeps_the_order():
    image = torch.randn(6, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(same_histogram(image).flatten().argsort(), image.flatten().argsort())


def test_the_rim_does_not_tell(phantoms):
    """Ranks that a lesion takes are missing elsewhere; the scalp must vary too much for that to be seen (ROC area)."""
    values = [[float(s["image"][:, :, :, :8].mean()) for s in phantoms if s["target"] == k] for k in (0, 1)]
    wins = [ill > well for well in values[0] for ill in values[1]]
    assert abs(sum(wins) / len(wins) - 0.5) < 0.2


def test_lesions_are_brighter_than_their_surroundings(phantoms):
    """The answer is in the image, if not in each (a lesion may touch the scalp)."""
    gains = []
    for sample in phantoms:
        if sample["target"]:
            mask = sample["mask"].float()[None]
            around = torch.nn.functional.max_pool3d(mask, 5, 1, 2)[0].bool() & ~sample["mask"]
            gains.append(float(sample["image"][sample["mask"]].mean() - sample["image"][around].mean()))
    assert sum(gain > 0.05 for gain in gains) > 0.9 * len(gains)


def test_parts_do_not_overlap_and_only_training_is_mirrored():
    data = LesionData(train=6, val=4, test=2, size=16, batch_size=2)
    told = {"kind": "binary", "classes": ["healthy", "lesion"], "channels": 1, "class_counts": [3, 3]}
    assert {name: data.spec[name] for name in told} == told
    names = [sample["id"] for part in ("train", "val", "test") for sample in data.datasets[part].samples]
    assert len(set(names)) == 12
    torch.manual_seed(0)
    seen = [data.datasets["train"][0] for _ in range(8)]
    assert any(not torch.equal(one["image"], seen[0]["image"]) for one in seen)
    for one in seen:  # image and mask are mirrored alike
        assert torch.equal(one["image"][one["mask"]].sort().values, seen[0]["image"][seen[0]["mask"]].sort().values)
    assert all(torch.equal(data.datasets["test"][0]["image"], data.datasets["test"][0]["image"]) for _ in range(8))


def test_one_volume_is_too_few():
    with pytest.raises(ValueError, match=r"expected 2 .* to 100000 val volumes, got 1; change --data\.val"):
        LesionData(train=2, val=1, test=2, size=16).setup()


def test_no_part_depends_on_how_many_another_has():
    def images(**counts):
        data = LesionData(size=8, **counts)
        data.setup()
        return {part: [s["image"] for s in data.still(part).samples] for part in data.datasets}

    few, many = images(train=4, val=2, test=2), images(train=8, val=6, test=4)
    for part in few:
        assert all(torch.equal(a, b) for a, b in zip(few[part], many[part], strict=False))
    everyone = [image.numpy().tobytes() for part in many.values() for image in part]
    assert len(set(everyone)) == 18
