"""A product of matrices and its gradient on the accelerator, against what the processor makes of it by itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

FRAMEWORKS = ("torch", "mlx", "jax")

# Each function returns product and gradient as lists, and what computed them; it exits with a message where there is no
# such device. The numbers have few bits, so that no mode of a GPU rounds much. No empty lines: a script carries none.
_PROGRAM = """\
import json, sys
framework, wanted = sys.argv[1:]
n = range(64)
a = [[((7 * i + 3 * j) % 11 - 5) / 8 for j in n] for i in n]
b = [[((5 * i + 2 * j) % 13 - 6) / 8 for j in n] for i in n]
gib = lambda size: "%.1f GiB" % (size / 2**30)
def torch():
    import torch
    xpu = getattr(torch, "xpu", None)
    has = {"cpu": True, "mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    has["xpu"] = xpu is not None and xpu.is_available()
    device, said = {"rocm": "cuda"}.get(wanted, wanted), "torch " + torch.__version__
    if not has[device]:
        sys.exit("%s can use %s; the profile wants %s" % (said, ", ".join(name for name in has if has[name]), wanted))
    x, y = torch.tensor(a, device=device, requires_grad=True), torch.tensor(b, device=device)
    product = x @ y
    (product.square().sum() / 2).backward()
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        said += ", %s (%d.%d)" % (torch.cuda.get_device_name(), *torch.cuda.get_device_capability())
        said += ", %s of %s free" % (gib(free), gib(total))
    elif device == "mps":
        said += ", %s for its work" % gib(torch.mps.recommended_max_memory())
    elif device == "xpu":
        said += ", %s, %s" % (xpu.get_device_name(), gib(xpu.get_device_properties(0).total_memory))
    return product.tolist(), x.grad.tolist(), said
def mlx():
    import mlx.core as mx
    said = "mlx " + mx.__version__
    if wanted != "cpu" and not mx.is_available(mx.gpu):
        sys.exit("%s can use cpu; the profile wants %s" % (said, wanted))
    mx.set_default_device(mx.cpu if wanted == "cpu" else mx.gpu)
    x, y = mx.array(a), mx.array(b)
    gradient = mx.grad(lambda x: mx.square(x @ y).sum() / 2)(x)
    memory = mx.device_info().get("max_recommended_working_set_size")
    return (x @ y).tolist(), gradient.tolist(), said + (", %s for its work" % gib(memory) if memory else "")
def jax():
    import jax
    import jax.numpy as np
    said, names = "jax " + jax.__version__, {"cpu": ("cpu",), "mps": ("metal", "mps")}.get(wanted, ("gpu", wanted))
    device = jax.devices()[0]
    if device.platform.lower() not in names:
        sys.exit("%s can use %s; the profile wants %s" % (said, device.platform, wanted))
    x, y = np.array(a), np.array(b)
    gradient = jax.grad(lambda x: ((x @ y) ** 2).sum() / 2)(x)
    limit = (device.memory_stats() or {}).get("bytes_limit")
    said += ", %s" % device.device_kind + (", %s for its work" % gib(limit) if limit else "")
    return (x @ y).tolist(), gradient.tolist(), said
def times(a, b):
    columns = list(zip(*b))
    return [[sum(map(lambda x, y: x * y, row, column)) for column in columns] for row in a]
try:
    product, gradient, said = {"torch": torch, "mlx": mlx, "jax": jax}[framework]()
except Exception as error:
    sys.exit("%s: %s: %s" % (framework, type(error).__name__, str(error).strip().partition("\\n")[0]))
here = times(a, b)
for what, found, right in ("product", product, here), ("gradient", gradient, times(here, list(zip(*b)))):
    most = max(abs(value) for row in right for value in row)
    # Written so that no number at all, NaN, is wrong too.
    if not all(abs(f - r) <= 0.01 * most for row, other in zip(found, right) for f, r in zip(row, other)):
        sys.exit("%s: the %s of two matrices on %s is not what the processor makes of it" % (said, what, wanted))
print(json.dumps(said))
"""


def compute(
    framework: str, accelerator: str, python: str, run: Callable[[list[str]], subprocess.CompletedProcess[str]]
) -> tuple[bool, str]:
    """Whether a framework computes on the accelerator what is right, and what it is or what is wrong."""
    done = run([python, "-c", _PROGRAM, framework, accelerator])
    words = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    if done.returncode:
        return False, words[-1] if words else f"{framework} ends with status {done.returncode} and says nothing"
    return True, f"{json.loads(words[-1])}: a product of matrices and its gradient on {accelerator} are right"
