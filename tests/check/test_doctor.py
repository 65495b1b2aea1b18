"""The doctor: each diagnosis from facts, many of them captured on real machines, and the program on a real profile."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder import uv
from builder.check import doctor
from builder.check.doctor import facts, files, hardware, network, resources, wheels
from builder.check.doctor.diagnosis import Diagnosis
from builder.embedded.wheels import case_clash
from builder.errors import LockError, UsageError, Where
from builder.lock.cuda import cuda_of, kernels_of
from builder.lock.outline import Locked, Outline, Package, Patched, Warned, outline
from builder.machine import Gpu, Machine, OtherGpu, detect, macos, nvidia
from builder.machine.fit import numbers
from builder.profile.architectures import kernels
from builder.profile.model import Profile
from builder.project.catalogue import Catalogue
from builder.report import PlainReporter
from tests.conftest import ROOT
from tests.machine.test_probe import captured, nvidia_smi, printing
from tests.support import Sandbox, make_wheel
from tests.support.waiting import allowed

GIB = 2**30
DAY = datetime(2026, 11, 23, 12, tzinfo=UTC)


def shipped(name: str) -> tuple[Outline, Locked]:
    """A built-in profile and its lock."""
    found = Catalogue([ROOT / "profiles"]).entry(name).outline
    assert found.lock is not None
    return found, found.lock


def with_setting(name: str, variable: str, **setting: Any) -> Outline:
    """A built-in profile with another setting."""
    profile = Catalogue([ROOT / "profiles"]).profile(name)
    data = profile.model_dump(by_alias=True, exclude_none=True)
    data["env"][variable] = {**data["env"].get(variable, {}), **setting}
    return outline(Profile.model_validate(data), None, [], lambda *key: Where(f"{name}.toml", None, ".".join(key)))


def mac(sysctl: str = "m4", sw_vers: str = "m4", machine: str = "arm64") -> Machine:
    """A Mac, as its own programs tell it."""
    outputs = dict.fromkeys(macos.COMMANDS, "")
    outputs[macos.SYSCTL] = captured(f"{sysctl}.sysctl") if sysctl else ""
    outputs[macos.SW_VERS] = captured(f"{sw_vers}.sw_vers") if sw_vers else ""
    return replace(Machine(system="Darwin", machine=machine), **macos.facts(machine, outputs))


def linux(gpus: str | None = "", summary: str = "", **more: Any) -> Machine:
    """A Linux machine with GPUs, as nvidia-smi tells them; None for one that fails."""
    text = captured(f"{summary}.summary") if summary else ""
    found = None if gpus is None else nvidia.parse_gpus(captured(f"{gpus}.gpus") if gpus else "")
    whole = Machine(system="Linux", machine="x86_64", glibc="2.36", gpus=found, memory=64 * GIB, memory_free=60 * GIB)
    return replace(whole, driver=nvidia.parse_driver(text), cuda=nvidia.parse_cuda(text), **more)


def package(name: str = "anchor", version: str = "1.0") -> Package:
    return wheel(f"{name}-{version}-py3-none-any.whl", name, version)


def wheel(file: str, name: str = "anchor", version: str = "1.0") -> Package:
    return Package(name, version, file, 1000, "0" * 64)


def state(one: Diagnosis | None, *words: str) -> str:
    """The state of a diagnosis that has `words` in it; one that is not well also says how to fix it."""
    assert one is not None
    told = "\n".join(one.lines())
    for word in words:
        assert word in told, (word, told)
    assert (one.state not in ("warn", "fail")) or one.fix or one.what == "settings", told
    return one.state


# --- the machine ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m4", "m4-upstream"])
def test_everything_about_a_mac_mini_m4_is_well(name: str) -> None:
    profile, locked = shipped(name)
    machine = mac()
    assert state(hardware.platform(profile, machine), "Darwin arm64") == "ok"
    assert state(hardware.translation(machine)) == "ok"
    assert state(hardware.chip(profile.target, machine), "Apple M4") == "ok"
    assert state(hardware.system(profile, wheels.system_need(locked.packages), machine), "26.5", "14.0") == "ok"
    assert hardware.gpu(profile.target, machine) is None
    assert hardware.cuda(profile.target, wheels.cuda_need(locked.packages), machine) is None
    assert state(hardware.memory(profile, locked.packages, machine), "24.0 GiB") == "ok"


def test_a_profile_for_another_machine_says_so_in_one_line() -> None:
    profile, _ = shipped("m4")
    for machine in (linux(), replace(linux(), machine="aarch64"), Machine(system="Darwin", machine="x86_64")):
        one = hardware.platform(profile, machine)
        assert state(one, "m4 is for other machines", "macos-arm64", "--cross") == "fail"
        assert not hardware.is_here(profile.target, machine)


def test_a_translated_python_is_the_trouble_and_not_the_platform() -> None:
    profile, _ = shipped("m4-upstream")
    machine = mac("m1-rosetta", "m1", "x86_64")
    assert machine.platform is None
    assert state(hardware.platform(profile, machine), "Darwin x86_64, which Rosetta makes of macos-arm64") == "ok"
    assert state(hardware.translation(machine), "Rosetta", "arm64") == "fail"
    assert hardware.translation(linux()) is None
    assert not hardware.is_here(shipped("cpu")[0].target, machine)


def test_another_chip_is_a_warning() -> None:
    profile, _ = shipped("m4")
    assert state(hardware.chip(profile.target, mac("m3-max")), "Apple M3 Max", "Apple M4*") == "warn"
    assert state(hardware.chip(profile.target, mac("m4-max"))) == "ok"
    assert state(hardware.chip(profile.target, mac("")), "does not report") == "skipped"
    assert hardware.chip(shipped("cpu")[0].target, linux()) is None


@pytest.mark.parametrize(
    ("version", "expected"),
    [("macOS 14.0", "ok"), ("macOS 14.4.1", "ok"), ("macOS 13.7", "fail"), ("macOS 15.0", "ok"), ("", "skipped")],
)
def test_macos_and_the_package_that_decides(version: str, expected: str) -> None:
    profile, locked = shipped("m4")
    need = wheels.system_need(locked.packages)
    assert need is not None
    assert (need.version, need.package) == ("14.0", "numpy")
    one = hardware.system(profile, need, replace(mac(), os=version))
    assert state(one, *(["numpy-2.3.1-cp311-cp311-macosx_14_0_arm64.whl"] if version else ["sw_vers"])) == expected


@pytest.mark.parametrize(
    ("glibc", "expected", "words"),
    [
        ("2.28", "ok", "2.28"),
        ("2.36", "ok", "2.36"),
        ("2.27", "fail", "an older numpy"),
        ("2.4", "fail", "an older numpy"),  # less than 2.28, as a number of two parts
        (None, "fail", "another C library"),
    ],
)
def test_glibc_and_the_package_that_decides(glibc: str | None, expected: str, words: str) -> None:
    profile, locked = shipped("cpu")
    one = hardware.system(profile, wheels.system_need(locked.packages), replace(linux(), glibc=glibc))
    assert state(one, words) == expected


def test_a_profile_that_asks_more_than_its_wheels_do_is_told_what_would_be_enough() -> None:
    profile, _ = shipped("cpu")
    need = wheels.system_need([wheel("anchor-1.0-cp311-cp311-manylinux2014_x86_64.whl"), wheel("b-1-py3-none-any.whl")])
    one = hardware.system(profile, need, replace(linux(), glibc="2.17"))
    assert state(one, "need 2.17 (anchor, ", 'glibc = "2.17" in [target]', "drydock lock cpu") == "fail"
    assert state(hardware.system(profile, None, replace(linux(), glibc="2.5")), "need none", 'glibc = "2.5"') == "fail"
    # And one whose wheels ask more than it does: a lock that is of no use here.
    newer = wheels.system_need([wheel("anchor-1.0-cp311-cp311-manylinux_2_39_x86_64.whl")])
    assert state(hardware.system(profile, newer, linux()), "2.39", "an older anchor") == "fail"


@given(st.lists(st.tuples(st.integers(5, 60), st.booleans()), min_size=1, max_size=5))
def test_a_wheel_needs_the_least_of_its_tags_and_a_lock_the_most_of_its_wheels(tags: list[tuple[int, bool]]) -> None:
    text = ".".join(f"manylinux_2_{minor}_x86_64" for minor, _ in tags)
    assert wheels.system_of(f"a-1-cp311-cp311-{text}.whl") == f"2.{min(minor for minor, _ in tags)}"
    single = [wheel(f"a-1-cp311-cp311-manylinux_2_{minor}_x86_64.whl" if on else "a-1.tar.gz") for minor, on in tags]
    need = wheels.system_need(single)
    assert (need and need.version) == max((f"2.{minor}" for minor, on in tags if on), key=numbers, default=None)


@pytest.mark.parametrize(
    ("name", "version", "release"),
    [
        ("torch", "2.6.0+cu118", "11.8"),
        ("torch", "2.9.0+cu130", "13.0"),
        ("torch", "2.13.0+cpu", None),
        ("nvidia-cuda-runtime-cu12", "12.4.127", "12.4"),
        ("nvidia-cuda-runtime", "13.0.48", "13.0"),
        ("nvidia-cudnn-cu12", "9.1.0.70", "12"),
        ("nvidia-ml-py", "12.535.133", None),
        ("cupy-cuda12x", "13.0", "12"),
    ],
)
def test_the_cuda_of_packages(name: str, version: str, release: str | None) -> None:
    assert cuda_of(package(name, version)) == release


@pytest.mark.parametrize(
    ("gpus", "summary", "gpu", "cuda"),
    [
        ("eight-h100", "h100", "ok", "ok"),
        ("one-a100", "b200-610", "ok", "ok"),
        ("one-a100", "wsl2", "ok", "ok"),
        ("one-a100", "wsl2-error", "ok", "skipped"),
        ("one-a100", "titan-384", "ok", "fail"),
        ("one-a100", "", "ok", "skipped"),
        ("no-devices", "", "fail", "skipped"),
        ("no-driver", "", "fail", "skipped"),
        (None, "", "fail", "skipped"),
        ("", "", "fail", "skipped"),
    ],
)
def test_gpus_and_drivers_as_captured(gpus: str | None, summary: str, gpu: str, cuda: str) -> None:
    profile, locked = shipped("cuda")
    machine = linux(gpus, summary)
    assert state(hardware.gpu(profile.target, machine)) == gpu
    assert state(hardware.cuda(profile.target, wheels.cuda_need(locked.packages), machine)) == cuda


@pytest.mark.parametrize(
    ("driver", "expected"),
    [("12.4", "ok"), ("12.0", "ok"), ("11.8", "fail"), ("13.0", "ok"), ("9.2", "fail"), (None, "skipped")],
)
def test_any_driver_of_the_same_major_release_will_do(driver: str | None, expected: str) -> None:
    profile, locked = shipped("cuda")
    need = wheels.cuda_need(locked.packages)
    assert need is not None
    assert (need.version, need.package) == ("12.8", "nvidia-cuda-cupti-cu12")
    machine = replace(linux("one-a100"), driver="535.54", cuda=driver)
    assert state(hardware.cuda(profile.target, need, machine), driver or "does not report") == expected


def test_wheels_for_another_cuda_than_the_profile_says() -> None:
    profile, _ = shipped("cuda")
    need = wheels.cuda_need([package("torch", "2.9.0+cu130")])
    assert state(hardware.cuda(profile.target, need, linux("one-a100", "h100")), "CUDA 13", "driver") == "fail"
    newest = replace(linux("one-a100"), driver="580.1", cuda="13.0")
    assert state(hardware.cuda(profile.target, need, newest), 'cuda = "13.0"') == "warn"


def test_a_gpu_that_the_profile_does_not_name() -> None:
    target = replace(shipped("cuda")[0].target, gpu="*H100*")
    assert state(hardware.gpu(target, linux("one-a100")), "A100", "*H100*") == "warn"
    assert state(hardware.gpu(target, linux("eight-h100")), "8 x NVIDIA H100") == "ok"


def test_the_memory_of_a_gpu_that_others_use_is_said() -> None:
    target = shipped("cuda")[0].target
    gpu = Gpu("NVIDIA H100 80GB HBM3", 80 * GIB)
    for used, wanted in ((None, None), (GIB, "ok"), (79 * GIB, "warn")):
        found = hardware.gpu_memory(target, replace(linux(), gpus=(replace(gpu, in_use=used),)))
        assert (found.state if found is not None else None) == wanted
    both = replace(linux(), gpus=(replace(gpu, in_use=0), replace(gpu, in_use=79 * GIB)))
    assert state(hardware.gpu_memory(target, both), "80.0 GiB (0.0 GiB in use), 80.0 GiB (79.0 GiB in use)") == "warn"
    assert hardware.gpu_memory(shipped("cpu")[0].target, both) is None


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_gpus_that_are_hidden_from_the_trainer_are_said(visible: str) -> None:
    target = shipped("cuda")[0].target
    assert state(hardware.hidden(target, visible), f'CUDA_VISIBLE_DEVICES is "{visible}"') == "fail"
    assert hardware.hidden(shipped("cpu")[0].target, visible) is None
    assert [hardware.hidden(target, one) for one in (None, "0", "1,0", "GPU-8932f937", "MIG-c7384736")] == [None] * 5


def test_a_gpu_that_the_locked_torch_has_no_kernels_for_fails() -> None:
    profile, locked = shipped("cuda")
    built = kernels_of(profile.target.machine, locked.packages)
    old, a100 = Gpu("NVIDIA GeForce GTX 1080", None, "6.1"), Gpu("NVIDIA A100", None, "8.0")

    def said(*gpus: Gpu, words: str = "") -> str:
        return state(hardware.kernels(profile.target, built, replace(linux(), gpus=gpus)), words)

    assert said(old, words="NVIDIA GeForce GTX 1080 has compute capability 6.1; wanted: one of 7.0, 7.5") == "fail"
    assert said(a100) == "ok"
    assert said(old, a100, words="CUDA_VISIBLE_DEVICES=1") == "warn"
    assert said(Gpu("Old", None), words="is not known") == "skipped"
    assert state(hardware.kernels(profile.target, None, linux()), "no torch for CUDA is locked") == "skipped"
    unknown = kernels("2.99.0", "13.2", "x86_64")
    assert state(hardware.kernels(profile.target, unknown, linux()), "torch 2.99.0 for CUDA 13.2", "build") == "warn"


def test_a_gpu_that_goes_unused_is_a_warning() -> None:
    profile, _ = shipped("cpu")
    assert hardware.unused(profile.target, linux()) is None
    assert state(hardware.unused(profile.target, linux("one-a100")), "NVIDIA A100-SXM4-80GB: goes unused") == "warn"
    amd = replace(linux(), others=(OtherGpu("rocm", "AMD Instinct MI300X", "gfx942"),))
    assert state(hardware.unused(profile.target, amd), "AMD Instinct MI300X (gfx942): goes unused") == "warn"


def test_a_mac_whose_gpu_may_hold_nearly_all_memory_is_warned() -> None:
    said = "iogpu.wired_limit_mb: {}\n"
    for limit, expected in (("0", None), ("16384", "ok"), ("23552", "warn")):
        outputs = dict.fromkeys(macos.COMMANDS, "") | {macos.SYSCTL: captured("m4.sysctl") + said.format(limit)}
        machine = replace(mac(), **macos.facts("arm64", outputs))
        found = hardware.wired(machine)
        assert (None if found is None else state(found, f"iogpu.wired_limit_mb = {limit}")) == expected
    assert hardware.wired(linux()) is None


def test_command_line_tools_matter_where_something_is_built_from_source() -> None:
    _, locked = shipped("m4")
    assert state(hardware.compiler(locked.packages, "/Library/Developer/CommandLineTools", mac()), "varint") == "ok"
    assert state(hardware.compiler(locked.packages, "", mac()), "xcode-select --install") == "warn"
    assert state(hardware.compiler(locked.packages, None, mac()), "does not answer") == "skipped"
    assert hardware.compiler([package()], "", mac()) is None
    assert hardware.compiler(locked.packages, "", linux()) is None


LEAST = 324 * 2**20


@pytest.mark.parametrize(
    ("memory", "limit", "free", "expected"),
    [
        (64 * GIB, None, 60 * GIB, "ok"),
        (64 * GIB, LEAST, 60 * GIB, "ok"),
        (64 * GIB, LEAST - 1, 60 * GIB, "fail"),
        (64 * GIB, None, LEAST - 1, "warn"),
        (64 * GIB, None, LEAST, "ok"),
        (64 * GIB, None, None, "ok"),
        (None, None, None, "skipped"),
    ],
)
def test_memory_for_what_the_packages_hold_alone(
    memory: int | None, limit: int | None, free: int | None, expected: str
) -> None:
    profile, locked = shipped("cpu")
    machine = replace(linux(), memory=memory, memory_limit=limit, memory_free=free)
    assert state(hardware.memory(profile, locked.packages, machine)) == expected


def test_without_torch_nothing_is_known_of_memory_and_nothing_is_invented() -> None:
    profile, _ = shipped("cpu")
    one = hardware.memory(profile, [package()], replace(linux(), memory=2**20, memory_free=None))
    assert state(one, "the profile names no minimum") == "ok"


def test_a_small_mac_without_pytorchs_limit() -> None:
    profile, locked = shipped("m4")
    small = replace(mac(), memory=16 * GIB)
    assert state(hardware.memory(profile, locked.packages, small)) == "ok"  # the profile keeps a limit there
    lifted = with_setting("m4", "PYTORCH_MPS_HIGH_WATERMARK_RATIO", default="0.0")
    assert state(hardware.memory(lifted, locked.packages, small), "issues 59, 369", '"0.7"') == "warn"
    assert state(hardware.memory(lifted, locked.packages, replace(mac(), memory=16 * GIB + 1))) == "ok"
    assert state(hardware.memory(shipped("m4-upstream")[0], locked.packages, small)) == "ok"


def test_the_least_that_a_profile_counts_with() -> None:
    _, locked = shipped("cpu")
    asking = with_setting("cpu", "CACHE_GB", detect="memory-gb", min=65, fallback=65)
    assert state(hardware.memory(asking, locked.packages, linux()), "65 GiB") == "warn"
    assert state(hardware.memory(asking, locked.packages, replace(linux(), memory=65 * GIB))) == "ok"


# --- disk, Python, clock -------------------------------------------------------------------------------------------

MB = 10**6


def place(free: int, device: int = 1, path: str = "/store") -> resources.Place:
    return resources.Place(Path(path), device, free)


def disks(
    store: resources.Place | None, cache: resources.Place | None, *, built: bool = False, linked: bool = True
) -> list[str]:
    found = list(resources.disk(100 * MB, store, cache, built=built, linked=linked))
    return [state(one) for one in found]


@pytest.mark.parametrize(
    ("free", "expected"),
    [(474 * MB, "ok"), (474 * MB - 1, "warn"), (100 * MB, "warn"), (100 * MB - 1, "fail"), (0, "fail")],
)
def test_a_disk_that_has_the_store_and_the_cache(free: int, expected: str) -> None:
    assert disks(place(free), place(free)) == [expected]
    assert disks(place(free), None) == [expected]


def test_a_cache_on_another_disk_is_copied_from() -> None:
    assert disks(place(474 * MB), place(384 * MB, 2, "/cache")) == ["ok", "ok"]
    assert disks(place(50 * MB), place(383 * MB, 2, "/cache")) == ["fail", "warn"]
    # The same with a cache that is not to be linked from: everything twice.
    assert disks(place(474 * MB), place(474 * MB), linked=False) == ["warn"]
    assert disks(place(858 * MB), place(858 * MB), linked=False) == ["ok"]


def test_when_uv_copies_and_when_it_is_offline() -> None:
    assert [facts.links(env) for env in ({}, {"UV_LINK_MODE": "clone"}, {"UV_LINK_MODE": "copy"})] == [
        True,
        True,
        False,
    ]
    assert [facts.is_offline({"UV_OFFLINE": value}) for value in ("", "0", "false", "1", "true")] == [False] * 3 + [
        True
    ] * 2


def test_what_is_built_needs_no_disk() -> None:
    assert disks(place(0), place(0), built=True) == ["ok"]
    assert disks(None, None, built=True) == ["ok"]
    assert disks(None, place(0)) == ["skipped"]


def test_a_place_for_the_store() -> None:
    folder, newer = Path("/store"), UsageError("a store of format 2", hint="use the newer Drydock")
    assert state(resources.store(folder, None, writable=True, built=False), "/store") == "ok"
    assert state(resources.store(folder, None, writable=False, built=True), "read") == "ok"
    assert state(resources.store(folder, None, writable=False, built=False), "DRYDOCK_HOME") == "fail"
    assert state(resources.store(None, newer, writable=False, built=False), "use the newer Drydock") == "fail"


def thin(kind: int) -> bytes:
    return b"\xcf\xfa\xed\xfe" + struct.pack("<I", kind) + bytes(24)


ARM, INTEL = 0x0100000C, 0x01000007
FAT = b"\xca\xfe\xba\xbe" + struct.pack(">I", 2) + b"".join(struct.pack(">I16x", kind) for kind in (INTEL, ARM))


@pytest.mark.parametrize(
    ("head", "machines"),
    [(thin(ARM), ["arm64"]), (thin(INTEL), ["x86_64"]), (FAT, ["x86_64", "arm64"]), (b"", []), (b"\x7fELF", [])],
)
def test_what_a_program_is_for(head: bytes, machines: list[str]) -> None:
    assert resources.machines_of(head) == machines


@given(st.binary(max_size=300))
def test_what_is_no_program_breaks_nothing(head: bytes) -> None:
    for start in (b"", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\x7fELF\x02\x01"):
        assert set(resources.machines_of(start + head)) <= {"arm64", "x86_64", "aarch64"}


def test_pythons() -> None:
    target = shipped("m4")[0].target
    good = resources.Interpreter(Path("/opt/python3.11"), "as uv finds it", "3.11.9", FAT, managed=True)

    def judged(found: resources.Interpreter | None, *words: str) -> str:
        return state(resources.python("3.11", target, found), *words)

    assert judged(good, "3.11.9 at /opt/python3.11", "PEP 668") == "ok"
    assert judged(replace(good, head=thin(INTEL)), "for x86_64") == "fail"
    assert judged(replace(good, head=b"#!/bin/sh")) == "ok"
    assert judged(replace(good, version="3.12.1"), "3.12.1") == "fail"
    assert judged(replace(good, version=None), "unknown version") == "ok"
    assert judged(replace(good, path=None), "uv will download one") == "warn"
    assert judged(replace(good, path=None, downloads=False), "install Python 3.11 for arm64") == "fail"
    assert judged(replace(good, path=None, named="/nowhere"), "DRYDOCK_PYTHON=/nowhere is not a Python") == "fail"
    assert judged(None, "uv does not answer") == "skipped"


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [(timedelta(0), "ok"), (timedelta(seconds=1), "warn"), (timedelta(hours=23), "warn"), (timedelta(days=1), "fail")],
)
def test_a_clock_behind_what_was_made(ahead: timedelta, expected: str) -> None:
    profile, _ = shipped("cpu")
    made = {"the lock was written": DAY + ahead, "the environment was built": DAY - timedelta(days=9)}
    assert state(resources.clock(profile, made, DAY), *(["the lock was written"] if ahead else [])) == expected


def test_a_clock_behind_the_day_that_the_profile_names() -> None:
    profile, _ = shipped("m4-upstream")  # torch as of 2026-02-01
    assert state(resources.clock(profile, {}, datetime(2026, 1, 31, tzinfo=UTC)), "2026-02-01") == "warn"
    assert state(resources.clock(profile, {}, datetime(2026, 2, 1, tzinfo=UTC))) == "ok"
    assert state(resources.clock(profile, {}, datetime(1970, 1, 1, tzinfo=UTC))) == "warn"


# --- files ---------------------------------------------------------------------------------------------------------


def test_locks_and_generated_files() -> None:
    stale = LockError("the lock is stale", hint="drydock lock a", where=Where("profiles/a.lock.toml"))
    assert state(files.lock("a", Locked([package()], None, []), None), "1 package,") == "ok"
    assert (
        state(files.lock("a", Locked([package()], None, []), stale), "stale", "profiles/a.lock.toml", "drydock lock a")
        == "fail"
    )
    folder = Path("generated/a")
    drift = LockError("not what it renders to", hint="drydock render a")

    def judged(there: bool, fresh: bool, problem: LockError | None) -> str:
        return state(files.generated("a", folder, there=there, fresh=fresh, problem=problem))

    assert judged(True, True, None) == "ok"
    assert judged(True, True, drift) == "fail"
    assert judged(True, False, None) == "skipped"
    assert judged(False, True, None) == "skipped"


def test_environments() -> None:
    built = files.Built("k1-a", manifest=True, python=True, current="k1-a")
    assert state(files.environment("a", built)) == "ok"
    assert state(files.environment("a", replace(built, python=False)), "is gone", "drydock build a") == "fail"
    assert state(files.environment("a", replace(built, manifest=False, python=False, current=None))) == "skipped"
    other = replace(built, manifest=False, python=False, current="k0-a")
    assert state(files.environment("a", other), "k0-a", "drydock build a") == "warn"
    assert state(files.environment("a", replace(built, current="k0-a")), "k0-a") == "warn"
    assert state(files.environment("a", None)) == "skipped"


def test_patched_files_are_those_of_the_last_patch() -> None:
    _, locked = shipped("m4")
    after = {file.path: file.postimage for patch in locked.patches for file in patch}
    built = files.Built("k-m4", manifest=True, python=True, patched=after)
    assert state(files.patches(locked.patches, built), "2 applied") == "ok"
    path = next(iter(after))
    for wrong in ({**after, path: "0" * 64}, {**after, path: None}):
        assert state(files.patches(locked.patches, replace(built, patched=wrong)), path, "--repair") == "fail"
    path, first, last = "a.py", "1" * 64, "2" * 64
    twice = [[Patched(path, first)], [Patched(path, last)]]
    assert state(files.patches(twice, replace(built, patched={path: last})), "to a.py") == "ok"
    assert state(files.patches(twice, replace(built, patched={path: first}))) == "fail"
    assert state(files.patches(locked.patches, None)) == "skipped"
    assert files.patches([], built) is None


def test_dangerous_settings_are_told_with_the_guard_on_this_machine() -> None:
    profile, _ = shipped("m4")
    (one,) = files.settings(profile, mac())
    assert (
        state(
            one,
            "m4.toml:",
            "env.PYTORCH_MPS_HIGH_WATERMARK_RATIO",
            "90% of the memory, 21.6 GiB here",
            "25% more",
            "--supervise",
        )
        == "warn"
    )
    (elsewhere,) = files.settings(profile, None)
    assert state(elsewhere) == "warn"
    assert " here" not in elsewhere.found
    cpu, _ = shipped("cpu")
    (good,) = files.settings(cpu, linux())
    assert state(good, "3 environment variables") == "ok"
    warning = Warned("cpu.toml:3", "A", "is slow", "leave it out")
    (warned,) = files.settings(replace(cpu, warnings=[warning]), linux())
    assert state(warned, "A: is slow (cpu.toml:3)", "leave it out") == "warn"
    catalogue = Catalogue([ROOT / "profiles"])
    assert catalogue.entry("m4").resolved.warnings() == []


def test_where_the_old_accelerate_can_be_left_behind() -> None:
    profile, _ = shipped("m4")
    assert state(files.accelerate(profile, "1.1.1", ["m4-upstream"]), "profile m4-upstream") == "ok"
    assert state(files.accelerate(profile, "1.1.1", []), "needs no patch") == "ok"
    unpatched, _ = shipped("m4-upstream")
    assert state(files.accelerate(unpatched, "1.8.1", []), "current_batch", "accelerate-patched") == "warn"
    assert [files.has_empty_loader(version) for version in ("1.8.1", "1.9.0", "1.10", "nonsense")] == [
        True,
        False,
        False,
        False,
    ]


def test_a_version_is_read_from_a_lock_without_the_rest_of_it() -> None:
    for name in ("m4", "m4-upstream", "cpu"):
        text = (ROOT / f"profiles/{name}.lock.toml").read_text()
        versions = {one.name: one.version for one in shipped(name)[1].packages}
        assert {one: facts.locked_version(text, one) for one in versions} == versions
    assert facts.locked_version("garbage", "accelerate") is None


def test_nothing_that_is_found_steers_a_terminal() -> None:
    one = Diagnosis("a", "fail", "\x1b[2Jhidden\nFAKE ok", "b\x07", "c\u202e")
    assert all(line.isprintable() for line in one.lines())
    assert len(list(one.lines())) == 2


# --- the network ---------------------------------------------------------------------------------------------------


@contextmanager
def server(answer: str, *, headers: Mapping[str, str] | None = None, status: int = 200) -> Iterator[str]:
    """A server on loopback that answers everything alike; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            for name, value in {"Date": formatdate(usegmt=True), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{made.server_port}/simple"
        finally:
            made.shutdown()


@contextmanager
def stalling(head: bytes = b"", every: bytes = b"") -> Iterator[str]:
    """A server that takes connections, says `head`, then `every` ten times a second, and never ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

        def drip(connection: socket.socket) -> None:
            with connection:
                try:
                    connection.sendall(head)
                    while not ended.wait(0.1):
                        connection.sendall(every)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/simple"
        ended.set()


def asked(url: str | None, timeout: float = 5, name: str | None = None) -> Diagnosis:
    """What is said of an index that is to have anchor 1.0+x."""
    one = network.Index(name, url, "anchor", "anchor-1.0+x-py3-none-any.whl")
    answers = network.ask([one], timeout) if network.is_remote(url) else [None]
    return network.index(one, answers[0])


def test_an_index_that_has_the_file() -> None:
    for page in ("<a href='../../anchor-1.0%2Bx-py3-none-any.whl'>", '"filename": "anchor-1.0+x-py3-none-any.whl"'):
        with server(page) as url:
            assert state(asked(url), "lists anchor-1.0+x-py3-none-any.whl") == "ok"


def test_an_index_that_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert state(asked(f"http://127.0.0.1:{port}/simple"), "refused", "UV_DEFAULT_INDEX") == "fail"
    named = asked(f"http://127.0.0.1:{port}/simple", name="pytorch-cpu")
    assert state(named, "index pytorch-cpu", "DRYDOCK_INDEX_PYTORCH_CPU") == "fail"


@pytest.mark.parametrize(("status", "words"), [(404, "404"), (401, "netrc"), (500, "500"), (503, "503")])
def test_an_index_that_refuses(status: int, words: str) -> None:
    with server("no", status=status) as url:
        assert state(asked(url), words) == "fail"


@pytest.mark.parametrize("page", ["", "<h1>Welcome to the hotel</h1>", "\0" * 10000, '{"files": []}'])
def test_an_index_that_serves_something_else(page: str) -> None:
    with server(page) as url:
        assert state(asked(url), "answers something else", "no page to log in at") == "fail"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "every"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"."),
    ],
)
def test_an_index_that_stalls_or_drips_is_given_up_in_time(head: bytes, every: bytes) -> None:
    begin = time.monotonic()
    with stalling(head, every) as url:
        assert state(asked(url, 0.5), "0.5 s") == "fail"
        assert time.monotonic() - begin < allowed(10)


@pytest.mark.parametrize("url", ["http://[nonsense", "http://me:secret@", "https://a b/", "http://:secret:/simple"])
def test_a_url_that_is_none(url: str) -> None:
    one = asked(url, 2)
    assert state(one) == "fail"
    assert "secret@" not in "".join(one.lines())


def test_an_index_that_speaks_no_http() -> None:
    with stalling(b"220 mail.example ESMTP\r\n\r\n") as url:
        assert state(asked(url, 2)) == "fail"


def test_a_certificate_that_nobody_has_signed(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    pair = tmp_path / "pair.pem"
    kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=a"]
    subprocess.run(["openssl", *kind, "-keyout", pair, "-out", tmp_path / "cert"], check=True, capture_output=True)
    pair.write_text(pair.read_text() + (tmp_path / "cert").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as secure:
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        secure.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that hangs up
        threading.Thread(target=secure.serve_forever, args=(0.02,), daemon=True).start()
        one = asked(f"https://127.0.0.1:{secure.server_port}/simple")
        secure.shutdown()
    assert state(one, "not trusted", "clock", "SSL_CERT_FILE") == "fail"


def test_indexes_that_are_folders_or_not_needed_or_unknown(tmp_path: Path) -> None:
    assert state(asked(str(tmp_path))) == "ok"
    assert state(asked(f"file://{tmp_path}")) == "ok"
    assert state(asked(str(tmp_path / "gone"))) == "fail"
    assert state(asked(None)) == "skipped"
    one = network.Index("a", "http://127.0.0.1:9", "anchor", "anchor.whl", local=True)
    assert state(network.index(one, None), "folders of wheels") == "ok"


def test_credentials_are_sent_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_error(403)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
        one = asked(f"http://me:s%40cret@127.0.0.1:{made.server_port}/simple")
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login you password pass\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        asked(f"http://127.0.0.1:{made.server_port}/simple")
        made.shutdown()
    assert state(one, "403") == "fail"
    assert "cret" not in "".join(one.lines())
    assert seen == ["Basic bWU6c0BjcmV0", "Basic eW91OnBhc3M="]


NOON = DAY.timestamp()


def at(seconds: float, took: float = 0.2, age: str | None = None) -> network.Answer:
    """An answer of noon that came when our clock was `seconds` after noon."""
    return network.Answer(
        200, date=formatdate(NOON, usegmt=True), age=age, sent=NOON + seconds - took, received=NOON + seconds
    )


@pytest.mark.parametrize(
    ("answer", "ahead"),
    [
        (at(0.1), 0),
        (at(1.0), 0),
        (at(1.2), 0),  # sent at 1.0 after: the last moment of that second
        (at(5.2), pytest.approx(4.0)),
        (at(-5.0), pytest.approx(-5.0)),
        (at(60, age="59"), 0),
        (at(70, age="59"), pytest.approx(9.8)),
        (at(5.2, age="garbage"), None),
        (replace(at(0), date="garbage"), None),
        (replace(at(0), date=None), None),
        (network.Answer(problem="down"), None),
    ],
)
def test_how_far_a_clock_is_off_at_the_least(answer: network.Answer, ahead: float | None) -> None:
    found = network.skew(answer)
    assert found == ahead if ahead is not None else found is None


@pytest.mark.parametrize(
    ("seconds", "peers", "expected"),
    [
        (0.5, True, "ok"),
        (4.1, True, "ok"),  # 2.9 at the least
        (4.3, True, "fail"),
        (-2.9, True, "ok"),
        (-3.1, True, "fail"),
        (890, False, "ok"),
        (902, False, "warn"),
    ],
)
def test_how_far_a_clock_may_be_off(seconds: float, peers: bool, expected: str) -> None:
    assert state(network.clock([at(seconds)], peers=peers)) == expected


def test_one_server_with_a_wrong_clock_is_no_proof() -> None:
    assert state(network.clock([at(5000), at(0.1)], peers=True)) == "ok"
    assert state(network.clock([network.Answer(problem="down")], peers=True)) == "skipped"


# --- programs that are asked ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("code", ["sleep 60", "exit 9", "head -c 200000 /dev/urandom", "kill -9 $$", "echo hello"])
def test_a_uv_that_misbehaves_leaves_its_answers_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    broken = tmp_path / "uv"
    broken.write_text(f"#!/bin/sh\n{code}\n")
    broken.chmod(0o755)
    monkeypatch.setenv("DRYDOCK_UV", str(broken))
    monkeypatch.delenv("DRYDOCK_PYTHON", raising=False)
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    begin = time.monotonic()
    found = facts.ask_programs("3.11", mac=False, network=True, timeout=0.7)
    assert time.monotonic() - begin < allowed(20)
    assert found.cache is None
    assert found.interpreter is None or found.interpreter.path is None
    one = resources.python("3.11", shipped("cpu")[0].target, found.interpreter)
    assert one.state in ("skipped", "warn")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "tools"),
    [
        ("echo /Library/Developer/CommandLineTools", "/Library/Developer/CommandLineTools"),
        ("exit 2", ""),
        ("sleep 60", None),
    ],
)
def test_xcode_select(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, tools: str | None) -> None:
    program = tmp_path / "xcode-select"
    program.write_text(f"#!/bin/sh\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    timeout = 0.7 if tools is None else 20.0
    assert facts.ask_programs(None, mac=True, network=False, timeout=timeout).tools == tools


@pytest.mark.slow
def test_uv_itself_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "DRYDOCK_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    found = facts.ask_programs("3.11", mac=False, network=True)
    assert found.cache == tmp_path / "cache"
    assert found.interpreter is not None
    assert found.interpreter.path is not None
    assert str(found.interpreter.version).startswith("3.11.")
    named = facts.ask_programs("3.12", mac=False, network=False, timeout=20).interpreter
    assert named is None or (named.version or "3.12").startswith("3.12")
    monkeypatch.setenv("DRYDOCK_PYTHON", str(found.interpreter.path))
    named = facts.ask_programs("3.12", mac=False, network=False, timeout=20).interpreter
    assert named is not None
    assert (named.version or "").startswith("3.11.")
    assert resources.machines_of(found.interpreter.head) == [os.uname().machine]
    assert (found.default_index or "").startswith("https://")


def test_the_users_own_default_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    settings = tmp_path / "uv/uv.toml"
    settings.parent.mkdir()
    for text in (
        'index-url = "http://a/"',
        '[[index]]\nurl = "http://b/"\n[[index]]\nurl = "http://a/"\ndefault = true',
    ):
        settings.write_text(text)
        assert uv.default_index() == "http://a/"
    settings.write_text("not TOML [")
    assert uv.default_index() is None
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://c/")
    assert uv.default_index() == "http://c/"


# --- the program ---------------------------------------------------------------------------------------------------


Look = Callable[..., dict[str, Diagnosis]]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    """Examines `small` on a desk, in this process, whose imports are done; gives what was said, by what it is about.

    The program itself has a test further down.
    """

    def examined(
        desk: Sandbox, *, network: bool = False, full: bool = False, ill: bool = False, **env: str
    ) -> dict[str, Diagnosis]:
        with monkeypatch.context() as patch:
            patch.chdir(desk.work)
            for name in os.environ:
                patch.delenv(name)
            for name, value in {**desk.environment, **env}.items():
                patch.setenv(name, value)
            reporter = PlainReporter(sys.stderr)
            found = doctor.examine("small", Catalogue(), detect(), reporter, ask_network=network, full=full).diagnoses
        assert doctor.ill(found) == ill, found
        assert len({one.what for one in found}) == len(found)
        return {one.what: one for one in found}

    return examined


@pytest.mark.slow
def test_the_program_prints_json_and_ends_with_1_where_something_fails(built: Sandbox) -> None:
    for arguments, env, code in (
        (["--json"], {}, 0),
        (["--json", "--network", "--full"], {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"}, 1),
    ):
        done = built.drydock("doctor", "small", *arguments, env=env)
        assert done.code == code, (done.stdout, done.stderr)
        told = json.loads(done.stdout)
        assert set(told) == {"profile", "ok", "diagnoses"}
        assert (told["profile"], told["ok"]) == ("small", code == 0)
        for one in told["diagnoses"]:
            assert set(one) == {"what", "state", "found", "wanted", "fix"}
            assert one["state"] in ("ok", "warn", "fail", "skipped")
            assert all(isinstance(value, str) for value in one.values())
        failed = [one["what"] for one in told["diagnoses"] if one["state"] == "fail"]
        assert failed == (["default index"] if code else [])
    assert {"verify manifest", "verify files"} <= {one["what"] for one in told["diagnoses"]}


def test_a_built_profile_is_well(built: Sandbox, look: Look) -> None:
    before = sorted(str(path) for path in built.home.rglob("*"))
    found = look(built)
    states = {what: one.state for what, one in found.items()}
    assert states == {
        "platform": "ok",
        "glibc": "ok",
        "memory": "ok",
        "store": "ok",
        "place of the store": "ok",
        "disk": "ok",
        "Python": "ok",
        "lock": "ok",
        "generated files": "skipped",
        "environment": "ok",
        "settings": "ok",
        "clock": "ok",
        "indexes": "skipped",
    }
    assert "nothing is needed" in found["disk"].found
    assert sorted(str(path) for path in built.home.rglob("*")) == before, "nothing is written"


def test_for_people_it_is_a_line_each_and_how_to_mend_it_below(built: Sandbox) -> None:
    done = built.drydock("doctor", "small").succeeded()
    lines = done.stdout.splitlines()
    assert lines[0] == "ok   platform: Linux x86_64, which is linux-x86_64"
    assert all(line[:5] in ("ok   ", "warn ", "FAIL ", "skip ", "     ") for line in lines)
    assert done.stderr == ""


def test_what_is_not_built_needs_disk_and_a_python(locked: Sandbox, look: Look) -> None:
    found = look(locked)
    assert found["environment"].state == "skipped"
    assert "to download at most" in found["disk"].wanted
    assert found["Python"].found.partition(";")[0].endswith("DRYDOCK_PYTHON")  # after it, of PEP 668 on some
    assert not locked.home.joinpath(".local").exists()
    gone = look(locked, ill=True, DRYDOCK_PYTHON="/nowhere/python3.11")
    assert gone["Python"].state == "fail"


def test_locks_that_are_missing_stale_or_edited(locked: Sandbox, look: Look) -> None:
    path = locked.work / "profiles/small.lock.toml"
    text = path.read_text()
    profile = locked.work / "profiles/small.toml"
    profile.write_text(profile.read_text().replace('["anchor"]', '["anchor>=1"]'))
    found = look(locked, ill=True)
    assert "stale" in found["lock"].found
    assert found["lock"].fix == "drydock lock small"
    assert found["environment"].state == "skipped"
    assert found["glibc"].state == "ok"
    path.write_text(text.replace('version = "1.0"', 'version = "1.1"'))
    assert "edited" in look(locked, ill=True)["lock"].found
    path.unlink()
    found = look(locked, network=True, ill=True)
    assert "no lock" in found["lock"].found
    assert found["indexes"].state == "skipped"


def test_generated_files_that_drifted(locked: Sandbox, look: Look) -> None:
    locked.drydock("render", "small").succeeded()
    assert look(locked)["generated files"].state == "ok"
    script = locked.work / "generated/small/run_small.sh"
    script.write_text(script.read_text() + "echo changed\n")
    found = look(locked, ill=True)["generated files"]
    assert "generated/small/run_small.sh" in found.found
    assert found.fix == "drydock render small"


@pytest.mark.slow
def test_generated_files_that_were_right_once_may_drift_in_every_way(locked: Sandbox, look: Look) -> None:
    known = locked.home / ".local/share/drydock/cache/generated"
    known.parents[1].mkdir(parents=True)  # where no store begins, nothing is remembered
    locked.drydock("render", "small").succeeded()
    script, profile = locked.work / "generated/small/run_small.sh", locked.work / "profiles/small.toml"
    text, size = script.read_text(), script.stat().st_size

    def are(state: str) -> None:
        assert look(locked, ill=state == "fail")["generated files"].state == state

    are("ok")
    are("ok")
    (note,) = known.iterdir()
    script.write_text(text.replace("set -eu", "set -ux"))
    assert script.stat().st_size == size
    are("fail")
    script.write_text(text)
    are("ok")
    script.chmod(0o644)
    are("fail")
    script.chmod(0o755)
    are("ok")
    profile.write_text(profile.read_text().replace("a small o", "another o"))
    are("fail")
    locked.drydock("render", "small").succeeded()
    are("ok")
    note.write_text("damaged")
    are("ok")
    assert list(known.iterdir()) == [note]
    script.with_name("old.sh").write_text(script.read_text())
    are("fail")


def test_what_an_evaluation_remembers_is_what_the_files_say(locked: Sandbox, look: Look) -> None:
    def steady() -> dict[str, Diagnosis]:
        return {what: one for what, one in look(locked).items() if what not in ("memory", "disk", "clock")}

    locked.drydock("build", "small").succeeded()
    (memory,) = (locked.home / ".local/share/drydock/cache/evaluations").glob("*.json")
    text, found = memory.read_text(), steady()
    for damaged in ("{}", text[:-100], text.replace('"platform": "linux-x86_64"', '"platform": 1')):
        assert damaged != text
        memory.write_text(damaged)
        assert steady() == found
    memory.write_text(text.replace('"variables": ', '"variables": 4'))
    assert look(locked)["settings"].found.startswith("4"), "it is read"
    profile = locked.work / "profiles/small.toml"
    times = profile.stat()
    profile.write_text(profile.read_text() + '[env]\nLC_ALL = "C"\n')
    os.utime(profile, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert look(locked)["settings"].found.startswith("1 environment variable,")


@pytest.mark.slow
def test_damage_is_found_by_full(locked: Sandbox, look: Look) -> None:
    locked.environment["UV_CACHE_DIR"] = str(locked.root / "cache")
    locked.drydock("build", "small").succeeded()
    well = look(locked, full=True)
    assert {well[f"verify {what}"].state for what in ("manifest", "packages", "files", "machine")} == {"ok"}
    module = next(locked.store.glob("*/lib/*/site-packages/anchor/__init__.py"))
    module.parent.chmod(0o755)
    module.chmod(0o644)
    module.write_text("version = 'another'\n")
    assert look(locked)["environment"].state == "ok", "cheap"
    found = look(locked, full=True, ill=True)
    assert "anchor/__init__.py" in found["verify files"].found
    assert "--repair" in found["verify files"].fix


def test_an_environment_whose_python_is_gone(locked: Sandbox, look: Look) -> None:
    locked.drydock("build", "small").succeeded()
    env = locked.store / locked.environments()[0]
    (env / "bin").chmod(0o755)
    (env / "bin/python").unlink()
    (env / "bin/python").symlink_to("/nowhere/python3.11")
    found = look(locked, ill=True)
    assert "is gone" in found["environment"].found
    assert found["environment"].fix == "drydock build small"
    assert found["Python"].state == "ok", "the one that a build would take"


@pytest.mark.slow
def test_an_environment_of_an_older_lock(locked: Sandbox, look: Look) -> None:
    locked.drydock("build", "small").succeeded()
    old = locked.environments()[0]
    make_wheel(locked.wheels, "anchor", "2.0")
    locked.environment["UV_CACHE_DIR"] = str(locked.root / "cache")
    locked.drydock("lock", "small", "-U").succeeded()
    found = look(locked)["environment"]
    assert found.state == "warn"
    assert old in found.found


def test_a_store_of_a_newer_drydock(locked: Sandbox, look: Look) -> None:
    newer = locked.root / "newer"
    newer.mkdir()
    (newer / "format").write_text("2\n")
    found = look(locked, full=True, ill=True, DRYDOCK_HOME=str(newer))
    assert "store of format 2" in found["store"].found
    assert (found["environment"].state, found["verify"].state) == ("skipped", "skipped")
    assert "disk" not in found
    homeless = look(locked, ill=True, HOME="")
    assert "no place for the store" in homeless["store"].found


def test_a_clock_that_was_set_back(locked: Sandbox, look: Look) -> None:
    later = time.time() + 3 * 86400
    os.utime(locked.work / "profiles/small.lock.toml", (later, later))
    assert "the lock was written" in look(locked, ill=True)["clock"].wanted


def test_the_index_is_asked_for_a_locked_file(built: Sandbox, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    # One of the two who ask may be late on a busy machine, and the other's answer is then enough to be well.
    for name in ("ask", "ask_uv"):
        monkeypatch.setattr(network, name, partial(getattr(network, name), timeout=100))
    before = len(built.index.requests)
    found = look(built, network=True)
    said = (found["default index"], found["clock of the network"])
    assert built.index.requests[before:] == ["/simple/anchor/"] * 2, f"by us, and by uv: {said}"
    assert [one.state for one in said] == ["ok", "ok"], said
    assert "/simple/anchor/ lists anchor-1.0" in said[0].found, "what our own request found"
    look(built, network=True, UV_FIND_LINKS=str(built.wheels))
    quiet = len(built.index.requests)
    assert quiet == before + 4, "uv asks the default index all the same"
    look(built)
    assert len(built.index.requests) == quiet
    assert look(built, network=True, UV_OFFLINE="1")["indexes"].state == "skipped"
    assert len(built.index.requests) == quiet


def test_indexes_that_are_down_or_serve_garbage(built: Sandbox, look: Look) -> None:
    with server("<h1>please log in</h1>") as url:
        found = look(built, network=True, ill=True, UV_DEFAULT_INDEX=url)
    assert "something else" in found["default index"].found
    found = look(built, network=True, ill=True, UV_DEFAULT_INDEX=url)
    assert "refused" in found["default index"].found
    assert found["clock of the network"].state == "skipped"


def test_an_index_of_the_profile_is_asked_where_the_user_says_it_is(sandbox: Sandbox, look: Look) -> None:
    text = sandbox.profile("small").read_text()
    text = text.replace("[packages]\n", '[packages]\nindex = { anchor = "own-index" }\n')
    sandbox.profile("small", text + '[indexes]\nown-index = "http://127.0.0.1:9/simple"\n')
    sandbox.environment["DRYDOCK_INDEX_OWN_INDEX"] = sandbox.index.url
    sandbox.drydock("lock", "small").succeeded()
    found = look(sandbox, network=True)
    assert found["index own-index"].state == "ok"
    found = look(sandbox, network=True, ill=True, DRYDOCK_INDEX_OWN_INDEX="")
    assert "127.0.0.1:9" in found["index own-index"].found
    local = look(sandbox, network=True, DRYDOCK_INDEX_OWN_INDEX="", UV_FIND_LINKS=str(sandbox.wheels))
    assert "folders of wheels" in local["index own-index"].found


def test_a_profile_for_another_platform_is_checked_as_far_as_it_goes(built: Sandbox) -> None:
    done = built.drydock("doctor", "m4")
    assert done.code == 1
    assert done.stdout.count("FAIL") == 1
    assert "m4 is for other machines" in done.stdout
    assert "ok   lock: fresh, 108 packages" in done.stdout
    assert "warn settings: PYTORCH_MPS_HIGH_WATERMARK_RATIO" in done.stdout
    assert "profile m4-upstream" in done.stdout
    for nonsense in ("macOS", "memory:", "disk", "Python:", "environment", "Xcode", "Rosetta"):
        assert f"{nonsense}:" not in done.stdout


@pytest.mark.slow
def test_a_machine_with_gpus_and_an_old_driver(sandbox: Sandbox, tmp_path: Path) -> None:
    path = nvidia_smi(tmp_path / "bin", printing("eight-h100.gpus", "h100.summary"))
    told = sandbox.drydock("doctor", "auto", env={"PATH": path}).succeeded()
    assert "auto: cuda" in told.stderr
    assert "ok   CUDA: 12." in told.stdout
    old = nvidia_smi(tmp_path / "old", printing("one-a100.gpus", "titan-384.summary"))
    told = sandbox.drydock("doctor", "cuda", env={"PATH": old})
    assert told.code == 1
    assert "FAIL CUDA: driver 384" in told.stdout


@pytest.mark.slow
def test_a_broken_driver_breaks_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path / "bin", "sleep 60"))
    monkeypatch.setenv("DRYDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DRYDOCK_PROFILES", raising=False)
    begin = time.monotonic()
    with (tmp_path / "said").open("w") as said:
        found = doctor.examine("cuda", Catalogue(), detect(1.0), PlainReporter(said), timeout=1.0)
    assert time.monotonic() - begin < allowed(20)
    states = {one.what: one.state for one in found.diagnoses}
    assert (states["GPU"], states["CUDA"], states["lock"]) == ("fail", "skipped", "ok")


def test_profiles_that_cannot_be_read_are_errors_as_everywhere(built: Sandbox) -> None:
    built.drydock("doctor", "smal").failed(1, 'no profile "smal"', 'did you mean "small"?')
    built.drydock("doctor", "base").failed(1, "a part to extend")


def test_a_place_where_two_locked_files_are_one() -> None:
    """Most disks of Macs are such a place, and hardly a package minds."""
    clash = case_clash(["one", "two"], "lib/python3.11/site-packages/A/b.py", "lib/python3.11/site-packages/a/B.py")
    (one,) = resources.place(Path("/store"), [], folds=True, clash=clash)
    assert (one.state, "one and two bring A/b.py and a/B.py" in one.found) == ("fail", True)
    assert "DRYDOCK_HOME" in one.fix
    (one,) = resources.place(Path("/store"), [], folds=True, clash=None)
    assert (one.state, "upper and lower case are the same there" in one.found) == ("ok", True)
