"""What the features of a network that learns no more are worth: probes with few labels, and figures of elements."""
