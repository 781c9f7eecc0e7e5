"""What the server does: let the sites agree on a spec, average their weights round by round, write what came of it."""

import json
import time

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, FedProx

from app.site import ROOT, planned
from tasks.data.problems import BadInput
from tasks.federate import agree, shared

app = ServerApp()


def specs(grid: Grid, sites: int) -> list[dict]:
    """What the data of all sites say of themselves, by number, once all are there."""
    while len(nodes := list(grid.get_node_ids())) < sites:
        time.sleep(1)
    empty = RecordDict({"config": ConfigRecord()})
    asked = [Message(empty, dst_node_id=node, message_type=MessageType.QUERY) for node in nodes]
    replies = list(grid.send_and_receive(asked, timeout=600))
    failed = [reply.error.reason for reply in replies if reply.has_error()]
    if failed or len(replies) < sites:
        raise BadInput("\n".join([f"expected the specs of {sites} sites, got {len(replies) - len(failed)}", *failed]))
    answers = sorted((reply.content["config"] for reply in replies), key=lambda answer: answer["site"])
    return [json.loads(answer["spec"]) for answer in answers]


def by_site(contents: list[RecordDict], _: str) -> MetricRecord:
    """Each site's metrics under its number, not their mean."""
    found = sorted((content["metrics"] for content in contents), key=lambda metrics: metrics["number"])
    names = [name for name in found[0] if name not in ("number", "samples", "site")]
    return MetricRecord({name: [float(metrics[name]) for metrics in found] for name in names})


@app.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds."""
    run = context.run_config
    sites = int(run["count"])
    spec = agree(specs(grid, sites))
    torch.manual_seed(int(run["seed"]))
    task = planned(str(run["config"]), str(run["flags"])).build_task(spec)
    everyone = {
        "min_train_nodes": sites,
        "min_evaluate_nodes": sites,
        "min_available_nodes": sites,
        "weighted_by_key": "site" if run["equal"] else "samples",
        "train_metrics_aggr_fn": lambda contents, _: MetricRecord({"answered": len(contents)}),
        "evaluate_metrics_aggr_fn": by_site,
    }
    kinds = {"fedavg": lambda: FedAvg(**everyone), "fedprox": lambda: FedProx(**everyone, proximal_mu=float(run["mu"]))}
    if run["strategy"] not in kinds:
        raise BadInput(f"strategy: expected {' or '.join(kinds)}, got {run['strategy']}; choose one of them")
    config = {"spec": json.dumps(spec)}
    result = kinds[run["strategy"]]().start(
        grid,
        ArrayRecord(shared(task, own_norms=bool(run["own-norms"]))),
        num_rounds=int(run["rounds"]),
        train_config=ConfigRecord(config),
        evaluate_config=ConfigRecord(config),
    )
    answered = {number: metrics["answered"] for number, metrics in result.train_metrics_clientapp.items()}
    if list(answered.values()) != [sites] * int(run["rounds"]):
        raise BadInput(
            f"expected {sites} sites to answer in {run['rounds']} rounds, got {answered}; read the log above"
        )
    path = ROOT / str(run["result"])
    torch.save(result.arrays.to_torch_state_dict(), path.with_suffix(".pt"))
    rounds = [dict(metrics) for _, metrics in sorted(result.evaluate_metrics_clientapp.items())]
    path.write_text(json.dumps({"sites": sites, "spec": spec, "rounds": rounds}, indent=2) + "\n")
    print(f"Look at: {path}")
