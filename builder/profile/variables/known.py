"""The table: which variable is read by what, how, when, and where that is written.

Each row was checked against its source, and where it could be, by running the library; tests/profile/test_variables.py
runs them again. `pytorch`, `nccl` and so on stand for the repository of the project, a path without one for its wheel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial

from builder.profile.variables.reading import (
    ALLOC_CONF,
    BINDING,
    BLOCKTIME,
    BOOLEAN,
    CHECK_ENV,
    COMPILE_DISABLE,
    DEVICES,
    FLOAT,
    HASH_SEED,
    HUB,
    IGNORED,
    INT,
    NOT_EMPTY,
    ONE,
    PRESENT,
    RAISES,
    SIZE,
    STOI,
    STRTOBOOL,
    STRTOD,
    STRTOL,
    TEXT,
    THREADS,
    TOKENIZERS,
    UNWRITTEN,
    WEIGHTS,
    WORKSPACE,
    Kind,
    Reading,
    one_of,
    threads,
)


@dataclass(frozen=True)
class Variable:
    """A variable that `reader` reads as `kind`; unset, it is as if it were `default` (None: no one value).

    After `when` a change has no effect. `low` and `high` bound a number. `on`: the platforms or accelerators that
    have the reader; empty: all. `instead` is what has replaced it. `caution` is a reading, and what it costs.
    """

    name: str
    kind: Kind
    default: str | None = None
    _: KW_ONLY
    reader: str
    source: str
    when: str
    low: float | None = None
    high: float | None = None
    on: tuple[str, ...] = ()
    instead: str | None = None
    caution: tuple[float | bool | str, str] | None = None

    def read(self, text: str) -> Reading:
        """What the reader makes of `text`."""
        reading = self.kind.read(text)
        if reading.problem is None and isinstance(reading.value, int | float) and not isinstance(reading.value, bool):
            low = float("-inf") if self.low is None else self.low
            high = float("inf") if self.high is None else self.high
            if not low <= reading.value <= high:
                return Reading(reading.value, "is out of range")
        return reading

    def as_json(self) -> dict[str, object]:
        """The row as plain data."""
        fields = ("name", "reader", "allowed", "default", "when", "on", "instead", "source")
        return {field: getattr(self, field) for field in fields}

    @property
    def allowed(self) -> str:
        """What may be written, in words."""
        if self.low is None:
            return self.kind.allowed
        bounds = f"{self.low:.12g} or more" if self.high is None else f"from {self.low:.12g} to {self.high:.12g}"
        return f"{self.kind.allowed}, {bounds}"


_MAC = ("macos-arm64",)
_LINUX = ("linux-x86_64", "linux-arm64")
_CUDA = ("cuda",)

_mps = partial(Variable, reader="PyTorch on MPS", on=_MAC)
_allocator = partial(
    _mps,
    source='PyTorch documentation, "MPS Environment Variables"; pytorch aten/src/ATen/mps/MPSAllocator.mm',
    when="first use of MPS",
)
# Each is in libmlx of mlx 0.32.4 for macOS.
_mlx = partial(Variable, reader="MLX", source="mlx mlx/utils.h, mlx/utils.cpp (env::get_var, atoi)", when="first use")
_profiler = partial(_mps, source="pytorch aten/src/ATen/mps/MPSProfiler.mm", when="first use of MPS")
# GNU's libgomp is in torch's wheels for Linux, LLVM's libomp in those for macOS.
_openmp = partial(
    Variable,
    reader="OpenMP",
    source="llvm-project openmp/docs/design/Runtimes.rst; measured with libgomp",
    when="import torch",
)
_libomp = partial(
    Variable, reader="libomp", source="llvm-project openmp/docs/design/Runtimes.rst", when="import torch", on=_MAC
)
_THREADING = 'PyTorch documentation, "Threading Environment Variables"; pytorch aten/src/ATen/ParallelCommon.cpp'
_torch = partial(Variable, reader="PyTorch", when="import torch")
_DEBUGGING = 'PyTorch documentation, "Debugging Environment Variables"; pytorch c10/util'
_weights = partial(
    _torch,
    source='PyTorch documentation, "Miscellaneous Environment Variables"; torch/serialization.py',
    when="torch.load",
)
_dynamo = partial(Variable, reader="torch.compile", source="torch/_dynamo/config.py", when="import torch._dynamo")
_inductor = partial(Variable, reader="torch.compile", source="torch/_inductor/config.py", when="first torch.compile")
_rendezvous = partial(
    Variable, reader="torch.distributed", source="torch/distributed/rendezvous.py", when="init_process_group"
)
_cuda = partial(Variable, reader="CUDA", when="first use of CUDA", on=_CUDA)
_GUIDE = 'CUDA Programming Guide, "CUDA Environment Variables"'
_torch_cuda = partial(_cuda, reader="PyTorch on CUDA", source='PyTorch documentation, "CUDA Environment Variables"')
_nccl = partial(
    Variable,
    reader="NCCL",
    source='NCCL User Guide, "Environment Variables"; nccl src/misc/param.cc, src/debug.cc',
    when="first communicator",
    on=_CUDA,
)
_nccl_group = partial(
    Variable,
    reader="PyTorch on NCCL",
    source="pytorch torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp, Utils.hpp",
    when="init_process_group",
    on=_CUDA,
)
_hub = partial(Variable, reader="huggingface_hub", source="huggingface_hub/constants.py", when="import")
_transformers = partial(
    Variable, reader="transformers", source="transformers/utils/logging.py, utils/hub.py", when="import"
)
_datasets = partial(Variable, reader="datasets", source="datasets/config.py, utils/logging.py", when="import")
_accelerate = partial(
    Variable, reader="accelerate", source="accelerate/state.py, utils/environment.py", when="Accelerator()"
)
_wandb_callback = partial(
    Variable,
    reader="transformers",
    source="transformers/integrations/integration_utils.py",
    when="Trainer()",
)
_python = partial(
    Variable, reader="Python", source='Python documentation, "Command line and environment"', when="start"
)


_LEVELS = ("debug", "info", "warning", "error", "critical")

_TABLE = (
    # PyTorch on Apple's GPU
    _allocator("PYTORCH_MPS_HIGH_WATERMARK_RATIO", STRTOD, "1.7", low=0, high=2),
    _allocator(
        "PYTORCH_MPS_LOW_WATERMARK_RATIO",
        STRTOD,
        "1.4",
        low=0,
        high=2,
        caution=(0.0, "turns off the collection of unused buffers"),
    ),
    _allocator("PYTORCH_DEBUG_MPS_ALLOCATOR", STRTOL, "0"),
    _profiler("PYTORCH_MPS_LOG_PROFILE_INFO", STRTOL, "0"),
    _profiler("PYTORCH_MPS_TRACE_SIGNPOSTS", STRTOL, "0"),
    _mps(
        "PYTORCH_ENABLE_MPS_FALLBACK",
        STOI,
        "0",
        source='PyTorch documentation, "MPS Environment Variables"; pytorch aten/src/ATen/mps/MPSFallback.mm',
        when="import torch",
    ),
    _mps(
        "PYTORCH_MPS_FAST_MATH",
        STOI,
        "0",
        source="pytorch aten/src/ATen/native/mps (MetalShaderLibrary::compileLibrary)",
        when="first kernel",
    ),
    _mps(
        "PYTORCH_MPS_PREFER_METAL",
        PRESENT,
        source="pytorch aten/src/ATen/native/mps/operations/LinearAlgebra.mm",
        when="first matmul",
    ),
    # MLX
    _mlx("MLX_DISABLE_COMPILE", PRESENT, source="mlx mlx/compile.cpp", when="import mlx.core"),
    _mlx("MLX_BFS_MAX_WIDTH", STRTOL, "20", low=1),
    _mlx("MLX_ENABLE_TF32", STRTOL, "1"),
    _mlx("MLX_MAX_OPS_PER_BUFFER", STRTOL, low=1),
    _mlx("MLX_MAX_MB_PER_BUFFER", STRTOL, low=1),
    _mlx("MLX_METAL_FAST_SYNCH", STRTOL, "0", on=_MAC),
    _mlx("MLX_RESIDENCY_SET_MAX_PCT", STRTOL, "5", low=0, high=100, on=_MAC),
    # Threads
    _openmp("OMP_NUM_THREADS", THREADS, reader="OpenMP, PyTorch", source=_THREADING, low=1),
    Variable(
        "MKL_NUM_THREADS",
        threads("is taken for 1 by MKL"),
        reader="MKL, PyTorch",
        source=f"{_THREADING}; measured",
        when="import torch",
        low=1,
    ),
    Variable(
        "MKL_DYNAMIC",
        BOOLEAN,
        "true",
        reader="MKL",
        source='oneMKL Developer Guide, "MKL_DYNAMIC"',
        when="import torch",
        on=("linux-x86_64",),
    ),
    _openmp("OMP_DYNAMIC", BOOLEAN, "false"),
    _openmp("OMP_WAIT_POLICY", one_of(("active", "passive"), IGNORED, any_case=True)),
    _openmp("OMP_PROC_BIND", BINDING, "false", on=_LINUX),
    _openmp("OMP_STACKSIZE", SIZE),
    _openmp("GOMP_STACKSIZE", SIZE),
    _openmp("OMP_THREAD_LIMIT", THREADS, low=1),
    _libomp("KMP_BLOCKTIME", BLOCKTIME, "200"),
    _libomp("KMP_STACKSIZE", SIZE),
    _libomp(
        "KMP_DUPLICATE_LIB_OK",
        TEXT,
        source="libomp's message about a second OpenMP runtime",
        caution=("TRUE", "may crash or silently give wrong results, libomp says: find the second OpenMP"),
    ),
    Variable(
        "OPENBLAS_NUM_THREADS",
        threads(UNWRITTEN),
        reader="OpenBLAS (in NumPy)",
        source="OpenBLAS driver/others/init.c; measured",
        when="import numpy",
        low=1,
    ),
    Variable(
        "VECLIB_MAXIMUM_THREADS",
        threads(UNWRITTEN),
        reader="Apple's Accelerate",
        source='Apple Developer Forums, "Controlling number of threads used by Accelerate framework"',
        when="first use",
        low=1,
        on=_MAC,
    ),
    # Unset is on as well, but then a fork turns it off and warns: so `true` is not the default.
    Variable(
        "TOKENIZERS_PARALLELISM",
        TOKENIZERS,
        reader="tokenizers",
        source="tokenizers tokenizers/src/utils/parallelism.rs; measured",
        when="each batch",
    ),
    Variable(
        "RAYON_NUM_THREADS",
        threads("is ignored silently"),
        reader="tokenizers",
        source="measured with tokenizers 0.21",
        when="first batch",
        low=1,
    ),
    # PyTorch
    _torch(
        "TORCH_CPP_LOG_LEVEL",
        one_of(("INFO", "WARNING", "ERROR", "FATAL", "0", "1", "2", "3"), IGNORED),
        source=_DEBUGGING,
    ),
    _torch("TORCH_SHOW_CPP_STACKTRACES", CHECK_ENV, "0", source=_DEBUGGING),
    _torch(
        "TORCH_DISTRIBUTED_DEBUG",
        one_of(("OFF", "INFO", "DETAIL"), RAISES, any_case=True),
        "OFF",
        source="measured with torch 2.13",
    ),
    _weights("TORCH_FORCE_WEIGHTS_ONLY_LOAD", WEIGHTS, "0"),
    _weights(
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
        WEIGHTS,
        "0",
        caution=(True, "lets a checkpoint run any code when it is loaded"),
    ),
    _torch("TORCH_DEVICE_BACKEND_AUTOLOAD", ONE, "1", source="torch/__init__.py"),
    _torch("TORCH_HOME", TEXT, source="torch/hub.py", when="first use of torch.hub"),
    _torch("TORCH_LOGS", TEXT, source="torch/_logging/_internal.py"),
    _torch(
        "ATEN_CPU_CAPABILITY",
        one_of(("default", "avx2", "avx512", "vsx", "zvector", "sve256"), UNWRITTEN),
        source="measured with torch 2.13; pytorch aten/src/ATen/native/DispatchStub.cpp",
        when="first kernel",
    ),
    _dynamo("TORCH_COMPILE_DISABLE", COMPILE_DISABLE),
    _dynamo("TORCHDYNAMO_DISABLE", ONE, "0", source="torch/_dynamo/eval_frame.py", when="each torch.compile"),
    _dynamo("TORCHDYNAMO_SUPPRESS_ERRORS", NOT_EMPTY, ""),
    _inductor("TORCHINDUCTOR_CACHE_DIR", TEXT, source="torch/_inductor/runtime"),
    _inductor("TORCHINDUCTOR_COMPILE_THREADS", INT, low=1),
    _inductor("TORCHINDUCTOR_MAX_AUTOTUNE", ONE, "0"),
    # Several processes
    _rendezvous("MASTER_ADDR", TEXT),
    _rendezvous("MASTER_PORT", INT, low=0, high=65535),
    _rendezvous("RANK", INT, low=0),
    _rendezvous("WORLD_SIZE", INT, low=1),
    _rendezvous(
        "LOCAL_RANK",
        INT,
        reader="torch.distributed, accelerate",
        source="torch/distributed/distributed_c10d.py; accelerate/state.py",
        low=-1,
    ),
    _rendezvous("GLOO_SOCKET_IFNAME", TEXT, source="its name in libtorch_cpu"),
    # CUDA
    _cuda("CUDA_VISIBLE_DEVICES", DEVICES, source=f"{_GUIDE}; torch/cuda/__init__.py"),
    _cuda(
        "CUDA_LAUNCH_BLOCKING",
        ONE,
        "0",
        source='PyTorch documentation, "CUDA Environment Variables"',
        caution=(True, "makes every launch wait: for debugging only"),
    ),
    _cuda(
        "CUDA_MODULE_LOADING",
        one_of(("LAZY", "EAGER"), UNWRITTEN),
        "LAZY",
        source='CUDA Programming Guide, "Lazy Loading"; torch/cuda/__init__.py',
    ),
    _torch_cuda("PYTORCH_ALLOC_CONF", ALLOC_CONF),
    _torch_cuda("PYTORCH_CUDA_ALLOC_CONF", ALLOC_CONF),
    _torch_cuda(
        "PYTORCH_NO_CUDA_MEMORY_CACHING",
        ONE,
        caution=(True, "asks the driver for every tensor: for debugging only"),
    ),
    _torch_cuda("PYTORCH_NVML_BASED_CUDA_CHECK", ONE, "0", source="torch/cuda/__init__.py"),
    _torch_cuda("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", CHECK_ENV, "0", when="import torch"),
    _torch_cuda("CUBLAS_WORKSPACE_CONFIG", WORKSPACE, reader="cuBLAS"),
    # NCCL
    _nccl(
        "NCCL_DEBUG",
        one_of(("VERSION", "WARN", "INFO", "ABORT", "TRACE"), UNWRITTEN, any_case=True),
    ),
    _nccl("NCCL_DEBUG_SUBSYS", TEXT),
    _nccl("NCCL_DEBUG_FILE", TEXT),
    _nccl("NCCL_P2P_DISABLE", STRTOL),
    _nccl("NCCL_SHM_DISABLE", STRTOL),
    _nccl("NCCL_IB_DISABLE", STRTOL, "0", source="nccl src/transport/net_ib (NCCL_PARAM), src/misc/param.cc"),
    _nccl(
        "NCCL_P2P_LEVEL",
        one_of(("LOC", "NVL", "PIX", "PXB", "PHB", "SYS", *"012345"), UNWRITTEN),
    ),
    _nccl("NCCL_SOCKET_IFNAME", TEXT),
    _nccl_group("TORCH_NCCL_ASYNC_ERROR_HANDLING", STOI, "3", low=0, high=3),
    _nccl_group("TORCH_NCCL_BLOCKING_WAIT", STOI, low=0, high=1),
    _nccl_group("TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC", STOI, low=0),
    _nccl_group("TORCH_NCCL_ENABLE_MONITORING", STOI, "1", low=0, high=1),
    _nccl_group("TORCH_NCCL_DESYNC_DEBUG", STOI, "0", low=0, high=1),
    _nccl_group("TORCH_NCCL_NAN_CHECK", STOI, "0", low=0, high=1),
    _nccl_group("NCCL_ASYNC_ERROR_HANDLING", STOI, low=0, high=3, instead="TORCH_NCCL_ASYNC_ERROR_HANDLING"),
    _nccl_group("NCCL_BLOCKING_WAIT", STOI, low=0, high=1, instead="TORCH_NCCL_BLOCKING_WAIT"),
    # Hugging Face
    _hub("HF_HOME", TEXT),
    _hub("HF_HUB_CACHE", TEXT),
    _hub("HUGGINGFACE_HUB_CACHE", TEXT, instead="HF_HUB_CACHE"),
    _hub("HF_ENDPOINT", TEXT),
    _hub("HF_TOKEN_PATH", TEXT),
    _hub("HF_HUB_OFFLINE", HUB, "0"),
    _hub("HF_HUB_ENABLE_HF_TRANSFER", HUB, "0"),
    _hub("HF_HUB_DISABLE_TELEMETRY", HUB, "0"),
    _hub("HF_HUB_DISABLE_SYMLINKS_WARNING", HUB, "0"),
    _hub("HF_HUB_DISABLE_EXPERIMENTAL_WARNING", HUB, "0"),
    _hub("HF_HUB_DISABLE_IMPLICIT_TOKEN", HUB, "0"),
    _hub("HF_HUB_DISABLE_PROGRESS_BARS", HUB),
    _hub("HF_DEBUG", HUB, "0"),
    _hub("DO_NOT_TRACK", HUB, "0"),
    # A timeout of 0 becomes the default: `int(...) or 10`.
    _hub("HF_HUB_ETAG_TIMEOUT", INT, "10", low=1),
    _hub("HF_HUB_DOWNLOAD_TIMEOUT", INT, "10", low=1),
    _hub("HF_HUB_VERBOSITY", one_of(_LEVELS, IGNORED), "warning", source="huggingface_hub/utils/logging.py"),
    _hub("TRANSFORMERS_OFFLINE", HUB, "0"),
    _transformers("TRANSFORMERS_VERBOSITY", one_of(("detail", *_LEVELS), IGNORED), "warning"),
    _transformers("TRANSFORMERS_NO_ADVISORY_WARNINGS", NOT_EMPTY, "", when="each warning"),
    _transformers("TRANSFORMERS_CACHE", TEXT, instead="HF_HOME"),
    _transformers("PYTORCH_TRANSFORMERS_CACHE", TEXT, instead="HF_HOME"),
    _datasets("HF_DATASETS_CACHE", TEXT),
    _datasets("HF_DATASETS_OFFLINE", HUB),
    _datasets("HF_DATASETS_IN_MEMORY_MAX_SIZE", FLOAT, "0", low=0),
    _datasets("DATASETS_VERBOSITY", one_of(_LEVELS, IGNORED), "warning"),
    _accelerate("ACCELERATE_USE_CPU", STRTOBOOL, "0"),
    _accelerate("ACCELERATE_DEBUG_MODE", STRTOBOOL, "0"),
    _accelerate("ACCELERATE_CPU_AFFINITY", STRTOBOOL, "0"),
    _accelerate("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", INT, source="accelerate/accelerator.py", low=1),
    _accelerate("ACCELERATE_TORCH_DEVICE", TEXT),
    _accelerate(
        "ACCELERATE_LOG_LEVEL",
        one_of((*_LEVELS, "warn", "fatal", "notset"), RAISES, any_case=True),
        source="accelerate/logging.py",
        when="get_logger",
    ),
    # Weights & Biases
    Variable(
        "WANDB_MODE",
        one_of(("online", "offline", "dryrun", "disabled", "run", "shared"), RAISES),
        "online",
        reader="wandb",
        source="wandb/sdk/wandb_settings.py",
        when="wandb.init",
    ),
    _wandb_callback("WANDB_DISABLED", HUB, instead="--report_to none"),
    _wandb_callback("WANDB_PROJECT", TEXT, "huggingface"),
    _wandb_callback(
        "WANDB_WATCH",
        one_of(("all", "gradients", "parameters", "false"), "counts as false"),
        "false",
    ),
    _wandb_callback(
        "WANDB_LOG_MODEL",
        one_of(("end", "checkpoint", "false"), "ends the program with an exception (true), or counts as false"),
        "false",
    ),
    # Python
    _python("PYTHONHASHSEED", HASH_SEED, "random", low=0, high=4294967295),
    _python("PYTHONUNBUFFERED", NOT_EMPTY, ""),
    _python("PYTHONFAULTHANDLER", NOT_EMPTY, ""),
)

KNOWN: Mapping[str, Variable] = {variable.name: variable for variable in _TABLE}
"""What is read, by name."""

_CAP = "PYTORCH_MPS_HIGH_WATERMARK_RATIO and PYTORCH_MPS_LOW_WATERMARK_RATIO limit the memory"
_MLX = (
    "the program sets it: mx.set_memory_limit, mx.set_cache_limit, mx.set_wired_limit; macOS has a limit of its own, "
    "sysctl iogpu.wired_limit_mb"
)
_DEVICE = "the program chooses the device; PYTORCH_ENABLE_MPS_FALLBACK lets missing operators run on the CPU"

FOLKLORE: Mapping[str, str] = {
    "PYTORCH_MPS_ALLOCATOR_POLICY": _CAP,
    "PYTORCH_MPS_MEMORY_FRACTION": _CAP,
    "PYTORCH_MPS_MEMORY_LIMIT": _CAP,
    "MPS_DEVICE_MEMORY_LIMIT": _CAP,
    "MPS_MEMORY_LIMIT": _CAP,
    "MLX_MEMORY_LIMIT": _MLX,
    "MLX_CACHE_LIMIT": _MLX,
    "MLX_WIRED_LIMIT": _MLX,
    "PYTORCH_ENABLE_MPS": _DEVICE,
    "PYTORCH_MPS_ENABLED": _DEVICE,
    "PYTORCH_USE_MPS": _DEVICE,
    "PYTORCH_MPS_FALLBACK": "it is called PYTORCH_ENABLE_MPS_FALLBACK",
    "ACCELERATE_USE_MPS_DEVICE": "accelerate takes MPS where it is; ACCELERATE_USE_CPU turns it off",
    "PYTORCH_NUM_THREADS": "it is called OMP_NUM_THREADS",
    "TORCH_NUM_THREADS": "it is called OMP_NUM_THREADS",
}
"""Copied from recipe to recipe, and read by nothing: none is in any file of the wheels of torch 2.5.1 for macOS and
torch 2.13.0 for Linux, mlx 0.32.4 for both, transformers 4.52.4, accelerate 1.1.1, tokenizers 0.21.2. With what to do
instead."""
