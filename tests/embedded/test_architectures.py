"""What a torch was built for: read in its library, recorded with its environment, and asked by all who compare GPUs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from builder.embedded import architectures
from builder.store.layout import Store
from tests.script.test_gpu import nvidia_smi
from tests.support import Sandbox, make_wheel

LISTS = ["", "sm_75 sm_90a compute_90", "sm_100f"]
OTHERS = ["gfx942 gfx950", "sm_75, sm_80", "compute_90"]


@pytest.mark.parametrize("flags", [*LISTS, *OTHERS])
def test_the_list_is_read_in_the_library_without_an_import(tmp_path: Path, flags: str) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler makes a library here")
    library = tmp_path / "torch/lib/libtorch_python.so"
    library.parent.mkdir(parents=True)
    # The other words are of torch's own library: its error messages, and the names that NVRTC is asked for.
    code = f'const char *flags() {{ return "{flags}"; }}\nconst char *others() {{ return "sm_%d or compute_"; }}\n'
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=code.encode(), check=True)
    assert architectures.of_torch(tmp_path) == (flags if flags in LISTS else "")


def test_two_lists_or_no_library_are_none(tmp_path: Path) -> None:
    assert architectures.of_torch(tmp_path) == ""
    library = tmp_path / "torch/lib/libtorch_python.so"
    library.parent.mkdir(parents=True)
    for content, expected in ((b"", ""), (b"\0sm_75\0sm_75\0", "sm_75"), (b"\0sm_75\0sm_80\0", "")):
        library.write_bytes(content)
        assert architectures.of_torch(tmp_path) == expected


PROFILE = """\
schema = 1
name = "small"
[target]
platform = "linux-x86_64"
accelerator = "cuda"
cuda = "13.2"
glibc = "2.17"
match = { gpu = "*" }
[python]
version = "3.11"
[packages]
requires = ["torch"]
[trainer]
command = ["python", "-c", "print('trained')"]
"""


@pytest.mark.slow
def test_a_build_records_what_everybody_asks_then(sandbox: Sandbox, tmp_path: Path) -> None:
    """Of a torch that no table knows: before the build it is said, after it the record decides."""
    make_wheel(sandbox.wheels, "nvidia-cuda-runtime", "13.2.86")
    files = {"torch/__init__.py": "", "torch/lib/libtorch_python.so": "\0sm_100 sm_120\0"}
    make_wheel(sandbox.wheels, "torch", "99.0", requires=["nvidia-cuda-runtime"], files=files)
    sandbox.profile("small", PROFILE)
    sandbox.drydock("lock", "small").succeeded()
    nvidia_smi(tmp_path, "13.2", "8.6")
    env = {"PATH": f"{tmp_path}:{sandbox.environment['PATH']}"}
    unknown = "torch 99.0 for CUDA 13.2 has kernels for"
    assert f"warn kernels: which GPUs {unknown} is not known" in sandbox.drydock("doctor", "small", env=env).stdout
    assert f"not known which GPUs {unknown}" in sandbox.drydock("profile", "detect", env=env).stdout
    done = sandbox.drydock("run", "small", env=env)
    done.failed(
        1,
        f"note: it is not known which GPUs {unknown}",
        f"{unknown} sm_100 sm_120, and this GPU has compute capability 8.6",
    )
    (env_folder,) = sandbox.store.glob("*-small")
    assert Store(sandbox.store.parent).architectures(env_folder.name) == ("sm_100", "sm_120")
    assert (
        "FAIL kernels: NVIDIA RTX A6000 has compute capability 8.6"
        in sandbox.drydock("doctor", "small", env=env).stdout
    )
    assert "has kernels for compute capability 10.0, 12.0" in sandbox.drydock("profile", "detect", env=env).stdout
    nvidia_smi(tmp_path, "13.2", "12.1")
    assert sandbox.drydock("run", "small", env=env).succeeded().stdout == "trained\n"
