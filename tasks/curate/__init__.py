"""What of a data set should not be there: copies, what is too near to a test set, and what is beside the question."""
