"""One script a modality, experiments on generated data, and a modality of one's own (`examples.timeseries`)."""
