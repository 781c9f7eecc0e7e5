"""Training at many sites whose data stay where they are."""

from tasks.federate.rounds import average, federate, score, shared, train
from tasks.federate.specs import agree

__all__ = ["agree", "average", "federate", "score", "shared", "train"]
