"""Losses without labels, held against loops in float64 that follow the papers' equations, and against lightly."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tasks.pretrain.gather import standardised
from tasks.pretrain.koleo import koleo
from tasks.pretrain.losses import dino_loss, ibot_loss, mean_of_means, nt_xent, reconstruction_loss
from tasks.pretrain.sinkhorn import Centre, sinkhorn


def draw(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_nt_xent(first, second, temperature):
    z = [row / row.norm() for row in torch.cat([first, second]).double()]
    n, total = len(first), 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = [math.exp(float(z[i] @ z[k]) / temperature) for k in range(2 * n) if k != i]
        total -= math.log(math.exp(float(z[i] @ z[j]) / temperature) / sum(others))
    return total / (2 * n)


def slow_cross_entropy(p, logits, temperature):
    q = [value / temperature for value in logits.double().tolist()]
    top = max(q)
    log_sum = top + math.log(sum(math.exp(value - top) for value in q))
    return -sum(a * (b - log_sum) for a, b in zip(p.double().tolist(), q, strict=True))


def slow_koleo(x):
    x = [row / row.norm() for row in x.double()]
    nearest = [min(float((a - b).norm()) for j, b in enumerate(x) if j != i) for i, a in enumerate(x)]
    return -sum(map(math.log, nearest)) / len(x)


def slow_sinkhorn(logits, temperature, iterations):
    q = [[math.exp(value / temperature) for value in row] for row in logits.double().tolist()]
    for _ in range(iterations):
        sums = [sum(row[k] for row in q) for k in range(len(q[0]))]
        q = [[value / total for value, total in zip(row, sums, strict=True)] for row in q]
        q = [[value / sum(row) for value in row] for row in q]
    return torch.tensor(q)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent(temperature):
    first, second = draw(5, 3), draw(5, 3, seed=1)
    torch.testing.assert_close(
        nt_xent(first, second, temperature).double(),
        torch.tensor(slow_nt_xent(first, second, temperature)).double(), rtol=1e-5, atol=1e-6,
    )  # fmt: skip


def test_nt_xent_does_not_care_for_lengths_and_order():
    first, second = draw(6, 4), draw(6, 4, seed=1)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    base = nt_xent(first, second)
    torch.testing.assert_close(nt_xent(7 * first, 0.1 * second), base)
    torch.testing.assert_close(nt_xent(first[order], second[order]), base)
    torch.testing.assert_close(nt_xent(second, first), base)


def test_dino_leaves_a_view_out_of_pairs_with_itself():
    teacher, student = draw(2, 4, 5).softmax(-1), draw(5, 4, 5, seed=1)
    pairs = [(t, s) for t in range(2) for s in range(5) if t != s]
    slow = [slow_cross_entropy(teacher[t, b], student[s, b], 0.1) for t, s in pairs for b in range(4)]
    torch.testing.assert_close(float(dino_loss(teacher, student, 0.1)), sum(slow) / len(slow), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="expected two views or more, got 1 of the student"):
        dino_loss(teacher[:1], student[:1])


def test_no_gradient_goes_to_the_teacher():
    teacher, student = draw(2, 4, 5).softmax(-1).requires_grad_(), draw(2, 4, 5, seed=1).requires_grad_()
    (dino_loss(teacher, student) + ibot_loss(teacher[0], student[0], torch.arange(4), 4)).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_ibot_is_a_mean_of_samples_means():
    teacher, student = draw(5, 3).softmax(-1), draw(5, 3, seed=1)
    own = torch.tensor([0, 0, 0, 2, 2])
    each = [slow_cross_entropy(p, s, 0.2) for p, s in zip(teacher, student, strict=True)]
    slow = (sum(each[:3]) / 3 + sum(each[3:]) / 2) / 4  # samples 1 and 3 have nothing hidden
    torch.testing.assert_close(float(ibot_loss(teacher, student, own, 4, 0.2)), slow, rtol=1e-5, atol=1e-6)


def test_reconstruction():
    made, wanted, own = draw(4, 3), draw(4, 3, seed=1), torch.tensor([0, 0, 0, 1])
    squares = ((made - wanted).double() ** 2).mean(1)
    cosines = torch.stack(
        [1 - a @ b / a.norm() / b.norm() for a, b in zip(made.double(), wanted.double(), strict=True)]
    )
    for kind, each in (("mse", squares), ("cosine", cosines**2)):
        slow = (each[:3].mean() + each[3]) / 2
        torch.testing.assert_close(reconstruction_loss(made, wanted, own, 2, kind).double(), slow, rtol=1e-5, atol=1e-6)


def test_nothing_hidden_costs_nothing():
    none = torch.zeros(0, 3, requires_grad=True)
    loss = reconstruction_loss(none, torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 2)
    assert loss == 0
    loss.backward()
    assert mean_of_means(torch.zeros(0), torch.zeros(0, dtype=torch.long), 3) == 0


@pytest.mark.parametrize("rows", [2, 9])
def test_koleo(rows):
    x = draw(rows, 4)
    torch.testing.assert_close(float(koleo(x)), slow_koleo(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(koleo(3 * x), koleo(x))


def test_koleo_is_finite_where_vectors_are_equal():
    x = torch.ones(3, 4, requires_grad=True)
    koleo(x).backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("loss", [koleo, lambda x: nt_xent(x, x.flip(0)), lambda x: sinkhorn(x, 0.1).sum()])
def test_autocast_does_not_reach_the_losses(loss):
    """Distances of bf16 vectors would be rounding errors: the same loss of the same vectors with and without."""
    x = draw(16, 8, scale=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(x)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, loss(x), rtol=0, atol=0)


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn(iterations):
    logits = draw(6, 4)
    slow = slow_sinkhorn(logits, 0.3, iterations)
    torch.testing.assert_close(sinkhorn(logits, 0.3, iterations), slow, rtol=1e-4, atol=1e-6)


@given(st.integers(1, 12), st.integers(1, 6), st.sampled_from([1.0, 30.0, 1000.0, 1e6]), st.sampled_from([1.0, 0.04]))
def test_sinkhorn_is_finite_and_its_rows_are_probabilities(n, k, scale, temperature):
    p = sinkhorn(draw(n, k, seed=n * k, scale=scale), temperature)
    assert p.isfinite().all()
    torch.testing.assert_close(p.sum(1), torch.ones(n), rtol=1e-5, atol=1e-5)


def test_sinkhorn_uses_all_prototypes_where_one_is_everybodys():
    logits = draw(64, 4, scale=0.01) + torch.tensor([5.0, 0.0, 0.0, 0.0])
    assert logits.softmax(1).argmax(1).unique().tolist() == [0]
    torch.testing.assert_close(sinkhorn(logits, 0.05, 50).sum(0), torch.full((4,), 16.0), rtol=1e-3, atol=1e-3)


def test_sinkhorn_keeps_nothing_of_a_rows_or_columns_offset_in_the_limit():
    logits = draw(8, 5)
    moved = logits + draw(8, 1, seed=1) + draw(1, 5, seed=2)
    torch.testing.assert_close(sinkhorn(moved, 0.5, 200), sinkhorn(logits, 0.5, 200), rtol=1e-4, atol=1e-5)


def test_the_centre_follows_the_mean_of_the_logits():
    centre, logits = Centre(3, momentum=0.75), draw(4, 3)
    torch.testing.assert_close(centre(logits, 0.5), (logits / 0.5).softmax(1))
    torch.testing.assert_close(centre.centre, 0.25 * logits.mean(0))
    moved = centre.eval()(logits, 0.5)
    torch.testing.assert_close(moved, ((logits - 0.25 * logits.mean(0)) / 0.5).softmax(1))
    torch.testing.assert_close(centre.centre, 0.25 * logits.mean(0))  # in evaluation it stays


def test_standardised_is_a_batch_norm_in_training():
    x = draw(9, 4) * 3 + 2
    torch.testing.assert_close(standardised(x), torch.nn.BatchNorm1d(4, affine=False)(x))
    assert standardised(torch.ones(1, 4)).isfinite().all()
    assert standardised(torch.ones(0, 4)).shape == (0, 4)


class TestLightly:
    """The same numbers from another library, where it has no trap (labels of its own temperature and centre)."""

    @pytest.fixture
    def loss(self):
        return pytest.importorskip("lightly.loss")

    @pytest.mark.parametrize("temperature", [0.1, 0.5])
    def test_nt_xent(self, loss, temperature):
        first, second = draw(8, 5), draw(8, 5, seed=1)
        torch.testing.assert_close(nt_xent(first, second, temperature), loss.NTXentLoss(temperature)(first, second))

    def test_koleo(self, loss):
        x = draw(10, 6)
        torch.testing.assert_close(koleo(x), loss.KoLeoLoss()(x), rtol=1e-4, atol=1e-5)

    def test_dino_with_its_centre(self, loss):
        theirs, centre = loss.DINOLoss(output_dim=6, warmup_teacher_temp_epochs=0, teacher_temp=0.05), Centre(6)
        for step in range(3):  # the centre is that of earlier batches
            teacher, student = draw(2, 4, 6, seed=step), draw(5, 4, 6, seed=step + 9)
            p = centre(teacher.flatten(0, 1), 0.05).view_as(teacher)
            expected = theirs(list(teacher), list(student), teacher_temp=0.05)
            torch.testing.assert_close(dino_loss(p, student, 0.1), expected)

    def test_ibot_with_its_centre(self, loss):
        mask = torch.tensor([[[True, True], [False, False]], [[False, True], [False, False]], [[False] * 2] * 2])
        teacher, student = draw(3, 6), draw(3, 6, seed=1)
        theirs = loss.IBOTPatchLoss(output_dim=6, teacher_temp=0.05)(teacher, student, mask)
        p = Centre(6)(teacher, 0.05)
        torch.testing.assert_close(ibot_loss(p, student, mask.nonzero()[:, 0], 3, 0.1), theirs)

    def test_sinkhorn(self, loss):
        logits = functional.normalize(draw(12, 5), dim=1)
        theirs = loss.swav_loss.sinkhorn(logits, iterations=3, epsilon=0.05)
        torch.testing.assert_close(sinkhorn(logits, 0.05, 3), theirs, rtol=1e-4, atol=1e-5)
