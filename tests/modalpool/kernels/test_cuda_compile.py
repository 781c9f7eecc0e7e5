"""The Triton kernels compiled for an H200 without one: what the interpreter does not catch.

That each compiles at all, that its registers suffice (nothing is spilled to memory), and that neighbouring values are
read 16 bytes at a time.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("compiles what the interpreter does not", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from modalpool.kernels.cuda import launch  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
SETS, SIZE, CHANNELS = 512, 4096, 64


class Hopper:
    """A driver that knows what to compile for and can run nothing."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


@pytest.fixture
def compiled(monkeypatch):
    """Launches end where the program would be sent to the card; gives what was compiled, by name."""
    kernels = {}

    def run(self, *args, grid, warmup, run=JITFunction.run, **options):
        kernels[self.fn.__name__] = run(self, *args, grid=grid, warmup=True, **options)

    monkeypatch.setattr(driver, "_active", Hopper())
    monkeypatch.setattr(JITFunction, "run", run)
    return kernels


def launch_all(layout, dtype, heads):
    """Launch every kernel on tensors without contents."""
    ragged = layout in ("ragged", "any order")
    ptr = torch.zeros(SETS + 1, dtype=torch.long) if ragged else None
    order = torch.zeros(SETS * 100, dtype=torch.long) if layout == "any order" else None
    shape = (1, 1, SETS * 100) if ragged else (8, 2, SIZE)
    sets = SETS if ragged else 16
    if layout == "channels first":
        x = torch.empty(8, 2, heads, CHANNELS // heads, SIZE, dtype=dtype).permute(0, 1, 4, 2, 3)
    else:
        x = torch.empty(*shape, heads, CHANNELS // heads, dtype=dtype)
    many = None if ragged else torch.ones(*shape, heads, dtype=torch.bool)
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    where = (many, ptr, order)
    out = torch.empty(sets, heads, CHANNELS // heads, dtype=kind)
    launch.sum_forward(x, None, *where, False)
    launch.sum_backward(out[:, None], x, None, *where, False, True, False)
    weight = torch.empty(*shape, 1, heads, dtype=kind)
    launch.sum_forward(x, weight, *where, True)
    launch.sum_backward(out[:, None], x, weight, *where, True, True, True)
    launch.max_forward(x, *where, True)
    launch.max_backward(out, out, x, *where)
    launch.soften_forward(x, 1.5, *where)
    launch.soften_backward(out, out, out, out, out, x, 1.5, *where)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("layout", ["ragged", "any order", "channels last", "channels first"])
def test_compiles_for_hopper(compiled, layout, dtype, heads, tmp_path):
    launch_all(layout, dtype, heads)
    passes = {"sum_forward", "sum_backward", "max_forward", "max_backward", "soften_forward", "soften_backward"}
    assert passes <= compiled.keys()
    for name, kernel in compiled.items():
        (tmp_path / name).write_bytes(kernel.asm["cubin"])
        usage = subprocess.run([CUOBJDUMP, "--dump-resource-usage", tmp_path / name], capture_output=True, text=True)
        stack = int(re.search(r"STACK:(\d+)", usage.stdout).group(1))
        assert stack <= (64 if dtype == torch.float64 else 16), f"{name} spills {stack} bytes: a smaller tile"
        wide = re.search(r"ld\.global\S*\.(v4\.b32|v2\.b64)", kernel.asm["ptx"])
        # The plain sum's backward reads no x; half-precision tiles with few channels side by side are narrower.
        if name in passes - {"sum_backward"} and (dtype.itemsize >= 4 or heads == 1):
            assert wide, f"{name} reads its values in pieces"
