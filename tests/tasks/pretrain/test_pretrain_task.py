"""The module for any modality: what it trains, what comes out of it, and that it goes on exactly."""

import tempfile
from pathlib import Path

import pytest
import torch
from pretraining import fit, make
from toy import StopEarly, ToyTask

from tasks.data.crops import Whole
from tasks.data.problems import BadInput
from tasks.pretrain.elements import measure
from tasks.pretrain.task import PretrainTask, load_pretrained

OBJECTIVES = ["ntxent", "dino", "masked"]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_task_comes_out_of_the_checkpoint(objective, tmp_path):
    module, data = make(objective)
    trainer = fit(module, data, tmp_path)
    path = next(tmp_path.rglob("last.ckpt"))
    task = load_pretrained(path)
    kept = module.teacher if objective == "dino" else module.student
    assert type(task) is ToyTask
    for name, weight in kept.state_dict().items():
        assert torch.equal(weight, task.state_dict()[name]), name
    start = make(objective)[0].student.encoder.weight
    assert not torch.equal(task.encoder.weight, start)
    assert torch.equal(module.student.head[-1].weight, make(objective)[0].student.head[-1].weight)  # no label, no use
    assert {"train/loss", "train/deviation", "val/knn", "random/knn"} <= trainer.callback_metrics.keys()
    stored = torch.load(path, weights_only=True)
    assert stored["trained"]["samples"]["train"].tolist() == data.digests("train")
    again = PretrainTask.load_from_checkpoint(path, weights_only=True)
    assert again.state_dict().keys() == module.state_dict().keys()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_goes_on_exactly(objective, tmp_path):
    """Two epochs, interrupted after the first and gone on with by another process's objects, or not."""
    whole, data = make(objective)
    fit(whole, data, tmp_path / "whole", epochs=2)

    first, data = make(objective)
    fit(first, data, tmp_path / "first", epochs=2, more=[StopEarly()])
    second, data = make(objective)
    torch.rand(17)  # what was drawn before does not count
    fit(second, data, tmp_path / "second", epochs=2, path=next((tmp_path / "first").rglob("last.ckpt")))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert second.watch.random == whole.watch.random


def test_half_precision_trains(tmp_path):
    module, data = make("dino", ibot=1.0, data_options={"local_views": 1})
    trainer = fit(module, data, tmp_path, precision="bf16-mixed")
    assert trainer.callback_metrics["train/loss"].isfinite()


@pytest.mark.parametrize("options", [{"objective": "masked"}, {"objective": "dino", "ibot": 1.0}], ids=str)
def test_a_task_that_hides_its_inputs_is_told(options, tmp_path):
    module, data = make(**options)
    module.student.inputs = lambda batch: None
    with pytest.raises(
        BadInput, match="expected a task that shows its inputs, so that elements can be hidden, got Toy"
    ):
        fit(module, data, tmp_path)


def test_contrast_needs_encode_and_pool_alone(tmp_path):
    """A user's own encoder that has nothing else; nothing of the data but batches is asked for."""
    module, data = make("ntxent")
    module.student.inputs = module.student.with_inputs = module.student.places = None
    module.student.inputs = lambda batch: None
    fit(module, data, tmp_path)


def test_options_that_cannot_be_are_told():
    with pytest.raises(ValueError, match="expected objective ntxent, dino or masked, got 'jepa'; choose one of them"):
        make("jepa")
    with pytest.raises(ValueError, match=r"expected half_life above 0 and mask between 0 and 1, got 0 and 0.5"):
        make("dino", half_life=0)
    module, data = make("dino", ibot=1.0, tied=True, task_options={"reduction": ["mean", "max"]})
    sizes = measure(module.student, data.few())
    with pytest.raises(BadInput, match="expected pooled vectors of as many numbers as elements have for one head"):
        module.build_objective(sizes)
    with pytest.raises(BadInput, match="expected a checkpoint of a pretraining, got another"):
        load_pretrained(ordinary())


def ordinary():
    path = Path(tempfile.mkdtemp()) / "last.ckpt"
    torch.save({"hyper_parameters": {"spec": {}}, "state_dict": {}}, path)
    return path


@pytest.mark.parametrize("tied", [False, True])
def test_untied_heads_are_two_and_tied_one(tied, tmp_path):
    module, data = make("dino", ibot=1.0, koleo=0.1, tied=tied)
    fit(module, data, tmp_path, epochs=1)
    assert set(module.objective.heads) == ({"samples"} if tied else {"samples", "elements"})
    assert {"train/ibot", "train/koleo", "train/information"} <= module.trainer.callback_metrics.keys()


class TestData:
    def test_parts_that_are_heard_are_in_the_checkpoint_alone(self):
        data = make("ntxent", data_options={"heard": ("train", "test")})[1]
        source = data.source
        assert data.digests("train") == source.digests("train") + source.digests("test")
        assert data.samples("val") == data.samples("test") == []
        assert len(data.datasets["train"]) == 64

    def test_views_are_two_global_ones_and_local_ones_of_the_same_samples(self):
        class Sizes(Whole):
            def crop(self, batch, low, high):
                return {**batch, "size": (low, high)}

        data = make("ntxent", data_options={"local_views": 3, "crops": Sizes(), "final_size": (1.0, 1.0)})[1]
        drawn = [data.few(), data.few()]
        for progress, first in ((0.0, (0.5, 1.0)), (0.84, (0.5, 1.0)), (0.86, (1.0, 1.0))):
            views = data.make_views(drawn, progress)
            assert [view["size"] for view in views] == [first] * 2 + [(0.2, 0.5)] * 3
            assert all(view["id"] == views[0]["id"] for view in views)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"heard": ("train", "trial")}, "expected heard of train, val, test, predict, got train, trial; change it"),
            ({"local_size": (0.5, 0.2)}, r"expected local_size of two shares, 0 < low <= high <= 1, got \[0.5, 0.2\]"),
            ({"local_views": -1}, "expected local_views of 0 or more and final_share from 0 to 1, got -1 and 0.15"),
            ({"heard": ("predict",)}, "heard: expected parts of train, val, test, got predict"),
            ({"batch_size": 1}, "expected a batch_size of 2 or more, as samples are compared, got 1"),
        ],
    )
    def test_what_cannot_be_is_told(self, options, message):
        batch_size = options.pop("batch_size", 16)
        with pytest.raises(ValueError, match=message):
            make("ntxent", batch_size=batch_size, data_options=options)
