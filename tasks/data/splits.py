"""Who is trained on, who validates, who tests: stratified and grouped folds, from scikit-learn."""

import warnings
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from tasks.data.problems import BadInput, Problems

PARTS = ("train", "val", "test")


def split(
    targets: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    folds: int = 5,
    fold: int = 0,
    val: float = 0.1,
    seed: int = 0,
    stratify: bool = True,
) -> dict[str, list[int]]:
    """Split samples into train, val and test: fold ``fold`` of ``folds`` tests, a part of the rest validates.

    Args:
        targets: One class (or, with ``stratify=False``, one number) per sample.
        groups: One group (a subject, a drummer) per sample; a group is never divided between parts.
        folds: Number of folds, at least 2.
        fold: The fold held out for testing, 0 to ``folds - 1``.
        val: Share of the training part that is held out for validation, see `hold_out`.
        seed: Seed of the shuffling. The folds depend on it and on nothing else.
        stratify: Keep the classes' shares equal in all parts; leave off for regression.

    Returns:
        The sample numbers of ``"train"``, ``"val"`` and ``"test"``, each sorted.

    Example:
        >>> parts = split([0, 1] * 10, folds=5, fold=0, val=0.25)
        >>> [len(parts[name]) for name in ("train", "val", "test")]
        [12, 4, 4]
    """
    if not 0 <= fold < folds:
        raise ValueError(f"expected a fold between 0 and {folds - 1}, got {fold}; choose another fold or more folds")
    rest, test = _folds(np.arange(len(targets)), targets, groups, folds, seed, stratify)[fold]
    train, validation = _hold_out(rest, targets, groups, val, seed, stratify)
    return {"train": sorted(train.tolist()), "val": sorted(validation.tolist()), "test": sorted(test.tolist())}


def hold_out(
    targets: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    share: float = 0.1,
    seed: int = 0,
    stratify: bool = True,
) -> tuple[list[int], list[int]]:
    """Divide samples in two, as `split` divides training and validation, where the test samples are given.

    Args:
        targets: One class (or number) per sample.
        groups: One group per sample; a group is never divided.
        share: Share that is held out. A class with fewer samples than 1 / share gives one, if it has more than two.
        seed: Seed of the shuffling.
        stratify: Keep the classes' shares equal.

    Returns:
        The sample numbers that stay and those held out, each sorted.

    Example:
        >>> kept, held = hold_out([0, 1] * 10, share=0.25)
        >>> len(kept), len(held)
        (15, 5)
    """
    kept, held = _hold_out(np.arange(len(targets)), targets, groups, share, seed, stratify)
    return sorted(kept.tolist()), sorted(held.tolist())


def _hold_out(
    members: np.ndarray,
    targets: Sequence[float],
    groups: Sequence[Hashable] | None,
    share: float,
    seed: int,
    stratify: bool,
) -> tuple[np.ndarray, np.ndarray]:
    if not 0 < share <= 0.5:
        raise ValueError(f"expected a share above 0 and up to 0.5 to hold out for validation, got {share}; take 0.1")
    folds = max(2, round(1 / share))  # 10 % is one fold of ten
    counts = Counter(targets[i] for i in members) if stratify else Counter({0: len(members)})
    if groups is not None or not stratify:
        return _folds(members, targets, groups, max(2, min(folds, max(counts.values()))), seed, stratify)[0]
    scarce = {label for label, count in counts.items() if count < folds}
    if len(scarce) == len(counts):  # then the share cannot be kept, only the classes
        return _folds(members, targets, groups, max(2, min(counts.values())), seed, stratify)[0]
    # What is too scarce to be in every fold is not to shrink the training part: each such class gives one sample.
    plenty = np.asarray([i for i in members if targets[i] not in scarce])
    rest, held = _folds(plenty, targets, None, folds, seed, stratify)[0]
    generator = np.random.default_rng(seed)
    few = [np.asarray([i for i in members if targets[i] == label]) for label in sorted(scarce)]
    ones = [generator.choice(own) for own in few if len(own) > 2]  # of two, both are needed to learn from
    kept = [i for own in few for i in own if i not in ones]
    return np.asarray([*rest, *kept], dtype=int), np.asarray([*held, *ones], dtype=int)


def _folds(
    members: np.ndarray,
    targets: Sequence[float],
    groups: Sequence[Hashable] | None,
    folds: int,
    seed: int,
    stratify: bool,
) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    y = np.asarray(targets)[members]
    if len(members) < folds or (stratify and max(Counter(y.tolist()).values()) < folds):
        raise BadInput(f"expected at least {folds} samples of a class for {folds} folds, got fewer; choose fewer folds")
    labels = None if groups is None else np.asarray([str(groups[i]) for i in members])
    if labels is not None:
        folds = min(folds, len(set(labels)))
        splitter = (StratifiedGroupKFold if stratify else GroupKFold)(folds, shuffle=True, random_state=seed)
    else:
        splitter = (StratifiedKFold if stratify else KFold)(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A scarce class is missing in some parts. Only in training that matters, and there `check_classes` names it.
        warnings.filterwarnings("ignore", "The least populated class")
        return [(members[rest], members[held]) for rest, held in splitter.split(members, y, labels)]


def check_classes(targets: Mapping[str, Sequence[int]], classes: Sequence[str], problems: Problems) -> list[int]:
    """Count the training samples of each class and report the classes that have none.

    Args:
        targets: The class numbers of each part's samples, by the part's name; ``"train"`` is the one that is counted.
        classes: The class names.
        problems: Where to report; a class nobody can learn cannot be skipped.

    Returns:
        The number of training samples of each class.
    """
    counts: list[int] = np.bincount(np.asarray(targets["train"], dtype=int), minlength=len(classes)).tolist()
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            problems.stop(f"class {name}", "has no training sample; add some, or remove the class")
    return counts
