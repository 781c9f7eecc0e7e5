"""The page that lists a run's pictures: complete, offline, sortable; and pictures that follow samples while fitting."""

import csv
import math
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
import yaml
from torch.utils.data import DataLoader
from toy import ToyData, ToyTask

from tasks.__main__ import main
from tasks.outputs.callback import spread_evenly
from tasks.outputs.gallery import Gallery, file_name


class Page(HTMLParser):
    """What a browser would load, and the cards with their sort keys."""

    def __init__(self, path: Path):
        super().__init__()
        self.loads, self.links, self.cards, self.words = [], [], [], []
        self.open = []
        self.text = path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.loads += [found[name] for name in ("src", "data") if name in found]
        self.links += [found["href"]] if "href" in found else []
        if tag == "article":
            self.cards.append({name.removeprefix("data-"): value for name, value in found.items()})
        if tag not in ("img", "meta", "input", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # every element is closed, in order

    def handle_data(self, data):
        self.words.append(data.strip())


def task_and_batch(kind="binary"):
    torch.manual_seed(0)
    data = ToyData(kind=kind)
    return ToyTask(data.spec).eval(), next(iter(data.test_dataloader()))


@pytest.mark.parametrize("kind", ["binary", "regression", "multilabel"])
def test_the_page_lists_every_picture_with_its_numbers(tmp_path, kind):
    task, batch = task_and_batch(kind)
    gallery = Gallery(tmp_path / "maps")
    gallery.add(task, batch, limit=5)
    page = Page(gallery.write(task))
    assert page.open == []
    assert len(page.cards) == 5
    predictions = task.predictions(task(batch))
    for place, (card, decision) in enumerate(zip(page.cards, (e.decision for e in gallery.entries), strict=True)):
        assert (card["place"], card["name"]) == (str(place), batch["id"][place])
        assert float(card["loss"]) == pytest.approx(
            float(task.loss(task(batch)[place : place + 1], batch["y"][place : place + 1])), rel=1e-5
        )
        assert (card["target"], card["prediction"]) == (decision.target, decision.prediction)
        if kind == "binary":
            assert float(card["sure"]) == pytest.approx(float(predictions[place].max()), rel=1e-5)
            right = int(predictions[place].argmax()) == int(batch["y"][place])
            assert card["right"] == ("yes" if right else "no")
        if kind == "regression":
            assert (card["sure"], card["right"]) == ("", "")


def test_the_page_needs_nothing_but_its_folder(tmp_path):
    """Odd names too: every file it points at is there, and nothing points elsewhere."""
    task, batch = task_and_batch()
    names = ["a/b.wav", "a_b.wav", "<b>\"&'#1 %41?", "../../etc", "é 漢"]
    batch = {"x": batch["x"][:5], "y": batch["y"][:5], "id": names}
    gallery = Gallery(tmp_path / "maps")
    gallery.add(task, batch, limit=5)
    gallery.add(task, batch, limit=5, epoch=3)
    page = Page(gallery.write(task))
    assert len(page.loads) == 10
    for link in page.loads + page.links:
        assert "://" not in link
        target = (tmp_path / "maps" / unquote(link)).resolve()
        assert target.is_file()
        assert target.is_relative_to(tmp_path / "maps")
    assert len({entry.picture for entry in gallery.entries}) == 10
    assert [card["name"] for card in page.cards] == names
    assert "<b>" not in page.text
    assert {"@import", "url(", "fetch("}.isdisjoint(page.text.split())


def test_pictures_of_the_training_are_strips(tmp_path):
    task, batch = task_and_batch()
    gallery = Gallery(tmp_path / "maps")
    for epoch in (2, 4):
        gallery.add(task, batch, limit=3, epoch=epoch)
    page = Page(gallery.write(task))
    assert page.cards == []
    assert [word for word in page.words if word.startswith("epoch ")] == [
        f"epoch {epoch}: {gallery.entries[sample].decision.prediction}" for sample in range(3) for epoch in (2, 4)
    ]
    gallery.add(task, batch, limit=2)
    gallery.forget_final()
    assert len(gallery.entries) == 6
    assert all(entry.epoch is not None for entry in gallery.entries)


def test_a_sample_without_target_has_no_loss_to_sort_by(tmp_path):
    task, batch = task_and_batch()
    gallery = Gallery(tmp_path / "maps")
    gallery.add(task, {**batch, "y": torch.full((32,), math.nan)}, limit=1)
    (card,) = Page(gallery.write(task)).cards
    assert (card["loss"], card["target"], card["right"]) == ("", "", "")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a b/c.flac@0.5", "a_b_c.flac_0.5"),
        ("sub-01/anat/T1w.nii.gz", "sub-01_anat_T1w"),
        ("../..", "sample"),
        ("x" * 300 + ".nii", "x" * 120),
    ],
)
def test_file_names(name, expected):
    assert file_name(name) == expected


def test_followed_samples_are_spread_over_the_data_and_draw_no_random_number():
    data = ToyData()
    data.setup()
    loader = DataLoader(data.datasets["test"], batch_size=4, shuffle=True)
    before = torch.get_rng_state()
    names = spread_evenly(loader, 3)["id"]
    assert torch.equal(before, torch.get_rng_state())
    assert names == ["set 2000", "set 2016", "set 2031"]
    assert len(spread_evenly(loader, 100)["id"]) == 32


def test_fitting_follows_a_few_samples_and_is_not_changed_by_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    config = {
        "model": {"class_path": "toy.ToyTask"},
        "data": {"class_path": "toy.ToyData"},
        "trainer": {"max_epochs": 5, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False},
        "outputs": {"bootstrap": 0, "maps": 2, "mistakes": 0},
    }
    Path("toy.yaml").write_text(yaml.safe_dump(config))
    for name, every in (("with", 2), ("without", 0)):
        main(["fit", "-c", "toy.yaml", f"--run.name={name}", f"--outputs.every={every}", "--outputs.followed=3"])
    runs = [Path("runs", name, "version_0") for name in ("with", "without")]
    assert sorted(path.name for path in (runs[0] / "maps").glob("epoch_*")) == ["epoch_002", "epoch_004"]
    assert sorted(path.name for path in (runs[0] / "maps" / "epoch_004").iterdir()) == [
        "set_1000.png", "set_1016.png", "set_1031.png",
    ]  # fmt: skip
    assert not list((runs[1] / "maps").glob("epoch_*"))
    page = Page(runs[0] / "maps" / "index.html")
    assert len(page.cards) == 2
    assert len(page.loads) == 2 + 6
    metrics = []
    for run in runs:
        with (run / "metrics.csv").open() as file:
            metrics.append(list(csv.DictReader(file)))
    assert metrics[0] == metrics[1]
