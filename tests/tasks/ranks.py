"""The command line in two processes of this one, as torchrun would start it."""

import multiprocessing
import os
import socket

import torch
import torch.multiprocessing as mp

from tasks.__main__ import main

PROCESSES = 2


def _one(rank, port, commands):
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="tests", GROUP_RANK="0",
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(PROCESSES), LOCAL_WORLD_SIZE=str(PROCESSES),
    )  # fmt: skip
    for command in commands:
        main(command)


def in_two_processes(*commands):
    """Run commands one after the other in each of two processes that know of each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A server that has loaded the libraries and run nothing: who has gone backward may not be copied.
    multiprocessing.set_forkserver_preload(["tasks.commands.cli", "tasks.__main__", "toy"])
    flags = ["--trainer.strategy=ddp", f"--trainer.devices={PROCESSES}"]
    mp.start_processes(
        _one, args=(port, [[*command, *flags] for command in commands]), nprocs=PROCESSES, start_method="forkserver"
    )
