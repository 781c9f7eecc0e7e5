"""Exported programs and ONNX files: the same numbers at other sizes of everything but the channels."""

import logging
import warnings

import pytest
import torch
from every import BY_NAME, DIAGONAL, EVERY, LAYOUTS, calls, close, every, larger, make, needs_coords
from torch.export import Dim, export

from modalpool import Pool


def exported(pool: Pool, x: torch.Tensor, sets: dict) -> torch.export.ExportedProgram:
    """Every size is dynamic but the channels and the number of coordinates."""
    channel = 1 if pool.layout.text.startswith("b c") else x.ndim - 1
    shapes = {"x": {axis: Dim.AUTO for axis in range(x.ndim) if axis != channel}}
    for name, given in sets.items():
        axes = range(given.ndim - (name == "coords")) if isinstance(given, torch.Tensor) else None
        shapes[name] = Dim.AUTO if axes is None else {axis: Dim.AUTO for axis in axes}
    return export(pool, (x,), sets, dynamic_shapes=shapes)


def in_onnxruntime(program: torch.export.ExportedProgram):
    """Convert, and run a call's tensors in the order of the program's inputs."""
    onnxruntime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is not installed: pip install onnx onnxruntime"
    )
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install onnxscript")
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = torch.onnx.export(program, dynamo=True, verbose=False)
    finally:
        logging.disable(logging.NOTSET)
    session = onnxruntime.InferenceSession(converted.model_proto.SerializeToString())
    names = [given.name for given in session.get_inputs()]

    def run(x, sets):
        values = [given.numpy() for given in (x, *map(torch.as_tensor, sets.values()))]
        return torch.from_numpy(session.run(None, dict(zip(names, values, strict=True)))[0])

    return run


def check(case, layout, convert):
    call = calls(positive=True)[layout]
    pool = make(case, call.layout)
    run = convert(exported(pool, call.x, needs_coords(pool, call)))
    for given in (call, larger(call)):
        sets = needs_coords(pool, given)
        close(run(given.x, sets), pool(given.x, **sets), ulp=64)


def as_module(program):
    return lambda x, sets: program.module()(x, **sets)


@DIAGONAL
def test_exported_programs(case, layout):
    """Each reduction in one layout here, all of them in the slow suite."""
    check(case, layout, as_module)


@pytest.mark.slow
@LAYOUTS
@EVERY
def test_every_exported_program(case, layout):
    check(case, layout, as_module)


def test_onnx_of_graphs_in_any_order():
    check(BY_NAME["mean"], "index", in_onnxruntime)


@pytest.mark.slow
@LAYOUTS
@every("it fits into an ONNX file")
def test_every_onnx_file(case, layout):
    check(case, layout, in_onnxruntime)


def test_the_weights_come_along():
    pool = Pool("b [n] c", "attention", channels=4, heads=2)
    x, mask = torch.randn(2, 5, 4), torch.rand(2, 5) < 0.7
    shapes = {"x": {0: Dim.AUTO, 1: Dim.AUTO}, "mask": {0: Dim.AUTO, 1: Dim.AUTO}, "return_weights": None}
    program = export(pool, (x,), {"mask": mask, "return_weights": True}, dynamic_shapes=shapes)
    x, mask = torch.randn(3, 8, 4), torch.rand(3, 8) < 0.7
    for got, expected in zip(
        program.module()(x, mask=mask, return_weights=True), pool(x, mask=mask, return_weights=True), strict=True
    ):
        close(got, expected)
