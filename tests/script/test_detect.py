"""Values of a profile that the script finds out where it runs: the same as the probes say, under every shell."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from builder.errors import ProfileError
from builder.machine import Machine, macos
from builder.profile.detect import Detect
from builder.profile.model import Setting
from builder.profile.source import Source
from builder.script.quoting import sh_word
from builder.script.templates import rendered
from tests.conftest import ROOT
from tests.script.test_render import make
from tests.support import SHELLS, Sandbox
from tests.support.profiles import load
from tests.support.scripts import Desk

KINDS = ("performance-cores", "usable-cores", "memory-gb", "gpu-count")
UNKNOWN = 999
MAC = {"platform": "macos-arm64", "accelerator": "mps", "min-os": "14.0"}


def functions(**changes: Any) -> str:
    """The detection of a rendered script, to be run by itself."""
    plan = make(env={f"A{number}": {"detect": kind, "fallback": 0} for number, kind in enumerate(KINDS)}, **changes)
    text = rendered(plan)[plan.profile.run_script]
    found = re.search(r"^# detected WHAT.*?(?=^# What would let another)", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    first = re.search(r"^case \$\{ZSH_VERSION.*\n", text, re.MULTILINE)
    assert first is not None
    return f"{first[0]}set -eu\n{found[0]}\n"


def told(script: Path, shell: str, *around: str, **env: str) -> list[str]:
    """The lines that a script prints under a shell, with no word on stderr; `around` is a command to run it in."""
    done = subprocess.run(
        [*around, *SHELLS[shell], str(script)],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), shell
    return done.stdout.splitlines()


def agree(folder: Path, *around: str, **env: str) -> dict[str, int | None]:
    """What the probes find, which every shell finds too; run in the command `around`."""
    code = "import json; from builder import machine; print(json.dumps(machine.detect().detected))"
    done = subprocess.run(
        [*around, sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **env}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int | None] = json.loads(done.stdout)
    script = folder / "detect.sh"
    script.write_text(functions() + "".join(f"detected {kind} {UNKNOWN} 100 0 0\n" for kind in KINDS))
    expected = [str(UNKNOWN if found[kind] is None else found[kind]) for kind in KINDS]
    assert {shell: told(script, shell, *around, **env) for shell in SHELLS} == dict.fromkeys(SHELLS, expected)
    return found


# --- this machine --------------------------------------------------------------------------------------------------

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="affinity, control groups and mounts are Linux's")


def test_the_script_finds_what_the_probes_find(tmp_path: Path) -> None:
    found = agree(tmp_path)
    assert all(found[kind] is not None for kind in KINDS)


@linux_only
def test_affinity_is_respected(tmp_path: Path) -> None:
    if shutil.which("taskset") is None:
        pytest.skip("there is no taskset")
    for processor in sorted(os.sched_getaffinity(0))[:2]:
        found = agree(tmp_path, "taskset", "-c", str(processor))
        assert (found["usable-cores"], found["performance-cores"]) == (1, 1)


@contextmanager
def control_group(controller: str, limits: dict[str, str]) -> Iterator[Path]:
    """A real control group below ours, of whichever version this machine uses; skips where none can be made."""
    from builder.machine.linux import parse_groups

    mount, path = parse_groups(Path("/proc/self/cgroup").read_text(), controller)[0]
    folder = Path("/", mount, path.strip("/")) / f"drydock-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        for name, value in limits.items():
            if not (folder / name).exists():
                pytest.skip(f"the control groups here have no {name}")
            (folder / name).write_text(value)
        yield folder
    finally:
        folder.rmdir()


def within(group: Path) -> Sequence[str]:
    """A command that runs another in a control group."""
    return ["sh", "-c", 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"', "sh", str(group)]


@linux_only
def test_the_quota_of_a_real_control_group_is_respected(tmp_path: Path) -> None:
    with control_group("cpu", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "190000"}) as group:
        found = agree(tmp_path, *within(group))
        assert (found["usable-cores"], found["performance-cores"]) == (1, 1)
        inner = group / "inner"  # one that is not limited itself
        inner.mkdir()
        try:
            assert agree(tmp_path, *within(inner))["usable-cores"] == 1
        finally:
            inner.rmdir()


@pytest.mark.slow
@linux_only
def test_the_memory_limit_of_a_real_control_group_is_respected(tmp_path: Path) -> None:
    with control_group("memory", {"memory.limit_in_bytes": str(3 * 2**30 + 4096)}) as group:
        assert agree(tmp_path, *within(group))["memory-gb"] == 3


def mounted(folder: Path, place: str) -> Sequence[str]:
    """A command that runs another where `folder` is seen at `place`; skips where nothing can be mounted."""
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount --bind "$1" "$2" && shift 2 && exec "$@"',
        "sh",
        str(folder),
        place,
    ]
    done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no mount of our own: {done.stderr.strip()}")
    return command


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize(
    ("cpu", "memory", "cores", "gib"),
    [
        ("42000 100000", "44040192", 1, 0),
        ("max 100000", "2147483648", None, 2),
        ("6000000 100000", "max", None, None),
        ("150000 100000", "99999999999999", 1, None),
        ("", "", None, None),
    ],
)
def test_limits_as_control_groups_of_version_2_have_them(
    tmp_path: Path, cpu: str, memory: str, cores: int | None, gib: int | None
) -> None:
    if "0::/\n" not in Path("/proc/self/cgroup").read_text():
        pytest.skip("the kernel names no group at the top of version 2 here")
    free = agree(tmp_path)
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup/cpu.max").write_text(f"{cpu}\n")
    (tmp_path / "cgroup/memory.max").write_text(f"{memory}\n")
    found = agree(tmp_path, *mounted(tmp_path / "cgroup", "/sys/fs/cgroup"))
    assert found["usable-cores"] == (cores or free["usable-cores"])
    assert found["memory-gb"] == (free["memory-gb"] if gib is None else gib)


@linux_only
def test_the_small_cores_of_arm_and_intel_are_left_out(tmp_path: Path) -> None:
    cpu = tmp_path / "devices/system/cpu"
    for number, capacity in enumerate([1024, 430]):
        (cpu / f"cpu{number}/topology").mkdir(parents=True)
        (cpu / f"cpu{number}/topology/thread_siblings_list").write_text(f"{number}\n")
        (cpu / f"cpu{number}/cpu_capacity").write_text(f"{capacity}\n")
    (cpu / "online").write_text("0-1\n")
    around = mounted(tmp_path / "devices", "/sys/devices")
    assert agree(tmp_path, *around)["performance-cores"] == 1
    (cpu / "cpu1/cpu_capacity").write_text("600\n")  # a middle one is no small one
    assert agree(tmp_path, *around)["performance-cores"] == min(2, len(os.sched_getaffinity(0)))
    (cpu / "cpu0/cpu_capacity").unlink()
    (cpu / "cpu1/cpu_capacity").unlink()
    (tmp_path / "devices/cpu_atom").mkdir()
    (tmp_path / "devices/cpu_atom/cpus").write_text("1\n")
    assert agree(tmp_path, *around)["performance-cores"] == 1


@linux_only
def test_where_nothing_can_be_found_out_the_fallback_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    script = tmp_path / "detect.sh"
    script.write_text(functions() + "".join(f"detected {kind} {UNKNOWN} 50 7 1 2\n" for kind in KINDS[:2]))
    around = mounted(tmp_path / "empty", "/sys")
    for shell in SHELLS:
        assert told(script, shell, *around) == [str(UNKNOWN), "1"], shell
    assert agree(tmp_path, *around)["performance-cores"] is None


# --- a Mac, and GPUs -----------------------------------------------------------------------------------------------

SYSCTL = """\
#!/bin/sh
[ "$1" = -n ] || exit 64
value=$(sed -n "s/^$2: //p" "$CAPTURE")
[ -n "$value" ] || { echo "sysctl: unknown oid '$2'" >&2; exit 1; }
printf '%s\\n' "$value"
"""


def program(folder: Path, name: str, text: str) -> str:
    """A PATH with a program before everything else."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.slow
@pytest.mark.parametrize("capture", ["m1-pro", "m1-big-sur", "m2-max", "m3-max", "m4", "m4-pro", "m4-max", "m5"])
def test_on_a_mac_the_script_finds_what_the_probes_find(tmp_path: Path, capture: str) -> None:
    file = ROOT / f"tests/captured/{capture}.sysctl"
    facts = macos.facts("arm64", {**dict.fromkeys(macos.COMMANDS, ""), macos.SYSCTL: file.read_text()})
    found = Machine(system="Darwin", machine="arm64", **facts).detected
    script = tmp_path / "detect.sh"
    kinds = KINDS[:3]
    script.write_text(functions(target=MAC) + "".join(f"detected {kind} {UNKNOWN} 100 0 0\n" for kind in kinds))
    path = program(tmp_path / "bin", "sysctl", SYSCTL)
    expected = [str(UNKNOWN if found[kind] is None else found[kind]) for kind in kinds]
    for shell in SHELLS:
        assert told(script, shell, PATH=path, CAPTURE=str(file)) == expected, shell


def test_no_performance_cores_at_all_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "capture").write_text("hw.perflevel0.physicalcpu: 0\nhw.activecpu: 10\nhw.memsize: nonsense\n")
    script = tmp_path / "detect.sh"
    script.write_text(functions(target=MAC) + "".join(f"detected {kind} {UNKNOWN} 100 0 0\n" for kind in KINDS[:3]))
    path = program(tmp_path / "bin", "sysctl", SYSCTL)
    for shell in SHELLS:
        assert told(script, shell, PATH=path, CAPTURE=str(tmp_path / "capture")) == ["999", "10", "999"], shell


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "count"),
    [
        (f'cat "{ROOT}/tests/captured/two-quadro.list"', 2),
        (f'cat "{ROOT}/tests/captured/mig.list"', 1),
        ('printf "GPU 0: a\\n  MIG 1g.5gb Device 0: b\\n"', 1),
        (f'cat "{ROOT}/tests/captured/no-devices.gpus"', 0),
        (f'cat "{ROOT}/tests/captured/no-driver.gpus"; exit 9', UNKNOWN),
    ],
)
def test_gpus_are_those_that_nvidia_smi_lists(tmp_path: Path, code: str, count: int) -> None:
    script = tmp_path / "detect.sh"
    script.write_text(functions() + f"detected gpu-count {UNKNOWN} 100 0 0\n")
    path = program(tmp_path / "bin", "nvidia-smi", f'#!/bin/sh\n[ "$*" = -L ] || exit 64\n{code}\n')
    for shell in SHELLS:
        assert told(script, shell, PATH=path) == [str(count)], shell


@pytest.mark.slow
def test_a_driver_that_hangs_leaves_the_fallback(tmp_path: Path) -> None:
    script = tmp_path / "detect.sh"
    script.write_text(functions() + f"detected gpu-count {UNKNOWN} 100 0 0\n")
    path = program(tmp_path / "bin", "nvidia-smi", "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n")
    began = time.monotonic()
    assert told(script, "dash", PATH=path) == [str(UNKNOWN)]
    assert time.monotonic() - began < 30


@linux_only
def test_programs_are_found_where_cron_does_not_look(tmp_path: Path) -> None:
    folder = ROOT / "tests/captured"
    code = f'case $1 in -L) cat "{folder}/two-quadro.list" ;; --query*) head -n 2 "{folder}/eight-h100.gpus" ;; esac'
    program(tmp_path / "sbin", "nvidia-smi", f"#!/bin/sh\n{code}\n")
    around = mounted(tmp_path / "sbin", "/usr/sbin")
    assert agree(tmp_path, *around, PATH="/usr/bin:/bin")["gpu-count"] == 2


# --- arithmetic ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_shell_counts_as_the_model_does(tmp_path: Path) -> None:
    dice = random.Random(4)  # the same cases every time
    cases: list[tuple[Detect, int]] = []
    while len(cases) < 200:
        given = {
            "detect": dice.choice(KINDS),
            "fallback": dice.randrange(100),
            "fraction": dice.choice([1.0, 0.5, 0.01, 0.07, 0.29, 0.57, dice.randrange(1, 101) / 100]),
            "minus": dice.choice([0, 1, dice.randrange(2000)]),
            **({"min": dice.randrange(20)} if dice.random() < 0.5 else {}),
            **({"max": dice.randrange(20, 4000)} if dice.random() < 0.5 else {}),
        }
        cases.append((Detect.model_validate(given), dice.choice([0, 1, 2, 3, 10, 100, 4096, 65536])))
    script = tmp_path / "detect.sh"
    names = ("performance_cores", "usable_cores", "memory", "gpus")
    stubs = "".join(f"find_{name}() {{ _found=$FOUND; }}\n" for name in names)
    lines = [f"FOUND={found}\nprintf '%s\\n' {sh_word(detect)}\n" for detect, found in cases]
    script.write_text(functions() + stubs + "".join(lines))
    expected = [str(detect.of(found)) for detect, found in cases]
    for shell in SHELLS:
        assert told(script, shell) == expected, shell


def test_every_shell_divides_what_is_too_big_for_its_own_numbers(tmp_path: Path) -> None:
    numbers = [0, 1, 1023, 1024, 1025, 10240, 2**31, 2**32 + 7, 3 * 2**30 + 4096, 10**15 - 1, 2**63 - 1]
    script = tmp_path / "detect.sh"
    script.write_text(
        functions() + "".join(f"divide_by_1024 {number}; printf '%s\\n' \"$_found\"\n" for number in numbers)
    )
    for shell in SHELLS:
        assert told(script, shell) == [str(number // 1024) for number in numbers], shell


# --- in a profile --------------------------------------------------------------------------------------------------


def test_detected_values_reach_the_trainer_and_what_the_caller_exports_wins_where_the_profile_says_so(
    tmp_path: Path,
) -> None:
    here = agree(tmp_path)
    usable = here["usable-cores"]
    assert usable is not None
    cores = {"detect": "usable-cores", "fallback": UNKNOWN}
    plan = make(
        env={
            "ALWAYS": {**cores, "note": "it's $HOME"},
            "BY_DEFAULT": {"default": cores},
            "BY_CALLER": {"default": cores, "note": "not said: it is the caller's"},
        },
        trainer={
            "command": ["python"],
            "arguments": ["--more", {**cores, "minus": 0, "max": 1}, "--threads", cores],
            "options": [
                {"flag": "--workers", "from": "WORKERS", "default": {**cores, "fraction": 0.5}},
                {"flag": "--jobs", "from": "JOBS", "default": cores},
            ],
        },
    )
    desk = Desk.of(tmp_path / "desk", plan).built()
    for shell in SHELLS:
        got = desk.train(shell, "last", ALWAYS="mine", BY_CALLER="mine", JOBS="mine")
        names = ("ALWAYS", "BY_DEFAULT", "BY_CALLER")
        assert [got.environment[name] for name in names] == [str(usable), str(usable), "mine"], shell
        workers = str(max(1, usable // 2))
        assert got.arguments == [
            *("--more", "1", "--threads", str(usable), "--workers", workers, "--jobs", "mine", "last"),
        ]
        assert got.stderr == f"drydock: note: ALWAYS={usable}: it's $HOME\n"
    assert not [name for name in got.environment if name.startswith("_") and name != "_"], "nothing leaks"


def test_the_help_and_the_env_file_tell_what_is_found_out() -> None:
    half = {"detect": "memory-gb", "fraction": 0.5, "min": 4, "max": 64, "fallback": 8}
    plan = make(
        env={"CACHE_GB": half, "THREADS": {"default": {"detect": "usable-cores", "minus": 1, "fallback": 3}}},
        trainer={"command": ["python"], "options": [{"flag": "--gb", "from": "GB", "default": half}]},
    )
    files = rendered(plan)
    assert "GB (0.5 of memory-gb, at least 4, at most 64, else 8): --gb" in files[plan.profile.run_script]
    lines = files["small.env"].splitlines()
    assert lines[-4].startswith("# The run script takes 0.5 of memory-gb, at least 4, at most 64, else 8;")
    assert lines[-3] == "CACHE_GB=8"
    assert lines[-1] == "THREADS=3"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("platform", [{}, {"target": MAC}], ids=["linux", "mac"])
def test_a_script_carries_what_finds_out_what_it_asks_for(tmp_path: Path, kind: str, platform: dict[str, Any]) -> None:
    """All that is called is there, and nothing else: what is missing would be said as the fallback."""
    plan = make(env={"A": {"detect": kind, "fallback": UNKNOWN}}, **platform)
    text = rendered(plan)[plan.profile.run_script]
    functions = set(re.findall(r"^(\w+)\(\) \{", text, re.MULTILINE))
    ours = functions & {"find_performance_cores", "find_usable_cores", "find_memory", "find_gpus"}
    named = {"performance-cores": "find_performance_cores", "usable-cores": "find_usable_cores"}
    wanted = {named.get(kind, "find_memory" if kind == "memory-gb" else "find_gpus")}
    assert ours == wanted | ({"find_usable_cores"} if kind == "performance-cores" and not platform else set())
    helpers = {"limit_cores", "limit_memory", "each_control_group", "count_common", "divide_by_1024"}
    part = text[text.index("# detected WHAT") : text.index("# What would let another")]
    assert functions & helpers == {name for name in helpers if re.search(rf"\b{name}\b(?!\()", part)}


def test_a_profile_that_detects_nothing_carries_no_detection() -> None:
    plan = make(env={"A": "1"})
    assert "detected" not in rendered(plan)[plan.profile.run_script]
    carrying = {path.parent.name for path in ROOT.glob("generated/*/run_*.sh") if "chosen()" in path.read_text()}
    assert carrying == {"m4", "cpu-swarm"}


@pytest.mark.slow
def test_a_script_with_detection_is_clean(tmp_path: Path) -> None:
    program = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    assert program is not None
    detect = {"detect": "memory-gb", "fallback": 1, "note": "!"}
    for target in (MAC, {"platform": "linux-x86_64", "accelerator": "cpu", "glibc": "2.17"}):
        plan = make(target=target, env={"A": detect, "B": {"default": {"detect": "gpu-count", "fallback": 1}}})
        script = tmp_path / "run.sh"
        script.write_text(rendered(plan)[plan.profile.run_script])
        done = subprocess.run([program, str(script)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{ detect = "performance-cors", fallback = 4 }', "performance-cores"),
        ('{ detect = "usable-cores" }', 'the key "fallback" is missing'),
        ('{ detect = "usable-cores", falback = 4 }', 'unknown key "falback"'),
        ('{ detect = "usable-cores", fallback = "4" }', "should be a valid integer"),
        ('{ detect = "usable-cores", fallback = -1 }', "greater than or equal to 0"),
        ('{ detect = "usable-cores", fallback = 1, fraction = 1.5 }', "less than or equal to 1"),
        ('{ detect = "usable-cores", fallback = 1, fraction = 0.333 }', "at most two decimals"),
        ('{ detect = "usable-cores", fallback = 1, min = 4, max = 2 }', "max is less than min (4)"),
        ('{ detect = "usable-cores", fallback = 1, max = 0 }', "max is less than min (1)"),
        ('{ default = { detect = "usable-cores", fallback = true } }', "should be a valid integer"),
        ("{ default = { fallback = 3 } }", 'the key "detect" is missing'),
        ('{ detect = "usable-cores", fallback = 1, default = "3" }', 'unknown key "default"'),
    ],
)
def test_a_wrong_detection_is_told_with_its_line(value: str, message: str) -> None:
    text = f"""\
schema = 1
name = "one"
[target]
platform = "linux-x86_64"
accelerator = "cpu"
glibc = "2.28"
[python]
version = "3.11"
[trainer]
command = ["python"]
[env]
OMP_NUM_THREADS = {value}
"""
    with pytest.raises(ProfileError) as caught:
        load("one", lambda _: Source("one.toml", text))
    shown = f"{caught.value.message} {caught.value.hint}"
    assert message in shown
    assert caught.value.where is not None
    assert caught.value.where.line == 12
    assert "[" not in (caught.value.where.key or "")


def test_the_kinds_of_the_model_are_those_that_a_machine_has() -> None:
    assert tuple(Machine(system="", machine="").detected) == KINDS
    for kind in KINDS:
        assert Setting.model_validate({"detect": kind, "fallback": 1}).value == Detect(detect=kind, fallback=1)
    with pytest.raises(ValidationError):
        Setting.model_validate({"detect": "cores", "fallback": 1})


def test_show_and_diff_tell_what_is_detected(locked: Sandbox) -> None:
    locked.profile("other", tail='[env]\nT = { default = { detect = "usable-cores", minus = 1, fallback = 3 } }\n')
    shown = json.loads(locked.drydock("profile", "show", "other", "--json").succeeded().stdout)
    assert shown["env"]["T"]["default"]["detect"] == "usable-cores"
    assert 'detect = "usable-cores"' in locked.drydock("profile", "show", "other").succeeded().stdout
    lock = (locked.work / "profiles/small.lock.toml").read_text()
    locked.drydock("lock", "other").succeeded()
    assert lock
    told = locked.drydock("diff", "small", "other").succeeded().stdout
    assert "T (usable-cores, minus 1, else 3) unless set" in told
