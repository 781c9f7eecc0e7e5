"""The parts of the Flower app: a server and its sites."""
