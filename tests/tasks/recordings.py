"""What data of recordings say of themselves, for tasks that are made without data."""

SPEC = {
    "kind": "multiclass",
    "classes": ["a", "b", "c"],
    "channels": 1,
    "class_counts": [1, 1, 1],
    "sample_rate": 16000,
}
