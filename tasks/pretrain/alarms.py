"""Whether a training without labels still learns: what the teacher tells apart, how far vectors differ, a kNN probe."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

LEAST_NATS = 0.1  # a collapsed run had .03, working ones .35 to .47
LEAST_DEVIATION = 0.05  # of directions; 1 where they are uniform


def mutual_information(p: Tensor) -> Tensor:
    """What a teacher's word on a sample says of which sample it is: H(mean p) - mean H(p), in nats.

    0 where all samples get the same word, whether a sharp one or none; at most log K.

    Args:
        p: Probabilities, (n, K).

    Example:
        >>> mutual_information(torch.eye(4)), mutual_information(torch.full((4, 4), 0.25))
        (tensor(1.3863), tensor(0.))
    """
    p = p.float()
    nats: Tensor = torch.special.entr(p.mean(0)).sum() - torch.special.entr(p).sum(1).mean()
    return nats


def used(p: Tensor) -> Tensor:
    """The share of the prototypes that are some sample's first choice, of as many as there can be: min(n, K).

    Example:
        >>> used(torch.tensor([[0.9, 0.1], [0.8, 0.2]]))
        tensor(0.5000)
    """
    counts = torch.bincount(p.argmax(1), minlength=p.shape[1])
    return (counts > 0).sum() / min(p.shape)


def deviation(x: Tensor) -> Tensor:
    """How far the directions of vectors differ: √(1 - ‖mean of x / ‖x‖‖²), 0 if all are one.

    Args:
        x: (n, D).

    Example:
        >>> deviation(torch.ones(5, 3)), deviation(torch.cat([torch.eye(3), -torch.eye(3)]))
        (tensor(0.), tensor(1.))
    """
    return functional.normalize(x.float(), dim=1).var(0, correction=0).sum().sqrt()


def knn(train: Tensor, known: Tensor, test: Tensor, truth: Tensor, kind: str, neighbours: int = 10) -> float:
    """How well the nearest training vectors tell a target: a watch over the training, which takes no part in it.

    Cosine similarity of standardised vectors. Classes: the share of right majorities; labels: the share of right ones;
    regression: R². Samples with a target that is not known (NaN) are left out.

    Args:
        train: (n, D).
        known: Their targets.
        test: (m, D).
        truth: Their targets.
        kind: Kind of the targets.
        neighbours: How many vote, at most n.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [-2.0, 0.0]])
        >>> knn(x, torch.tensor([0, 0, 1, 1]), x, torch.tensor([0, 0, 1, 1]), "binary", neighbours=2)
        1.0
    """
    there, asked = (~targets.isnan().flatten(1).any(1) if targets.ndim > 1 else ~targets.isnan()
                    for targets in (known, truth))  # fmt: skip
    train, known, test, truth = train[there], known[there], test[asked], truth[asked]
    middle = train.mean(0)
    scale = train.std(0, correction=0).clamp(min=1e-6)
    train, test = (functional.normalize((x - middle) / scale, dim=1) for x in (train, test))
    nearest = (test @ train.T).topk(min(neighbours, len(train))).indices  # (m, k)
    votes = known[nearest]
    if kind in ("binary", "multiclass"):
        return float((functional.one_hot(votes.long()).sum(1).argmax(1) == truth).float().mean())
    guess = votes.float().mean(1)
    if kind == "multilabel":
        return float(((guess > 0.5) == truth.bool()).float().mean())
    spread = (truth - truth.mean(0)).square().sum()
    return 1 - float((truth - guess).square().sum() / spread.clamp(min=1e-12))


def verdict(last: Mapping[str, float]) -> list[str]:
    """What the last values of a training say is wrong with it, a line each; none where nothing is.

    Args:
        last: Logged values: ``train/information`` (nats), ``train/deviation``, ``val/knn`` and ``random/knn``.

    Example:
        >>> verdict({"train/information": 0.4, "val/knn": 0.6, "random/knn": 0.5})
        []
        >>> verdict({"train/information": 0.03})[0].partition(";")[0]
        'collapsed: the teacher tells samples apart by 0.030 nats (0.1 or more is usual)'
    """
    found = []
    nats, spread = last.get("train/information", math.inf), last.get("train/deviation", math.inf)
    if nats < LEAST_NATS:
        found.append(
            f"collapsed: the teacher tells samples apart by {nats:.3f} nats ({LEAST_NATS:g} or more is usual); lower "
            "--model.lr or --model.teacher_temperature, or take --model.centring sinkhorn"
        )
    if spread < LEAST_DEVIATION:
        found.append(
            f"collapsed: the vectors of all samples point the same way (deviation {spread:.3f}, {LEAST_DEVIATION:g} or "
            "more is usual); lower --model.lr, or take another objective"
        )
    if last.get("val/knn", math.inf) <= last.get("random/knn", -math.inf):
        found.append(
            f"no better than a random network: its neighbours reach {last['val/knn']:.3f}, a random network's "
            f"{last['random/knn']:.3f}; train longer, change the views, or take another objective"
        )
    return found
