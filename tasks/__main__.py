"""The command line: ``python -m tasks COMMAND -c configs/<modality>/<name>.yaml``; without a command its help."""

import importlib
import sys
import warnings

from tasks.data.problems import BadInput
from tasks.extras import uncollected

HELP = """Train, test and explain pooled classifiers and regressors on graphs, audio and volumes.

  python -m tasks fit -c configs/volume/lesions.yaml            train, then test the best checkpoint
  python -m tasks test -c CONFIG --ckpt_path best               test the newest run's best checkpoint
  python -m tasks predict -c CONFIG --ckpt_path FILE            predictions and maps
  python -m tasks explain --ckpt_path FILE --input FILE ...     prediction, picture and map of a file
  python -m tasks predict --ckpt_path FILE --input FILE ... [--window 1.0]      predictions of files; curves and events
  python -m tasks crossval -c CONFIG [--seeds 0,1,2]            every fold: mean, sd and rows
  python -m tasks compare -c CONFIG --reductions mean,max,attention:heads=4     pools on the same folds and seeds
  python -m tasks floors -c CONFIG                              what simple baselines reach on the same folds
  python -m tasks heads -c CONFIG [--hidden 0,256]              pooled head beside flatten + fully connected layers
  python -m tasks pretrain -c CONFIG --model.objective ntxent   train its encoder without labels: ntxent, dino, masked
  python -m tasks probe -c CONFIG --ckpt_path best              frozen features beside their floors, with few labels
  python -m tasks embed -c CONFIG --ckpt_path best              the vectors of all samples, or of --input FILE
  python -m tasks search --index embeddings.parquet --query ID|FILE|SMILES      the samples that are most like one
  python -m tasks curate -c CONFIG --out DIR --duplicates       copies, leaks and what is beside the question
  python -m tasks match -c CONFIG -c configs/audio/match.yaml    two towers: samples and what is said of them
  python -m tasks judge -c CONFIG --ckpt_path best              maps beside the truth and other maps
  python -m tasks diagnose -c CONFIG --ckpt_path best           what pool and network do to patterns, mixtures, shifts
  python -m tasks results --data DIR [--only mutag]             the numbers of the README, each by its command
  python -m tasks fit -c CONFIG --model.reduction attention --model.heads 4 --print_config
"""

_COMMANDS = (
    "results", "crossval", "compare", "floors", "heads", "embed", "judge", "diagnose", "explain", "pretrain", "probe",
    "search", "curate", "match",
)  # fmt: skip

# Said by Lightning of small data on a laptop, or of its own innards; nothing a user should do anything about.
_EXPECTED = [
    ".*does not have many workers.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    ".*Checkpoint directory .* exists.*",
    ".*You passed in a `val_dataloader` but have no `validation_step`.*",  # pretraining has no labels to validate by
    ".*module\\(s\\) in eval mode at the start of training.*",  # its teacher always is
    ".*LightningCLI's args parameter is intended to run from within Python.*",
    ".*your dataloader is not resumable.*",  # its order is (`tasks.data.order`)
    ".*WeightAveraging state cannot be restored.*",  # a test needs the averaged weights, which it has
]


def main(args: list[str] | None = None) -> None:
    """Run the command line; bad input ends in its message and exit status 1, not in a traceback."""
    for message in _EXPECTED:
        warnings.filterwarnings("ignore", message)
    given = sys.argv[1:] if args is None else args
    if not given or given[0] in ("-h", "--help"):
        print(HELP)
        return
    try:
        if given[0] in _COMMANDS or (
            given[0] == "predict" and "--input" in given
        ):  # each in its own file, under its own name
            if given[0] != "pretrain":  # other processes of it are started by what is there
                sys.argv = sys.argv[:1]  # Lightning warns of arguments it finds there beside those it is given
            with uncollected():
                module = importlib.import_module(f"tasks.commands.{given[0]}")
            getattr(module, given[0])(given[1:])
        else:
            with uncollected():
                from tasks.commands.cli import run_cli

            run_cli(args)
    except BadInput as error:  # of a process that loads batches, the message stands at its traceback's end
        sys.exit(f"error: {str(error).rpartition('BadInput: ')[2]}")


if __name__ == "__main__":
    main()
