"""The committed scripts: alike under every shell, portable, and what their profiles render to."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from builder.project.catalogue import Catalogue
from builder.script import machinery
from tests.conftest import ROOT
from tests.support import SHELLS
from tests.support.scripts import Desk

GENERATED = ROOT / "generated"
RUN_SCRIPTS = sorted(GENERATED.glob("*/run_*.sh"))
SCRIPTS = sorted([*GENERATED.glob("*/*.sh"), ROOT / "drydockw"])
# POSIX utilities, and those that macOS adds and only its scripts call. No GNU option is used with any (see below).
ALLOWED = """
    cat chmod cmp command cp cut date df dirname find getconf grep id kill ls mkdir mkfifo mv printf ps read rm sed
    sleep sort test touch tr trap true umask uname unset sw_vers sysctl xcode-select nvidia-smi uv git
    fusermount3 squashfuse_ll unshare
"""
KEYWORDS = """
    if elif then else fi for while until do done case esac in set shift exit return export exec eval wait break continue
    cd emulate ulimit
"""


def run(shell: str, script: Path, *arguments: str, home: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script under one of the shells, with nothing of this machine's settings."""
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [*SHELLS[shell], str(script), *arguments], env=env, cwd=cwd, capture_output=True, text=True, check=False
    )


def test_every_profile_that_can_be_built_has_its_files() -> None:
    catalogue = Catalogue([ROOT / "profiles"])
    buildable = {name for name in catalogue.names() if catalogue.target(name) is not None}
    committed = {name for name in buildable if catalogue.profile(name).generated.committed}
    assert {path.name for path in GENERATED.iterdir()} == committed
    assert committed >= {"m4", "m4-upstream", "arm64", "cuda", "cpu", "cpu-swarm"}
    assert sorted(path.name for path in (GENERATED / "m4").iterdir()) == [
        "fix_mac_accelerate.py",
        "fix_mac_dependencies.sh",
        "m4.env",
        "run_rl_swarm_mac.sh",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("script", RUN_SCRIPTS, ids=lambda path: path.name)
@pytest.mark.parametrize("option", ["--print-env", "--where", "--help"])
def test_all_shells_answer_alike_on_any_platform(script: Path, option: str, tmp_path: Path) -> None:
    home = tmp_path / "it's my h\u00f6me"
    home.mkdir()
    answers = {shell: run(shell, script, option, home=home, cwd=tmp_path) for shell in SHELLS}
    assert {(done.returncode, done.stderr) for done in answers.values()} == {(0, "")}, answers
    assert len({done.stdout for done in answers.values()}) == 1, answers
    assert list(home.iterdir()) == [], "asking leaves nothing behind"


def test_the_store_path_is_the_profiles_key(tmp_path: Path) -> None:
    for script in RUN_SCRIPTS:
        plan = Catalogue([ROOT / "profiles"]).plan(script.parent.name)
        where = run("dash", script, "--where", home=tmp_path, cwd=tmp_path).stdout
        assert where == f"{tmp_path}/.local/share/drydock/store/{plan.store_name}\n"


@pytest.mark.parametrize("script", RUN_SCRIPTS, ids=lambda path: path.name)
def test_an_unknown_option_is_wrong_use(script: Path, tmp_path: Path) -> None:
    for shell in SHELLS:
        done = run(shell, script, "--nonsense", home=tmp_path, cwd=tmp_path)
        assert done.returncode == 2
        assert "--nonsense is not an option" in done.stderr


def test_the_mac_script_refuses_to_build_on_linux(tmp_path: Path) -> None:
    for shell in SHELLS:
        done = run(shell, GENERATED / "m4/run_rl_swarm_mac.sh", "--build-only", home=tmp_path, cwd=tmp_path)
        assert done.returncode == 1
        assert "m4 is for macos-arm64, and this is Linux on" in done.stderr


@pytest.mark.slow  # `just check` says it too
def test_shellcheck_has_nothing_to_say() -> None:
    program = shutil.which("shellcheck", path=str(ROOT / ".venv/bin")) or shutil.which("shellcheck")
    assert program is not None
    done = subprocess.run([program, *map(str, SCRIPTS)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", RUN_SCRIPTS, ids=lambda path: path.name)
def test_the_head_of_a_script_says_what_is_in_it(script: Path) -> None:
    head, _, _ = script.read_text().partition("\nset -eu\n")
    words = re.findall(r"^#   (?!sh )(\S+ \d\S*(?:  \S+ \d\S*)*)$", head, re.MULTILINE)
    assert max(map(len, words)) + len("#   ") <= 120
    listed = [tuple(word.split(" ")) for line in words for word in line.split("  ")]
    lock = Catalogue([ROOT / "profiles"]).lock(script.parent.name)
    packages = lock.packages
    assert listed == [(package.name, package.version) for package in packages]
    assert f"# {len(packages)} packages, by sha256, for " in head
    digest = machinery.digest(("source",) if lock.trainer is not None else ())
    assert f"# Drydock {version('drydock-env')}, machinery sha256 {digest}\n" in head


def test_a_script_is_small_beside_its_lock() -> None:
    """Beside 91,351 bytes when all that it does stood in it as text; lock, patches and proofs aside."""
    script = (GENERATED / "m4/run_rl_swarm_mac.sh").read_text()
    carried = re.findall(r"^  cat >\"\$1\"/.*?<<'(\w+)'.*?\n(.*?)^\1\n", script, re.DOTALL | re.MULTILINE)
    table = re.findall(r"^#   (?:\S+ \d\S*  )+\S+ \d\S*\n", script, re.MULTILINE)
    own = len(script) - sum(len(text) for _, text in carried) - sum(map(len, table))
    # Wanted are 54,810. 6,600 bring the trainer's own code: a script without [trainer.source] has none of these; 700
    # write down what torch was built for.
    assert own <= 94_900
    total = sum(path.stat().st_size for path in GENERATED.glob("*/*"))
    assert total <= 872_000  # wanted were 884,089, half of what it was


def test_the_scripts_are_ascii() -> None:
    for path in GENERATED.glob("*/*"):
        assert path.read_bytes().isascii(), path


def own_lines(script: Path) -> list[str]:
    """The shell of a script, without comments, here-documents and quoted text."""
    text = re.sub(r"<<'(\w+)'(.*?\n).*?\n\1\n", r"\2", script.read_text(), flags=re.DOTALL)
    text = re.sub(r"\$\(\([^)]*\)\)", "_", text)  # arithmetic
    text = re.sub(r" -c '.*?'", " -c _", text, flags=re.DOTALL)  # Python
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [re.sub(r"'[^']*'|\"[^\"]*\"", "_", line) for line in lines]


@pytest.mark.parametrize("script", sorted(GENERATED.glob("*/*.sh")), ids=lambda path: path.name)
def test_only_portable_commands_and_options_are_used(script: Path) -> None:
    text = "\n".join(own_lines(script))
    for gnu in ("readlink", "realpath", "mktemp", "sed -i", "grep -P", "find -print0", "date -d", "stat ", "sha256sum",
                "local ", "[[", "source ", "function ", "echo ", "which ", "seq ", "cp -a", "mv -T"):  # fmt: skip
        assert not re.search(rf"(^|[\s;(|&]){re.escape(gnu)}", text, re.MULTILINE), gnu
    at_the_start = r"(?:^|[;|&(]|\bthen|(?<!-)\bdo|\belse|!)\s*([a-z_]{2,})\s+[-_$/0-9a-z\"]"
    for command in re.findall(at_the_start, text, re.MULTILINE):
        own = re.search(rf"^{command}\(\)", text, re.MULTILINE)
        assert own or command in f"{ALLOWED} {KEYWORDS}".split(), command


M4_DEFAULTS = {
    "--identity_path": "swarm.pem",
    "--initial_peers": "/ip4/38.101.215.13/tcp/30002/p2p/QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ",
    "--host_maddr": "/ip4/0.0.0.0/tcp/38331",
    "--config": "hivemind_exp/configs/mac/grpo-qwen-2.5-0.5b-deepseek-r1.yaml",
    "--game": "gsm8k",
    "--gradient_accumulation_steps": "1",
}


@pytest.fixture
def swarm(tmp_path: Path) -> Desk:
    """An rl-swarm checkout with the Mac's committed script in it, and its store path, built."""
    plan = Catalogue([ROOT / "profiles"]).plan("m4")
    (tmp_path / "hivemind_exp/gsm8k").mkdir(parents=True)
    (tmp_path / "hivemind_exp/gsm8k/train_single_gpu.py").touch()
    script = GENERATED / "m4/run_rl_swarm_mac.sh"
    return Desk(tmp_path, script.read_text(), script.name, plan.store_name).built()


def options(words: list[str]) -> dict[str, str]:
    assert words[:2] == ["-m", "hivemind_exp.gsm8k.train_single_gpu"]
    return dict(zip(words[2::2], words[3::2], strict=True))


def test_the_mac_trainer_gets_the_launchers_arguments(swarm: Desk) -> None:
    for shell in SHELLS:
        told = swarm.train(shell, HF_TOKEN="hf_secret")
        got, words = told.environment, told.arguments
        assert options(words) == M4_DEFAULTS
        assert got["HF_TOKEN"] == "hf_secret"
        assert "hf_secret" not in " ".join(words)
        assert got["PYTORCH_ENABLE_MPS_FALLBACK"] == "1"
        assert got["PYTORCH_MPS_HIGH_WATERMARK_RATIO"] == "1.0"  # nothing tells here how much memory there is
        assert got["PYTORCH_MPS_LOW_WATERMARK_RATIO"] == "0.8"
        assert got["OMP_NUM_THREADS"] == "4"
        assert got["TOKENIZERS_PARALLELISM"] == "false"


def test_with_an_organisation_the_mac_trainer_goes_to_the_testnet(swarm: Desk) -> None:
    told = swarm.train("dash", ORG_ID="org", GAME="dapo", PUB_MULTI_ADDRS="/ip4/1.2.3.4")
    assert options(told.arguments) == {
        "--identity_path": "swarm.pem",
        "--modal_org_id": "org",
        "--contract_address": "0x69C6e1D608ec64885E7b185d39b04B491a71768C",
        "--config": M4_DEFAULTS["--config"],
        "--game": "dapo",
        "--gradient_accumulation_steps": "1",
    }


def test_an_empty_variable_leaves_its_argument_out(swarm: Desk) -> None:
    told = swarm.train("dash", IDENTITY_PATH="", GRADIENT_ACCUMULATION_STEPS="", PUB_MULTI_ADDRS="/a")
    empty = ("--identity_path", "--gradient_accumulation_steps")
    left = {name: value for name, value in M4_DEFAULTS.items() if name not in empty}
    assert options(told.arguments) == {**left, "--public_maddr": "/a"}


def test_the_lifted_memory_limit_is_said_at_every_start(swarm: Desk) -> None:
    told = swarm.train("dash", PYTORCH_MPS_HIGH_WATERMARK_RATIO="0.0").stderr
    assert (
        "PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0: from 24 GB of memory on it is 0.0, which lifts PyTorch's limit" in told
    )


def test_in_a_checkout_of_another_release_the_mac_script_says_where_to_go(swarm: Desk) -> None:
    (swarm.folder / "hivemind_exp/gsm8k/train_single_gpu.py").unlink()
    (swarm.folder / "run_rl_swarm.sh").touch()
    done = swarm.run("dash")
    assert done.returncode == 1
    assert b"it is not rl-swarm v0.4.4\ndrydock:   hint: run this in another folder" in done.stderr


def test_no_committed_file_names_the_host_of_a_registry() -> None:
    parts = (("pypi", "org"), ("files", "pythonhosted", "org"), ("deb", "debian", "org"), ("registry", "npmjs", "org"))
    hosts = [".".join(words) for words in parts]
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        path = ROOT / name
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        assert not [host for host in hosts if host in text], name
