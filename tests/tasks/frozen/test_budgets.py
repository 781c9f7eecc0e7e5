"""Label budgets: what they say, and that probes and trainings draw the same samples."""

import pytest
from toy import ToyData

from tasks.data.problems import BadInput
from tasks.frozen.budgets import Budget, budgets, distinct, draw


def test_budgets_are_counts_shares_and_all():
    assert budgets("1, 5,2.5%,all") == [
        Budget("1", 1),
        Budget("5", 5),
        Budget("2.5%", 0.025),
        Budget("all", None),
    ]


@pytest.mark.parametrize("text", ["0", "5,5", "100%", "few", "-1%", "1.5", ""])
def test_other_budgets_are_refused(text):
    with pytest.raises(BadInput, match=r"probe: expected --budgets like 1,5,1%,10%,all, each once, got '"):
        budgets(text)


@pytest.mark.parametrize("labels", [3, 0.1])
def test_a_probe_has_the_labels_that_a_training_has(labels):
    data = ToyData("multiclass", labelled=labels, labelled_seed=7)
    data.setup()
    assert draw(ToyData("multiclass"), Budget("", labels), seed=7) == data.kept
    assert draw(ToyData("multiclass"), Budget("", labels), seed=8) != data.kept


def test_a_share_keeps_the_classes_shares():
    data = ToyData("multiclass", train=400)
    data.setup()
    classes = data.training_classes()
    drawn = [classes[number] for number in draw(data, Budget("10%", 0.1), seed=0)]
    for one in range(3):
        assert drawn.count(one) == round(0.1 * classes.count(one))


def test_values_have_no_classes_to_draw_from():
    drawn = draw(ToyData("regression", train=50), Budget("10%", 0.1), seed=0)
    assert len(drawn) == len(set(drawn)) == 5
    with pytest.raises(BadInput, match="labelled: expected at most 50, all training samples of class any, got 51"):
        draw(ToyData("regression", train=50), Budget("51", 51), seed=0)


def test_a_budget_that_is_another_is_left_out():
    named = [one.name for one in distinct(ToyData("binary"), budgets("1,5,1%,10%,all"))]
    assert named == ["1", "5", "all"] or named == ["1", "5", "10%", "all"]
    assert "1%" not in named
