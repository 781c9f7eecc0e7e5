#!/bin/bash
# Two nodes with four GPUs each, a process a GPU:  sbatch examples/slurm.sh configs/volume/csv.yaml [flags of fit]
# What ran out of time goes on:        sbatch examples/slurm.sh configs/volume/csv.yaml --ckpt_path last
#SBATCH --job-name=modalpool
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00

srun .venv/bin/python -m tasks fit -c "$@" --trainer.strategy ddp --trainer.num_nodes 2 --trainer.devices 4
