"""The project's own code: imported from the working tree, with its metadata and programs, and never from an index."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from builder.errors import ProfileError
from builder.project.code import UNKNOWN, is_package, read
from builder.script.code import Code
from tests.support import SHELLS, Sandbox, make_wheel

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "Lantern"
version = "1.2"

[project.scripts]
lantern-train = "lantern.cli:main"

[project.entry-points."lantern.plugins"]
oil = "lantern.oil"
"""
# Tells where it was imported from, here and in a child that starts anew.
TRAINER = """\
import importlib.metadata as metadata, json, multiprocessing, os, subprocess, sys
import lantern.oil

def child(_):
    return lantern.oil.__file__

def main():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        spawned = pool.map(child, [0])[0]
    show = "import lantern; print(lantern.__file__)"
    started = subprocess.run(["python", "-c", show], capture_output=True, text=True)
    print(json.dumps({
        "file": lantern.oil.__file__,
        "spawned": spawned,
        "started": started.stdout.strip(),
        "version": metadata.version("lantern"),
        "points": [one.value for one in metadata.entry_points(group="lantern.plugins")],
        "files": [str(one) for one in metadata.files("lantern")],
        "arguments": sys.argv[1:],
        "project": os.environ.get("DRYDOCK_PROJECT"),
    }))
    return 7
"""
SMALL = """\
[project]
path = "."
"""


def project(desk: Sandbox, layout: str = "src", pyproject: str = PYPROJECT) -> Path:
    """Put a package `lantern` into the working folder, and the profile `small` that names it; returns the package."""
    (desk.work / "pyproject.toml").write_text(pyproject)
    package = desk.work / layout / "lantern"
    package.mkdir(parents=True)
    for name, text in (("__init__", ""), ("oil", ""), ("cli", TRAINER)):
        (package / f"{name}.py").write_text(text)
    profile = desk.profile("small", head=SMALL)
    text = profile.read_text().replace('[project]\npath = "."\n', "")
    text = text.partition("[trainer]")[0] + f'{SMALL}[trainer]\ncommand = ["lantern-train"]\n'
    profile.write_text(text)
    return package


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["src", "."])
def test_the_projects_code_is_imported_everywhere(locked: Sandbox, layout: str) -> None:
    key = locked.drydock("render", "small", "--out", "before").succeeded()
    before = locked.run(["sh", "before/run_small.sh", "--where"]).stdout
    package = project(locked, layout)
    key = locked.drydock("run", "small", "--", "a b").failed(7)
    told = json.loads(key.stdout)
    assert told == {
        "file": str(package / "oil.py"),
        "spawned": str(package / "oil.py"),
        "started": str(package / "__init__.py"),
        "version": "1.2",
        "points": ["lantern.oil"],
        "files": [f"lantern-1.2.dist-info/{name}" for name in ("INSTALLER", "entry_points.txt", "METADATA", "RECORD")],
        "arguments": ["a b"],
        "project": None,
    }
    locked.drydock("render", "small").succeeded()
    script = locked.work / "generated/small/run_small.sh"
    # Outside of the key; and by itself, from anywhere, the script finds the checkout that it is in.
    assert locked.run(["sh", str(script), "--where"]).stdout == before
    by_itself = locked.run(["sh", str(script), "--", "a b"], cwd=Path("/")).failed(7)
    assert json.loads(by_itself.stdout) == told
    # From the working tree: a change is there at once.
    (package / "cli.py").write_text("def main(): print('changed')\n")
    assert locked.run(["sh", str(script)]).succeeded().stdout == "changed\n"
    shell = locked.drydock("shell", "small", "--", "python", "-c", "import lantern; print(lantern.__file__)")
    assert shell.succeeded().stdout == f"{package / '__init__.py'}\n"
    assert locked.drydock("shell", "small", "--", "lantern-train").succeeded().stdout == "changed\n"
    scratch = locked.drydock("shell", "small", "--scratch", "--", "lantern-train").succeeded()
    assert scratch.stdout == "changed\n"
    read = 'eval "$(drydock env small)" && cd / && lantern-train'
    assert locked.run(["sh", "-c", read]).succeeded().stdout == "changed\n"
    assert locked.drydock("run", "small", "--supervise").succeeded().stdout == "changed\n"
    locked.drydock("verify", "small").succeeded()


@pytest.mark.slow
def test_a_kernel_has_the_projects_code(locked: Sandbox, tmp_path: Path) -> None:
    package = project(locked)
    make_wheel(
        locked.wheels, "ipykernel", "7.0", files={"ipykernel_launcher.py": "import lantern; print(lantern.__file__)"}
    )
    path = locked.work / "profiles/small.toml"
    path.write_text(path.read_text().replace('["anchor"]', '["anchor", "ipykernel"]'))
    locked.drydock("lock", "small").succeeded()
    spec = json.loads(Path(locked.drydock("kernel", "install", "small").succeeded().stdout.strip()).read_text())
    started = locked.run(spec["argv"], env=spec["env"], cwd=tmp_path).succeeded()
    assert started.stdout == f"{package / '__init__.py'}\n"


@pytest.mark.slow
def test_the_linked_interpreter_has_the_projects_code(locked: Sandbox) -> None:
    make_wheel(
        locked.wheels,
        "anchor",
        "2.7",
        files={"anchor/__init__.py": "def main():\n    import lantern; print(lantern.__file__)\nversion = 2\n"},
        entry_points="[console_scripts]\ntheirs = anchor:main\n",
    )
    package = project(locked)
    locked.drydock("lock", "small", "--upgrade-all").succeeded()
    locked.drydock("link", "small").succeeded()
    venv = locked.work / ".venv"
    show = "import sys, anchor, lantern, importlib.metadata as m; "
    show += "print(sys.prefix, lantern.__file__, m.version('lantern'))"
    python = str(venv / "bin/python")
    wanted = f"{venv} {package / '__init__.py'} 1.2\n"
    assert locked.run([python, "-c", show], cwd=locked.home).succeeded().stdout == wanted
    told = json.loads(locked.run([str(venv / "bin/lantern-train"), "x"]).failed(7).stdout)
    assert (told["spawned"], told["arguments"]) == (str(package / "oil.py"), ["x"])
    assert locked.run([str(venv / "bin/theirs")]).succeeded().stdout == f"{package / '__init__.py'}\n"
    activate = f'. .venv/bin/activate && python -c "{show}"'
    assert locked.run(["bash", "-c", activate]).succeeded().stdout == wanted
    uv = locked.environment["DRYDOCK_UV"]
    assert locked.run([uv, "python", "find"]).succeeded().stdout.startswith(f"{venv}/bin/python")
    # It follows generations, is made again, becomes a link where there is no project, and is lost with nothing in it.
    path = locked.work / "profiles/small.toml"
    path.write_text(path.read_text().replace('["anchor"]', '["anchor<2"]'))
    locked.drydock("lock", "small").succeeded()
    locked.drydock("build", "small").succeeded()
    first = "import anchor, lantern; print(anchor.version)"
    assert locked.run([python, "-c", first]).succeeded().stdout == "1.0\n"
    locked.drydock("link", "small").succeeded()
    assert locked.run([python, "-c", first]).succeeded().stdout == "1.0\n"
    venv.chmod(0o755)
    (venv / "mine").write_text("mine")
    locked.drydock("link", "small").failed(2, ".venv was not made by drydock link")
    assert (venv / "mine").read_text() == "mine"
    (venv / "mine").unlink()
    path.write_text(path.read_text().replace(SMALL, ""))
    locked.drydock("link", "small").succeeded()
    assert venv.is_symlink()
    path.write_text(path.read_text() + SMALL)
    locked.drydock("link", "small").succeeded()
    assert locked.run([python, "-c", first]).succeeded()
    assert sorted(one.name for one in locked.work.iterdir() if one.name.startswith(".")) == [".venv"]


def test_a_script_finds_its_project_under_every_shell(locked: Sandbox) -> None:
    project(locked)
    script = locked.script("small")  # beside the project, not in it
    odd = locked.root / "it's $HOME `x`"
    shutil.copytree(locked.work, odd)
    nowhere = locked.root / "nowhere"
    nowhere.mkdir()
    wanted = f"{odd}/src:{locked.store.parent}/projects/"
    read = 'eval "$("$@" --print-env)"; printf "%s\\n" "$PYTHONPATH"'
    for shell in SHELLS.values():
        ask = ["sh", "-c", read, "sh", *shell, str(script)]
        assert locked.run(ask, cwd=odd / "src").succeeded().stdout.startswith(wanted)
        assert locked.run(ask, cwd=nowhere, env={"DRYDOCK_PROJECT": str(odd)}).succeeded().stdout.startswith(wanted)
        assert locked.run(ask, cwd=odd.parent, env={"DRYDOCK_PROJECT": odd.name}).stdout.startswith(wanted)
        locked.run([*shell, str(script), "--print-env"], cwd=nowhere).failed(
            1, "there is no src/lantern above", "hint: run it in a checkout, or name one: DRYDOCK_PROJECT"
        )
        wrong = {"DRYDOCK_PROJECT": str(nowhere)}
        locked.run([*shell, str(script), "--print-env"], env=wrong).failed(1, f"DRYDOCK_PROJECT is {nowhere}")
    colon = locked.root / "a:b"
    shutil.copytree(locked.work, colon)
    locked.run(["sh", str(script), "--print-env"], cwd=colon).failed(1, "a path with a colon")
    assert locked.run(["sh", str(script), "--where"], cwd=nowhere).succeeded().stdout  # needs no project


def test_a_store_that_cannot_be_written_still_imports(locked: Sandbox) -> None:
    project(locked)
    script = locked.script("small")
    locked.drydock("build", "small").succeeded()
    (locked.store.parent / "projects").write_text("in the way")
    done = locked.run(["sh", str(script), "--shell", "--", "python", "-c", "import lantern"]).succeeded()
    assert "has no metadata and no console scripts here" in done.stderr


@pytest.mark.slow
def test_metadata_that_nobody_uses_is_collected(locked: Sandbox) -> None:
    project(locked)
    locked.drydock("run", "small").failed(7)
    own = next((locked.store.parent / "projects").iterdir())
    locked.drydock("store", "gc").succeeded()
    assert own.is_dir()
    long_ago = own.stat().st_mtime - 15 * 86400
    os.utime(own, (long_ago, long_ago))
    locked.drydock("store", "gc").succeeded()
    assert not own.exists()
    locked.drydock("run", "small").failed(7)


# --- its name is nobody else's -------------------------------------------------------------------------------------


@pytest.mark.parametrize("requirement", ["lantern", "Lantern[fast]>=2"])
def test_the_projects_name_is_never_asked_of_an_index(sandbox: Sandbox, requirement: str) -> None:
    (sandbox.work / "pyproject.toml").write_text(PYPROJECT)
    make_wheel(sandbox.wheels, "lantern", "9.0")
    path = sandbox.profile("small")
    path.write_text(path.read_text().replace('["anchor"]', f'["anchor", "{requirement}"]'))
    refused = sandbox.drydock("lock", "small").failed(
        1, "is this project itself", 'write [project] path = "."', "profiles/small.toml:14"
    )
    assert requirement in refused.stderr
    assert sandbox.index.requests == []
    assert not (sandbox.work / "profiles/small.lock.toml").exists()


@pytest.mark.slow
def test_a_package_that_requires_the_project_is_refused(sandbox: Sandbox) -> None:
    make_wheel(sandbox.wheels, "lantern", "9.0")
    make_wheel(sandbox.wheels, "plug", "1.0", requires=["lantern"])
    path = sandbox.profile("small")
    path.write_text(path.read_text().replace('["anchor"]', '["anchor", "plug"]'))
    sandbox.drydock("lock", "small").succeeded()  # no project yet
    project(sandbox)
    path.write_text(path.read_text().replace('["anchor"]', '["anchor", "plug"]'))
    wanted = ("plug requires lantern, this project itself", "[[packages.overrides]]")
    sandbox.drydock("build", "small").failed(1, *wanted)
    sandbox.drydock("lock", "small", "--upgrade-all").failed(1, *wanted)
    path.write_text(
        path.read_text()
        + '[[packages.overrides]]\nrequirement = "lantern; python_version < \'3\'"\nreason = "it is here"\n'
    )
    sandbox.drydock("lock", "small").succeeded()
    assert "lantern" not in sandbox.file("x", "").with_name("small.lock.toml").read_text().partition("[[packages]]")[2]
    sandbox.drydock("run", "small").failed(7)


# --- where it is ---------------------------------------------------------------------------------------------------


def of(folder: Path, text: str | None, *files: str, path: str = ".") -> Code:
    """The code of a project with a pyproject.toml of that text, and those files."""
    for file in files:
        (folder / path / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / path / file).write_text('__version__ = "3.1"\n')
    if text is not None:
        (folder / path).mkdir(exist_ok=True)
        (folder / path / "pyproject.toml").write_text(text)
    return read(folder, path, "profiles/x.toml", lambda one: one.read_bytes() if one.is_file() else None)


NAMED = '[project]\nname = "my-Lamp"\nversion = "1"\n'


@pytest.mark.parametrize(
    ("text", "files", "roots", "marker"),
    [
        (NAMED, ["src/my_Lamp/__init__.py"], ("src",), "src/my_Lamp"),
        (NAMED, ["src/my_lamp.py"], ("src",), "src/my_lamp.py"),
        (NAMED, ["my_lamp/__init__.py", "tests/__init__.py"], ("",), "my_lamp"),
        (NAMED, ["my_lamp/deep/x.py"], ("",), "my_lamp"),  # a namespace
        (NAMED, ["src/other/__init__.py", "setup.py"], ("src",), "src/other"),
        (NAMED, ["other/__init__.py"], ("",), "other"),
        (NAMED + '[tool.setuptools.packages.find]\nwhere = ["lib"]\n', ["lib/a/__init__.py"], ("lib",), "lib/a"),
        (NAMED + '[tool.setuptools.package-dir]\n"" = "python"\n', ["python/a/__init__.py"], ("python",), "python/a"),
        (
            NAMED + '[tool.hatch.build.targets.wheel]\npackages = ["code/a", "more/b"]\n',
            ["code/a/__init__.py", "more/b/__init__.py"],
            ("code", "more"),
            "code/a",
        ),
        (NAMED + '[tool.uv.build-backend]\nmodule-root = ""\nmodule-name = "a"\n', ["a/__init__.py"], ("",), "a"),
        (NAMED + '[tool.pdm.build]\npackage-dir = "p"\n', ["p/my_Lamp/__init__.py"], ("p",), "p/my_Lamp"),
        (NAMED + '[tool.flit.module]\nname = "a"\n', ["src/a.py"], ("src",), "src/a.py"),
        (
            '[tool.poetry]\nname = "x"\nversion = "1"\npackages = [{ include = "a", from = "lib" }]\n',
            ["lib/a/__init__.py"],
            ("lib",),
            "lib/a",
        ),
        (None, ["src/a/__init__.py"], ("src",), "src/a"),
        (None, ["train.py"], ("",), "profiles/x.toml"),
    ],
)
def test_layouts(tmp_path: Path, text: str | None, files: list[str], roots: tuple[str, ...], marker: str) -> None:
    found = of(tmp_path, text, *files)
    assert (found.roots, found.marker) == (roots, marker)
    assert bool(found.metadata) == (text is not None)
    assert os.path.lexists(tmp_path / marker) or text is None


def test_a_project_below_is_relative_to_the_folder_above_the_profiles(tmp_path: Path) -> None:
    found = of(tmp_path, NAMED, "src/my_lamp/__init__.py", path="trainer")
    assert (found.roots, found.marker) == (("trainer/src",), "trainer/src/my_lamp")


@pytest.mark.parametrize(
    ("tables", "version"),
    [
        ('dynamic = ["version"]\n', UNKNOWN),
        ('dynamic = ["version"]\n[tool.hatch.version]\npath = "src/my_lamp/__init__.py"\n', "3.1"),
        ('dynamic = ["version"]\n[tool.setuptools.dynamic]\nversion = { attr = "my_lamp.__version__" }\n', "3.1"),
        ('dynamic = ["version"]\n[build-system]\nbuild-backend = "flit_core.buildapi"\n', "3.1"),
        ('version = "1.0-RC1"\n', "1.0rc1"),
    ],
)
def test_versions(tmp_path: Path, tables: str, version: str) -> None:
    text = f'[project]\nname = "my-lamp"\n{tables}'
    assert of(tmp_path, text, "src/my_lamp/__init__.py").version == version


def test_programs_and_plugins_of_poetry(tmp_path: Path) -> None:
    text = (
        '[tool.poetry]\nname = "lamp"\nversion = "1"\n[tool.poetry.scripts]\na = "lamp:main"\n'
        'b = { reference = "b.sh", type = "file" }\nc = { reference = "lamp.c:Main.run", type = "console" }\n'
        '[tool.poetry.plugins."x.y"]\nd = "lamp.d"\n'
    )
    found = of(tmp_path, text, "lamp/__init__.py")
    assert found.entry_points == {
        "console_scripts": {"a": "lamp:main", "c": "lamp.c:Main.run"},
        "x.y": {"d": "lamp.d"},
    }
    assert "from lamp.c import Main\n" in found.programs["c"]
    assert "sys.exit(Main.run())" in found.programs["c"]


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("[project\n", "not TOML", None),
        ('[project]\nname = "a b"\n', "not the name of a project", 2),
        ('[project]\nname = "x"\nversion = "new"\n', "'new' is not a version", 3),
        ('[project]\nname = "x"\n[project.scripts]\nrun = "x"\n', "'x' is not what an entry point can be", 4),
        ('[project]\nname = "x"\n[project.scripts]\nrun = "x:f();import os"\n', "not what an entry point can be", 4),
        ('[project]\nname = "x"\n[project.scripts]\n"../run" = "x:f"\n', "not a name for an entry point", 4),
        ('[project]\nname = "x"\n[project.scripts]\npython = "x:f"\n', "not a name for an entry point", 4),
        ('[project]\nname = "x"\n[project.entry-points."a\\nb"]\nq = "x"\n', "not a group of entry points", None),
        ('[project]\nname = "x"\n[tool.hatch.build.targets.wheel]\npackages = ["../x"]\n', "not a folder of", None),
        ('[project]\nname = "x"\n[tool.setuptools.packages.find]\nwhere = ["/etc"]\n', "not a folder of", None),
        ('[project]\nname = "y"\n', "there is no code to import in", None),
    ],
)
def test_what_a_pyproject_cannot_say(tmp_path: Path, text: str, message: str, line: int | None) -> None:
    files = [] if '"y"' in text else ["x/__init__.py"]
    with pytest.raises(ProfileError) as caught:
        of(tmp_path, text, *files)
    assert message in caught.value.message
    assert line is None or (caught.value.where is not None and caught.value.where.line == line)


@pytest.mark.parametrize("path", ["..", "/etc", "a/../..", "a b", ""])
def test_a_path_that_leaves_the_project_is_refused(sandbox: Sandbox, path: str) -> None:
    sandbox.profile("small", head=SMALL.replace('"."', f'"{path}"'))
    sandbox.drydock("profile", "check", "small").failed(1, "project.path", "inside the project")


def test_a_link_out_of_the_project_is_refused(locked: Sandbox) -> None:
    project(locked)
    away = locked.root / "away"
    (locked.work / "src").rename(away)
    (locked.work / "src").symlink_to(away)
    locked.drydock("render", "small").failed(1, "is not a folder of the project")


@pytest.mark.slow
def test_a_move_of_the_package_is_noticed(locked: Sandbox) -> None:
    package = project(locked)
    locked.drydock("run", "small").failed(7)
    package.rename(locked.work / "lantern")
    told = json.loads(locked.drydock("run", "small").failed(7).stdout)
    assert told["file"] == str(locked.work / "lantern/oil.py")


def test_what_is_a_package(tmp_path: Path) -> None:
    def content(path: Path) -> bytes | None:
        return path.read_bytes() if path.is_file() else None

    assert not is_package(tmp_path, content)
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    assert not is_package(tmp_path, content)
    (tmp_path / "pyproject.toml").write_text(NAMED)
    assert not is_package(tmp_path, content)  # a list of requirements, as uv has it too
    (tmp_path / "my_lamp").mkdir()
    (tmp_path / "my_lamp/__init__.py").write_text("")
    assert is_package(tmp_path, content)


def test_a_script_without_a_project_says_nothing_of_one(locked: Sandbox) -> None:
    assert b"DRYDOCK_PROJECT" not in locked.script("small").read_bytes()


@pytest.mark.slow
def test_shellcheck_has_nothing_to_say(locked: Sandbox) -> None:
    program = shutil.which("shellcheck", path=str(Path(__file__).parents[2] / ".venv/bin")) or shutil.which(
        "shellcheck"
    )
    if program is None:
        pytest.skip("no shellcheck here")
    project(locked)
    done = subprocess.run([program, locked.script("small")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
