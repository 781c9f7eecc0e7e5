"""Several processes: what of a batch is a process's own, and what they cannot do."""

from typing import Any

from tasks.data.problems import BadInput


def own_samples(trainer: Any, part: str, batch_idx: int, size: int) -> int:
    """How many samples of a validation or test batch count: the first ones, all but repetitions.

    A distributed sampler deals samples out in turn, and repeats some so that all processes have as many. Counted again
    they would move the metrics, and by more the fewer samples there are. A process without any sample of its own counts
    its repetition: metrics of nothing do not join with others.

    Args:
        trainer: Lightning's; None = no other process.
        part: val or test.
        batch_idx: Number of the batch in this process.
        size: Samples in it.

    Example:
        >>> from types import SimpleNamespace
        >>> loader = SimpleNamespace(dataset=range(5), batch_size=2)
        >>> ranks = [SimpleNamespace(world_size=2, global_rank=rank, val_dataloaders=loader) for rank in (0, 1)]
        >>> [[own_samples(rank, "val", batch, size) for batch, size in enumerate((2, 1))] for rank in ranks]
        [[2, 1], [2, 0]]
    """
    if trainer is None or trainer.world_size == 1:
        return size
    loader = getattr(trainer, f"{part}_dataloaders")
    own = len(range(trainer.global_rank, len(loader.dataset), trainer.world_size))
    return min(max(own - batch_idx * loader.batch_size, 0), size) if own else size


def check_norms(trainer: Any) -> None:
    """See before training that batch norms can be joined where that is asked for.

    Raises:
        BadInput: If not: torch joins them on GPUs alone.
    """
    strategy = trainer.strategy
    if getattr(strategy, "_layer_sync", None) is not None and strategy.root_device.type == "cpu":
        raise BadInput(
            "sync_batchnorm: expected GPUs, without which torch joins no batch norms, got a CPU; leave it out, or take "
            "another norm, --model.norm group for volumes, layer_norm for graphs"
        )
