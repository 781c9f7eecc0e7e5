"""Two towers: loss and recall against loops, texts without their padding, pairs of every kind, what goes wrong."""

import math

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from scipy.sparse import csr_matrix
from toy import ToyData, ToyTask

from tasks.data.base import Sample
from tasks.data.problems import BadInput
from tasks.data.texts import Captions, Texts
from tasks.match.data import MatchData
from tasks.match.floors import ridge_floor
from tasks.match.loss import info_nce
from tasks.match.retrieval import recall
from tasks.match.task import MatchTask, load_match
from tasks.match.text import CharacterTransformer


class Names(Texts):
    """The id, and how often it was asked for."""

    def say(self, item, sample, seed):
        return f"{sample.id} of {item['x'].shape[0]}"


def test_the_loss_is_that_of_the_paper():
    a, b = torch.randn(2, 5, 3, dtype=torch.float64)
    expected = 0.0
    cosine = [[float(x @ y / (x.norm() * y.norm())) for y in b] for x in a]
    for i in range(5):
        row = [4 * cosine[i][j] for j in range(5)]
        column = [4 * cosine[j][i] for j in range(5)]
        expected -= (row[i] - math.log(sum(map(math.exp, row)))) / 10
        expected -= (column[i] - math.log(sum(map(math.exp, column)))) / 10
    assert float(info_nce(a, b, torch.tensor(4.0))) == pytest.approx(expected, abs=1e-5)


def test_recall_counts_every_right_answer():
    scores = torch.from_numpy(np.random.default_rng(0).random((30, 30)))
    keys = [number // 2 for number in range(30)]
    found = recall(scores, keys)
    for k in (1, 5, 10):
        for suffix, table in (("", scores), (" back", scores.T)):
            hits = [any(keys[j] == keys[i] for j in table[i].argsort(descending=True)[:k]) for i in range(30)]
            assert found[f"R@{k}{suffix}"] == pytest.approx(sum(hits) / 30)


def test_a_text_is_the_same_beside_a_longer_one():
    encoder = CharacterTransformer(channels=16, layers=2, heads=2).double().eval()
    encoder._positions = lambda count: CharacterTransformer._positions(encoder, count).double()
    together, lengths = encoder(["CCO", "c1ccccc1C(=O)O", "é"])
    assert lengths.tolist() == [4, 15, 3]
    for text, own, length in zip(("CCO", "é"), (together[0], together[2]), (4, 3), strict=True):
        torch.testing.assert_close(encoder([text])[0][0], own[:length])


@pytest.mark.parametrize("rule", ["mean", "attention", "max", "last"])
def test_texts_are_pooled_as_asked(rule):
    match = MatchTask(ToyTask(ToyData().spec), text_pool=rule, sizes=[4, 64]).eval()
    texts = ["one", "a longer one"]
    x, lengths = match.text(texts)
    pooled = match._said(texts)
    for own, length, z in zip(x, lengths, pooled, strict=True):
        own = own[:length]
        if rule == "mean":
            torch.testing.assert_close(z, own.mean(0))
        elif rule == "max":
            torch.testing.assert_close(z, own.amax(0))
        elif rule == "last":
            torch.testing.assert_close(z, own[-1])
    torch.testing.assert_close(match.others(texts).norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("second", ["texts", "other"])
def test_pairs_find_each_other_and_come_back_from_a_checkpoint(second, tmp_path):
    torch.manual_seed(0)
    data = MatchData(ToyData(), texts=Names()) if second == "texts" else MatchData(ToyData(), other=ToyData())
    data.setup()
    first = ToyTask(data.spec)
    match = MatchTask(first, lr=3e-3, other=ToyTask(data.spec) if second == "other" else None)
    trainer = Trainer(max_epochs=12, accelerator="cpu", logger=False, enable_progress_bar=False, num_sanity_val_steps=0,
                      enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(match, datamodule=data)
    if second == "other":  # the same sets on both sides: what a tower tells apart, it finds
        assert trainer.callback_metrics["val/R@5"] > 3 * 5 / len(data.samples("val"))
    trainer.save_checkpoint(tmp_path / "match.ckpt")
    again = load_match(tmp_path / "match.ckpt")
    samples, others = data.collate([data.still("test")[0], data.still("test")[1]])
    match.eval()
    with torch.no_grad():
        torch.testing.assert_close(again.samples(samples), match.samples(samples))
        torch.testing.assert_close(again.others(others), match.others(others))
        if second == "texts":
            torch.testing.assert_close(again.query(others[0]), match.others(others)[0], atol=1e-5, rtol=1e-4)


def test_texts_of_training_are_drawn_anew_and_others_stay():
    class Drawn(Texts):
        drawn = True

        def say(self, item, sample, seed):
            return str(seed)

    data = MatchData(ToyData(), texts=Drawn())
    data.setup()
    train, test = data.datasets["train"], data.datasets["test"]
    assert train[0][1] != train[0][1]
    assert test[0][1] == test[0][1] == data.still("test")[0][1] != test[1][1]
    assert data.still("train")[0][1] == data.still("train")[0][1]
    assert data.keys("test") == list(data.source.contents("test"))


def test_ridge_finds_what_counts_say():
    random = np.random.default_rng(0)
    parts = [["".join(random.choice(list("abcdefgh"), 12)) for _ in range(count)] for count in (300, 40, 40)]
    counts = [np.array([[text.count(letter) for letter in "abcdefgh"] for text in part], float) for part in parts]
    told = {"letters": tuple(counts), "sparse": tuple(map(csr_matrix, counts)),
            "nothing": tuple(random.normal(size=one.shape) for one in counts)}  # fmt: skip
    good, sparse, bad = ridge_floor(told, tuple(parts), tuple(parts))
    assert good["floor"] == "ridge, letters"
    assert good["R@5"] > 0.9 > 0.4 > bad["R@5"]
    assert sparse["R@1"] == good["R@1"]


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="expected texts or other, the second half of the pairs, got both or none"):
        MatchData(ToyData())
    with pytest.raises(ValueError, match=r"expected columns in braces, such as '\{label\}', got 'a sound'"):
        Captions("a sound")
    with pytest.raises(BadInput, match="clip 1: expected pitch in its row, which the captions name, got label"):
        Captions("{label} {pitch}").say(None, Sample("clip 1", columns={"label": "flute"}), 0)
    with pytest.raises(BadInput, match="expected the class's column source in the template"):
        Captions("{label}").of_class("x", "source", Sample("1", columns={"label": "a"}))
    with pytest.raises(BadInput, match="Names has no words for classes"):
        Names().of_class("x", "label", Sample("1"))
    with pytest.raises(BadInput, match=r"other: expected a sample of each id, got none of \d+ \(set"):
        MatchData(ToyData(), other=ToyData(train=8)).setup()
    with pytest.raises(BadInput, match="expected a batch_size of 2 or more"):
        MatchData(ToyData(), texts=Names(), batch_size=1).setup()
    task = ToyTask(ToyData().spec)
    with pytest.raises(ValueError, match="expected text or other, the second tower, got both"):
        MatchTask(task, text=CharacterTransformer(), other=task)
    with pytest.raises(ValueError, match="channels: expected a multiple of 2 and of heads, 4, got 30"):
        CharacterTransformer(channels=30)
