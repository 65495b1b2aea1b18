"""What machines say of themselves, as captured on real ones (tests/captured/README.md), and programs that misbehave."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from builder import process
from builder.machine import Gpu, Machine, OtherGpu, detect, fit, linux, macos, nvidia, others
from builder.profile.target import Target
from tests.conftest import ROOT
from tests.support import Sandbox
from tests.support.waiting import allowed

GIB = 2**30


def captured(name: str) -> str:
    """A captured output."""
    return (ROOT / "tests/captured" / name).read_text()


def test_every_capture_says_where_it_is_from() -> None:
    listed = captured("README.md")
    for path in (ROOT / "tests/captured").iterdir():
        stem = path.name.split(".")[0]
        assert path.name == "README.md" or f"`{path.name}`" in listed or f"`{stem}.*`" in listed, path.name


# --- macOS ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capture", "chip", "performance", "efficiency", "usable", "memory"),
    [
        ("m1-rosetta", "Apple M1", 4, 4, 8, 16),
        ("m1-big-sur", "", None, None, 8, None),
        ("m1-pro", "", 8, 2, 10, None),
        ("m2-max", "", 8, 4, None, 64),
        ("m3-max", "Apple M3 Max", 10, 4, 14, 36),
        ("m4", "Apple M4", None, None, None, 24),
        ("m4-pro", "", 8, 4, 12, 24),
        ("m4-max", "Apple M4 Max", 12, 4, 16, 64),
        ("m5", "Apple M5", 4, 6, 10, 24),
    ],
)
def test_sysctl(
    capture: str, chip: str, performance: int | None, efficiency: int | None, usable: int | None, memory: int | None
) -> None:
    found = macos.facts("arm64", {**dict.fromkeys(macos.COMMANDS, ""), macos.SYSCTL: captured(f"{capture}.sysctl")})
    assert (found["chip"], found["performance_cores"], found["efficiency_cores"]) == (chip, performance, efficiency)
    assert found["usable_cores"] == usable
    assert found["memory"] == (None if memory is None else memory * GIB)


def test_performance_levels_that_are_said_to_be_empty_are_unknown() -> None:
    text = captured("m4-max.sysctl").replace("hw.perflevel0.physicalcpu: 12", "hw.perflevel0.physicalcpu: 0")
    assert macos.count_cores(macos.parse_sysctl(text)) == (None, 4)


def test_all_cores_of_an_intel_mac_are_alike() -> None:
    values = {"hw.cputype": "7", "hw.physicalcpu": "6", "hw.logicalcpu": "12"}
    assert macos.count_cores(values) == (6, 0)


def test_only_a_translated_process_is_told_of_an_intel_processor() -> None:
    outputs = {**dict.fromkeys(macos.COMMANDS, ""), macos.SYSCTL: captured("m1-rosetta.sysctl")}
    assert macos.facts("x86_64", outputs)["rosetta"]
    assert not macos.facts("arm64", outputs)["rosetta"]
    assert not macos.facts("x86_64", dict.fromkeys(macos.COMMANDS, ""))["rosetta"]


def test_the_version_of_macos() -> None:
    assert macos.parse_sw_vers(captured("m4.sw_vers")) == "macOS 26.5"
    assert macos.parse_sw_vers(captured("m1.sw_vers")) == "macOS 14.4.1"


def test_free_memory_of_a_mac_is_what_macos_goes_by() -> None:
    outputs = {
        **dict.fromkeys(macos.COMMANDS, ""),
        macos.SYSCTL: captured("m4.sysctl"),
        macos.MEMORY_PRESSURE: captured("mac-24gb.memory_pressure"),
        macos.VM_STAT: captured("mac-24gb.vm_stat"),
    }
    assert macos.facts("arm64", outputs)["memory_free"] == 24 * GIB * 80 // 100
    # Without it, the pages that hold nothing, or what is on disk too.
    outputs[macos.MEMORY_PRESSURE] = ""
    assert macos.facts("arm64", outputs)["memory_free"] == (39656 + 590748 + 11333) * 16384
    assert macos.parse_vm_stat(captured("intel-mac.vm_stat")) == (6127229 + 628646 + 11820) * 4096


# --- Linux ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capture", "chip"),
    [
        ("epyc-vm", "AMD EPYC"),
        ("graviton2", "Neoverse-N1"),
        ("graviton3", "Neoverse-V1"),
        ("altra", "Neoverse-N1"),
        ("ampere1a", "Ampere-1a"),
        ("raspberry-pi-5", "Raspberry Pi 5 Model B Rev 1.0"),
        ("raspberry-pi-4", "Raspberry Pi 4 Model B Rev 1.5"),
        ("jetson-xavier-nx", "Carmel"),
        ("jetson-nano", "Cortex-A57"),
    ],
)
def test_cpuinfo(capture: str, chip: str) -> None:
    assert linux.parse_cpuinfo(captured(f"{capture}.cpuinfo")) == chip


@pytest.mark.parametrize("capture", ["altra", "jetson-orin", "grace"])
def test_arm_cores_have_the_names_that_lscpu_gives_them(capture: str) -> None:
    name = re.search(r"Model name: +(\S+)", captured(f"{capture}.lscpu"))
    assert name is not None
    assert name[1] in linux.ARM_CORES.values()


def test_the_virtual_machine_of_the_captures(tmp_path: Path) -> None:
    for place, capture in {
        "proc/cpuinfo": "epyc-vm.cpuinfo",
        "proc/meminfo": "epyc-vm.meminfo",
        "proc/self/cgroup": "epyc-vm.cgroup",
        "proc/self/status": "epyc-vm.status",
        "etc/os-release": "debian-12.os-release",
    }.items():
        put(tmp_path, place, captured(capture))
    processors(tmp_path, ["0-1", "0-1"])
    put(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert linux.facts(tmp_path) == {
        "os": "Debian GNU/Linux 12 (bookworm)",
        "chip": "AMD EPYC",
        "performance_cores": 1,
        "efficiency_cores": 0,
        "usable_cores": 2,
        "memory": 24684092 * 1024,
        "memory_limit": None,
        "memory_free": linux.parse_meminfo(captured("epyc-vm.meminfo"))["MemAvailable"],
    }


def put(root: Path, place: str, text: str) -> None:
    """A file of another machine."""
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text(text)


def processors(root: Path, siblings: list[str], allowed: str | None = None) -> None:
    """Processors 0, 1, ... of another machine, each with those that share its core."""
    everything = f"0-{len(siblings) - 1}\n"
    put(root, "sys/devices/system/cpu/online", everything)
    for number, group in enumerate(siblings):
        put(root, f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list", f"{group}\n")
    put(root, "proc/self/status", f"Name:\tpython\nCpus_allowed_list:\t{allowed or everything}\n")
    put(
        root,
        "proc/self/cgroup",
        (root / "proc/self/cgroup").read_text() if (root / "proc/self/cgroup").exists() else "",
    )


def test_the_cores_of_an_intel_hybrid(tmp_path: Path) -> None:
    # As lscpu tells of an Ultra 9 185H: 6 cores with two threads, 10 with one (util-linux/util-linux #4595).
    pairs = [f"{2 * core}-{2 * core + 1}" for core in range(6) for _ in range(2)]
    processors(tmp_path, [*pairs, *(str(number) for number in range(12, 22))])
    put(tmp_path, "sys/devices/cpu_core/cpus", "0-11\n")
    put(tmp_path, "sys/devices/cpu_atom/cpus", "12-21\n")
    found = linux.facts(tmp_path)
    assert (found["performance_cores"], found["efficiency_cores"], found["usable_cores"]) == (6, 10, 22)


def test_the_cores_of_an_arm_board_with_two_kinds() -> None:
    # Rockchip RK3588: processors 0 to 3 are Cortex-A55, 4 to 7 Cortex-A76 (hrw/arm-socs-table #18).
    capacities = {**dict.fromkeys(range(4), 400), **dict.fromkeys(range(4, 8), 1024)}
    assert linux.count_cores(range(8), frozenset(), capacities) == (4, 4)
    assert linux.count_cores(range(8), frozenset(), {}) == (8, 0)
    assert linux.count_cores([], frozenset(), {}) == (None, None)


def test_affinity_counts_processors_that_are_online(tmp_path: Path) -> None:
    # A kernel made for many allows all that it could ever have.
    processors(tmp_path, ["0", "1", "2", "3"], allowed="0-2,64-127\n")
    assert linux.facts(tmp_path)["usable_cores"] == 3


@pytest.mark.parametrize(
    ("cpu", "memory", "cores", "limit"),
    [
        ("42000 100000\n", "44040192\n", 1, 44040192),  # opencontainers/runc #2243, --cpus 0.42 --memory 42m
        ("max 100000\n", "44040192\n", 24, 44040192),  # the same thread, where the first had no effect
        ("600000 100000\n", "max\n", 6, None),  # coreutils/coreutils #108, --cpus=6 on 24
        ("max 100000\n", "max\n", 24, None),
        ("", "", 24, None),
        ("6000000 100000\n", "9999999999999\n", 24, None),
    ],
)
def test_a_container_of_control_groups_version_2(
    tmp_path: Path, cpu: str, memory: str, cores: int, limit: int | None
) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/\n")
    processors(tmp_path, [str(number) for number in range(24)])
    put(tmp_path, "proc/meminfo", "MemTotal:        8165020 kB\n")
    put(tmp_path, "sys/fs/cgroup/cpu.max", cpu)
    put(tmp_path, "sys/fs/cgroup/memory.max", memory)
    found = linux.facts(tmp_path)
    assert (found["usable_cores"], found["memory_limit"]) == (cores, limit)


def test_a_limit_of_a_group_above_counts_too(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/job-1.slice/docker-6fa8.scope\n")  # as in google/cadvisor #3682
    processors(tmp_path, ["0", "1", "2", "3"])
    put(tmp_path, "proc/meminfo", "MemTotal:        8165020 kB\n")
    put(tmp_path, "sys/fs/cgroup/job-1.slice/cpu.max", "200000 100000\n")
    put(tmp_path, "sys/fs/cgroup/job-1.slice/memory.max", "1073741824\n")
    put(tmp_path, "sys/fs/cgroup/job-1.slice/docker-6fa8.scope/cpu.max", "max 100000\n")
    put(tmp_path, "sys/fs/cgroup/job-1.slice/docker-6fa8.scope/memory.max", "max\n")
    found = linux.facts(tmp_path)
    assert (found["usable_cores"], found["memory_limit"]) == (2, GIB)


def test_a_container_of_control_groups_version_1(tmp_path: Path) -> None:
    # The folder that the kernel names is one of the host's: what is mounted here is that folder itself.
    put(tmp_path, "proc/self/cgroup", captured("containerd.cgroup") + "4:memory:/kubepods/pod1/2b7a\n")
    processors(tmp_path, ["0", "1"])
    put(tmp_path, "proc/meminfo", "MemTotal:        8165020 kB\n")  # FillZpp/sys-info-rs #30, -m 128m
    put(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n")
    put(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n")
    put(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    found = linux.facts(tmp_path)
    assert (found["usable_cores"], found["memory_limit"]) == (1, 134217728)


def test_an_empty_machine_is_unknown_and_nothing_fails(tmp_path: Path) -> None:
    found = linux.facts(tmp_path)
    assert {key for key, value in found.items() if value} == set()
    for place in ("proc/cpuinfo", "proc/meminfo", "proc/self/status", "proc/self/cgroup", "etc/os-release"):
        put(tmp_path, place, "\udcff\0garbage: : :\n::\n".encode("utf-8", "surrogateescape").decode("latin-1"))
    put(tmp_path, "sys/devices/system/cpu/online", "none")
    put(tmp_path, "sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "-")
    put(tmp_path, "sys/fs/cgroup/cpu.max", "max")
    assert {key for key, value in linux.facts(tmp_path).items() if value} == set()


def test_a_board_has_its_own_name(tmp_path: Path) -> None:
    put(tmp_path, "proc/cpuinfo", captured("jetson-xavier-nx.cpuinfo"))
    put(tmp_path, "proc/device-tree/model", "NVIDIA IGX Orin Development Kit\0")  # OE4T/meta-tegra #1566
    assert linux.facts(tmp_path)["chip"] == "NVIDIA IGX Orin Development Kit"
    put(tmp_path, "proc/device-tree/model", "linux,dummy-virt\0")  # what QEMU's virtual board says
    assert linux.facts(tmp_path)["chip"] == "Carmel"


def test_kernels_of_windows() -> None:
    assert linux.is_wsl("5.15.90.1-microsoft-standard-WSL2")  # microsoft/WSL #9821
    assert linux.is_wsl("4.4.0-18985-Microsoft")  # 4U6U57/wsl-open #4
    assert not linux.is_wsl("6.18.44-fc-v657")  # here


# --- NVIDIA --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capture", "gpus"),
    [
        ("one-a100", (Gpu("NVIDIA A100-SXM4-80GB", 81920 * 2**20),)),
        ("eight-h100", (Gpu("NVIDIA H100 80GB HBM3", 81559 * 2**20),) * 8),
        ("rtx-3060", (Gpu("NVIDIA GeForce RTX 3060", 12288 * 2**20),)),
        ("two-4090", (Gpu("NVIDIA GeForce RTX 4090", 24564 * 2**20),) * 2),
        ("rtx-5090", (Gpu("NVIDIA GeForce RTX 5090", 32607 * 2**20),)),
        ("gh200", (Gpu("NVIDIA GH200 480GB", 97871 * 2**20),)),
        ("gb10", (Gpu("NVIDIA GB10", None),)),
        ("thor", (Gpu("NVIDIA Thor", None),)),
        (
            "unlike",
            (Gpu("NVIDIA GeForce RTX 4060 Ti", 16380 * 2**20), Gpu("NVIDIA GeForce RTX 2060", 6144 * 2**20)),
        ),
        ("no-devices", ()),
        ("no-driver", ()),
        ("mismatch", ()),
        ("unsupported", ()),
    ],
)
def test_the_gpus_that_nvidia_smi_lists(capture: str, gpus: tuple[Gpu, ...]) -> None:
    assert nvidia.parse_gpus(captured(f"{capture}.gpus")) == gpus


def test_the_gpus_of_a_cloud_have_a_name_and_a_memory_each() -> None:
    lines = captured("cloud-cards.gpus").splitlines()
    gpus = nvidia.parse_gpus(captured("cloud-cards.gpus"))
    assert [f"{gpu.name}, {(gpu.memory or 0) >> 20} MiB" for gpu in gpus] == lines


@pytest.mark.parametrize(
    ("capture", "driver", "cuda"),
    [
        ("h100", "550.54.15", "12.4"),
        ("h100-580", "580.159.04", "13.0"),
        ("b200-610", "610.43.02", "13.3"),
        ("wsl2", "551.61", "12.4"),
        ("wsl2-error", "546.80", None),
        ("jetson-orin", "540.4.0", "12.6"),
        ("titan-384", "384.66", None),
    ],
)
def test_driver_and_cuda(capture: str, driver: str, cuda: str | None) -> None:
    text = captured(f"{capture}.summary")
    assert (nvidia.parse_driver(text), nvidia.parse_cuda(text)) == (driver, cuda)


@pytest.mark.parametrize(
    ("capture", "command", "gpu"),
    [
        ("mi300x.rocminfo", others.ROCMINFO, OtherGpu("rocm", "AMD Instinct MI300X", "gfx942")),
        ("strix-halo.rocminfo", others.ROCMINFO, OtherGpu("rocm", "Radeon 8060S Graphics", "gfx1151")),
        ("arc-a770m.clinfo", others.CLINFO, OtherGpu("xpu", "Intel(R) Arc(TM) A770M Graphics")),
        ("arc-a770.xpu-smi", others.XPU_SMI, OtherGpu("xpu", "Intel(R) Arc(TM) A770 Graphics")),
    ],
)
def test_gpus_of_other_makers(capture: str, command: tuple[str, ...], gpu: OtherGpu, tmp_path: Path) -> None:
    assert others.other_gpus({command: captured(capture)}, tmp_path) == (gpu,)


def test_amds_gpus_are_known_to_the_kernel_too(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/kfd/kfd/topology/nodes/0/properties", "cpu_cores_count 96\ngfx_target_version 0\n")
    put(tmp_path, "sys/class/kfd/kfd/topology/nodes/1/properties", "simd_count 1216\ngfx_target_version 90402\n")
    assert others.other_gpus({}, tmp_path) == (OtherGpu("rocm", "AMD gfx942", "gfx942"),)


@pytest.mark.parametrize(("capture", "used"), [("h100", 0), ("h100-580", 0), ("b200-610", None), ("jetson-orin", None)])
def test_memory_in_use_is_that_of_the_same_gpu(capture: str, used: int | None) -> None:
    gpu = Gpu("NVIDIA H100 80GB HBM3", 81559 * 2**20)
    assert nvidia.with_memory_in_use((gpu,), captured(f"{capture}.summary")) == (replace(gpu, in_use=used),)


@pytest.mark.parametrize(
    "text", ["", "12.1\n12.1\n", "[N/A]\n", 'Field "compute_cap" is not a valid field to query.\n']
)
def test_what_is_no_capability_is_none(text: str) -> None:
    assert nvidia.with_capabilities((Gpu("Orin (nvgpu)", None),), text) == (Gpu("Orin (nvgpu)", None),)


def test_capabilities_come_in_the_order_of_the_gpus() -> None:
    found = nvidia.with_capabilities((Gpu("NVIDIA GB10", None),), captured("gb10.capabilities"))
    assert found == (Gpu("NVIDIA GB10", None, "12.1"),)


# --- All at once ---------------------------------------------------------------------------------------------------


def nvidia_smi(folder: Path, code: str) -> str:
    """A PATH with an nvidia-smi before everything else."""
    folder.mkdir()
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{code}\n")
    (folder / "nvidia-smi").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def printing(*captures: str) -> str:
    """An nvidia-smi that prints what a real one did: the list of GPUs, then the summary."""
    gpus, summary = (ROOT / "tests/captured" / name for name in captures)
    return f'case $1 in --query-gpu=*) cat "{gpus}" ;; *) cat "{summary}" ;; esac'


def test_gpus_driver_and_cuda_of_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path / "bin", printing("eight-h100.gpus", "h100.summary")))
    machine = detect()
    assert (machine.detected["gpu-count"], machine.driver, machine.cuda) == (8, "550.54.15", "12.4")
    assert "GPUs: 8 x NVIDIA H100 80GB HBM3 (79.6 GiB), driver 550.54.15, CUDA 12.4 at most" in machine.lines()
    assert str(machine).endswith("8 x NVIDIA H100 80GB HBM3")


def test_programs_are_asked_in_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path / "bin", 'printf "%s, 1 MiB\\n" "$LC_ALL"'))
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert detect().gpus == (Gpu("C", 2**20),)


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    ["exit 9", "kill -9 $$", "sleep 60", "sleep 60 & wait", "trap '' TERM; sleep 60", "exec 1>&-; exec sleep 60"],
)
def test_an_nvidia_smi_that_fails_or_hangs_leaves_the_gpus_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path / "bin", code))
    begin = time.monotonic()
    machine = detect(timeout=0.5)
    assert time.monotonic() - begin < allowed(5)
    assert (machine.gpus, machine.driver, machine.cuda) == (None, None, None)
    assert machine.detected["gpu-count"] is None
    assert machine.usable_cores


@pytest.mark.parametrize("code", ["head -c 200000 /dev/urandom", "yes garbage | head -n 100000", ":"])
def test_an_nvidia_smi_that_prints_garbage_says_nothing_of_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path / "bin", code))
    machine = detect()
    assert (machine.gpus, machine.cuda) == (None, None)


@pytest.mark.slow
def test_programs_run_side_by_side_and_hold_up_nobody() -> None:
    begin = time.monotonic()
    sleep = ["sh", "-c", "sleep 0.5; echo done"]
    done = process.run_all([sleep, sleep, ["/nonexistent"], sleep, ["sleep", "60"]], timeout=3, env=os.environ)
    assert [one and one.stdout for one in done] == ["done\n", "done\n", None, "done\n", None]
    assert time.monotonic() - begin < 4.5


def test_this_machine_is_what_its_own_tools_say() -> None:
    machine = detect()
    assert (machine.system, machine.machine) == (os.uname().sysname, os.uname().machine)
    assert machine.memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if machine.system == "Linux":
        assert machine.usable_cores is not None
        assert machine.usable_cores <= len(os.sched_getaffinity(0))
        assert machine.glibc is not None
    if shutil.which("lscpu"):
        rows = subprocess.run(["lscpu", "-p=CORE,SOCKET"], capture_output=True, text=True, check=True).stdout
        cores = {line for line in rows.splitlines() if not line.startswith("#")}
        assert (machine.performance_cores or 0) + (machine.efficiency_cores or 0) == len(cores)


def test_the_probes_import_nothing_heavy() -> None:
    code = "import sys; from builder import machine; machine.detect(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert {"pydantic", "plumbum", "jinja2", "rich"} & set(done.stdout.split()) == set()


# --- What auto picks -----------------------------------------------------------------------------------------------


def linux_target(**more: object) -> Target:
    """A target for Linux x86_64."""
    accelerator = "cuda" if "cuda" in more else "cpu"
    return Target.model_validate({"platform": "linux-x86_64", "accelerator": accelerator, "glibc": "2.28", **more})


H100 = Machine(
    system="Linux",
    machine="x86_64",
    glibc="2.35",
    chip="Intel(R) Xeon(R)",
    gpus=(Gpu("NVIDIA H100", None),),
    cuda="12.4",
)


@pytest.mark.parametrize(
    ("target", "fits", "why"),
    [
        (linux_target(), False, "only by its name"),
        (linux_target(match={}), True, "for any linux-x86_64"),
        (linux_target(match={"chip": "Intel*"}), True, 'the chip is "Intel*"'),
        (linux_target(match={"chip": "AMD*"}), False, 'for a chip "AMD*"'),
        (linux_target(match={"gpu": "*H100*"}, cuda="12.8"), True, "a GPU is NVIDIA H100"),
        (linux_target(match={"gpu": "*A100*"}), False, 'for an NVIDIA GPU "*A100*"'),
        (linux_target(match={"gpu": "*"}, cuda="13.0"), False, "for CUDA 13.0, and the driver supports 12.4"),
        (linux_target(match={}, glibc="2.39"), False, "for glibc 2.39 or newer, and this is 2.35"),
        (Target(platform="linux-arm64", accelerator="cpu", glibc="2.28", match={}), False, "for linux-arm64"),
    ],
)
def test_how_targets_fit(target: Target, fits: bool, why: str) -> None:
    found = fit(target, H100)
    assert (found.score is not None) == fits
    assert why in found.why


def test_a_mac_whose_python_is_translated_is_told_so() -> None:
    target = Target.model_validate(
        {"platform": "macos-arm64", "accelerator": "mps", "min-os": "14.0", "match": {"chip": "Apple M*"}}
    )
    machine = Machine(system="Darwin", machine="x86_64", os="macOS 14.4.1", rosetta=True, chip="Apple M1")
    assert "Rosetta" in fit(target, machine).why
    native = Machine(system="Darwin", machine="arm64", os="macOS 14.4.1", chip="Apple M1")
    assert fit(target, native).score is not None
    older = Machine(system="Darwin", machine="arm64", os="macOS 13.7", chip="Apple M1")
    assert fit(target, older).why == "for macOS 14.0 or newer, and this is macOS 13.7"


def test_detect_tells_the_machine_and_why_a_profile_is_picked(sandbox: Sandbox) -> None:
    told = sandbox.drydock("profile", "detect").succeeded().stdout
    found = json.loads(sandbox.drydock("profile", "detect", "--json").succeeded().stdout)
    assert found["profiles"]["arm64" if os.uname().machine == "x86_64" else "cpu"]["fits"] is False
    assert found["detected"]["usable-cores"] == found["usable_cores"]
    assert f"for profiles: performance-cores {found['detected']['performance-cores']}" in told
    assert f"auto: {found['auto']} ({found['profiles'][found['auto']]['why']})" in told


def test_a_profile_of_the_project_is_picked_before_one_that_is_built_in(sandbox: Sandbox, tmp_path: Path) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("the profile of these tests is for x86_64")
    profile = sandbox.profile("small")
    profile.write_text(profile.read_text().replace('glibc = "2.17"', 'glibc = "2.17"\nmatch = {}'))
    path = nvidia_smi(tmp_path / "bin", printing("eight-h100.gpus", "h100.summary"))
    told = sandbox.drydock("profile", "detect", env={"PATH": path}).succeeded().stdout
    assert "auto: small (for any linux-x86_64)" in told
    assert "not cuda12: a GPU is NVIDIA H100 80GB HBM3, which is built in" in told


def test_a_machine_with_eight_gpus_takes_the_profile_for_them(sandbox: Sandbox, tmp_path: Path) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("the built-in profile for GPUs is for x86_64")
    path = nvidia_smi(tmp_path / "bin", printing("eight-h100.gpus", "h100.summary"))
    told = sandbox.drydock("profile", "detect", env={"PATH": path}).succeeded().stdout
    assert "auto: cuda12 (a GPU is NVIDIA H100 80GB HBM3)" in told
    assert "not cuda13: for CUDA 13.0, and the driver supports 12.4" in told
    assert "not cuda: its trainer needs hivemind_exp/gsm8k/train_single_gpu.py, which is not in this folder" in told
    assert "not cpu: for any linux-x86_64, which is less particular" in told


def test_what_lasts_of_a_machine_is_the_same_where_only_the_minute_differs() -> None:
    def at(free: int) -> Machine:
        return Machine(
            system="Linux", machine="x86_64", memory_free=free, disk_free=free, gpus=(Gpu("A", 1, in_use=free),)
        )

    assert at(1) != at(2)
    assert at(1).lasting() == at(2).lasting()
    assert at(1).lasting() != replace(at(1), chip="other").lasting()
    assert not {"memory_free", "disk_free"} & at(1).lasting().keys()
    assert Machine(system="Linux", machine="x86_64", gpus=None).lasting()["gpus"] is None
