"""Where people work: shells, direnv, the link that editors and uv find, Jupyter kernels."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.support import Result, Sandbox, make_wheel, tool

DRYDOCK = [sys.executable, "-m", "builder"]
SETTINGS = """
[env]
PLAIN = "it's $HOME"
CALLERS = { default = "profile" }
"""


@pytest.fixture
def project(built: Sandbox, tmp_path: Path) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def drydock(desk: Sandbox, folder: Path, *arguments: str, **env: str) -> Result:
    """Run `drydock ARGUMENTS` in `folder`, with the profiles of `desk`."""
    profiles = {"DRYDOCK_PROFILES": str(desk.work / "profiles")}
    return desk.drydock(*arguments, cwd=folder, env={**profiles, **env})


def prefix(desk: Sandbox, python: Path) -> str:
    """The sys.prefix of an interpreter, which must find the packages of `small`."""
    return desk.run([str(python), "-c", "import sys, anchor; print(sys.prefix)"]).succeeded().stdout.strip()


# --- shell -- COMMAND, env, direnv ---------------------------------------------------------------------------------


def test_a_command_runs_in_the_environment_with_its_variables(built: Sandbox) -> None:
    built.profile("small", tail=SETTINGS)
    show = "import os, sys, anchor; print(os.environ['PLAIN'], os.environ['CALLERS'], *sys.argv[1:]); sys.exit(7)"
    done = built.drydock("shell", "small", "--", "python", "-c", show, "-x", "a b", env={"CALLERS": "mine"}).failed(7)
    assert done.stdout == "it's $HOME mine -x a b\n"
    assert done.stderr == ""


def test_a_command_runs_in_a_scratch_environment(built: Sandbox) -> None:
    show = "import sys, anchor; print(sys.prefix)"
    told = built.drydock("shell", "small", "--scratch", "--", "python", "-c", show).succeeded().stdout
    assert Path(told.strip()).parent == built.store.parent / "scratch"


def test_env_is_read_by_a_shell(built: Sandbox) -> None:
    built.profile("small", tail=SETTINGS)
    read = 'eval "$("$@")"; printf "%s\\n" "$PLAIN" "$CALLERS" "$VIRTUAL_ENV" "$(command -v python)"'
    told = built.run(["sh", "-c", read, "sh", *DRYDOCK, "env", "small"]).succeeded().stdout.splitlines()
    assert told[:2] == ["it's $HOME", "profile"]
    assert Path(told[2]).parent == built.store
    assert told[3] == f"{told[2]}/bin/python"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("direnv") is None, reason="no direnv here")
def test_direnv_loads_it_and_notices_changes(locked: Sandbox, project: Path) -> None:
    path = locked.profile("small", tail=SETTINGS)
    command = " ".join([f"DRYDOCK_PROFILES={locked.work}/profiles", *DRYDOCK, "env small --direnv"])
    (project / ".envrc").write_text(f'eval "$({command})"\n')
    locked.run(["direnv", "allow", str(project)]).succeeded()
    show = ["direnv", "exec", str(project), "sh", "-c", 'printf "%s\\n" "$PLAIN" "$(command -v python)"']
    plain, python = locked.run(show, cwd=project).succeeded().stdout.splitlines()
    assert plain == "it's $HOME"
    first = Path(python).parent.parent
    assert first.parent == locked.store
    # What a prompt asks: nothing to do, until the profile or its generation changes.
    loaded = _exported(locked, project, {})
    assert _exported(locked, project, loaded) == {}
    path = locked.profile("small", tail=SETTINGS.replace("it's", "it is"))
    _later(path)
    loaded |= _exported(locked, project, loaded)
    assert loaded["PLAIN"] == "it is $HOME"
    assert _exported(locked, project, loaded) == {}
    path.write_text(path.read_text().replace('["anchor"]', '["anchor", "extra"]'))
    make_wheel(locked.wheels, "extra", "2.0")
    locked.drydock("lock", "small").succeeded()
    locked.drydock("build", "small").succeeded()
    _later(path)
    loaded |= _exported(locked, project, loaded)
    assert loaded["VIRTUAL_ENV"] != str(first)
    locked.drydock("generation", "rollback", "small").succeeded()
    _later(locked.store.parent / "profiles/small")
    assert _exported(locked, project, loaded)["VIRTUAL_ENV"] == str(first)


def _later(path: Path) -> None:
    """As if it had been changed some seconds later: direnv compares seconds."""
    time = path.lstat().st_mtime + 5
    os.utime(path, (time, time), follow_symlinks=False)


def _exported(desk: Sandbox, folder: Path, before: dict[str, str]) -> dict[str, str]:
    text = desk.run(["direnv", "export", "json"], cwd=folder, env=before).succeeded().stdout
    return json.loads(text) if text.strip() else {}


# --- link ----------------------------------------------------------------------------------------------------------


def test_the_link_is_an_interpreter_that_uv_finds(built: Sandbox, project: Path) -> None:
    assert drydock(built, project, "link", "small").succeeded().stdout == ".venv\n"
    venv = project / ".venv"
    assert prefix(built, venv / "bin/python") == str(venv)
    uv = built.environment["DRYDOCK_UV"]
    assert built.run([uv, "python", "find"], cwd=project).succeeded().stdout.startswith(f"{venv}/bin/python")
    assert "anchor==1.0" in built.run([uv, "pip", "freeze"], cwd=project).succeeded().stdout
    activate = '. .venv/bin/activate && python -c "import anchor, sys; print(sys.prefix)"'
    assert Path(built.run(["bash", "-c", activate], cwd=project).succeeded().stdout.strip()).samefile(venv)


@pytest.mark.slow
def test_the_link_follows_the_generations_and_is_never_collected(locked: Sandbox) -> None:
    locked.drydock("link", "small").succeeded()  # builds what was never built
    python = locked.work / ".venv/bin/python"
    first = python.resolve().parent, (locked.work / ".venv").resolve()
    make_wheel(locked.wheels, "extra", "2.0")
    path = locked.profile("small")
    path.write_text(path.read_text().replace('["anchor"]', '["anchor", "extra"]'))
    locked.drydock("lock", "small").succeeded()
    locked.drydock("build", "small").succeeded()
    locked.run([str(python), "-c", "import extra"]).succeeded()
    locked.drydock("generation", "delete", "small", "old").succeeded()
    locked.drydock("store", "gc").succeeded()
    assert not first[1].exists()
    locked.run([str(python), "-c", "import anchor, extra"]).succeeded()


def test_the_link_takes_no_place_that_is_not_its_own(built: Sandbox, project: Path) -> None:
    (project / ".venv").mkdir()
    (project / ".venv/pyvenv.cfg").write_text("mine")
    (project / "away").symlink_to("nowhere")
    for place in ([], ["--out", "away"]):
        drydock(built, project, "link", "small", *place).failed(2, "was not made by drydock link", "hint: move it away")
    assert (project / ".venv/pyvenv.cfg").read_text() == "mine"
    assert (project / "away").readlink() == Path("nowhere")
    for _ in range(2):
        assert drydock(built, project, "link", "small", "--out", "mine").succeeded().stdout == "mine\n"
    (project / "mine").unlink()
    (project / "mine").symlink_to(built.store.parent / "profiles/another")  # a profile's of before
    drydock(built, project, "link", "small", "--out", "mine").succeeded()
    assert prefix(built, project / "mine/bin/python") == str(project / "mine")
    drydock(built, project, "link", "small", "--out", "no/where").failed(2, "no is not a folder")


# --- Jupyter kernels -----------------------------------------------------------------------------------------------


def test_a_kernel_needs_ipykernel(built: Sandbox) -> None:
    built.drydock("kernel", "install", "small").failed(
        1,
        "small has no ipykernel",
        'hint: add "ipykernel" to requires in profiles/small.toml, then: drydock lock small',
    )
    assert not (built.home / ".local/share/jupyter").exists()


def with_ipykernel(desk: Sandbox) -> None:
    """Lock `small` with an ipykernel that prints what it was started with."""
    show = "import os, sys, anchor; print(sys.prefix, os.environ['PLAIN'], *sys.argv[1:])\n"
    make_wheel(desk.wheels, "ipykernel", "7.0", files={"ipykernel_launcher.py": show, "ipykernel/__init__.py": ""})
    path = desk.profile("small", tail=SETTINGS)
    path.write_text(path.read_text().replace('["anchor"]', '["anchor", "ipykernel"]'))
    desk.drydock("lock", "small").succeeded()


@pytest.mark.slow
def test_a_kernelspec_starts_the_kernel_from_anywhere(locked: Sandbox, tmp_path: Path) -> None:
    with_ipykernel(locked)
    file = Path(locked.drydock("kernel", "install", "small").succeeded().stdout.strip())
    assert file == locked.home / ".local/share/jupyter/kernels/drydock-small/kernel.json"
    spec = json.loads(file.read_text())
    argv = [word.replace("{connection_file}", "/tmp/it.json") for word in spec["argv"]]
    told = locked.run(argv, cwd=tmp_path, env=spec["env"]).succeeded()
    (environment,) = locked.environments()
    assert told.stdout == f"{locked.store / environment} it's $HOME -f /tmp/it.json\n"
    assert told.stderr == ""
    assert locked.drydock("kernel", "uninstall", "small").succeeded().stdout.strip() == str(file)
    assert not file.parent.exists()
    locked.drydock("kernel", "uninstall", "small").failed(2, "small is not a kernel", "drydock kernel install small")


@pytest.mark.slow
def test_a_kernel_keeps_to_its_own_folder(locked: Sandbox, tmp_path: Path) -> None:
    with_ipykernel(locked)
    data = {"JUPYTER_DATA_DIR": str(tmp_path / "data")}
    theirs = tmp_path / "data/kernels/python3/kernel.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text('{"metadata": {"debugger": true}}')
    for command in ("install", "uninstall"):
        run = locked.drydock("kernel", command, "small", "--name", "python3", env=data)
        run.failed(2, "was not made by Drydock", "choose another --name")
        run = locked.drydock("kernel", command, "small", "--name", "../it", env=data)
        run.failed(2, "../it is not a name for a kernel")
    assert theirs.read_text() == '{"metadata": {"debugger": true}}'
    mine = Path(locked.drydock("kernel", "install", "small", "--name", "mine", env=data).succeeded().stdout.strip())
    assert mine == tmp_path / "data/kernels/mine/kernel.json"
    (mine.parent / "logo-64x64.png").write_text("drawn by the user")
    locked.drydock("kernel", "uninstall", "small", "--name", "mine", env=data).succeeded()
    assert [path.name for path in mine.parent.iterdir()] == ["logo-64x64.png"]


PROGRAM = """
import json, sys
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import start_new_kernel
assert "drydock-small" in KernelSpecManager().find_kernel_specs()
manager, client = start_new_kernel(kernel_name="drydock-small", startup_timeout=120)
said = []
def ask(code):
    hear = lambda one: said.append(one["content"].get("text"))
    reply = client.execute_interactive(code, timeout=60, output_hook=hear)
    assert reply["content"]["status"] == "ok", reply
ask("import os, sys; print(sys.prefix); print(os.environ['PLAIN'])")
manager.restart_kernel(now=False)
client.wait_for_ready(timeout=60)
ask("print('again')")
client.execute("import time; print('sleeps', flush=True); time.sleep(60)")
while client.get_iopub_msg(timeout=60)["content"].get("text") != "sleeps\\n":
    pass
manager.interrupt_kernel()
print(client.get_shell_msg(timeout=30)["content"]["ename"])
client.stop_channels()
manager.shutdown_kernel()
print("".join(filter(None, said)), end="")
"""


@pytest.mark.slow
def test_jupyter_starts_it(locked: Sandbox) -> None:
    path = locked.profile("small", tail=SETTINGS)
    text = path.read_text().replace('["anchor"]', '["ipykernel==7.4.0"]')
    path.write_text(text.replace('glibc = "2.17"', 'glibc = "2.28"'))  # what its newest wheels are for
    # The host's own way to PyPI.
    own = {key: value for key, value in locked.environment.items() if key not in ("UV_DEFAULT_INDEX", "UV_CACHE_DIR")}
    locked.environment = {**os.environ, **own}
    locked.drydock("lock", "small").succeeded()
    locked.drydock("kernel", "install", "small", timeout=300).succeeded()
    told = locked.run([*tool("jupyter_client==8.10.0"), "python", "-c", PROGRAM], cwd=locked.home, timeout=300)
    (environment,) = locked.environments()
    assert told.succeeded().stdout == f"KeyboardInterrupt\n{locked.store / environment}\nit's $HOME\nagain\n"
