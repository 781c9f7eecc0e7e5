"""The task every modality shares: encoder, pool and head, their losses, metrics and vectors."""
