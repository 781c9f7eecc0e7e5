"""What a target owes to age, sex and the like: fitted on the training part, and taken off the target of all."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from sklearn.linear_model import LinearRegression

from tasks.data.problems import BadInput
from tasks.data.trained import Trained
from tasks.volume.records import Record, number_of


def fit_covariates(records: Sequence[Record], columns: Sequence[str]) -> dict[str, Any]:
    """Ordinary least squares of the targets on covariates.

    A column of numbers is one regressor, any other one a regressor for each value but the most frequent.

    Args:
        records: The training part, with targets.
        columns: The covariates.

    Returns:
        Plain values: of each regressor column, value (None for a number), mean and slopes, one a target.
    """
    regressors: list[dict[str, Any]] = []
    for column in columns:
        values = [record.values[column] for record in records]
        if all(number_of(value) is not None for value in values):
            regressors.append({"column": column, "value": None})
            continue
        words = [str(value) for value in values]
        first, *others = sorted(set(words), key=lambda word: (-words.count(word), word))
        regressors += [{"column": column, "value": word} for word in others]
        if not others:
            regressors.append({"column": column, "value": first})
    table = np.array([[_number(record.values, one) for one in regressors] for record in records])
    targets = np.stack([record.target.double().numpy() for record in records])
    slopes = LinearRegression().fit(table, targets).coef_.T
    for one, mean, slope in zip(regressors, table.mean(0).tolist(), slopes.tolist(), strict=True):
        one |= {"mean": mean, "slopes": slope}
    return {"columns": list(columns), "regressors": regressors}


def without_covariates(record: Record, fitted: dict[str, Any]) -> Any:
    """The record's target as if its covariates were the training part's mean."""
    target = record.target.clone()
    for one in fitted["regressors"]:
        away = _number(record.values, one) - one["mean"]
        target -= away * target.new_tensor(one["slopes"])
    return target


def take_off(
    parts: Mapping[str, list[Record]], columns: Sequence[str], targets: Sequence[str], trained: Trained | None
) -> dict[str, Any]:
    """Take covariates off the targets of all parts, by slopes of the training part, and say them.

    Args:
        parts: The records by part, whose targets are changed.
        columns: The covariates.
        targets: Names of the targets.
        trained: A model that is tested on the data, whose slopes are taken.

    Returns:
        What was fitted (`fit_covariates`).

    Raises:
        BadInput: If the model was trained with other covariates.
    """
    fitted = fit_covariates(parts["train"], columns) if trained is None else trained.spec.get("covariates")
    if fitted is None or fitted["columns"] != list(columns):
        wanted = "none" if fitted is None else ",".join(fitted["columns"])
        raise BadInput(f"covariates: expected the model's, {wanted}, got {','.join(columns)}")
    if trained is None:
        rank_zero_info("\n".join(_said(fitted, targets)))
    for record in (record for members in parts.values() for record in members):
        record.target = without_covariates(record, fitted)
    return fitted


def _said(fitted: dict[str, Any], targets: Sequence[str]) -> Iterable[str]:
    names = ", ".join(fitted["columns"])
    yield f"targets are taken as if {names} were the training part's mean, by slopes fitted there:"
    for one in fitted["regressors"]:
        name = one["column"] if one["value"] is None else f"{one['column']} = {one['value']}"
        slopes = (f"{slope:+.4g} {target}" for slope, target in zip(one["slopes"], targets, strict=True))
        yield f"  {name}: {', '.join(slopes)}"


def _number(values: Any, regressor: dict[str, Any]) -> float:
    value = values[regressor["column"]]
    return float(value) if regressor["value"] is None else float(str(value) == regressor["value"])
