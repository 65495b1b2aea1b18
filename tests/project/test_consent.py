"""Nothing that others wrote runs before somebody has agreed, whatever would start it; and it sees no secrets."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support import Result, Sandbox, make_sdist, make_wheel

SECRET = "hf_this-is-a-secret"
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
# As a setup.py that prints its version is run, so is this, for its metadata and for its wheel.
BACKEND = """
import json, os, zipfile
with open(RAN, "a") as file:
    file.write(json.dumps(dict(os.environ)) + "\\n")
INFO = "evilpkg-1.0.dist-info"
FILES = {
    f"{INFO}/METADATA": "Metadata-Version: 2.1\\nName: evilpkg\\nVersion: 1.0\\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
}
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    os.mkdir(f"{folder}/{INFO}")
    for name, text in FILES.items():
        with open(f"{folder}/{name}", "w") as file:
            file.write(text)
    return INFO
def build_wheel(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{folder}/evilpkg-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in {"evilpkg.py": "x = 1\\n", **FILES, f"{INFO}/RECORD": "evilpkg.py,,\\n"}.items():
            wheel.writestr(name, text)
    return "evilpkg-1.0-py3-none-any.whl"
"""
BUILD = "[packages.build]\nevilpkg = []\n"


class Evil:
    """A desk with the profile `mine`, which extends a part of the source `team`, and with `team:evil`; both locked.

    Both have a package whose build writes down that it ran, and in which environment. The locks come from another
    machine: on this one nobody has agreed to anything, and no cache has what was built.
    """

    def __init__(self, desk: Sandbox) -> None:
        self.desk = desk
        self.ran = desk.root / "ran"
        self._calls = 0
        uv = {f"uv-{version('uv')}.data/scripts/uv": "#!/bin/sh\n"}  # for a bundle, which takes it along
        make_wheel(desk.wheels, "uv", version("uv"), tag="py3-none-manylinux_2_17_x86_64", files=uv)
        make_sdist(
            desk.wheels,
            "evilpkg",
            "1.0",
            {"pyproject.toml": PROJECT, "backend.py": f"RAN = {str(self.ran)!r}\n{BACKEND}"},
        )
        team = desk.root / "team/profiles"
        team.mkdir(parents=True)
        (team / "base.toml").write_text(f'schema = 1\nname = "base"\n[packages]\nrequires = ["evilpkg"]\n{BUILD}')
        text = desk.profile("evil").read_text().replace('["anchor"]', f'["anchor", "evilpkg"]\n{BUILD}')
        desk.profile("evil").rename(team / "evil.toml")
        (team / "evil.toml").write_text(text)
        (desk.work / "drydock.toml").write_text('[sources.team]\npath = "../team"\n')
        desk.profile("mine", head='extends = ["team:base"]')
        for name in ("mine", "team:evil"):
            self.drydock("lock", name, "--yes", home="elsewhere").succeeded()
        assert self.environments() != []
        self.ran.unlink()

    def drydock(self, *arguments: str, home: str = "here") -> Result:
        """Run the program with secrets in its environment, and an empty cache of uv's."""
        self._calls += 1
        environment = {
            "DRYDOCK_HOME": str(self.desk.root / home),
            "UV_CACHE_DIR": str(self.desk.root / f"cache-{self._calls}"),
            "HF_TOKEN": SECRET,
            "UV_PUBLISH_TOKEN": SECRET,
            "WANDB_API_KEY": SECRET,
            "DRYDOCK_INDEX_OTHER": f"https://me:{SECRET}@wheels.example/simple",
            "NO_PROXY": "kept.example",
        }
        return self.desk.drydock(*arguments, env=environment)

    def environments(self) -> list[dict[str, str]]:
        """The environments that a build saw, a run each."""
        return [json.loads(line) for line in self.ran.read_text().splitlines()] if self.ran.exists() else []

    def agree(self, name: str) -> None:
        """Agree on this machine, and forget what ran for that."""
        self.drydock("build", name, "--yes").succeeded()
        self.ran.unlink(missing_ok=True)


@pytest.fixture
def evil(sandbox: Sandbox) -> Evil:
    return Evil(sandbox)


def started_elsewhere(evil: Evil) -> None:
    """A folder that `patch start` made, with a change in it."""
    evil.drydock("patch", "start", "mine", "evilpkg", "--yes", home="elsewhere").succeeded()
    (evil.desk.work / "patch-mine-evilpkg/evilpkg.py").write_text("x = 2\n")
    (evil.desk.work / "proof.py").write_text("import evilpkg; assert evilpkg.x == 2\n")
    evil.ran.unlink()


COMMANDS: dict[str, tuple[list[str], str, bool, Callable[[Evil], None]]] = {
    # What is called, of which profile, whether a build runs for it once that is agreed to, and what is done before.
    "push": (["push", "team:evil", "mirror"], "team:evil", True, lambda _: None),
    "push of one's own": (["push", "mine", "mirror"], "mine", True, lambda _: None),
    "bundle": (["bundle", "mine"], "mine", False, lambda _: None),
    "export": (["export", "mine", "--format", "pylock"], "mine", False, lambda _: None),
    "licences": (["export", "team:evil", "--format", "sbom"], "team:evil", False, lambda _: None),
    "lock": (["lock", "mine", "-U"], "mine", True, lambda _: None),
    "cross": (["build", "mine", "--cross", "there"], "mine", True, lambda _: None),
    "patch start": (["patch", "start", "mine", "evilpkg"], "mine", True, lambda _: None),
    "patch commit": (
        ["patch", "commit", "patch-mine-evilpkg", "--why", "it", "--proof", "proof.py"],
        "mine",
        True,
        started_elsewhere,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", COMMANDS)
def test_no_build_runs_before_somebody_agreed_and_then_it_sees_no_secret(evil: Evil, what: str) -> None:
    command, name, builds, before = COMMANDS[what]
    before(evil)
    refused = evil.drydock(*command).failed(1, "nobody has agreed to that on this machine yet", "--yes")
    assert "builds   evilpkg from source" in refused.stderr  # it is shown what would run
    assert evil.environments() == []
    evil.agree(name)
    evil.drydock(*command).succeeded()
    assert bool(evil.environments()) == builds
    for environment in evil.environments():
        assert SECRET not in json.dumps(environment)
        assert environment["NO_PROXY"] == "kept.example"  # how a build gets to the network stays


@pytest.mark.slow
def test_a_build_by_the_script_sees_no_secret_and_the_trainer_does(evil: Evil) -> None:
    evil.drydock("build", "mine").failed(1, "nobody has agreed")
    assert evil.environments() == []
    evil.drydock("build", "mine", "--yes").succeeded()
    assert evil.environments() != []
    for environment in evil.environments():
        assert SECRET not in json.dumps(environment)
        assert environment["NO_PROXY"] == "kept.example"
    shown = evil.drydock("shell", "mine", "--", "python", "-c", "import os; print(os.environ['HF_TOKEN'])")
    assert shown.succeeded().stdout == f"{SECRET}\n"


@pytest.mark.slow
def test_yes_agrees_for_what_is_pushed(evil: Evil) -> None:
    evil.drydock("push", "team:evil", "mirror", "--yes").succeeded()
    assert evil.environments() != []
    evil.ran.unlink()
    evil.drydock("push", "team:evil", "another").succeeded()
    assert (evil.desk.work / "another/simple/evilpkg/index.html").is_file()


@pytest.mark.slow
def test_a_consent_is_made_in_one_place() -> None:
    """The type checker finds who asks nobody; that nobody makes a consent of their own, this finds."""
    makers = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "builder").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Consent") for base in node.bases)
    }
    assert makers == {"builder/project/sources/consent.py"}


def test_without_a_consent_nothing_can_be_built(tmp_path: Path) -> None:
    from builder import uv
    from builder.profile.target import Target

    target = Target.model_validate({"platform": "linux-x86_64", "accelerator": "cpu", "glibc": "2.17"})
    with pytest.raises(ValueError, match="nobody has agreed"):
        uv.install(["--no-binary", "evilpkg"], tmp_path, target, "3.11", builds=None)
