"""What is trained on what, in a line a part, before training."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import torch

from tasks.data.base import PoolingData
from tasks.data.splits import PARTS

_NAMED = 12  # classes that a line names


def describe(data: PoolingData) -> Iterator[str]:
    """Say which class is positive and why, and of each part its samples, classes and groups; then what is odd in it.

    Args:
        data: Data that have been read.

    Yields:
        Lines, the last ones of samples that were left out and of parts that lack a class.
    """
    spec, odd = data.spec, list[str]()
    if spec["kind"] == "binary":
        why = f" ({data.positive_because})" if data.positive_because else ""
        yield f"positive class: {spec['classes'][1]}{why}; --data.positive NAME chooses"
    for part in PARTS:
        samples = data.samples(part)
        if not samples:
            continue
        groups = {sample.group for sample in samples} - {None}
        counts = class_counts(data, part)
        parts = [f"{len(samples)} samples"]
        if counts:
            named = [f"{name} {counts[name]}" for name in spec["classes"][:_NAMED]]
            parts.append(", ".join([*named, *["…"] * (len(spec["classes"]) > _NAMED)]))
        if len(groups) < len(samples) and groups:
            parts.append(f"{len(groups)} groups")
        yield f"{part}: " + "; ".join(parts)
        if spec["kind"] == "multilabel" and counts:
            odd += _one_sided(data, part)
            continue
        absent = [name for name in spec["classes"] if counts and not counts[name]]
        if absent and spec["kind"] != "regression":
            what = ", ".join(absent[:_NAMED]) + (", …" if len(absent) > _NAMED else "")
            odd.append(f"{part} has no sample of {what}: what needs one, such as AUROC, is undefined there")
    for part, names in data.dropped.items():
        what = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
        yield f"left out of {part}, as a later part has their twins: {len(names)} samples ({what})"
    yield from odd
    yield from _alike({sample.group for part in PARTS for sample in data.samples(part)} - {None})


def class_counts(data: PoolingData, part: str) -> Counter[str]:
    """Samples of each class (of each label, where there are several) in a part; nothing where targets are numbers."""
    kind, classes = data.spec["kind"], data.spec["classes"]
    targets = [sample.target for sample in data.samples(part) if sample.target is not None]
    if kind == "regression" or not targets:
        return Counter()
    if kind == "multilabel":
        hits = torch.stack([torch.as_tensor(target) for target in targets]) > 0
        return Counter(dict(zip(classes, hits.sum(0).tolist(), strict=True)))
    return Counter(classes[int(target)] for target in targets)


def _one_sided(data: PoolingData, part: str) -> list[str]:
    """A line for labels that no sample of a part has, or none lacks, if there are any."""
    hits = torch.stack([torch.as_tensor(sample.target) for sample in data.samples(part)])
    named = []
    for what, value in (("no sample has", 1), ("none lacks", 0)):
        if names := [name for name, hit in zip(data.spec["classes"], (hits == value).any(0), strict=True) if not hit]:
            named.append(f"{what} {', '.join(names[:_NAMED])}" + (", …" if len(names) > _NAMED else ""))
    return [f"in {part} {'; '.join(named)}: ap and auroc are means over the other labels"] if named else []


def _alike(groups: Iterable[str | None]) -> Iterator[str]:
    """A line for groups that are one but for their spelling: ``0`` and ``00``, ``S1`` and ``s1``."""
    spelled: dict[str, list[str]] = {}
    for group in sorted(filter(None, groups)):
        spelled.setdefault(re.sub(r"(?<!\d)0+(?=\d)", "", group.strip().lower()), []).append(group)
    for same in spelled.values():
        if len(same) > 1:
            yield f"groups {' and '.join(map(repr, same))} count as {len(same)}; write them alike if they are one"
