"""What a site does: say what its data are, train a round, test."""

import json

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod
from flwr.clientapp.typing import ClientAppCallable

from app.site import number, site
from tasks.data.order import seed_of
from tasks.federate import score, shared, train
from tasks.task.base import PoolingTask

app = ClientApp()
OWN = "own"  # where weights that do not travel wait for the next round


def built(message: Message, context: Context) -> PoolingTask:
    """The task, from the run's seed, with the site's own norms if it has any."""
    torch.manual_seed(int(context.run_config["seed"]))
    task = site(context).build_task(json.loads(message.content["config"]["spec"]))
    if OWN in context.state:
        task.load_state_dict(context.state[OWN].to_torch_state_dict(), strict=False)
    return task


def private(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Clip the site's change of the weights and add noise to it, if the run asks for it."""
    run = context.run_config
    if not run["clip"]:
        return call_next(message, context)
    clip = float(run["clip"])  # another sample, whatever it is, moves a clipped change by at most twice its length
    return LocalDpMod(clip, 2 * clip, float(run["epsilon"]), float(run["delta"]))(message, context, call_next)


@app.query()
def describe(message: Message, context: Context) -> Message:
    """The spec of the site's data: classes, counts, mean and spread of targets."""
    answer = ConfigRecord({"spec": json.dumps(site(context).datamodule.spec), "site": number(context)})
    return Message(RecordDict({"config": answer}), reply_to=message)


@app.train(mods=[private])
def fit(message: Message, context: Context) -> Message:
    """One round on the site's samples."""
    run, config = context.run_config, message.content["config"]
    task, data = built(message, context), site(context).datamodule
    weights, count = train(
        task,
        data,
        message.content["arrays"].to_torch_state_dict(),
        number=int(config["server-round"]) - 1,
        rounds=int(run["rounds"]),
        epochs=int(run["epochs"]),
        seed=seed_of(int(run["seed"]), number(context)),
        mu=float(config.get("proximal-mu", 0.0)),
    )
    own = {name: value for name, value in shared(task).items() if name not in weights}
    context.state[OWN] = ArrayRecord(own)
    metrics = MetricRecord({"samples": count, "site": 1})
    return Message(RecordDict({"arrays": ArrayRecord(weights), "metrics": metrics}), reply_to=message)


@app.evaluate()
def test(message: Message, context: Context) -> Message:
    """The common weights on the site's test samples."""
    task, data = built(message, context), site(context).datamodule
    task.load_state_dict(message.content["arrays"].to_torch_state_dict(), strict=False)
    metrics = MetricRecord({**score(task, data), "number": number(context), "samples": 1, "site": 1})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
