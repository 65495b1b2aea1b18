"""`drydock import` of what others write: positions, dynamic requirements, Poetry, setuptools, pixi, conda, Docker."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.author.importing.conda import read_environment
from builder.author.importing.dockerfile import read_dockerfile
from builder.author.importing.locks import read_poetry_lock, read_uv_lock
from builder.author.importing.losses import short
from builder.author.importing.pixi import read_pixi
from builder.author.importing.readers import Options, python_of, read
from builder.author.importing.target import choose
from builder.author.importing.variables import settle
from builder.author.importing.write import profile_text
from builder.errors import ProfileError, Where
from builder.machine import Machine
from builder.profile.source import Source
from builder.project.requirements.model import Imported, LeftOut
from builder.project.requirements.pip import Read, read_requirements
from builder.project.requirements.pyproject import Wanted, read_pyproject
from builder.project.requirements.setuptools import read_setup_cfg, read_setup_py
from builder.project.requirements.tomlfile import Places
from tests.support import Sandbox
from tests.support.profiles import load

CHOSEN = choose(Machine(system="Linux", machine="x86_64", glibc="2.36"), None, None)
CPU = CHOSEN.target
MAC = choose(Machine(system="Darwin", machine="arm64", os="macOS 15.1"), None, None).target


def left(imported: Imported) -> list[str]:
    return [str(one) for one in imported.left_out]


def files(**known: str) -> Read:
    def text(path: str, where: Where) -> str:
        name = path.replace("/", "__").replace(".", "_")
        if name in known:
            return known[name]
        raise ProfileError(f"{path} is not there", where=where)

    return text


def imported_from(folder: Path, name: str, extras: tuple[str, ...] = ()) -> Imported:
    return read(folder / name, CHOSEN, Options(extras=extras))


# --- places --------------------------------------------------------------------------------------------------------

PLACED = """\
[project]
name = "forge"
description = "torch, six and the extra gpu"
dependencies = [ # torch
  "numpy",
  "torch>=2", # six
]
[project.optional-dependencies]
gpu = ["six",
  "torch"]
[[tool.uv.index]]
name = "six"
url = "https://one.example/six"
explicit = true
[tool.uv.sources]
six = [
  { git = "https://one.example/six", marker = "sys_platform == 'darwin'" },
  { git = "https://one.example/six", marker = "sys_platform == 'linux'" },
]
"""


def test_a_place_is_where_the_parser_saw_it() -> None:
    """Not where the text stands first, which is in a comment or a description."""
    found = read_pyproject("pyproject.toml", PLACED, Wanted(["gpu"], target=CPU))
    assert found.places["torch>=2"].line == 6
    assert found.places["torch"].line == 10
    assert found.places["six @ git+https://one.example/six"].line == 18
    quoted = 'a."b.c" = 1\n["d e"]\nf = """\n[x]\nf = 2\n"""\ng.h = { i = [1,\n2] }\n'
    places = Places("a.toml", quoted)
    assert [places.where(*keys).line for keys in (("a", "b.c"), ("d e", "f"), ("d e", "g", "h", "i", 1))] == [1, 3, 8]
    assert places.where("absent") == Where("a.toml")


# --- uv ------------------------------------------------------------------------------------------------------------

CONFLICTS = """\
[project]
name = "forge"
version = "0"
requires-python = ">=3.11"
dependencies = ["buoy>=1"]
[project.optional-dependencies]
old = ["buoy==1.0", "rope"]
new = ["buoy==2.0"]
[dependency-groups]
ci = ["buoy==1.5"]
[tool.uv]
conflicts = [[{ extra = "old" }, { extra = "new" }, { group = "ci" }]]
"""


def test_of_extras_that_exclude_each_other_the_chosen_one_counts(sandbox: Sandbox) -> None:
    """As `uv export` has it, which is asked too."""
    from tests.support import make_wheel

    for version in ("1.0", "1.5", "2.0"):
        make_wheel(sandbox.wheels, "buoy", version)
    make_wheel(sandbox.wheels, "rope", "3.0")
    (sandbox.work / "pyproject.toml").write_text(CONFLICTS)
    uv = sandbox.environment["DRYDOCK_UV"]
    sandbox.run([uv, "lock", "-q", "-p", "3.11"]).succeeded()
    text = (sandbox.work / "uv.lock").read_text()
    for chosen, options in ((["old"], []), (["new"], []), ([], ["ci"]), ([], [])):
        found = read_uv_lock("uv.lock", text, CPU, extras=chosen, groups=options)
        asked = [f"--extra={one}" for one in chosen] + [f"--group={one}" for one in options]
        said = sandbox.run([uv, "export", "-q", "--frozen", "--no-hashes", "--no-emit-project", *asked])
        wanted = [line.split(";")[0].strip() for line in said.succeeded().stdout.splitlines() if line[:1].isalpha()]
        assert found.requires == sorted(wanted)


def test_a_setting_of_uv_is_carried_over_or_named() -> None:
    text = (
        '[project]\nname = "x"\ndependencies = ["torch"]\n[tool.uv]\nexclude-newer = "2025-07-01T00:00:00Z"\n'
        'prerelease = "allow"\nmanaged = true\nextra-index-url = ["https://one.example/whl/cu128"]\n'
        "exclude-newer-package = { six = '2025-01-02', torch = false, a = '3 days' }\n"
        '[[tool.uv.index]]\nname = "team"\nurl = "https://team.example/simple"\n'
    )
    found = read_pyproject("pyproject.toml", text)
    assert found.exclude_newer == "2025-06-30"
    assert found.exclude_newer_package == {"six": "2025-01-02", "torch": False}
    assert found.index == {"torch": "one-cu128"}
    told = left(found)
    assert any(text.startswith("pyproject.toml:6: [tool.uv] prerelease: ") for text in told)
    assert any(
        text.startswith("pyproject.toml:12: https://team.example/simple: it is among [indexes]") for text in told
    )
    assert any(text.startswith("pyproject.toml:9: the day of a, '3 days'") for text in told)
    assert not any("managed" in text for text in told)


# --- the Python ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "range_", "python"),
    [
        (None, ">=3.12", "3.12"),
        (None, ">=3.9", "3.11"),
        ("3.12\n", ">=3.9", "3.12"),
        ("# mine\ncpython-3.13.2\n", ">=3.9", "3.13"),
        ("3.10", ">=3.12", "3.12"),
        ("pypy\n", ">=3.9", "3.11"),
        ("3.13", "", "3.13"),
    ],
)
def test_the_python_is_the_files_own_where_it_fits(tmp_path: Path, said: str | None, range_: str, python: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "x"\nrequires-python = "{range_}"\n')
    (tmp_path / "requirements.txt").write_text("six\n")
    if said is not None:
        (tmp_path / ".python-version").write_text(said)
    assert imported_from(tmp_path, "pyproject.toml").python == python
    assert imported_from(tmp_path, "requirements.txt").python == python_of(tmp_path)


# --- requirement files ---------------------------------------------------------------------------------------------


def test_a_line_may_have_several_options() -> None:
    text = "--extra-index-url https://a.example/whl/cu128 --pre -r more.txt --find-links=x\ntorch\n"
    found = read_requirements("requirements.txt", text, files(more_txt="six\n"))
    assert found.requires == ["six", "torch"]
    assert found.index == {"torch": "a-cu128"}
    assert [text.split(": ")[1] for text in left(found)] == ["--pre", "--find-links x"]


def test_a_file_may_name_another_above_it_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples/requirements.txt").write_text("-r ../requirements.txt\n-e .\nidna\n")
    (tmp_path / "requirements.txt").write_text("six\n")
    (tmp_path / "setup.py").write_text("from setuptools import setup\nsetup(install_requires=['anchor'])\n")
    monkeypatch.chdir(tmp_path)
    assert read(Path("examples/requirements.txt"), CHOSEN, Options()).requires == ["six", "anchor", "idna"]
    monkeypatch.chdir(tmp_path / "examples")
    with pytest.raises(ProfileError, match="leads out of the folder"):
        read(Path("requirements.txt"), CHOSEN, Options())


def test_utf_16_is_read_by_its_mark_and_named_without(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes("six\n".encode("utf-16"))
    assert imported_from(tmp_path, "requirements.txt").requires == ["six"]
    (tmp_path / "requirements.txt").write_bytes("six\n".encode("utf-16-le"))
    with pytest.raises(ProfileError) as caught:
        imported_from(tmp_path, "requirements.txt")
    assert "iconv -f UTF-16 -t UTF-8" in (caught.value.hint or "")


# --- dynamic requirements, setuptools ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tool",
    [
        '[tool.setuptools.dynamic]\ndependencies = { file = ["r.txt"] }\n',
        '[tool.setuptools.dynamic]\ndependencies = { file = "r.txt" }\n',
        '[tool.hatch.metadata.hooks.requirements_txt]\nfiles = ["r.txt"]\n',
        "",
    ],
)
def test_dynamic_requirements_are_read_where_the_backend_is_told_to(tmp_path: Path, tool: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "x"\ndynamic = ["dependencies"]\n{tool}')
    (tmp_path / "r.txt").write_text("six # why\n")
    if not tool:
        with pytest.raises(ProfileError) as caught:
            imported_from(tmp_path, "pyproject.toml")
        assert "uv pip compile pyproject.toml" in (caught.value.hint or "")
        (tmp_path / "setup.cfg").write_text("[options]\ninstall_requires =\n  file: r.txt\n")
    assert imported_from(tmp_path, "pyproject.toml").requires == ["six"]


def test_an_extra_may_be_dynamic(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\ndynamic = ["optional-dependencies"]\n[tool.setuptools.dynamic]\n'
        'optional-dependencies.gpu = { file = ["r.txt"] }\noptional-dependencies.dev = { file = ["gone.txt"] }\n'
    )
    (tmp_path / "r.txt").write_text("six\n")
    assert imported_from(tmp_path, "pyproject.toml", extras=("gpu",)).requires == ["six"]


SETUP_CFG = """\
[metadata]
name = forge
[options]
python_requires = >=3.12
install_requires =
    numpy>=1  # why
    ./lib
    torch; python_version > "3.8"
[options.extras_require]
gpu = xformers
"""


def test_a_setup_cfg_is_read_with_its_lines() -> None:
    found = read_setup_cfg("setup.cfg", SETUP_CFG, Wanted(["gpu"]), files())
    assert (found.name, found.python) == ("forge", "3.12")
    assert found.requires == ["numpy>=1", 'torch; python_version > "3.8"', "xformers"]
    assert left(found)[0].startswith("setup.cfg:7: ./lib: ")
    with pytest.raises(ProfileError, match='no extra "cpu"'):
        read_setup_cfg("setup.cfg", SETUP_CFG, Wanted(["cpu"]), files())


SETUP_PY = """\
import os
from setuptools import setup
os.system("touch pwned")
NAME = "forge"
base = ["numpy>=1"]
extras = {"gpu": ["xformers", *base]}
setup(
    name=NAME,
    python_requires=">=3.10",
    install_requires=base + [
        "torch",
    ],
    extras_require=extras,
)
"""


def test_a_setup_py_is_read_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = read_setup_py("setup.py", SETUP_PY, Wanted(["gpu"]), files())
    assert (found.name, found.python) == ("forge", "3.11")
    assert found.requires == ["numpy>=1", "torch", "xformers"]
    assert found.places["torch"] == Where("setup.py", 11)
    assert not (tmp_path / "pwned").exists()


def test_a_setup_py_may_take_its_requirements_from_a_table_of_a_list() -> None:
    text = (
        "import re\n_deps = [\n  'numpy>=1',\n  'hf-hub[x]>=2',\n  'six',\n]\n"
        "deps = {b: a for a, b in (re.findall(r'x', one)[0] for one in _deps)}\n"
        "def some(*names):\n  return [deps[one] for one in names]\n"
        "extras = {}\nextras['quick'] = some('numpy')\nextras['all'] = extras['quick'] + ['rich']\n"
        "if numpy:\n  extras['odd'] = ['odd']\n"
        "setup(install_requires=[deps['hf_hub'], deps['six']], extras_require=extras)\n"
    )
    found = read_setup_py("setup.py", text, Wanted(["all"]), files())
    assert found.requires == ["hf-hub[x]>=2", "six", "numpy>=1", "rich"]
    assert found.places["six"] == Where("setup.py", 5)
    with pytest.raises(ProfileError, match='no extra "odd"'):
        read_setup_py("setup.py", text, Wanted(["odd"]), files())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("with open(here / 'r.txt') as f:\n  a = [one for one in f]\nsetup(install_requires=a)\n", None),
        ("def f():\n  return open('r.txt').read().split()\nsetup(install_requires=f())\n", None),
        ("setup(install_requires=[line for line in open('r.txt')])\n", None),
        ("setup(install_requires=f())\n", "computed when it runs"),
        ("a = ['six']\na.append('idna')\nsetup(install_requires=a)\n", "computed when it runs"),
        ("a = ['six']\na += f()\nsetup(install_requires=a)\n", "computed when it runs"),
        ("a = a\nb = c\nc = b\nsetup(install_requires=c)\n", "computed when it runs"),
        ("a = [*a]\nsetup(install_requires=a)\n", "computed when it runs"),
        ("print('x')\n", "does not call setup"),
        ("setup(\n", "not Python"),
    ],
)
def test_what_a_setup_py_works_out_is_not_known(text: str, words: str | None) -> None:
    if words is None:
        found = read_setup_py("setup.py", text, Wanted(), files(r_txt="six\n"))
        assert found.requires == ["six"]
        assert "reads it from r.txt" in left(found)[0]
        return
    with pytest.raises(ProfileError, match=words):
        read_setup_py("setup.py", text, Wanted(), files(r_txt="six\n"))


# --- Poetry --------------------------------------------------------------------------------------------------------

POETRY = """\
[tool.poetry]
name = "forge"
[tool.poetry.dependencies]
python = "^3.12"
numpy = "^1.26"
torch = { version = "~2.5", source = "whl", extras = ["opt"] }
six = { version = "*", optional = true }
mast = { git = "https://one.example/mast", tag = "v1" }
sail = [{ version = "1.*", platform = "linux" }, { version = "^2", python = ">=3.13" }]
rope = "^1 || ^3"
[tool.poetry.group.dev.dependencies]
idna = ">=3,<4"
[tool.poetry.extras]
more = ["six"]
[[tool.poetry.source]]
name = "whl"
url = "https://one.example/whl/cu128"
priority = "explicit"
"""


def test_a_project_of_poetry_is_read() -> None:
    found = read_pyproject("pyproject.toml", POETRY, Wanted(["more"], ["dev"]))
    assert (found.name, found.python, found.python_range) == ("forge", "3.12", ">=3.12,<4")
    assert found.requires == [
        "numpy<2,>=1.26",
        "torch[opt]<2.6,>=2.5",
        "six",
        "mast @ git+https://one.example/mast@v1",
        'sail==1.*; sys_platform == "linux"',
        'sail<3,>=2; python_version >= "3.13"',
        "idna<4,>=3",
    ]
    assert found.index == {"torch": "whl"}
    assert found.indexes == {"whl": "https://one.example/whl/cu128"}
    assert [(one.package, one.where.line) for one in found.left_out] == [("rope", 10)]
    assert read_pyproject("pyproject.toml", POETRY).requires[-1].startswith("sail<3")
    with pytest.raises(ProfileError, match='no extra "gpu"'):
        read_pyproject("pyproject.toml", POETRY, Wanted(["gpu"]))


def test_a_lock_of_poetry_gives_what_its_target_needs() -> None:
    rows = "".join(
        f'[[package]]\nname = "{name}"\nversion = "1"\noptional = {optional}\ngroups = ["{group}"]\n{more}'
        for name, optional, group, more in (
            ("a", "false", "main", ""),
            ("b", "true", "main", ""),
            ("c", "false", "dev", ""),
            ("d", "false", "main", "markers = \"sys_platform == 'darwin'\"\n"),
            ("e", "false", "main", '[package.source]\ntype = "git"\nurl = "https://one.example/e"\n'),
            ("f", "false", "main", '[package.source]\ntype = "legacy"\nurl = "https://one.example/simple"\n'),
        )
    )
    text = f'{rows}[metadata]\nlock-version = "2.1"\npython-versions = ">=3.12"\n'
    found = read_poetry_lock("poetry.lock", text, CPU)
    assert (found.python, found.requires) == ("3.12", ["a==1", "f==1"])
    assert found.index == {"f": "one"}
    assert [one.package for one in found.left_out] == ["e"]
    assert read_poetry_lock("poetry.lock", text, MAC, groups=["dev"]).requires == ["a==1", "c==1", "d==1", "f==1"]
    with pytest.raises(ProfileError, match=r"Poetry 2\.1"):
        read_poetry_lock("poetry.lock", text.replace("groups", "other"), CPU)


# --- conda, pixi ---------------------------------------------------------------------------------------------------


def test_an_export_of_conda_is_carried_over() -> None:
    text = (
        "channels: [conda-forge]\ndependencies:\n- _libgcc_mutex=0.1=conda_forge\n- _openmp_mutex=4.5=2_gnu\n"
        "- pytorch=2.5.1=py3.11_cuda12.4_cudnn9.1.0_0\n- pytorch-cuda=12.4=hc786d27_7\n- numpy=1.26.*=py311*\n"
        "- typing_extensions=4.12\n- Typing-Extensions\n- python=3.11.9=h955ad1f_0\n- pip=24.0=pyhd8ed1ab_0\n"
        "- secret::lantern=1\n- https://conda.example.org/conda-forge/linux-64::six=1.17\n- libfoo\n- r-base\n"
    )
    found = read_environment("environment.yml", text, files())
    assert found.python == "3.11"
    assert found.requires == [
        "torch==2.5.1",
        "numpy==1.26.*",
        "typing-extensions==4.12.*",
        "typing-extensions",
        "six==1.17.*",
    ]
    told = short(found.left_out)
    assert any("environment.yml:12: secret::lantern" in line or "of the channel secret" in line for line in told)
    assert any(
        "_libgcc_mutex=0.1=conda_forge, _openmp_mutex=4.5=2_gnu (line 4), libfoo (line 14)" in one for one in told
    )


PIXI = """\
[workspace]
name = "forge"
[dependencies]
python = "3.12.*"
pytorch = { version = ">=2.5", channel = "conda-forge" }
ffmpeg = "*"
[pypi-dependencies]
six = "*"
anchor = { version = "==1.0", extras = ["x"] }
forge = { path = ".", editable = true }
mast = { git = "https://one.example/mast" }
[target.osx-arm64.pypi-dependencies]
mlx = ">=0.2"
[feature.test.dependencies]
pytest = "*"
[activation.env]
A = "1"
"""


def test_a_workspace_of_pixi_is_read_for_its_target() -> None:
    found = read_pixi("pixi.toml", PIXI, CPU)
    assert (found.name, found.python, found.env) == ("forge", "3.12", {"A": "1"})
    assert found.requires == ["torch>=2.5", "six", "anchor[x]==1.0", "mast @ git+https://one.example/mast"]
    assert "mlx>=0.2" in read_pixi("pixi.toml", PIXI, MAC).requires
    assert [(one.what, one.where.line) for one in found.left_out] == [
        ("ffmpeg", 6),
        ("forge", 10),
        ("the feature test", 14),
    ]
    with pytest.raises(ProfileError, match="not a pixi"):
        read_pixi("pixi.toml", "[a]\n", CPU)


# --- Dockerfiles ---------------------------------------------------------------------------------------------------

DOCKERFILE = """\
FROM pytorch/pytorch:2.5.1-cuda12.4-cudnn9-runtime AS base
# comment
ARG WHEELS
ENV OMP_NUM_THREADS=4 \\
    A=b
ENV OLD some words
RUN --mount=type=cache,target=/root/.cache pip install \\
# inside
    six==1.17.0 \\
    -r requirements.txt && \\
    apt-get install git
COPY . .
CMD ["python", "train.py", "--name", "a b"]
"""


def test_a_dockerfile_is_read_as_the_script_that_it_is() -> None:
    found = read_dockerfile("Dockerfile", DOCKERFILE, files(requirements_txt="idna\n"))
    assert found.requires == ["six==1.17.0", "idna"]
    assert found.env == {"OMP_NUM_THREADS": "4", "A": "b", "OLD": "some words"}
    assert found.command == ["python", "train.py", "--name", "a b"]
    own = '[project]\nname = "x"\ndependencies = ["six"]\noptional-dependencies.gpu = ["anchor"]\n'
    project = read_dockerfile("docker/Dockerfile", "RUN pip install '.[gpu]'\n", files(pyproject_toml=own))
    assert project.requires == ["six", "anchor"]
    lost = read_dockerfile("docker/Dockerfile", "RUN pip install -r gone.txt -r a.txt x\n", files(a_txt="idna\n"))
    assert lost.requires == ["idna", "x"]
    assert [(one.what, one.package) for one in lost.left_out] == [("-r gone.txt", "")]
    told = left(found)
    assert told[0].startswith("Dockerfile:11: apt-get (line 11)") or told[0].startswith("Dockerfile:7: apt-get")
    assert any(text.startswith("Dockerfile:1: FROM pytorch/pytorch:2.5.1") for text in told)


# --- the list ------------------------------------------------------------------------------------------------------


def test_what_is_lost_is_one_short_list() -> None:
    where = Where("a.txt", 3)
    many = [LeftOut(f"lib{n}", "no package", where._replace(line=n)) for n in range(1, 30)]
    many += [LeftOut("lib2", "no package", where._replace(line=n)) for n in (50, 60, 70)]
    found = short([LeftOut("x", "by option", where, expected=True), *many, LeftOut("t", "a place", where, package="t")])
    assert found[0] == "a.txt:3: t: a place"
    assert found[1].startswith("a.txt:1: lib1, lib2 (lines 2, 50, 60 and more), lib3 (line 3), ")
    assert found[1].endswith(" and 23 more: no package")
    assert found[2:] == ["a.txt:3: x: by option"]


def test_extras_and_groups_are_a_line_each() -> None:
    text = '[project]\nname = "x"\n[project.optional-dependencies]\n' + "".join(f"e{n} = []\n" for n in range(16))
    found = read_pyproject("pyproject.toml", text)
    assert len(found.left_out) == 1
    assert found.left_out[0].expected


def test_the_table_of_conda_says_where_it_comes_from() -> None:
    from builder.author.importing.conda_names import FILE

    head = FILE.read_text().split("\n2dfatmic")[0]
    for words in ("prefix-dev/parselmouth", "at its commit ", "BSD 3-Clause License", "prefix.dev GmbH"):
        assert words in head
    assert subprocess.run(["grep", "-c", "://", FILE], capture_output=True, text=True).stdout == "0\n"


# --- any text ------------------------------------------------------------------------------------------------------

_PARTS = st.sampled_from(
    [
        *(
            "setup(install_requires=",
            "a",
            "a = [*a]",
            "[",
            "]",
            "'six'",
            "+",
            "open('r.txt')",
            "deps['six']",
            "\n",
            " ",
            "=",
        ),
        *("[options]\ninstall_requires =\n  ", "file: r.txt", "[options.extras_require]\n", "x", ";", "\0", "\x1b"),
        *("[tool.poetry.dependencies]\n", "python = '^3.12'\n", "six = '^", "1" * 5000, "'\n", "b = { git = 'x' }\n"),
        *("[workspace]\n", "[dependencies]\n", "c = '*'\n", "[pypi-dependencies]\n", "d = { version = '>=1' }\n"),
        *(
            "FROM ",
            "RUN ",
            "CMD ",
            '["python", "a.py\\n"]',
            "ENV ",
            "A=b",
            "ENV A b\n",
            "\\\n",
            "pip install six",
            "--x=y",
        ),
        *("[[package]]\nname = 'a'\n", "groups = ['main']\n", "version = '1'\n", "markers = 'x'\n", "[metadata]\n"),
    ]
)


@pytest.mark.parametrize(
    "name", ["setup.py", "setup.cfg", "pyproject.toml", "pixi.toml", "Dockerfile", "poetry.lock", "environment.yml"]
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(_PARTS, max_size=12))
def test_any_text_gives_a_good_profile_or_words(tmp_path: Path, name: str, parts: list[str]) -> None:
    (tmp_path / name).write_text("".join(parts))
    try:
        found = imported_from(tmp_path, name)
    except ProfileError:
        return
    settle(found, CPU, Where(name))
    assert all(line.isprintable() for line in short(found.left_out))
    written = profile_text("mine", "", found, CHOSEN.table)
    load("mine", lambda _: Source("mine.toml", written))
