"""Let torch compile the network that is trained."""

import torch

from tasks.data.problems import BadInput
from tasks.task.base import PoolingTask


def compile_network(task: PoolingTask, device: torch.device) -> None:
    """Let `torch.compile` make the encoder's code when it first meets a batch; the weights keep their names.

    The encoder is where the time goes: compiling pool and head, too, took three times as long and gained nothing more.

    Raises:
        BadInput: If nothing can be compiled here, for want of a C++ compiler or, on a GPU, of Triton.
    """
    if not isinstance(getattr(task, "encoder", None), torch.nn.Module):
        raise BadInput(f"--compile true: expected a task with an encoder, got {type(task).__name__}; leave it out")
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except RuntimeError as error:
        raise BadInput(
            f"--compile true: expected a machine on which torch.compile works, got {type(error).__name__}: "
            f"{str(error).strip().splitlines()[0]}; install a C++ compiler such as g++ (on a GPU Triton), or leave it "
            "out"
        ) from error
    # A grid's size as a symbol fails in some versions of Inductor; a graph's differs in every batch.
    task.encoder.compile(dynamic=task.sizes_vary)
