"""The profile cpu-swarm: the whole of m4 on this machine, so that what rl-swarm meets can be met here."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.project.catalogue import Catalogue
from tests.conftest import ROOT
from tests.support.preloaded import Preloaded

pytestmark = pytest.mark.slow

# The numbers of rl-swarm's configuration for the Mac that decide how many prompts a step needs.
CONFIG = """\
output_dir: {output}
max_steps: 2
per_device_train_batch_size: 2
num_generations: 2
gradient_accumulation_steps: 8
max_prompt_length: 16
max_completion_length: 8
use_cpu: true
report_to: []
save_strategy: "no"
"""


ROUND = ROOT / "tests/programs/grpo_round.py"


@pytest.fixture(scope="module")
def warm(swarm_env: Path) -> Iterator[Preloaded]:
    """The environment's Python with what a round imports, which takes longer than the round."""
    modules = ["datasets", "transformers.trainer", "transformers.models.gpt2.modeling_gpt2"]
    modules += ["trl.scripts.utils", "trl.trainer.grpo_trainer"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env = {**variables, "HF_HUB_OFFLINE": "1"}
    with Preloaded(swarm_env / "bin/python", modules, env=env, isolated=False) as made:
        yield made


def grpo(warm: Preloaded, folder: Path, rows: int, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A GRPO round in the environment."""
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(output=folder / "out"))
    return warm.run(ROUND, config, str(rows), *overrides)


def test_a_stage_with_too_few_rows_trains_nothing_and_says_why(warm: Preloaded, tmp_path: Path) -> None:
    done = grpo(warm, tmp_path, 3)
    assert done.returncode == 0, done.stderr
    assert "steps 0" in done.stdout
    assert done.stderr.count("No batch came from this DataLoader") == 1
    assert "lower gradient_accumulation_steps" in done.stderr


def test_the_argument_that_the_profile_adds_lets_the_same_stage_train(warm: Preloaded, tmp_path: Path) -> None:
    option = next(
        option
        for option in Catalogue([ROOT / "profiles"]).profile("m4").trainer.options
        if option.flag == "--gradient_accumulation_steps"
    )
    done = grpo(warm, tmp_path, 3, option.flag, str(option.default))
    assert done.returncode == 0, done.stderr
    assert "steps 2" in done.stdout
    assert "No batch came" not in done.stderr


def test_a_stage_with_enough_rows_trains_as_configured(warm: Preloaded, tmp_path: Path) -> None:
    done = grpo(warm, tmp_path, 8)
    assert done.returncode == 0, done.stderr
    assert "steps 2" in done.stdout


# Reads its arguments as rl-swarm v0.4.4 does, and starts a process as hivemind does on a Mac, which reads this too.
TRAINER = """
import multiprocessing, sys
from dataclasses import dataclass
from pathlib import Path

@dataclass
class GRPOArguments:
    identity_path: str | None = None
    initial_peers: list[str] | None = None
    host_maddr: str | None = None
    game: str = "gsm8k"
    hf_token: str | None = None

def child(queue):
    queue.put(Path("/proc/self/cmdline").read_text())

def main():
    from trl import GRPOConfig, ModelConfig, TrlParser
    _, ours, config = TrlParser((ModelConfig, GRPOArguments, GRPOConfig)).parse_args_and_config()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    print("seen", repr([Path("/proc/self/cmdline").read_text(), queue.get(), sys.argv]))
    process.join()
    print("token", ours.hf_token, ours.game, config.beta, config.optim.value)

if __name__ == "__main__":
    main()
"""


def test_the_trainer_gets_the_token_and_the_memory_mode_as_its_parser_reads_them(
    swarm_env: Path, drydock_home: Path, tmp_path: Path
) -> None:
    (tmp_path / "hivemind_exp/gsm8k").mkdir(parents=True)
    (tmp_path / "hivemind_exp/gsm8k/train_single_gpu.py").write_text(TRAINER)
    (tmp_path / "config.yaml").write_text(f"beta: 0.001\noutput_dir: {tmp_path / 'out'}\nuse_cpu: true\n")

    def trained(**variables: str) -> list[str]:
        done = subprocess.run(
            ["sh", str(ROOT / "generated/cpu-swarm/run_rl_swarm_cpu.sh")],
            env={**os.environ, "DRYDOCK_HOME": str(drydock_home), "CONFIG_PATH": "config.yaml", **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    seen, token = trained(HF_TOKEN="-hf_secret", PUSH_TO_HUB="1", MEMORY="low")[-2:]
    assert token == "token -hf_secret gsm8k 0.0 adafactor"
    assert seen.startswith("seen ['python")
    assert "hf_secret" not in seen
    assert trained(HF_TOKEN="-hf_secret")[-1] == "token None gsm8k 0.001 adamw_torch"


def test_what_rl_swarm_imports_is_there(swarm_env: Path) -> None:
    modules = "hivemind colorlog datasets hf_transfer peft tensorboard transformers trl wandb web3 accelerate torch"
    done = subprocess.run(
        [
            str(swarm_env / "bin/python"),
            "-B",
            "-c",
            f"import {', '.join(modules.split())}; print(hivemind.__version__)",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1.1.12"


def test_hivemind_starts_its_daemon(swarm_env: Path) -> None:
    program = (
        "import hivemind; dht = hivemind.DHT(start=True, host_maddrs=['/ip4/127.0.0.1/tcp/0']); "
        "print(dht.peer_id); dht.shutdown()"
    )
    done = subprocess.run(
        [str(swarm_env / "bin/python"), "-B", "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_source_packages_were_built_from_the_locked_files(swarm_env: Path) -> None:
    plan = json.loads((swarm_env / ".drydock/manifest.json").read_text())["plan"]
    sources = {package["name"] for package in plan["packages"] if package["file"].endswith(".tar.gz")}
    assert sources == {"prefetch-generator", "python-baseconv", "varint"}
    assert [package["name"] for package in plan["build-requires"]] == ["setuptools"]
    site = swarm_env / "lib/python3.11/site-packages"
    assert (site / "varint.py").is_file()
    assert list(site.glob("prefetch_generator*/"))


def test_the_script_verifies_the_whole_environment(swarm_env: Path, drydock_home: Path) -> None:
    script = ROOT / "generated/cpu-swarm/run_rl_swarm_cpu.sh"
    done = subprocess.run(
        ["sh", str(script), "--verify"],
        env={**os.environ, "DRYDOCK_HOME": str(drydock_home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    assert len(done.stdout.splitlines()) == 10
