"""`drydock init`: a project beside a trainer's code, all of it or nothing."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder.author import kinds
from builder.author.init import start_project
from builder.author.precommit import has_hook, new_config, with_hook
from builder.errors import ProfileError, UsageError
from builder.machine import Machine
from builder.profile import pytorch
from builder.report import PlainReporter
from tests.conftest import ROOT
from tests.support import Index, Sandbox, make_wheel
from tests.support.waiting import LONG

LINUX = Machine(system="Linux", machine="x86_64", glibc="2.36", chip="AMD EPYC")
BASE = 'schema = 1\nname = "base"\n[python]\nversion = "3.11"\n[packages]\nrequires = ["anchor"]\n'


@pytest.fixture
def folder(sandbox: Sandbox) -> Sandbox:
    """A desk whose working folder, called my_project, has a trainer and no profiles."""
    (sandbox.work / "profiles").rmdir()
    sandbox.work = sandbox.work.rename(sandbox.root / "my_project")
    (sandbox.work / "train.py").write_text("import anchor; print('trained with', anchor.version)\n")
    # For a project is of the machine where it is begun, which may not be that of the sandbox's wheel.
    for tag in ("manylinux_2_17_aarch64", "macosx_11_0_arm64"):
        wheel = next(sandbox.wheels.glob("uv-*.whl"))
        make_wheel(sandbox.wheels, "uv", wheel.name.split("-")[1], tag=f"py3-none-{tag}")
    return sandbox


def there(desk: Sandbox) -> dict[str, bytes]:
    """Every file in the working folder, with its bytes; folders too."""
    paths = sorted(desk.work.rglob("*"))
    return {str(path.relative_to(desk.work)): b"" if path.is_dir() else path.read_bytes() for path in paths}


def made(desk: Sandbox, name: str = "my-project") -> dict[str, Any]:
    return tomllib.loads((desk.work / f"profiles/{name}.toml").read_text())


def test_a_project_begins_and_trains(folder: Sandbox) -> None:
    (folder.work / "requirements.txt").write_text("anchor>=1\n")
    done = folder.drydock("init").succeeded()
    assert done.stdout.splitlines() == [
        "profiles/my-project.toml",
        "profiles/my-project.lock.toml",
        "generated/my-project/fix_my_project_dependencies.sh",
        "generated/my-project/my-project.env",
        "generated/my-project/run_my_project.sh",
        ".gitattributes",
        ".pre-commit-config.yaml",
    ]
    assert "next: look at profiles/my-project.toml, then: drydock run my-project" in done.stderr
    assert made(folder)["packages"] == {"requires-from": {"file": "requirements.txt"}}
    assert "extends" not in made(folder)
    folder.drydock("profile", "check", "my-project").succeeded()
    assert folder.drydock("run").succeeded().stdout == "trained with 1.0\n"  # auto picks it


def test_without_requirements_it_extends_base(folder: Sandbox) -> None:
    folder.file("base.toml", BASE)
    (folder.work / "pyproject.toml").write_text("[tool.ruff]\n")
    done = folder.drydock("init", "--name", "desk").succeeded()
    assert "no requirements.txt and no [project] here" in done.stderr
    assert made(folder, "desk")["extends"] == ["base"]
    assert (folder.work / "generated/desk/run_desk.sh").is_file()


def test_a_project_file_gives_name_and_requirements(folder: Sandbox) -> None:
    (folder.work / "pyproject.toml").write_text('[project]\nname = "Own"\ndependencies = ["anchor"]\n')
    (folder.work / "train.py").unlink()
    done = folder.drydock("init", "--no-lock").succeeded()
    assert done.stdout.splitlines() == ["profiles/own.toml", ".gitattributes", ".pre-commit-config.yaml"]
    assert made(folder, "own")["packages"] == {"requires-from": {"file": "pyproject.toml"}}
    assert made(folder, "own")["trainer"]["needs"] == "train.py"
    assert "no trainer was found" in done.stderr
    assert folder.index.requests == []


def test_a_package_of_ones_own_trains_at_once(folder: Sandbox) -> None:
    """Its code is found in src/, and its console script is the trainer."""
    (folder.work / "train.py").unlink()
    (folder.work / "src/own").mkdir(parents=True)
    (folder.work / "src/own/__init__.py").write_text("import anchor\ndef main(): print('own', anchor.version)\n")
    (folder.work / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\n'
        '[project]\nname = "own"\ndependencies = ["anchor"]\n[project.scripts]\ngo = "own:main"\n'
    )
    folder.drydock("init").succeeded()
    assert made(folder, "own")["project"] == {"path": "."}
    assert made(folder, "own")["trainer"] == {"command": ["go"]}
    assert folder.drydock("run", "own").succeeded().stdout == "own 1.0\n"
    assert folder.run(["sh", "generated/own/run_own.sh"]).succeeded().stdout == "own 1.0\n"


@pytest.mark.parametrize("root", ["", "src/"])
def test_a_package_of_a_setup_py_alone_is_imported_from_scripts(folder: Sandbox, root: str) -> None:
    """As `pip install -e .` would have it; and its own name is never one of the index."""
    package = folder.work / f"{root}own_code"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import anchor\n")
    (folder.work / "scripts").mkdir()
    (folder.work / "train.py").rename(folder.work / "scripts/train.py")
    (folder.work / "scripts/train.py").write_text(
        "import own_code\nif __name__ == '__main__':\n    print(own_code.anchor.version)\n"
    )
    (folder.work / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='own-code', install_requires=['anchor', 'own_code'])\n"
    )
    done = folder.drydock("init").succeeded()
    assert made(folder, "own-code")["project"] == {"path": "."}
    assert made(folder, "own-code")["packages"] == {"requires": ["anchor"]}
    assert "own_code: the project itself, never a package of an index" in done.stderr
    assert folder.drydock("run", "own-code").succeeded().stdout == "1.0\n"
    assert folder.run(["sh", "generated/own-code/run_own_code.sh"]).succeeded().stdout == "1.0\n"


def test_what_a_lock_cannot_have_is_left_out_of_a_copy(folder: Sandbox) -> None:
    """A file that requires something by its place cannot be read anew each time."""
    (folder.work / "requirements.txt").write_text("anchor>=1\ngit+https://host.example/x\n")
    done = folder.drydock("init").succeeded()
    assert made(folder)["packages"] == {"requires": ["anchor>=1"]}
    assert "not carried over: requirements.txt:2: git+https://host.example/x" in done.stderr


def test_what_only_another_file_requires_is_said(folder: Sandbox) -> None:
    (folder.work / "setup.py").write_text("from setuptools import setup\nsetup(install_requires=['anchor'])\n")
    conda = folder.work / "environment.yaml"
    conda.write_text("dependencies:\n  - pip:\n    - anchor\n    - spare\n    - -e .\n")
    done = folder.drydock("init", "--name", "some").succeeded()
    assert "environment.yaml also requires spare, and was not read: setup.py was" in done.stderr
    conda.write_text("dependencies:\n  - pip:\n    - anchor\n")
    assert "also requires" not in folder.drydock("init", "--name", "all").succeeded().stderr


@pytest.mark.parametrize("name", ["Dockerfile", "dockerfile"])
def test_a_dockerfile_is_read_where_nothing_else_says_what_is_required(folder: Sandbox, name: str) -> None:
    (folder.work / name).write_text('FROM python:3.11\nRUN pip install anchor\nCMD ["python", "train.py"]\n')
    done = folder.drydock("init").succeeded()
    assert made(folder)["packages"] == {"requires": ["anchor"]}
    assert f"not carried over: {name}:1: FROM python:3.11" in done.stderr
    (folder.work / "requirements.txt").write_text("anchor>=1\n")
    done = folder.drydock("init", "--name", "other").succeeded()
    assert made(folder, "other")["packages"] == {"requires-from": {"file": "requirements.txt"}}
    assert name not in done.stderr


def test_a_dockerfile_that_installs_nothing_is_no_list_of_requirements(folder: Sandbox) -> None:
    folder.file("base.toml", BASE)
    (folder.work / "Dockerfile").write_text("FROM debian\nRUN apt-get install -y git\n")
    folder.drydock("init", "--name", "desk").succeeded()
    assert made(folder, "desk")["extends"] == ["base"]


def test_without_requirements_the_packages_that_the_code_imports_are_named(folder: Sandbox) -> None:
    folder.file("base.toml", BASE)
    (folder.work / "own.py").write_text("import os\n")
    (folder.work / "lectures").mkdir()
    cells = ["import torch.nn as nn\n", "from PIL import Image\n", "import own\n", "from the start, import of data"]
    (folder.work / "lectures/one.ipynb").write_text(json.dumps({"cells": [{"source": cells}]}, indent=1))
    done = folder.drydock("init", "--name", "desk", "--no-lock").succeeded()
    assert "the code imports anchor, pillow, torch: drydock add anchor pillow torch\n" in done.stderr


def test_extras_that_no_lock_has_are_named(folder: Sandbox) -> None:
    (folder.work / "pyproject.toml").write_text(
        '[project]\nname = "own"\ndependencies = ["anchor"]\n[project.optional-dependencies]\ntrain = ["spare"]\n'
    )
    done = folder.drydock("init", "--no-lock").succeeded()
    how = '[packages.requires-from] extras = ["NAME"] in profiles/own.toml'
    assert f"not locked: the extra train of pyproject.toml; to have one: {how}\n" in done.stderr


def test_what_cannot_be_locked_is_not_said_to_be_in_a_file_that_is_removed_again(folder: Sandbox) -> None:
    """But how to have that file, to change it; and where the package may be."""
    (folder.work / "requirements.txt").write_text("anchor\nnowhere-at-all\n")
    done = folder.drydock("init", "--name", "desk", "--for", "cpu").failed(1, "nowhere-at-all was not found")
    assert "where:" not in done.stderr
    assert '"nowhere-at-all @ ./FOLDER"' in done.stderr
    assert "drydock init --name desk --for cpu --no-lock" in done.stderr
    assert not (folder.work / "profiles").exists()


CHAT = """\
[project]
name = "chat"
dependencies = ["anchor", "torch>=2.8"]
[project.optional-dependencies]
cpu = ["torch>=2.8"]
gpu = ["torch>=2.8"]
dev = ["gone"]
[[tool.uv.index]]
name = "pytorch-cpu"
url = "PYTORCH/cpu"
explicit = true
[[tool.uv.index]]
name = "pytorch-cu128"
url = "PYTORCH/cu128"
explicit = true
[tool.uv]
conflicts = [[{ extra = "cpu" }, { extra = "gpu" }]]
[tool.uv.sources]
torch = [{ index = "pytorch-cpu", extra = "cpu" }, { index = "pytorch-cu128", extra = "gpu" }]
"""
INTEL = "cp311-cp311-manylinux_2_28_x86_64"


@pytest.fixture
def chat(folder: Sandbox, tmp_path: Path) -> Iterator[Sandbox]:
    """A project with an extra per accelerator, and indexes with a build of torch each."""
    (folder.work / "pyproject.toml").write_text(
        CHAT.replace("PYTORCH", str(pytorch.url("pytorch-cpu")).removesuffix("/cpu"))
    )
    make_wheel(folder.wheels, "torch", "2.15.0", requires=["nvidia-cuda-runtime"], tag=INTEL)
    for version in ("2.13.0", "2.14.0", "2.15.0"):
        make_wheel(folder.wheels, "torch", version, tag="cp311-cp311-macosx_14_0_arm64")
    make_wheel(folder.wheels, "nvidia-cuda-runtime", "13.2")
    make_wheel(folder.wheels, "nvidia-cuda-runtime-cu12", "12.8.90")
    for version in ("2.13.0", "2.14.0"):
        make_wheel(tmp_path / "cpu", "torch", f"{version}+cpu", tag=INTEL)
    make_wheel(tmp_path / "cu128", "torch", "2.11.0+cu128", requires=["nvidia-cuda-runtime-cu12"], tag=INTEL)
    with Index(tmp_path / "cpu") as cpu, Index(tmp_path / "cu128") as cuda:
        folder.environment["DRYDOCK_INDEX_PYTORCH_CPU"] = cpu.url
        folder.environment["DRYDOCK_INDEX_PYTORCH_CU128"] = cuda.url
        yield folder


def locked(desk: Sandbox, name: str) -> dict[str, str]:
    text = (desk.work / f"profiles/{name}.lock.toml").read_text()
    return {package["name"]: package["version"] for package in tomllib.loads(text)["packages"]}


@pytest.mark.slow
def test_a_profile_for_each_target_and_one_list_of_requirements(chat: Sandbox) -> None:
    """CUDA is that of the file, the extra that of the target; what differs is said in one line."""
    done = chat.drydock("init", "--for", "mac,cpu,cuda").succeeded()
    assert [line for line in done.stdout.splitlines() if line.startswith("profiles/")] == [
        "profiles/chat.toml",
        "profiles/chat-mac.toml",
        "profiles/chat-cpu.toml",
        "profiles/chat-cuda.toml",
        "profiles/chat-mac.lock.toml",
        "profiles/chat-cpu.lock.toml",
        "profiles/chat-cuda.lock.toml",
    ]
    assert made(chat, "chat")["packages"] == {"requires-from": {"file": "pyproject.toml"}}
    assert "target" not in made(chat, "chat")
    assert made(chat, "chat-cuda") == {
        "schema": 1,
        "name": "chat-cuda",
        "description": "chat for cuda",
        "extends": ["chat"],
        "target": {
            "platform": "linux-x86_64",
            "accelerator": "cuda",
            "glibc": "2.28",
            "cuda": "12.8",
            "match": {"gpu": "*"},
        },
        "packages": {"requires-from": {"file": "pyproject.toml", "extras": ["gpu"]}},
    }
    assert locked(chat, "chat-cpu") == {"anchor": "1.0", "torch": "2.14.0+cpu"}
    assert locked(chat, "chat-mac") == {"anchor": "1.0", "torch": "2.14.0"}
    assert locked(chat, "chat-cuda") == {
        "anchor": "1.0",
        "torch": "2.11.0+cu128",
        "nvidia-cuda-runtime-cu12": "12.8.90",
    }
    assert "versions that differ: torch 2.14.0 in chat-mac and chat-cpu, 2.11.0 in chat-cuda" in done.stderr
    assert "chat-cpu: locked, 2 packages, 0 MB" in done.stderr
    assert "guess" not in done.stderr
    assert "not carried over" not in done.stderr
    chat.drydock("lock", "--check").succeeded()
    chat.drydock("render", "--check").succeeded()
    assert chat.drydock("run").succeeded().stdout == "trained with 1.0\n"  # auto picks that of this machine


def test_without_a_choice_the_targets_are_those_that_make_sense(chat: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's, and those that the file hints at."""
    monkeypatch.chdir(chat.work)
    start_project(None, LINUX, PlainReporter(io.StringIO()), lock=False)
    assert sorted(path.stem for path in (chat.work / "profiles").glob("*.toml")) == ["chat", "chat-cpu", "chat-cuda"]
    assert kinds.sensible(LINUX, "anchor\n", []) == ["cpu"]
    mac = Machine(system="Darwin", machine="arm64", os="macOS 15.0", chip="Apple M4")
    assert kinds.sensible(mac, "torch==2.8.0+cu128\n", ["cpu"]) == ["mac", "cuda", "cpu"]


def test_a_target_that_cannot_be_locked_leaves_nothing(chat: Sandbox) -> None:
    before = there(chat)
    nowhere = {"DRYDOCK_INDEX_PYTORCH_CU128": "http://127.0.0.1:9/whl"}
    chat.drydock("init", "--for", "mac,cuda", env=nowhere).failed(1, "pytorch-cu128", "torch-2.15.0+cu128-cp311")
    assert there(chat) == before
    chat.drydock("init", env=nowhere).failed(1, "drydock init --for cpu")
    assert there(chat) == before
    chat.drydock("init", "--for", "mac,cudda").failed(2, '"cudda" is not a kind', 'did you mean "cuda"?')
    chat.drydock("init", "--for", " ,").failed(2, "--for names no machine")


@pytest.mark.parametrize(
    "file", ["profiles/mine.toml", "profiles/mine.lock.toml", "generated/mine/notes.txt", "generated/mine"]
)
def test_what_is_in_the_way_is_left_alone(folder: Sandbox, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.chdir(folder.work)
    (folder.work / "requirements.txt").write_text("anchor\n")
    (folder.work / file).parent.mkdir(parents=True)
    (folder.work / file).write_text("mine\n")
    before = there(folder)
    with pytest.raises(UsageError, match="already exists"):
        start_project("mine", LINUX, PlainReporter(io.StringIO()))
    assert there(folder) == before


@pytest.mark.parametrize(
    ("requirements", "words"), [("anchor ==\n", "is not a requirement"), ("-r ../x\n", "leads out"), ("\0", "NUL")]
)
def test_requirements_that_are_none_make_nothing(
    folder: Sandbox, monkeypatch: pytest.MonkeyPatch, requirements: str, words: str
) -> None:
    monkeypatch.chdir(folder.work)
    (folder.work / "requirements.txt").write_text(requirements)
    before = there(folder)
    with pytest.raises(ProfileError, match=words):
        start_project("mine", LINUX, PlainReporter(io.StringIO()))
    assert there(folder) == before


def test_a_pyproject_that_is_not_toml_is_not_passed_over(folder: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.work)
    (folder.work / "pyproject.toml").write_text("[project\nname = 'mine'\n")
    before = there(folder)
    with pytest.raises(ProfileError, match="not TOML"):
        start_project("mine", LINUX, PlainReporter(io.StringIO()))
    assert there(folder) == before


def test_a_failure_leaves_nothing(folder: Sandbox) -> None:
    (folder.work / "requirements.txt").write_text("nowhere-to-be-found\n")
    before = there(folder)
    folder.drydock("init", "--name", "mine").failed(1, "nowhere-to-be-found")
    assert there(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing(folder: Sandbox, number: signal.Signals) -> None:
    (folder.work / "requirements.txt").write_text("anchor\n")
    before = there(folder)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        started = folder.start("init", env={"UV_DEFAULT_INDEX": index, "UV_NO_CACHE": "1"})
        connection, _ = silent.accept()  # it asks, and gets no answer
        assert (folder.work / "profiles/my-project.toml").is_file()
        started.send_signal(number)
        started.communicate(timeout=LONG)
        connection.close()
    assert started.returncode == (130 if number == signal.SIGINT else 143)
    assert there(folder) == before


@pytest.mark.slow
def test_a_second_project_needs_another_name_and_no_second_hook(folder: Sandbox) -> None:
    (folder.work / "requirements.txt").write_text("anchor\n")
    folder.drydock("init", "--no-lock").succeeded()
    folder.drydock("init", "--no-lock").failed(2, "profiles/my-project.toml already exists")
    done = folder.drydock("init", "--no-lock", "--name", "second").succeeded()
    assert done.stdout == "profiles/second.toml\n"
    assert (folder.work / ".pre-commit-config.yaml").read_text().count("drydock-check") == 1


@pytest.mark.slow
def test_the_hook_passes_at_first_and_fails_where_something_is_stale(folder: Sandbox) -> None:
    (folder.work / "requirements.txt").write_text("anchor\n")
    folder.drydock("init").succeeded()
    [repo] = yaml.safe_load((folder.work / ".pre-commit-config.yaml").read_text())["repos"]
    [hook] = repo["hooks"]
    published = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["id"] in [one["id"] for one in published]
    folder.run(shlex.split(hook["entry"])).succeeded()
    script = folder.work / "generated/my-project/run_my_project.sh"
    script.write_text(script.read_text() + "\n")
    folder.run(shlex.split(hook["entry"])).failed(1, "drydock render my-project")


# --- the hook ------------------------------------------------------------------------------------------------------

OTHER = "- repo: https://host.example/hooks # why\n  rev: v1\n  hooks:\n  - id: ruff\n"
INDENTED = "".join(f"    {line}\n" for line in OTHER.splitlines())


@pytest.mark.parametrize(
    "text",
    [
        f"repos:\n{OTHER}",
        f"# mine\ndefault_stages: [pre-commit]\n\nrepos:\n{INDENTED}# the end\n",
        f"repos:\n{OTHER}".rstrip("\n"),
        f"---\nrepos:\n{OTHER}",
    ],
)
def test_the_hook_is_added_and_nothing_else_is_touched(text: str) -> None:
    added = with_hook(text)
    assert added is not None
    assert added.startswith(text)
    before, after = yaml.safe_load(text), yaml.safe_load(added)
    assert after["repos"][:-1] == before["repos"]
    assert {**after, "repos": None} == {**before, "repos": None}
    assert has_hook(added)
    assert not has_hook(text)
    assert after["repos"][-1] == yaml.safe_load(new_config())["repos"][0]


@pytest.mark.parametrize("text", ["repos: 3\n", "repos:\n- 3\n- hooks: 3\n- hooks: [3, [4]]\n", "- a\n", "a: [\n", ""])
def test_a_file_of_another_shape_has_no_hook(text: str) -> None:
    assert not has_hook(text)


@pytest.mark.parametrize(
    "text",
    [
        "repos: []\n",
        "repos:\n",
        "{repos: [{repo: local, hooks: []}]}\n",
        f"repos:\n{OTHER}fail_fast: true\n",
        f"repos:\n{OTHER}...\n",
        f"repos:\n{OTHER}---\na: 1\n",
        "repos: !!python/object/apply:os.system [x]\n",
        f"x: &a [*a]\nrepos:\n{OTHER}",
        f"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\nrepos:\n{OTHER}",
        "- a\n",
        "a: [\n",
        "",
        f"repos:\n{OTHER}  - |\n   open",
    ],
)
def test_a_file_that_would_be_disturbed_is_left_alone(text: str) -> None:
    assert with_hook(text) is None


def test_the_hook_is_printed_where_it_cannot_be_added(folder: Sandbox) -> None:
    (folder.work / "requirements.txt").write_text("anchor\n")
    target = folder.work / ".pre-commit-config.yaml"
    target.write_text(f"repos:\n{OTHER}fail_fast: true\n")
    before = target.read_bytes()
    done = folder.drydock("init", "--no-lock").succeeded()
    assert target.read_bytes() == before
    assert done.stdout == "profiles/my-project.toml\n.gitattributes\n"
    assert "add this under its repos:" in done.stderr
    assert "      - id: drydock-check" in done.stderr


def test_the_hook_is_added_to_a_file_that_keeps_its_mode(folder: Sandbox) -> None:
    (folder.work / "requirements.txt").write_text("anchor\n")
    target = folder.work / ".pre-commit-config.yaml"
    target.write_text(f"repos:\n{OTHER}")
    target.chmod(0o600)
    folder.drydock("init", "--no-lock").succeeded()
    assert target.read_text() == with_hook(f"repos:\n{OTHER}")
    assert target.stat().st_mode & 0o777 == 0o600
    assert not [name for name in os.listdir(folder.work) if name.startswith(".pre-commit") and name != target.name]


# --- what git is told ----------------------------------------------------------------------------------------------

MARKED = "generated/** text eol=lf linguist-generated\n"
OURS = f"{MARKED}profiles/** text=auto eol=lf\nprofiles/*.lock.toml text eol=lf linguist-generated\n"


@pytest.mark.parametrize(
    ("theirs", "wanted"),
    [
        (None, OURS),
        ("*.py diff=python", f"*.py diff=python\n{OURS}"),
        ("generated/** -text\n", "generated/** -text\n" + OURS.removeprefix(MARKED)),
        (OURS, OURS),
        ("*.py text\r\n", "*.py text\r\n"),
    ],
)
def test_git_is_told_once_what_is_generated(folder: Sandbox, theirs: str | None, wanted: str) -> None:
    (folder.work / "requirements.txt").write_text("anchor\n")
    path = folder.work / ".gitattributes"
    if theirs is not None:
        path.write_bytes(theirs.encode())
        path.chmod(0o600)
    for name in ("one", "two"):
        done = folder.drydock("init", "--no-lock", "--name", name).succeeded()
        assert path.read_bytes().decode() == wanted
        assert (".gitattributes" in done.stdout) == (name == "one" and wanted != theirs)
    assert theirs is None or path.stat().st_mode & 0o777 == 0o600
    asked = ["git", "check-attr", "text", "eol", "linguist-generated", "--", "profiles/one.lock.toml"]
    folder.run(["git", "init", "-q"]).succeeded()
    if "\r" not in wanted:
        told = folder.run(asked).succeeded().stdout.split("\n")[:3]
        assert [line.rpartition(": ")[2] for line in told] == ["set", "lf", "set"]


def test_what_git_is_told_is_taken_back_with_all_else(folder: Sandbox) -> None:
    (folder.work / "requirements.txt").write_text("anchor\n")
    (folder.work / ".gitattributes").write_text("*.py diff=python\n")
    # The hook's file is larger than this process may write, and comes last.
    (folder.work / ".pre-commit-config.yaml").write_text("#\n" * 4096 + f"repos:\n{OTHER}")
    before = there(folder)
    command = 'ulimit -f 4 && exec "$@"'
    init = ["bash", "-c", command, "-", sys.executable, "-B", "-m", "builder", "init", "--no-lock"]
    folder.run(init).failed(1, "File too large")
    assert there(folder) == before


def test_this_repository_says_it_of_its_own_files() -> None:
    asked = {
        "generated/m4/run_rl_swarm_mac.sh": ["lf", "set"],
        "profiles/m4.lock.toml": ["lf", "set"],
        "templates/run.sh.j2": ["lf", "unspecified"],
        "profiles/patches/accelerate-empty-dataloader.patch": ["lf", "unspecified"],
        "builder/embedded/stage.py": ["lf", "unspecified"],
    }
    command = ["git", "check-attr", "-z", "eol", "linguist-generated", "--", *asked]
    words = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    told: dict[str, list[str]] = {}
    for path, _, value in zip(words[::3], words[1::3], words[2::3], strict=False):
        told.setdefault(path, []).append(value)
    assert told == asked


def test_the_trainer_is_what_the_repository_has(sandbox: Sandbox) -> None:
    """What its scripts start, of those the one for this machine; else a script that says it trains; else it is said."""
    work = sandbox.work
    (work / "requirements.txt").write_text("anchor\n")
    (work / "own").mkdir()
    (work / "runs").mkdir()
    for name in ("base_train", "base_eval", "data"):
        (work / f"own/{name}.py").write_text("if __name__ == '__main__': pass\n")
    gpu = "python -m own.data -n 8\ntorchrun --nproc_per_node=8 -m own.base_train -- --depth=24 --run=${RUN:-dummy}\n"
    (work / "runs/speedrun.sh").write_text(f"{gpu}torchrun --nproc_per_node=8 -m own.base_eval\n")
    (work / "runs/runcpu.sh").write_text("python -m own.base_train --depth=4\npython -m own.gone\n")
    (work / "runs/other.sh").write_text("python -m gone.train\n")
    done = sandbox.drydock("init", "--no-lock", "--for", "cuda", "--name", "fast").succeeded()
    fast = tomllib.loads((work / "profiles/fast.toml").read_text())
    assert fast["trainer"]["command"] == ["torchrun", "--nproc_per_node=8", "-m", "own.base_train", "--", "--depth=24"]
    assert fast["trainer"]["options"] == [{"flag": "--run", "from": "RUN", "default": "dummy"}]
    assert sorted(fast["commands"]) == ["base-eval", "data"]
    assert "the trainer is what runs/speedrun.sh starts" in done.stderr
    assert "others: runs/runcpu.sh" in done.stderr
    sandbox.drydock("init", "--no-lock", "--for", "cpu", "--name", "slow").succeeded()
    slow = tomllib.loads((work / "profiles/slow.toml").read_text())
    assert slow["trainer"] == {"command": ["python", "-m", "own.base_train", "--depth=4"]}
    assert "commands" not in slow
    sandbox.drydock("init", "--no-lock", "--for", "cuda,cpu", "--name", "both").succeeded()
    both = {end: tomllib.loads((work / f"profiles/both{end}.toml").read_text()) for end in ("", "-cuda", "-cpu")}
    assert "trainer" not in both[""]
    assert (both["-cuda"]["trainer"], both["-cpu"]["trainer"]) == (fast["trainer"], slow["trainer"])
    for path in (work / "runs").iterdir():
        path.unlink()
    sandbox.drydock("init", "--no-lock", "--for", "cpu", "--name", "plain").succeeded()
    plain = tomllib.loads((work / "profiles/plain.toml").read_text())
    assert "needs" in plain["trainer"], "own has no __init__.py, and so is no package"
    (work / "own/__init__.py").touch()
    sandbox.drydock("init", "--no-lock", "--for", "cpu", "--name", "module").succeeded()
    module = tomllib.loads((work / "profiles/module.toml").read_text())
    assert module["trainer"] == {"command": ["python", "-m", "own.base_train"]}
    (work / "own/lora_train.py").write_text("if __name__ == '__main__': pass\n")
    done = sandbox.drydock("init", "--no-lock", "--for", "cpu", "--name", "many").succeeded()
    assert "several scripts may be the trainer: own/base_train.py, own/lora_train.py" in done.stderr
    assert "says python train.py, a file that does not exist" in done.stderr


def test_the_one_script_at_the_top_that_trains_is_the_trainer_before_those_of_examples(sandbox: Sandbox) -> None:
    (sandbox.work / "requirements.txt").write_text("anchor\n")
    (sandbox.work / "examples").mkdir()
    for name in ("run_train.py", "examples/config_resume_training.py", "examples/train_moe_now.py"):
        (sandbox.work / name).write_text("if __name__ == '__main__': pass\n")
    sandbox.drydock("init", "--no-lock", "--for", "cpu", "--name", "top").succeeded()
    top = tomllib.loads((sandbox.work / "profiles/top.toml").read_text())
    assert top["trainer"]["command"] == ["python", "run_train.py"]


def test_a_framework_that_the_code_imports_and_nothing_locked_is_said(sandbox: Sandbox) -> None:
    """As torchtitan, which leaves the nightly of torch to its reader: torchrun was missing after a build."""
    (sandbox.work / "requirements.txt").write_text("anchor\n")
    (sandbox.work / "train.py").write_text("import torch\nimport anchor\n")
    words = "the code imports torch, and nothing that is locked is that: drydock add torch"
    assert words in sandbox.drydock("init", "--for", "cpu", "--name", "bare").succeeded().stderr
    make_wheel(sandbox.wheels, "jax", "1.0")
    (sandbox.work / "requirements.txt").write_text("anchor\njax\n")
    assert "the code imports" not in sandbox.drydock("init", "--for", "cpu", "--name", "jax").succeeded().stderr


def test_a_set_of_examples_names_the_folders_to_begin_in(sandbox: Sandbox) -> None:
    for name in ("bert", "clip"):
        (sandbox.work / name).mkdir()
        (sandbox.work / name / "requirements.txt").write_text("anchor\n")
        (sandbox.work / name / "main.py").write_text("import strange\n")
    done = sandbox.drydock("init", "--no-lock", "--for", "cpu").succeeded()
    assert "bert, clip say what they require; to begin with one: cd bert && drydock init" in done.stderr
    assert "strange" not in done.stderr


def test_a_file_beside_is_not_said_to_require_itself_or_nothing(sandbox: Sandbox) -> None:
    (sandbox.work / "pyproject.toml").write_text('[project]\nname = "own"\nversion = "1"\ndependencies = ["anchor"]\n')
    (sandbox.work / "setup.py").write_text("from setuptools import setup\nsetup()\n")
    assert "also requires" not in sandbox.drydock("init", "--no-lock", "--for", "cpu").succeeded().stderr
    (sandbox.work / "ci").mkdir()
    (sandbox.work / "ci/requirements.txt").write_text("spare\n")
    (sandbox.work / "requirements.txt").symlink_to("ci/requirements.txt")
    done = sandbox.drydock("init", "--no-lock", "--for", "cpu", "--name", "link").succeeded()
    assert "pyproject.toml also requires anchor, and was not read: requirements.txt was" in done.stderr


def test_many_extras_that_are_not_locked_are_a_short_line(sandbox: Sandbox) -> None:
    rows = "".join(f'e{number} = ["spare"]\n' for number in range(9))
    head = '[project]\nname = "own"\nversion = "1"\ndependencies = ["anchor"]\n[project.optional-dependencies]\n'
    (sandbox.work / "pyproject.toml").write_text(head + rows)
    done = sandbox.drydock("init", "--no-lock", "--for", "cpu").succeeded()
    assert "the extras e0, e1, e2, e3, e4, e5 and 3 more of pyproject.toml" in done.stderr


def test_the_way_on_is_not_the_machine_whose_lock_just_failed(sandbox: Sandbox) -> None:
    """As an example of MLX on Linux, where `--for cpu` was the advice, which failed the same."""
    tag = "manylinux_2_39_x86_64" if sys.platform == "darwin" else "macosx_11_0_arm64"
    make_wheel(sandbox.wheels, "mlx", "1.0", tag=f"py3-none-{tag}")
    (sandbox.work / "requirements.txt").write_text("mlx\n")
    (sandbox.work / "main.py").write_text("if __name__ == '__main__': pass\n")
    done = sandbox.drydock("init").failed(1, "cannot be locked")
    kinds = re.findall(r"--for (\S+)", done.stderr)
    failed = re.findall(r'"\S+-(\w+)" cannot be locked', done.stderr)
    assert failed
    assert kinds
    assert failed[0] not in kinds[0].split(",")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("setup.py", "from setuptools import setup\nsetup(name='forge', install_requires=['anchor'])\n"),
        ("setup.cfg", "[options]\ninstall_requires = anchor\n"),
        ("environment.yml", "dependencies:\n- pip:\n  - anchor\n"),
        ("pyproject.toml", "[tool.poetry]\nname = 'forge'\n[tool.poetry.dependencies]\nanchor = '*'\n"),
    ],
)
def test_a_project_may_say_otherwise_what_it_requires(sandbox: Sandbox, name: str, text: str) -> None:
    (sandbox.work / name).write_text(text)
    (sandbox.work / "train.py").write_text("print('trained')\n")
    sandbox.drydock("init", "--name", "mine").succeeded()
    made = tomllib.loads((sandbox.work / "profiles/mine.toml").read_text())
    wanted = {"requires-from": {"file": name}} if name == "pyproject.toml" else {"requires": ["anchor"]}
    assert made["packages"] == wanted
    assert 'name = "anchor"' in (sandbox.work / "profiles/mine.lock.toml").read_text()
