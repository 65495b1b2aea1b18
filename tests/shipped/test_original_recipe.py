"""The document that this project was made from, promise by promise: each sentence, and the test that it is kept.

Where Drydock does it otherwise, the reason stands beside it. The longer proofs are named: tests of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from builder.profile.model import Profile
from builder.project.catalogue import Catalogue
from tests.conftest import ROOT

M4 = ROOT / "generated/m4"
CATALOGUE = Catalogue([ROOT / "profiles"])
# Proofs that take long, each where it is.
ELSEWHERE = {
    "tests/shipped/test_fix_mac.py": (
        "test_every_release_with_the_defect_is_patched_and_taken_back",
        "test_the_proofs_fail_before_and_pass_after",
        "test_it_finds_the_environment_that_is_active_or_here",
    ),
    "tests/shipped/test_proofs.py": ("test_a_proof_passes_with_the_patches",),
    "tests/script/test_fix_scripts.py": ("test_the_dependency_tool_brings_a_venv_to_the_locked_versions",),
    "tests/script/test_scripts.py": (
        "test_the_watermarks_are_the_callers_and_agree",
        "test_with_little_memory_it_trains_differently_and_says_how",
    ),
}


def m4() -> Profile:
    return CATALOGUE.profile("m4")


def versions(name: str) -> dict[str, str]:
    return CATALOGUE.lock(name).versions()


def script(*arguments: str, **variables: str) -> str:
    """What the script of the Mac prints; on any machine, for it runs nothing here."""
    done = subprocess.run(
        ["sh", str(M4 / "run_rl_swarm_mac.sh"), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/home/you", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def tool(*arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-I", str(M4 / "fix_mac_accelerate.py"), *arguments],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(("path", "names"), ELSEWHERE.items(), ids=lambda one: str(one)[-24:])
def test_the_proofs_that_stand_elsewhere_are_there(path: str, names: tuple[str, ...]) -> None:
    text = (ROOT / path).read_text()
    assert [name for name in names if f"def {name}(" not in text] == []


def test_the_version_that_it_names() -> None:
    """accelerate库版本1.8.0在Apple Silicon (ARM64)架构上存在已知bug: accelerate 1.8.0 has a known bug on Apple Silicon.

    The bug is there, on every platform; the tool patches that very version.
    """
    pinned = tomllib.loads((ROOT / "profiles/patches/accelerate-empty-dataloader.releases.toml").read_text())
    assert "1.8.0" in [version for release in pinned["releases"] for version in release["versions"]]
    assert pinned["fixed"] == "1.9.0"


def test_the_system_that_it_names() -> None:
    """架构: arm64; Python: 3.11; torch: 2.5.1; transformers: 4.52.4."""
    assert (m4().target.system, m4().target.machine, m4().python.version) == ("Darwin", "arm64", "3.11")
    assert (versions("m4")["torch"], versions("m4")["transformers"]) == ("2.5.1", "4.52.4")
    assert m4().trainer.command == ["python", "-m", "hivemind_exp.gsm8k.train_single_gpu"]


def test_the_downgrade() -> None:
    """安装稳定版本 accelerate==1.1.1; accelerate版本应为1.1.x: install accelerate 1.1.1.

    It has the bug as well, and another: so it is locked with two patches, each with a proof.
    """
    assert versions("m4")["accelerate"] == "1.1.1"
    assert [Path(patch.proof).name for patch in m4().patches] == [
        "accelerate_empty_dataloader.py",
        "accelerate_unwrap_model.py",
    ]


def test_the_repair_script() -> None:
    """fix_mac_accelerate.py 检测Apple Silicon环境, 应用 patch, 设置MPS优化参数: detects, patches, sets MPS variables.

    No monkey patch: it would not reach the process that trains.
    """
    text = (M4 / "fix_mac_accelerate.py").read_text()
    assert "os.uname().machine" in text
    assert "setattr" not in text
    assert "export PYTORCH_ENABLE_MPS_FALLBACK=1\n" in tool("--print-env")


VARIABLES = {
    "PYTORCH_ENABLE_MPS_FALLBACK": "1",
    "PYTORCH_MPS_HIGH_WATERMARK_RATIO": "0.0",
    "OMP_NUM_THREADS": "4",
    "TOKENIZERS_PARALLELISM": "false",
}


def test_the_four_variables() -> None:
    """在运行前设置: export the four before the run. Exported to the letter, each stays as it was written."""
    for told in (script("--print-env", **VARIABLES), tool("--print-env", **VARIABLES)):
        found = dict(re.findall(r"^export (\w+)='?([^'\n]*)'?$", told, re.MULTILINE))
        assert {name: found[name] for name in VARIABLES} == VARIABLES
        assert len(re.findall(r"^# \w+: from your environment; ", told, re.MULTILINE)) == 4
        assert "PYTORCH_MPS_LOW_WATERMARK_RATIO" not in found  # no limit needs none


def test_without_them_each_has_a_value() -> None:
    """Mac Mini M4特定优化, 智能资源检测和配置: settings for the M4, resources detected."""
    assert VARIABLES.keys() < m4().env.keys()
    high = m4().env["PYTORCH_MPS_HIGH_WATERMARK_RATIO"].choice
    assert high is not None
    assert (high.of(16), high.of(24), high.of(64)) == ("1.0", "0.0", "0.0")
    found = dict(re.findall(r"^export (\w+)='([^']*)'$", script("--print-env"), re.MULTILINE))
    assert (found["OMP_NUM_THREADS"], found["PYTORCH_ENABLE_MPS_FALLBACK"]) == ("4", "1")


def test_the_files_that_it_names() -> None:
    """fix_mac_accelerate.py, run_rl_swarm_mac.sh, fix_mac_dependencies.sh."""
    for name in ("fix_mac_accelerate.py", "run_rl_swarm_mac.sh", "fix_mac_dependencies.sh"):
        assert (M4 / name).is_file()
    assert "--check" in (M4 / "fix_mac_dependencies.sh").read_text()  # 验证安装完整性: checks the installation


def test_what_it_promises_of_speed_and_memory() -> None:
    """CPU利用率 +20-30%, 内存使用 -15-25%, 启动时间 -10-40%: more processor, less memory, a faster start.

    Measured instead of promised: docs/benchmarks.md says which holds. Less memory is another training: MEMORY=low.
    """
    measured = (ROOT / "docs/benchmarks.md").read_text()
    for claim in ("claimed 10 to 40 % less: holds", "claimed 15 to 25 % less: does not hold", "MEMORY=low"):
        assert claim in measured
    assert m4().trainer.modes["MEMORY"]["low"].arguments == ["--optim", "adafactor", "--beta", "0"]
    assert "MEMORY" not in m4().env  # never by itself


def test_the_page_that_it_links_and_its_four_items_of_support() -> None:
    """Mac Mini M4性能优化文档; 检查accelerate版本, 环境变量, Xcode, 重启终端: its page, and its four checks."""
    page = (ROOT / "docs/how-to/mac.md").read_text()
    for words in ("## Mac Mini M4", "--verify", "--print-env", "xcode-select -p", "a new terminal changes nothing"):
        assert words in page
