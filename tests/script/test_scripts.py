"""The committed scripts under every shell: exactly what they print, start and refuse, on any machine."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builder.embedded import installer
from builder.embedded.plan import read_plan
from builder.isolation import LEAKS
from builder.machine.detect import detect
from builder.profile.detect import Choice, Detect
from builder.project.catalogue import Catalogue
from builder.script.plan import Plan
from builder.script.quoting import sh_quote
from tests.conftest import ROOT
from tests.support import SHELLS
from tests.support.scripts import Desk

RUN_SCRIPTS = sorted((ROOT / "generated").glob("*/run_*.sh"))
SCRIPTS = sorted((ROOT / "generated").glob("*/*.sh"))
ODD_HOME = 'it\'s a "$(touch canary)" h\u00f6me \\ *'
DEFAULT_STORE = ".local/share/drydock/store"


def named(path: Path) -> str:
    """The name of a test's parameter."""
    return path.name


@functools.cache
def plan_of(script: Path) -> Plan:
    """The plan that a committed script was rendered from."""
    return Catalogue([ROOT / "profiles"]).plan(script.parent.name)


def desk(folder: Path, script: Path) -> Desk:
    """A desk with a committed script."""
    return Desk(folder, script.read_text(), script.name, plan_of(script).store_name)


def same(one: Desk, *arguments: str, **env: str) -> str:
    """What a script prints, which is the same under every shell, with no word on stderr."""
    told = {shell: one.run(shell, *arguments, **env) for shell in SHELLS}
    assert {shell: (done.returncode, done.stderr) for shell, done in told.items()} == dict.fromkeys(SHELLS, (0, b""))
    assert len({done.stdout for done in told.values()}) == 1, told
    return next(iter(told.values())).stdout.decode()


# --- alike under every shell, on any platform ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("script", RUN_SCRIPTS, ids=named)
@pytest.mark.parametrize("home", ["home", ODD_HOME])
def test_where_and_print_env_are_the_same_under_every_shell(tmp_path: Path, script: Path, home: str) -> None:
    one = desk(tmp_path, script)
    store = tmp_path / home / DEFAULT_STORE / plan_of(script).store_name
    assert same(one, "--where", HOME=str(tmp_path / home)) == f"{store}\n"
    lines = [f"unset {name}" for name in LEAKS]
    lines += ["export PYTHONNOUSERSITE=1", f"export VIRTUAL_ENV={sh_quote(str(store))}"]
    lines += [f'export PATH={sh_quote(f"{store}/bin")}:"$PATH"']
    plan = plan_of(script)
    for name, setting in plan.profile.env.items():
        value = setting.value if setting.value is not None else setting.default
        # On any machine but a Mac, a Mac's script finds out nothing.
        text = str(value.fallback) if isinstance(value, Detect | Choice) else value or ""
        if isinstance(value, Detect) and plan.profile.target.system == os.uname().sysname:
            text = str(value.of(detect().usable_cores))
        if setting.default is not None:
            lines.append(f"# {name}: the default of {plan.profile.name}: {value}")
        lines.append(f"unset {name}" if setting.unset else f"export {name}={sh_quote(text)}")
    assert same(one, "--print-env", HOME=str(tmp_path / home)).splitlines() == lines
    assert [path.name for path in tmp_path.iterdir()] == [script.name]  # nothing was written, nothing run


def test_the_place_of_the_store_is_the_callers_choice(tmp_path: Path) -> None:
    one = desk(tmp_path, RUN_SCRIPTS[0])
    name = one.env.name
    for env, place in (
        ({"DRYDOCK_HOME": f"/{ODD_HOME}"}, f"/{ODD_HOME}"),
        ({"DRYDOCK_HOME": "-here", "XDG_DATA_HOME": "/x"}, f"{tmp_path}/-here"),
        ({"XDG_DATA_HOME": f"/x/{ODD_HOME}"}, f"/x/{ODD_HOME}/drydock"),
        ({"XDG_DATA_HOME": "", "DRYDOCK_HOME": ""}, f"{one.home}/.local/share/drydock"),
        ({"DRYDOCK_HOME": "/x", "HOME": ""}, "/x"),
    ):
        assert same(one, "--where", **env) == f"{place}/store/{name}\n"
    for shell in SHELLS:
        done = one.run(shell, "--where", HOME="")
        assert done.returncode != 0, shell
        assert b"set HOME or DRYDOCK_HOME" in done.stderr, shell


@pytest.mark.slow
def test_a_callers_value_stands_where_the_profile_has_a_default(tmp_path: Path) -> None:
    one = desk(tmp_path, ROOT / "generated/m4/run_rl_swarm_mac.sh")
    assert "export OMP_NUM_THREADS='10'\n" in same(one, "--print-env", OMP_NUM_THREADS="10")
    assert "export OMP_NUM_THREADS=''\n" in same(one, "--print-env", OMP_NUM_THREADS="")
    assert "export PYTORCH_ENABLE_MPS_FALLBACK='1'\n" in same(one, "--print-env")
    assert "export PYTORCH_ENABLE_MPS_FALLBACK='0'\n" in same(one, "--print-env", PYTORCH_ENABLE_MPS_FALLBACK="0")
    told = same(one, "--print-env", TOKENIZERS_PARALLELISM="true")
    assert "# TOKENIZERS_PARALLELISM: from your environment; the default of m4 is false\n" in told
    assert "export TOKENIZERS_PARALLELISM='true'\n" in told
    assert "# PYTORCH_ENABLE_MPS_FALLBACK: the default of m4: 1\n" in told


@pytest.mark.parametrize(
    ("theirs", "high", "low"),
    [
        ({}, "1.0", "0.8"),
        ({"HIGH": "0.7"}, "0.7", "0.7"),
        ({"HIGH": "0.7", "LOW": "0.6"}, "0.7", "0.6"),
        ({"LOW": "0.5"}, "1.0", "0.5"),
        ({"HIGH": "0.0"}, "0.0", None),
        ({"HIGH": "0.0", "LOW": "0.6"}, "0.0", "0.6"),
    ],
)
def test_the_watermarks_are_the_callers_and_agree(
    tmp_path: Path, theirs: dict[str, str], high: str, low: str | None
) -> None:
    """PyTorch refuses a low watermark above the high one, whose default is 1.4; sysctl says nothing here."""
    one = desk(tmp_path, ROOT / "generated/m4/run_rl_swarm_mac.sh")
    told = same(one, "--print-env", **{f"PYTORCH_MPS_{name}_WATERMARK_RATIO": value for name, value in theirs.items()})
    found = dict(line[len("export ") :].split("=", 1) for line in told.splitlines() if line.startswith("export PYT"))
    assert found["PYTORCH_MPS_HIGH_WATERMARK_RATIO"] == f"'{high}'"
    assert found.get("PYTORCH_MPS_LOW_WATERMARK_RATIO") == (None if low is None else f"'{low}'")


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=named)
def test_help_and_wrong_use_are_the_same_under_every_shell(tmp_path: Path, script: Path) -> None:
    one = desk(tmp_path, script)
    told = same(one, "--help")
    assert script.name in told
    assert "# " not in told
    assert same(one, "-h") == told
    for shell in SHELLS:
        done = one.run(shell, "--nonsense", "--help")
        assert (done.returncode, done.stdout) == (2, b""), shell
        assert done.stderr.decode().startswith("drydock: error: --nonsense is not an option"), shell
        assert done.stderr.endswith(b"\ndrydock:   hint: see --help\n"), shell
    assert [path.name for path in tmp_path.iterdir()] == [script.name]


def test_the_help_tells_what_comes_from_the_environment(tmp_path: Path) -> None:
    told = same(desk(tmp_path, ROOT / "generated/m4/run_rl_swarm_mac.sh"), "--help").splitlines()
    assert "  IDENTITY_PATH (swarm.pem): --identity_path" in told
    assert "  ORG_ID: --modal_org_id" in told
    assert "  PUSH_TO_HUB=1 HF_TOKEN: --hf_token" in told


@pytest.mark.parametrize("script", SCRIPTS, ids=named)
def test_the_help_fits_a_terminal_of_80_columns(script: Path) -> None:
    """A default that is one long word stands in a line of its own."""
    told = subprocess.run(["sh", script, "--help"], capture_output=True, text=True, check=True).stdout
    assert [line for line in told.splitlines() if len(line) > 80 and " " in line.strip()] == []


# --- readable and self-contained -----------------------------------------------------------------------------------


def test_render_check_finds_no_drift() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "builder", "render", "--check"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


# POSIX.1-2017, "Utilities", with the options that are used, all of them POSIX too; macOS and busybox have each.
COMMANDS = {
    "cat": set(),
    "chmod": set(),
    "df": {"-Pk"},
    # -mmin and -maxdepth are not POSIX: GNU, BSD and busybox have them.
    "find": {"-type", "-prune", "-user", "-perm", "-020", "-mmin", "-1", "-maxdepth", "-newer", "-name"},
    "getconf": set(),
    "grep": {"-c"},
    "id": {"-u"},
    "mkdir": {"-p"},
    "mkfifo": {"-m"},
    "mv": set(),
    "rm": {"-f", "-rf"},
    "sed": {"-n"},
    "tr": {"-d"},
    "sleep": set(),
    "uname": {"-s", "-m", "-n"},
    # Not POSIX: macOS has these, and they are called there only; the driver brings one; and what this is all about.
    "sw_vers": {"-productVersion"},
    "sysctl": {"-n"},
    "xcode-select": {"-p"},
    "nvidia-smi": {"-L"},
    "uv": {"--version"},
    "git": set(),  # where there is .git
    # Only where DRYDOCK_IMAGE names an image, on Linux; without them the store is used.
    "unshare": {"--mount", "--propagation", "-c"},
    "fusermount3": {"-uz"},
    "squashfuse_ll": {"-otimeout=600,ro,nosuid,nodev"},
}
# POSIX.1-2017, "Shell Command Language", and the utilities that shells have inside of them; zsh alone has `emulate`.
OF_SHELLS = set(
    """
    : [ break case cd command continue do done elif else esac exec exit export fi for if in kill printf read return set
    shift then trap emulate ulimit umask unset until wait while
    """.split()  # noqa: SIM905 # a list of words
)


def commands(script: Path) -> set[tuple[str, ...]]:
    """The commands of a script with their options, roughly: plain words that stand where a command stands."""
    text = re.sub(r"<<'(\w+)'(.*?\n).*?\n\1\n", r"\2", script.read_text(), flags=re.DOTALL)
    text = re.sub(r"^ *#.*|  # .*", "", text, flags=re.MULTILINE).replace("\\\n", " ").replace("\\'", "Q")
    text = re.sub(r"'[^']*'", "Q", text)
    text = re.sub(r"\$\(\([^)]*\)\)", "V", text)  # arithmetic
    while (simpler := re.sub(r"\$\{[^{}]*\}", "V", text)) != text:
        text = simpler
    while (inner := re.search(r"\$\(([^()]*)\)", text)) is not None:  # a substitution is a line of its own, at the end
        text = f"{text[: inner.start()]}V{text[inner.end() :]}\n{inner[1]}\n"
    text = re.sub(r'"[^"]*"', "Q", text)
    text = re.sub(r"\(([^()]*)\)", r"{ \1 }", text)  # what is left of parentheses ends a pattern of case
    found = set()
    for part, end in re.findall(r"([^\n;&|{}!)]*)([\n;&|{}!)]|$)", text):
        words = re.sub(r"\d?[<>]+&?\S*|\b\w+=\S*|\b(then|do|else|elif|if|while|until)\b", " ", part).split()
        if words and end != ")" and re.fullmatch(r"[A-Za-z_:\[][\w.-]*", words[0]) and words[0] not in ("Q", "V"):
            found.add((words[0], *(word for word in words[1:] if re.match(r"[-+]\S", word))))
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=named)
def test_only_commands_are_used_that_every_system_has(script: Path) -> None:
    functions = set(re.findall(r"^(\w+)\(\) [{(]", script.read_text(), re.MULTILINE))
    used = {command for command in commands(script) if command[0] not in OF_SHELLS | functions}
    assert {name for name, *_ in used} <= COMMANDS.keys()
    assert {(name, option) for name, *options in used for option in options if option not in COMMANDS[name]} == set()
    # That so many are found says that the search works.
    if script in RUN_SCRIPTS:
        assert {name for name, *_ in used} >= {"cat", "mkdir", "mv", "rm", "uv"}
        assert {name for name, *_ in commands(script)} >= {"[", "printf", "exit", "trap", "set", "command", "umask"}


def test_nothing_but_those_commands_is_needed(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in {"sh", *COMMANDS, *(command[0] for command in SHELLS.values())}:
        if name != "uv" and (found := shutil.which(name, path="/usr/bin:/bin")) is not None:
            (tools / name).symlink_to(found)
    script = next((path for path in RUN_SCRIPTS if fits_this_machine(path)), None)
    if script is None:
        pytest.skip("no profile is for this machine")
    for shell in SHELLS:
        if shell == "mksh":  # POSIX leaves open whether a shell has it inside
            (tools / "printf").symlink_to("/usr/bin/printf")
        one = desk(tmp_path / shell, script)
        one.environment["PATH"] = str(tools)
        one.build(shell)
        assert (one.env / ".drydock/manifest.json").is_file()
        (tools / "printf").unlink(missing_ok=True)


def fits_this_machine(script: Path) -> bool:
    target = plan_of(script).profile.target
    return (target.system, target.machine) == (os.uname().sysname, os.uname().machine)


# --- m4: the trainer of rl-swarm -----------------------------------------------------------------------------------

MODULE = ["-m", "hivemind_exp.gsm8k.train_single_gpu"]
PEERS = "/ip4/38.101.215.13/tcp/30002/p2p/QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ"
VARIABLES = [
    *("IDENTITY_PATH", "ORG_ID", "SWARM_CONTRACT", "PUB_MULTI_ADDRS", "PEER_MULTI_ADDRS", "HOST_MULTI_ADDRS"),
    *("CONFIG_PATH", "GAME", "GRADIENT_ACCUMULATION_STEPS"),
]
CONFIG = "hivemind_exp/configs/mac/grpo-qwen-2.5-0.5b-deepseek-r1.yaml"
NOTE = (
    "drydock: note: PYTORCH_MPS_HIGH_WATERMARK_RATIO=1.0: from 24 GB of memory on it is 0.0, which lifts PyTorch's "
    "limit on GPU memory: when memory runs out, macOS may kill the trainer or freeze. Below, it is 1.0, what Metal "
    "recommends: the trainer ends with an error instead. What you export wins.\n"
)


@pytest.fixture
def m4(tmp_path: Path) -> Desk:
    """The committed script of m4 in an rl-swarm checkout, with an environment that is built."""
    (tmp_path / "hivemind_exp/gsm8k").mkdir(parents=True)
    (tmp_path / "hivemind_exp/gsm8k/train_single_gpu.py").touch()
    return desk(tmp_path, ROOT / "generated/m4/run_rl_swarm_mac.sh").built()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "arguments"),
    [
        (
            {},
            [
                *("--identity_path", "swarm.pem", "--initial_peers", PEERS, "--host_maddr", "/ip4/0.0.0.0/tcp/38331"),
                *("--config", CONFIG, "--game", "gsm8k", "--gradient_accumulation_steps", "1"),
            ],
        ),
        (
            {
                "IDENTITY_PATH": "my keys/a'b.pem",
                "PUB_MULTI_ADDRS": "/ip4/1.2.3.4/tcp/1",
                "PEER_MULTI_ADDRS": "/ip4/5.6.7.8/tcp/2",
                "HOST_MULTI_ADDRS": "/ip4/0.0.0.0/tcp/3",
                "CONFIG_PATH": "c.yaml",
                "GAME": "dapo",
                "GRADIENT_ACCUMULATION_STEPS": "4",
                "SWARM_CONTRACT": "0x0",
            },
            [
                *("--identity_path", "my keys/a'b.pem", "--public_maddr", "/ip4/1.2.3.4/tcp/1"),
                *("--initial_peers", "/ip4/5.6.7.8/tcp/2", "--host_maddr", "/ip4/0.0.0.0/tcp/3"),
                *("--config", "c.yaml", "--game", "dapo", "--gradient_accumulation_steps", "4"),
            ],
        ),
        (dict.fromkeys(VARIABLES, ""), []),
        (
            {"ORG_ID": "org-1", "PUB_MULTI_ADDRS": "/ip4/1.2.3.4/tcp/1", "PEER_MULTI_ADDRS": "/ip4/5.6.7.8/tcp/2"},
            [
                *("--identity_path", "swarm.pem", "--modal_org_id", "org-1"),
                *("--contract_address", "0x69C6e1D608ec64885E7b185d39b04B491a71768C"),
                *("--config", CONFIG, "--game", "gsm8k", "--gradient_accumulation_steps", "1"),
            ],
        ),
        (
            {**dict.fromkeys(VARIABLES, ""), "ORG_ID": "org-1", "SWARM_CONTRACT": "0x1"},
            ["--modal_org_id", "org-1", "--contract_address", "0x1"],
        ),
    ],
    ids=["defaults", "everything", "empty", "organisation", "organisation-alone"],
)
def test_the_trainer_of_m4_gets_the_arguments_of_rl_swarms_launcher(
    m4: Desk, env: dict[str, str], arguments: list[str]
) -> None:
    for shell in SHELLS:
        told = m4.train(shell, "--steps", "5", **env)
        assert told.arguments == [*MODULE, *arguments, "--steps", "5"], shell
        assert told.stderr == f"drydock: the trainer's code: the working tree {m4.folder}\n{NOTE}", shell


@pytest.mark.slow
def test_with_little_memory_it_trains_differently_and_says_how(m4: Desk) -> None:
    for shell in SHELLS:
        told = m4.train(shell, "--beta", "0.1", MEMORY="low")
        at = told.arguments.index("--optim")
        assert told.arguments[at : at + 4] == ["--optim", "adafactor", "--beta", "0"], shell
        assert at < told.arguments.index("--config")
        assert told.arguments[-2:] == ["--beta", "0.1"]  # the caller has the last word
        assert "drydock: note: MEMORY=low: it trains differently, for less memory: Adafactor" in told.stderr, shell
        assert "--optim" not in m4.train(shell, MEMORY="").arguments
        done = m4.run(shell, MEMORY="lo w")
        assert (done.returncode, done.stdout) == (1, b""), shell
        assert done.stderr.startswith(b"drydock: error: MEMORY=lo w is not known\ndrydock:   hint: known: low"), shell
    assert b"MEMORY=low: --optim adafactor --beta 0; " in m4.run(next(iter(SHELLS)), "--help").stdout


def test_the_token_travels_in_the_environment_only(m4: Desk) -> None:
    for shell in SHELLS:
        told = m4.train(shell, HF_TOKEN="hf_secret")
        assert told.environment["HF_TOKEN"] == "hf_secret"
        assert not any("hf_secret" in word for word in told.arguments)
        assert "hf_secret" not in told.stderr
    assert b"hf_secret" not in m4.run(next(iter(SHELLS)), "--print-env", HF_TOKEN="hf_secret").stdout


@pytest.mark.slow
def test_a_token_is_passed_on_where_that_is_asked_for_and_no_list_of_processes_shows_it(m4: Desk) -> None:
    for shell in SHELLS:
        told = m4.train(shell, "--steps", "5", HF_TOKEN="hf_secret", PUSH_TO_HUB="1")
        assert told.arguments[0] == "-c", shell
        assert told.arguments[2:4] == [" --hf_token=HF_TOKEN", MODULE[1]]
        assert told.arguments[-2:] == ["--steps", "5"]
        assert not any("hf_secret" in word for word in told.arguments)
        done = m4.run(shell, PUSH_TO_HUB="1")
        assert (done.returncode, done.stdout) == (1, b""), shell
        assert b"PUSH_TO_HUB is set, and HF_TOKEN is not\ndrydock:   hint: export HF_TOKEN" in done.stderr


def test_in_an_rl_swarm_checkout_of_another_release_the_script_says_where_to_go(m4: Desk) -> None:
    (m4.folder / "hivemind_exp/gsm8k/train_single_gpu.py").unlink()
    (m4.folder / "run_rl_swarm.sh").touch()
    for shell in SHELLS:
        done = m4.run(shell)
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.decode() == (
            f"drydock: error: {m4.folder} has run_rl_swarm.sh, but not hivemind_exp/gsm8k/train_single_gpu.py: "
            "it is not rl-swarm v0.4.4\n"
            "drydock:   hint: run this in another folder, where it brings its own copy, or check out rl-swarm v0.4.4 "
            "here\n"
        )


def test_a_run_leaves_the_roots_that_keep_its_environment(m4: Desk) -> None:
    roots = m4.home / ".local/share/drydock/gcroots"
    for shell in SHELLS:
        m4.train(shell)
    known = roots / "scripts" / f"{m4.env.name}.{os.uname().nodename}"
    assert known.read_text() == f"{m4.script}\n"  # once, not once for each run
    assert len(list((roots / "running").iterdir())) == len(SHELLS)


# --- the machine that it runs on -----------------------------------------------------------------------------------


def pretended(folder: Path, **programs: str) -> str:
    """A PATH with programs that print something, before the usual ones; `xcode_select` stands for xcode-select."""
    folder.mkdir(exist_ok=True)
    for name, text in programs.items():
        path = folder / name.replace("xcode_", "xcode-")
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


MAC = "case $1 in -s) echo Darwin ;; -m) echo arm64 ;; *) echo mac.local ;; esac"


def test_versions_are_compared_as_numbers(tmp_path: Path) -> None:
    script = (ROOT / "generated/m4/run_rl_swarm_mac.sh").read_text()
    function = re.search(r"^at_least\(\) \{\n.*?^\}\n", script, re.MULTILINE | re.DOTALL)
    assert function is not None
    enough = ["14.0", "14.2.1", "14.10", "15", "26.1", "100.0"]
    too_old = ["13.9", "13", "9.9", "10.15.7", "", "undefined", "another C library"]
    loop = 'for found do if at_least "$found" 14.0; then printf \'%s\\n\' "$found"; fi; done\n'
    one = Desk(tmp_path, f"set -eu\n{function[0]}{loop}", "versions.sh", "unused")
    assert same(one, *enough, *too_old).splitlines() == enough
    other = Desk(tmp_path, f"set -eu\n{function[0]}{loop.replace('14.0', '2.28')}", "versions.sh", "unused")
    assert same(other, "2.28", "2.9", "2.27.9", "2.31", "3.0", "2.280").splitlines() == ["2.28", "2.31", "3.0", "2.280"]


def test_a_mac_that_is_too_old_is_refused(tmp_path: Path) -> None:
    one = desk(tmp_path / "desk", ROOT / "generated/m4/run_rl_swarm_mac.sh")
    path = pretended(tmp_path / "bin", uname=MAC, sw_vers="echo 13.7.2")
    for shell in SHELLS:
        done = one.run(shell, "--build-only", PATH=path)
        assert (done.returncode, done.stdout) == (1, b""), shell
        assert done.stderr == b"drydock: error: m4 needs macOS 14.0 or newer, and this is macOS 13.7.2\n"
        assert not one.store.exists()


def test_a_macs_terminal_under_rosetta_is_told_the_way_out(tmp_path: Path) -> None:
    one = desk(tmp_path / "desk", ROOT / "generated/m4/run_rl_swarm_mac.sh")
    intel = "case $1 in -s) echo Darwin ;; *) echo x86_64 ;; esac"
    path = pretended(tmp_path / "bin", uname=intel, sysctl='[ "$*" = "-n sysctl.proc_translated" ] && echo 1')
    real = pretended(tmp_path / "intel", uname=intel, sysctl="exit 1")
    for shell in SHELLS:
        done = one.run(shell, "--build-only", PATH=path)
        assert done.returncode == 1, shell
        assert b"this terminal runs under Rosetta\ndrydock:   hint: arch -arm64 sh " in done.stderr, shell
        assert b"this is Darwin on x86_64" in one.run(shell, "--build-only", PATH=real).stderr, shell
        assert not one.store.exists()


def test_all_that_is_missing_is_said_at_once_before_anything_is_downloaded(tmp_path: Path) -> None:
    one = desk(tmp_path / "desk", ROOT / "generated/m4/run_rl_swarm_mac.sh")
    (one.folder / "run_rl_swarm.sh").touch()
    path = pretended(tmp_path / "bin", uname=MAC, sw_vers="echo 13.7.2", sysctl="echo 8589934592")
    for shell in SHELLS:
        done = one.run(shell, PATH=path)
        assert (done.returncode, done.stdout) == (1, b""), shell
        old, memory, folder, _ = done.stderr.decode().splitlines()
        assert old.endswith("error: m4 needs macOS 14.0 or newer, and this is macOS 13.7.2"), shell
        assert memory.endswith("note: m4 is meant for 16 GB of memory or more, and this machine has 8"), shell
        assert "run_rl_swarm.sh, but not hivemind_exp/" in folder, shell
        assert not one.store.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("blocks", "free"), [("1024000", "1024"), ("999", "0"), ("3000000000", None), ("?", None)])
def test_a_disk_with_little_room_is_said_before_anything_is_downloaded(
    tmp_path: Path, blocks: str, free: str | None
) -> None:
    one = desk(tmp_path / "desk", ROOT / "generated/m4/run_rl_swarm_mac.sh")
    table = ["Filesystem 1024-blocks Used Available Capacity Mounted on", f"map auto_home 9 8 {blocks}   99% /a b"]
    df = f"printf '%s\\n' {sh_quote(table[0])} {sh_quote(table[1])}"
    path = pretended(tmp_path / "bin", uname=MAC, sw_vers="echo 15.5", sysctl="echo 17179869184", df=df)
    for shell in SHELLS:
        done = one.run(shell, "--build-only", PATH=path, DRYDOCK_UV="/bin/false")
        assert done.returncode == 1, shell
        said = f"note: {free} MB are free at {one.store.parent}, and all of m4 takes about 1121; DRYDOCK_HOME names"
        assert (said in done.stderr.decode()) == (free is not None), done.stderr
        assert ("are free at" in done.stderr.decode()) == (free is not None)
        shutil.rmtree(one.home, ignore_errors=True)


def test_apples_python3_is_not_asked_where_it_would_open_a_dialog(tmp_path: Path) -> None:
    one = desk(tmp_path / "desk", ROOT / "generated/m4/run_rl_swarm_mac.sh")
    for shell in SHELLS:
        path = pretended(tmp_path / "bin", uname=MAC, sw_vers="echo 15.5", xcode_select="exit 2")
        done = one.run(shell, "--build-only", PATH=path)
        assert done.returncode == 1, shell
        assert done.stderr.decode().splitlines()[-2:] == [
            "drydock: error: no uv 0.13.9, and no python3 with pip or venv to fetch it with",
            "drydock:   hint: xcode-select --install brings a python3; or install uv",
        ], shell


@pytest.mark.slow
def test_a_trainer_may_open_more_files_than_a_mac_lets_it(m4: Desk) -> None:
    m4.program("python", "#!/bin/sh\nulimit -S -n\n")
    for shell in SHELLS:
        for soft, hard, found in ((256, 20000, b"10240\n"), (256, 4096, b"4096\n"), (12000, 20000, b"12000\n")):
            done = subprocess.run(
                [
                    "sh",
                    "-c",
                    f'ulimit -S -n {soft} && ulimit -H -n {hard} && exec "$@"',
                    "sh",
                    *SHELLS[shell],
                    m4.script,
                ],
                env=m4.environment,
                cwd=m4.folder,
                capture_output=True,
                check=True,
            )
            assert done.stdout == found, (shell, soft, hard)


@pytest.mark.slow
def test_the_build_of_m4_builds_the_three_sources_and_nothing_else_from_source(tmp_path: Path) -> None:
    one = desk(tmp_path / "desk", ROOT / "generated/m4/run_rl_swarm_mac.sh")
    path = pretended(tmp_path / "bin", uname=MAC, sw_vers="echo 15.5")
    told = set()
    sources = ["prefetch-generator", "python-baseconv", "varint"]
    for shell in SHELLS:
        one.build(shell, PATH=path)
        written = read_plan(one.env / ".drydock")
        wheels, builds = installer.requests(written, written["plan"]["packages"], {})
        assert [package["name"] for package in builds.packages] == sources
        calls = [installer.arguments(written, request, "/python", tmp_path) for request in (wheels, builds)]
        known = ("--only-binary", ":all:", "--no-binary", *sources)
        told.add(tuple(tuple(word for word in call if word in known) for call in calls))
        shutil.rmtree(one.env)
    flags = [word for name in sources for word in ("--no-binary", name)]
    assert told == {(("--only-binary", ":all:"), ("--only-binary", ":all:", *flags))}


@pytest.mark.parametrize(
    ("script", "uname", "message"),
    [
        ("m4/run_rl_swarm_mac.sh", "echo Linux", "m4 is for macos-arm64, and this is Linux on Linux"),
        ("cpu/run_cpu.sh", MAC, "cpu is for linux-x86_64, and this is Darwin on arm64"),
        (
            "arm64/run_rl_swarm_arm64.sh",
            "case $1 in -s) echo Linux ;; *) echo x86_64 ;; esac",
            "arm64 is for linux-arm64, and this is Linux on x86_64",
        ),
    ],
)
def test_on_the_wrong_platform_nothing_is_built(tmp_path: Path, script: str, uname: str, message: str) -> None:
    one = desk(tmp_path / "desk", ROOT / "generated" / script)
    path = pretended(tmp_path / "bin", uname=uname)
    for shell in SHELLS:
        done = one.run(shell, "--build-only", PATH=path)
        assert (done.returncode, done.stdout) == (1, b""), shell
        assert done.stderr.decode() == (
            f"drydock: error: {message}\ndrydock:   hint: drydock profile list shows the others\n"
        )
        assert not one.store.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("getconf", "told"),
    [
        ("echo glibc 2.27", "2.27"),
        ("echo glibc 2.3.6", "2.3.6"),
        ("exit 1", "another C library"),
        ("echo", ""),
        ("echo undefined", "undefined"),
    ],
)
def test_an_older_c_library_or_another_is_refused(tmp_path: Path, getconf: str, told: str) -> None:
    one = desk(tmp_path / "desk", ROOT / "generated/cpu/run_cpu.sh")
    uname = "case $1 in -s) echo Linux ;; *) echo x86_64 ;; esac"
    path = pretended(tmp_path / "bin", uname=uname, getconf=getconf)
    for shell in SHELLS:
        done = one.run(shell, "--build-only", PATH=path)
        assert done.returncode == 1, shell
        assert done.stderr.decode().startswith("drydock: error: cpu needs glibc 2.28 or newer, and this has "), shell
        assert told in done.stderr.decode()
        assert not one.store.exists()
