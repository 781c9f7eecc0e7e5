"""What pooled vectors are for: nearest neighbours, in a table that `python -m tasks embed` wrote."""
