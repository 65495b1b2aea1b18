"""Rules that stand in sh and in Python: the same answers under every shell, so that neither changes alone.

What scripts detect of a machine has its own (test_detect.py).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from builder.embedded import claim, folders, installer, manifest
from builder.errors import UsageError
from builder.machine.fit import is_older
from builder.script.quoting import sh_quote
from builder.store import roots
from builder.store.layout import Store
from tests.conftest import ROOT
from tests.script.test_render import make
from tests.support import SHELLS
from tests.support.scripts import Desk

STORE_NAME = f"{'0' * 32}-small"


@cache
def script() -> str:
    """A run script; what is asked of it is the same in all."""
    from builder.script.templates import rendered

    plan = make()
    return rendered(plan)[plan.profile.run_script]


def function(name: str) -> str:
    """One function of it."""
    found = re.search(rf"^{name}\(\) \{{(?:\n.*?^\}}| .*? \}})\n", script(), re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[0]


def answers(code: str, *arguments: str, **env: str) -> str:
    """What some code prints under every shell; the same, or there is no parity to ask for."""
    found = {}
    for shell, command in ((shell, command) for shell, command in SHELLS.items() if shell != "zsh"):
        # zsh as itself leaves a script to sh before all else.
        done = subprocess.run(
            [*command, "-c", f"set -eu\n{code}", "sh", *arguments],
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **env},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b""), (shell, done)
        found[shell] = done.stdout
    assert len(set(found.values())) == 1, found
    return next(iter(found.values())).decode("utf-8", "surrogateescape")


def holds(name: str, *arguments: str, more: str = "", **env: str) -> bool:
    """Whether a function of the script says yes."""
    code = f'{more}\n{function(name)}\nif {name} "$@"; then echo yes; else echo no; fi\n'
    return answers(code, *arguments, **env) == "yes\n"


# --- the store -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ",
    [
        {"HOME": "/h"},
        {"HOME": "/h", "XDG_DATA_HOME": ""},
        {"HOME": "/h", "XDG_DATA_HOME": "/x y"},
        {"HOME": "/h", "XDG_DATA_HOME": "x"},
        {"HOME": "h"},
        {"HOME": "/h", "XDG_DATA_HOME": "/x", "DRYDOCK_HOME": "/d"},
        {"HOME": "/h", "DRYDOCK_HOME": "-d"},
        {"DRYDOCK_HOME": "/d'$(x)"},
        {"HOME": "/h", "DRYDOCK_HOME": ""},
        {"HOME": ""},
        {},
    ],
)
def test_the_place_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    monkeypatch.chdir(tmp_path)
    one = Desk(tmp_path, script(), "run.sh", STORE_NAME)
    one.environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    found = {shell: one.run(shell, "--where", **environ) for shell in SHELLS}
    try:
        place = str(Store.here(environ).environments)
    except UsageError:
        if "HOME" not in environ:
            found.pop("zsh", None)  # which sets HOME itself
        assert all(done.returncode and b"HOME" in done.stderr for done in found.values()), found
        return
    said = {shell: str(Path(done.stdout.decode()).parent) for shell, done in found.items()}
    assert said == dict.fromkeys(SHELLS, place)


@pytest.mark.parametrize("text", [None, "1\n", "1", "", "\n", "2\n", "10\n", "1x\n", "x\n", "1\n2\n"])
def test_the_format_of_a_store(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "format").write_text(text)
    try:
        Store.here({"DRYDOCK_HOME": str(tmp_path)})
        knows = True
    except UsageError:
        knows = False
    dies = "die() { echo no; exit 0; }\n"
    code = f"_drydock={sh_quote(str(tmp_path))}\n{dies}{function('check_format')}check_format\necho yes\n"
    assert answers(code) == ("yes\n" if knows else "no\n")


def whole(env: Path) -> None:
    (env / ".drydock").mkdir()
    (env / ".drydock/manifest.json").touch()
    (env / "bin").mkdir()
    (env / "bin/python").symlink_to("/bin/sh")


def python_gone(env: Path) -> None:
    whole(env)
    (env / "bin/python").unlink()
    (env / "bin/python").symlink_to("/nowhere/python")


def not_a_program(env: Path) -> None:
    whole(env)
    (env / "bin/python").unlink()
    (env / "bin/python").touch(0o644)


def unfinished(env: Path) -> None:
    whole(env)
    (env / ".drydock/manifest.json").unlink()


def folder_for_a_manifest(env: Path) -> None:
    unfinished(env)
    (env / ".drydock/manifest.json").mkdir()


@pytest.mark.parametrize("state", [whole, python_gone, not_a_program, unfinished, folder_for_a_manifest])
def test_what_is_built(tmp_path: Path, state: Callable[[Path], None]) -> None:
    store = Store(tmp_path)
    env = store.path(STORE_NAME)
    env.mkdir(parents=True)
    state(env)
    said = holds("is_usable", more=f"_env={sh_quote(str(env))}")
    assert (said, manifest.is_usable(env), store.is_built(STORE_NAME)) == (state is whole,) * 3


@pytest.mark.parametrize("mode", [0o755, 0o775, 0o2775, 0o2755, 0o2770])
def test_what_is_of_a_group(tmp_path: Path, mode: int) -> None:
    home = tmp_path / "store"
    home.mkdir()
    home.chmod(mode)
    code = f"umask 027\n_drydock={sh_quote(str(home))}\n{function('grouped')}grouped sh -c umask\n"
    assert (answers(code).strip()[-3:] == "002") == folders.is_shared(home)


# --- roots ---------------------------------------------------------------------------------------------------------


def test_the_root_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Desk.of(tmp_path, make()).built()
    monkeypatch.setenv("DRYDOCK_HOME", str(one.home / ".local/share/drydock"))
    wanted = roots.mark(one.env.name)
    for shell in SHELLS:
        done = one.run(shell, "--shell", "--", "sh", "-c", "echo $$")
        pid = int(done.stdout)
        assert wanted.with_name(f"{wanted.name}.{pid}").exists(), (shell, list(wanted.parent.iterdir()))
    assert len(list(wanted.parent.iterdir())) == len(SHELLS)


@pytest.mark.parametrize("name", ["host", "host.example.org", "a_b-9", "", ".x", "h\u00f6st", "a b", "a/b", "*"])
def test_the_name_of_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As the kernel has it, a line; a name of this machine cannot be given to it here."""
    said = tmp_path / "hostname"
    said.write_text(f"{name}\n")
    code = function("know_machine").replace("/proc/sys/kernel/hostname", str(said))
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", name, "", "", "")))
    assert answers(f"{code}know_machine\nprintf '%s\\n' \"$_here\"\n") == f"{roots.host()}\n"


def test_who_collects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell cannot ask for a lock: where a collector died within a minute, it waits a little longer; no more."""
    monkeypatch.setenv("DRYDOCK_HOME", str(tmp_path))
    file = Store.here().roots / "collecting"
    file.parent.mkdir()
    gone = subprocess.Popen(["true"])
    gone.wait()
    here = f"{roots.host()} {roots.boot()}"
    known = {"_roots": str(file.parent), "_here": roots.host(), "_boot": roots.boot()}
    more = "".join(f"{name}={sh_quote(value)}\n" for name, value in known.items()) + "exec 2>/dev/null"

    def both(text: str | None, age: float) -> tuple[bool, bool]:
        if text is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(text)
            os.utime(file, (time.time() - age,) * 2)
        return holds("someone_collects", more=more), roots._someone_collects()

    assert both(None, 0) == (False, False)
    with file.open("w") as held:
        claim.lock(held.fileno())
        assert both(f"{os.getpid()} {here}\n", 0) == (True, True)
        assert both(f"{os.getpid()} {here}\n", 600) == (True, True)
    assert both("7 elsewhere 0\n", 5) == (True, True)
    assert both("7 elsewhere 0\n", 130) == (False, False)
    assert both(f"7 {roots.host()} another-start\n", 5) == (True, True)
    assert both(f"7 {roots.host()} another-start\n", 130) == (False, False)
    assert both(f"{gone.pid} {here}\n", 130) == (False, False)
    assert both(f"{gone.pid} {here}\n", 5) == (True, False)


# --- what a machine must have --------------------------------------------------------------------------------------

VERSION = st.lists(st.integers(0, 120), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))


@given(st.lists(VERSION, min_size=1, max_size=20), st.tuples(st.integers(0, 30), st.integers(0, 40)))
@example(["14", "13", "14.0", "14.2.1", "14.10", "26.1", "2.9"], (14, 0))
@example(["2.28", "2.9", "3", "3.0", "2.280"], (2, 28))
@example(["", "another C library", "undefined"], (0, 0))
def test_which_version_is_new_enough(found: list[str], wanted: tuple[int, int]) -> None:
    least = "{}.{}".format(*wanted)
    loop = f'for found do if at_least "$found" {least}; then printf \'%s\\n\' "$found"; fi; done\n'
    assert answers(function("at_least") + loop, *found).splitlines() == [
        one for one in found if not is_older(one, least)
    ]


# --- words ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=9))
@example(["", "'", "''", "it's", "a\nb", "\n", "\\", "$(x) `x` $x", "*", "-n", "h\u00f6me"])
def test_how_a_word_is_quoted(words: list[str]) -> None:
    said = answers(f'{function("quote")}for word do quote "$word"; done\n', *words)
    assert said == "".join(f"{sh_quote(word)}\n" for word in words)
    assert shlex.split(said) == words


# --- caches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize(
    "named",
    [
        "",
        "/srv/a,https://host/m/",
        " https://host/m\t/srv/b\n",
        "beside, ../up,,",
        "file:///srv/c /srv/*",
        ",",
        "$HOME `x`",
    ],
)
def test_the_caches_that_are_looked_into(tmp_path: Path, named: str, mirrored: bool) -> None:
    """A Python that comes along is fetched before there is one that could read builder/embedded/caches.py."""
    template = (ROOT / "templates/_python.sh.j2").read_text()
    found = re.search(r"^each_cache\(\) \{\n.*?^\}\n", template, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert "{{" not in found[0]
    assert "{%" not in found[0]
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    if mirrored:
        (mirror / "SHA256SUMS").touch()
    code = f'_mirror=$1\nshown() {{ printf "%s\\n" "$1"; }}\n{found[0]}cd "$2"\neach_cache shown\n'
    env = {"DRYDOCK_CACHE": named, "DRYDOCK_FOLDER": str(tmp_path)}
    python = [one.removeprefix("file://").rstrip("/") for one in installer.places(mirror, env)]
    assert answers(code, str(mirror), str(tmp_path), DRYDOCK_CACHE=named).splitlines() == python
