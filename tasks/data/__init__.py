"""Data of any modality: parts and folds, manifests, batches, and what is wrong with an input."""
