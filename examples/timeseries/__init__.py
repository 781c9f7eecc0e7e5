"""A modality of one's own: series of numbers in a CSV. CONTRIBUTING.md goes through it."""

from examples.timeseries.data import SeriesData
from examples.timeseries.task import SeriesTask

__all__ = ["SeriesData", "SeriesTask"]
