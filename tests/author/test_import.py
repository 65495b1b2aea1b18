"""`drydock import`: what is carried over, what is left out and said, and what is refused."""

from __future__ import annotations

import io
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import example, given, settings
from hypothesis import strategies as st

from builder.author.importing.conda import read_environment
from builder.author.importing.locks import read_pylock, read_uv_lock
from builder.author.importing.readers import Folder, Options
from builder.author.importing.shell import read_script
from builder.author.importing.target import choose
from builder.author.importing.variables import settle
from builder.author.importing.venv import read_venv
from builder.author.importing.workflow import check, import_profile, slug
from builder.author.importing.write import profile_text
from builder.errors import DrydockError, ProfileError, Where
from builder.machine import Gpu, Machine
from builder.profile.source import Source
from builder.profile.target import Target
from builder.project.requirements.model import Imported
from builder.project.requirements.pip import read_requirements
from builder.project.requirements.pyproject import Wanted, read_inline, read_pyproject
from builder.report import PlainReporter, explain
from tests.support import Result, Sandbox, make_wheel, python_3_11
from tests.support.profiles import load

LINUX = Machine(system="Linux", machine="x86_64", glibc="2.36")
MAC = Machine(system="Darwin", machine="arm64", os="macOS 15.1")
CPU = choose(LINUX, None, None).target


def no_file(path: str, where: Where) -> str:
    raise ProfileError(f"{path} is not there", where=where)


def requirements(text: str, **files: str) -> Imported:
    named = {name.replace("__", "/") + ".txt": content for name, content in files.items()}
    return read_requirements("requirements.txt", text, lambda path, where: named.get(path) or no_file(path, where))


def left(imported: Imported) -> list[str]:
    return [str(one) for one in imported.left_out]


def imported(desk: Sandbox, name: str, text: str, *arguments: str) -> Result:
    """Import a file of that name and text."""
    (desk.work / name).parent.mkdir(parents=True, exist_ok=True)
    (desk.work / name).write_text(text)
    return desk.drydock("import", name, *arguments)


def made(desk: Sandbox, name: str) -> dict[str, Any]:
    return tomllib.loads((desk.work / f"profiles/{name}.toml").read_text())


# --- the whole way -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_imported_profile_locks_builds_and_runs(sandbox: Sandbox) -> None:
    (sandbox.work / "train.py").write_text("import anchor; print('trained with', anchor.version)\n")
    done = imported(sandbox, "requirements.txt", "anchor\n", "--name", "mine", "--platform", "linux-x86_64").succeeded()
    assert done.stdout == "profiles/mine.toml\n"
    assert made(sandbox, "mine")["trainer"] == {"command": ["python", "train.py"]}
    sandbox.drydock("lock", "mine").succeeded()
    sandbox.drydock("profile", "check", "mine").succeeded()
    assert sandbox.drydock("run", "mine").succeeded().stdout == "trained with 1.0\n"


@pytest.mark.slow
def test_nothing_is_overwritten_and_no_profile_is_hidden(sandbox: Sandbox) -> None:
    before = sandbox.profile("mine").read_text()
    imported(sandbox, "requirements.txt", "anchor\n", "--name", "mine").failed(2, "profiles/mine.toml already exists")
    assert (sandbox.work / "profiles/mine.toml").read_text() == before
    (sandbox.work / "profiles/linked.toml").symlink_to("nowhere")
    imported(sandbox, "requirements.txt", "anchor\n", "--name", "linked").failed(2, "already exists")
    imported(sandbox, "cpu/requirements.txt", "anchor\n").failed(2, 'a profile "cpu" already exists', "--name")
    imported(sandbox, "requirements.txt", "anchor\n", "-o", "x.toml", "--name", "y").failed(
        2, "must be in a file y.toml"
    )
    assert not (sandbox.work / "x.toml").exists()


@pytest.mark.parametrize("name", ["../../x", "-rf", "a b", "X", "a/b", "\x1b[2J", "x" * 65, "a-1-link", ""])
def test_odd_names_are_refused_or_not_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "requirements.txt").write_text("anchor\n")
    if name:
        with pytest.raises(DrydockError):
            import_profile(tmp_path / "requirements.txt", Options(name=name), LINUX, PlainReporter(io.StringIO()))
    assert slug(name) in ("x", "rf", "a-b", "2j", "x" * 60, "a-1", "imported")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x7fELF\x00\x00\xff", "not text in UTF-8"),
        (b"anchor\n\0\n", "not text: a NUL byte"),
        (b"a" * ((1 << 20) + 1), "larger than 1 MiB"),
        (b"anchor\n\x1b[2J\n", "characters that cannot be printed"),
        (b"anchor ==\n", "is not a requirement"),
        (b"-r https://host/x.txt\n", "would be fetched"),
        (b"-rf\n", "f: cannot be read"),
        (b"-r link.txt\n", "link.txt leads out of the folder"),
        (b"-r pipe\n", "not a file"),
        (b"- anchor\n", "is not a line of a requirement file"),
        (b"anchor==1; platform_version == 'x' or\n", "is not a requirement"),
    ],
)
def test_files_that_are_none_are_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, words: str
) -> None:
    work = tmp_path / "work"
    (work / "pipe").mkdir(parents=True)
    monkeypatch.chdir(work)
    (tmp_path / "secret.txt").write_text("anchor\n")
    (work / "link.txt").symlink_to("../secret.txt")
    (work / "requirements.txt").write_bytes(content)
    with pytest.raises(ProfileError) as caught:
        import_profile(Path("requirements.txt"), Options(name="mine"), LINUX, PlainReporter(io.StringIO()))
    told = explain(caught.value)
    assert words in told
    assert "where: requirements.txt" in told
    assert "\x1b" not in told
    assert not (work / "profiles/mine.toml").exists()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (".", Options(), "not a virtual environment: it has no lib/python3.*/site-packages"),
        ("x.json", Options(), "unknown kind of file"),
        ("absent.txt", Options(), "No such file"),
        ("a.txt", Options(extras=["x"]), "--extra and --group"),
        (".", Options(groups=["x"]), "--extra and --group"),
        ("a.txt", Options(name="y", output=Path("x.toml")), "must be in a file y.toml"),
    ],
)
def test_what_is_nothing_to_import_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: Options, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "a.txt").write_text("anchor\n")
    with pytest.raises(DrydockError) as caught:
        import_profile(Path(name), options, LINUX, PlainReporter(io.StringIO()))
    assert words in explain(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "x.json"]


# --- the target ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "text", "cuda"),
    [
        ("requirements.txt", "--extra-index-url https://host.example/whl/cu128\ntorch\n", "12.8"),
        ("requirements.txt", "torch==2.6.0+cu118\n", "11.8"),
        ("environment.yml", "dependencies:\n- pytorch\n- pytorch-cuda=12.1\n- pip:\n  - anchor\n", "12.1"),
        ("requirements.txt", "torch\nnvidia-cuda-runtime-cu12==12.6.77\n", "12.6"),
        ("requirements.txt", "torch==2.6.0\n", "12.4"),
        ("requirements.txt", "torch>=2,<2.9\n", "12.8"),
        ("requirements.txt", "torch\n", "13.0"),
    ],
)
def test_the_cuda_is_what_the_file_says(sandbox: Sandbox, file: str, text: str, cuda: str) -> None:
    done = imported(sandbox, file, text, "--name", "mine", "--platform", "linux-x86_64", "--accelerator", "cuda")
    assert made(sandbox, "mine")["target"]["cuda"] == cuda
    assert ("is a guess" in done.succeeded().stderr) == (cuda == "13.0")


@pytest.mark.slow
def test_the_target_decides_which_build_of_pytorch_it_is(sandbox: Sandbox) -> None:
    """Another one that the file has is noted; a mirror of the right one is kept."""
    text = "--extra-index-url https://host.example/whl/cu128\ntorch==2.8.0+cu128\nxformers\n"
    done = imported(
        sandbox, "requirements.txt", text, "--name", "a", "--platform", "linux-x86_64", "--accelerator", "cpu"
    )
    assert made(sandbox, "a")["packages"] == {"requires": ["torch==2.8.0", "xformers"]}
    assert "indexes" not in made(sandbox, "a")
    assert "requirements.txt:2: torch==2.8.0+cu128: the target decides" in done.stderr
    imported(sandbox, "requirements.txt", text, "--name", "b", "--platform", "linux-x86_64", "--accelerator", "cuda")
    assert made(sandbox, "b")["packages"]["index"] == {"torch": "host-cu128"}
    assert made(sandbox, "b")["packages"]["requires"] == ["torch==2.8.0+cu128", "xformers"]


def test_the_target_is_this_machine_unless_another_is_named() -> None:
    assert choose(LINUX, None, None).table == {"platform": "linux-x86_64", "accelerator": "cpu", "glibc": "2.28"}
    assert choose(MAC, None, None).table == {"platform": "macos-arm64", "accelerator": "mps", "min-os": "14.0"}
    old = Machine(system="Linux", machine="aarch64", glibc="2.17", gpus=(Gpu("Tesla", 1),), cuda="12.1")
    assert choose(old, None, None).table == {
        "platform": "linux-arm64",
        "accelerator": "cuda",
        "glibc": "2.17",
        "cuda": "12.1",
    }
    assert choose(old, "linux-x86_64", "cuda").guessed
    for machine, platform, accelerator in (
        (Machine(system="Windows", machine="AMD64"), None, None),
        (LINUX, None, "mps"),
        (LINUX, "macos-arm64", "cuda"),
    ):
        with pytest.raises(DrydockError):
            choose(machine, platform, accelerator)


# --- requirement files ---------------------------------------------------------------------------------------------


def test_requirement_files_nest_and_keep_extras_and_markers() -> None:
    found = requirements(
        "transformers[torch]>=4.50 ; python_version > '3.8'  # why\n-r more/dev.txt\n--requirement=other.txt\n"
        "numpy \\\n  >= 1.20\n",
        more__dev="-c ../limits.txt\n-r dev.txt\n-r ../requirements.txt\n",
        other="six==1.16.0 --hash=sha256:aa \\\n --hash=sha256:bb\n",
        limits="numpy<2\nabsent<3\n",
    )
    assert found.requires == [
        'transformers[torch]>=4.50; python_version > "3.8"',
        "six==1.16.0",
        "numpy>=1.20",
        "numpy<2",
    ]
    assert [text.split(": ")[0] for text in left(found)] == ["other.txt:1", "limits.txt:2"]


def test_a_repository_is_required_also_where_it_would_be_editable(tmp_path: Path) -> None:
    text = "-e git+https://host/anchor.git@v1#egg=anchor\n"
    found = read_requirements("requirements.txt", text, Folder(tmp_path).text)
    assert (found.requires, found.left_out) == (["anchor @ git+https://host/anchor.git@v1"], [])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("git+https://tok3n@host/x.git", "a place"),
        ("anchor @ https://me:tok3n@host/anchor-1.0.whl", "a place"),
        ("./local", "a place"),
        ("../../x", "a place"),
        ("/etc/passwd", "a place"),
        ("anchor-1.0-py3-none-any.whl", "a place"),
        ("-e git+ssh://me:tok3n@host/x", "write NAME @ PLACE"),
        ("-e git+ssh://me:tok3n@host/x#egg=anchor", "a place"),
        ("-e lib", "its requirements are not known: lib/pyproject.toml is not there"),
        ("anchor==${VERSION}", "environment variable"),
        ("--find-links https://me:tok3n@host/x", "UV_FIND_LINKS"),
        ("--no-binary :all:", "[packages.build]"),
        ("--trusted-host host", "an option of pip"),
        ("--pre", "pre-release"),
        ("--index-url https://me:tok3n@host/simple", "UV_DEFAULT_INDEX"),
        ("--extra-index-url https://me:tok3n@host.org/simple", "say which packages come from it"),
        ("--extra-index-url https://host/simple?token=tok3n", "may be a secret"),
        ("--extra-index-url https://$TOKEN@host/simple", "not the URL of an index"),
        ("--extra-index-url javascript:tok3n", "not the URL of an index"),
        ("--extra-index-url https://[tok3n", "not the URL of an index"),
    ],
)
def test_what_a_profile_cannot_have_is_left_out_and_said(line: str, words: str) -> None:
    found = requirements(f"anchor\n{line}\n")
    assert found.requires == ["anchor"]
    assert any(words in text and text.startswith("requirements.txt:2: ") for text in left(found)), left(found)
    written = profile_text("mine", "", found, choose(LINUX, None, None).table)
    assert "tok3n@" not in "".join(left(found)) + written
    assert "token=tok3n" not in "".join(left(found)) + written


def test_a_password_of_an_index_is_taken_out() -> None:
    found = requirements("--extra-index-url https://me:hunter22@host.example/whl/cu124\ntorch\nTorchVision==1+cu124\n")
    assert found.indexes == {"host-cu124": "https://host.example/whl/cu124"}
    assert found.index == {"torch": "host-cu124", "torchvision": "host-cu124"}
    assert "hunter22" not in "".join(left(found))
    assert "the user name and password were taken out" in left(found)[0]


def test_an_editable_project_gives_its_requirements(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "own"\ndependencies = ["numpy"]\noptional-dependencies.train = ["anchor"]\n'
    )
    found = read_requirements("requirements.txt", "-e .[train]\nsix\n", Folder(tmp_path).text)
    assert found.requires == ["numpy", "anchor", "six"]
    assert "the project itself is not installed" in left(found)[0]


@pytest.mark.parametrize(
    "path", ["../x.txt", "more/../../x.txt", "/etc/passwd", "~/x.txt", "..", "https://host/x", "\\\\x\n", ""]
)
def test_no_path_leaves_the_folder(path: str) -> None:
    for option in ("-r", "-c", "--requirement="):
        with pytest.raises(ProfileError) as caught:
            requirements(f"{option} {path}\n")
        assert caught.value.where == Where("requirements.txt", 1)


_LINES = st.one_of(
    st.text(max_size=60),
    st.from_regex(r"(-[a-zA-Z]|--[a-z-]{1,12})[ =]?[^\n]{0,20}", fullmatch=True),
    st.from_regex(
        r"[a-z]{1,6}(\[[a-z,]{0,5}\])?(==|>=|@|~=| )[0-9a-z./:*+]{0,9}( ?; ?[a-z_]+ ?== ?'[^\n]{0,5}')?", fullmatch=True
    ),
    st.sampled_from(["anchor", "-e .", "-r x.txt", "--hash=sha256:0", "a @ file:///etc/passwd", "--extra-index-url"]),
)


@settings(max_examples=60)
@given(st.lists(_LINES, max_size=6).map("\n".join))
@example("a; python_version == '\x1b'")
@example("a==1 --extra-index-url https://me:hunter22@host/")
@example("--extra-index-url https://me:hunter22@host/x y")
def test_any_lines_give_a_good_profile_or_words(text: str) -> None:
    """Whatever a file says: a profile that loads, or an error with its line; and nothing that steers a terminal."""
    found = attempted(lambda: requirements(text, x="six\n"))
    if found is None:
        return
    assert all(line.isprintable() for line in left(found))
    settle(found, CPU, Where("requirements.txt"))
    written = profile_text("mine", "", found, choose(LINUX, None, None).table)
    load("mine", lambda _: Source("mine.toml", written))
    assert "hunter22" not in written + "".join(left(found))


# --- projects ------------------------------------------------------------------------------------------------------

PROJECT = """\
[project]
name = "My.Project"
requires-python = ">=3.9,<3.12"
dynamic = ["optional-dependencies"]
dependencies = ["torch>=2", "mylib", "anchor==1.0", "numpy"]
[project.optional-dependencies]
GPU = ["xformers"]
[dependency-groups]
test = ["pytest", { include-group = "lint" }]
lint = ["ruff"]
[tool.uv]
override-dependencies = ["fsspec==2025.3.0"]
constraint-dependencies = ["numpy<2", "absent<1"]
[[tool.uv.index]]
name = "PyTorch CPU"
url = "https://me:hunter22@host.example/whl/cpu"
explicit = true
[tool.uv.sources]
torch = { index = "PyTorch CPU" }
mylib = { git = "https://host.example/mylib" }
"""


def test_a_project_gives_what_it_requires() -> None:
    found = read_pyproject("pyproject.toml", PROJECT, Wanted(["gpu"], ["test"]))
    assert found.name == "My.Project"
    assert found.python == "3.11"
    mine = "mylib @ git+https://host.example/mylib"
    assert found.requires == ["torch>=2", "anchor==1.0", "numpy", "xformers", "pytest", "ruff", mine, "numpy<2"]
    assert found.overrides == [("fsspec==2025.3.0", "override-dependencies in pyproject.toml")]
    assert found.indexes == {"pytorch-cpu": "https://host.example/whl/cpu"}
    assert found.index == {"torch": "pytorch-cpu"}
    told = "\n".join(left(found))
    for words in (
        "pyproject.toml:4: optional-dependencies",
        "absent<1",
        "the group lint",
    ):
        assert words in told
    assert "hunter22" not in told


BY_EXTRA = """\
[project]
name = "chat"
requires-python = ">=3.10"
dependencies = ["anchor", "lib"]
[project.optional-dependencies]
cpu = ["torch>=2.8"]
gpu = ["torch>=2.8"]
[tool.uv]
conflicts = [[{ extra = "cpu" }, { extra = "gpu" }]]
[[tool.uv.index]]
name = "pytorch-cpu"
url = "https://host.example/whl/cpu"
explicit = true
[[tool.uv.index]]
name = "pytorch-cu128"
url = "https://host.example/whl/cu128"
explicit = true
[tool.uv.sources]
torch = [{ index = "pytorch-cpu", extra = "cpu" }, { index = "pytorch-cu128", extra = "gpu" }]
lib = [
    { git = "https://host.example/lib", marker = "sys_platform == 'darwin'" },
    { index = "pytorch-cpu", marker = "sys_platform == 'linux'" },
]
"""


def test_a_source_of_uv_is_that_of_the_extra_and_of_the_target() -> None:
    mac = Target.model_validate({"platform": "macos-arm64", "accelerator": "mps", "min-os": "14.0"})
    cpu = read_pyproject("pyproject.toml", BY_EXTRA, Wanted(["cpu"], target=CPU))
    gpu = read_pyproject("pyproject.toml", BY_EXTRA, Wanted(["gpu"], target=CPU))
    none = read_pyproject("pyproject.toml", BY_EXTRA, Wanted(target=mac))
    assert cpu.index == {"torch": "pytorch-cpu", "lib": "pytorch-cpu"}
    assert gpu.index == {"torch": "pytorch-cu128", "lib": "pytorch-cpu"}
    assert none.index == {}
    assert none.requires == ["anchor", "lib @ git+https://host.example/lib"]


def test_a_script_says_what_it_requires() -> None:
    """PEP 723; an error has the line of the script."""
    text = "#!/usr/bin/env python3\nimport x\n\n# /// script\n# requires-python = '>=3.11'\n# dependencies = [\n"
    text += "#   'torch>=2',\n#\n#   'anchor',\n# ]\n# ///\n\nprint('# /// script')\n"
    found = read_inline("train.py", text)
    assert found.requires == ["torch>=2", "anchor"]
    assert found.python_range == ">=3.11"
    assert found.places["anchor"] == Where("train.py", 9)
    for broken, words, line in (
        (text.replace("'anchor'", "'anch or'"), "is not a requirement", 9),
        (text.replace("'anchor'", "anchor"), "not TOML", 9),
        ("import x\n", "no block of requirements", None),
        (text + text, "more than one block", None),
    ):
        with pytest.raises(ProfileError, match=words) as caught:
            read_inline("train.py", broken)
        assert caught.value.where == Where("train.py", line)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[project", "not TOML"),
        ("a = " + "[" * 9000, "nested too deeply"),
        ("[tool.ruff]\n", "there is no [project] in it"),
        ("[project]\ndynamic = ['dependencies']\n", "uv pip compile pyproject.toml"),
        ("[project]\ndependencies = 'torch'\n", "not a list of requirements"),
        ("[project]\ndependencies = ['to rch']\n", "is not a requirement"),
        ("[project]\n[dependency-groups]\na = [{include-group = 'a'}]\n", "includes itself"),
        ("[project]\n[dependency-groups]\na = [{include-group = 'b'}]\n", "which does not exist"),
    ],
)
def test_a_project_that_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(ProfileError) as caught:
        read_pyproject("pyproject.toml", text)
    assert words in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.where is not None


def attempted(reader: Callable[[], Imported]) -> Imported | None:
    """What a reader gives; None after an error that says where, in words that steer no terminal."""
    try:
        return reader()
    except ProfileError as error:
        if error.where is None or not error.message.isprintable():
            raise AssertionError(repr(error.message)) from error
        return None


_VALUES = st.recursive(
    st.one_of(
        st.text(max_size=8), st.integers(0, 9), st.booleans(), st.sampled_from(["torch>=2", ".", "\x1b[2J", "1.0"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                """
                name version source marker extra dependencies registry virtual editable index url default tool uv
                sources project requires-python dynamic optional-dependencies dependency-groups include-group metadata a
                override-dependencies constraint-dependencies resolution-markers package packages lock-version
                """.split()  # noqa: SIM905
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=20,
)
_TABLE = st.dictionaries(st.sampled_from(["project", "dependency-groups", "tool", "package", "packages"]), _VALUES)


@pytest.mark.slow
@given(_TABLE, st.sampled_from(["a", "x"]))
@example({"tool": {"uv": {"index": [{"name": "a", "url": "https://x/"}], "sources": {"torch": [{"index": {}}]}}}}, "a")
@example({"tool": {"uv": {"sources": {"torch": 1}}}}, "a")
@example({"dependency-groups": {"\x1b": [{"include-group": "\x1b"}]}}, "a")
def test_any_toml_gives_a_good_profile_or_words(data: dict[str, Any], extra: str) -> None:
    project = tomli_w.dumps({"project": {"name": "own"}, **data})
    lock = tomli_w.dumps({**data, "version": 1})
    pylock = tomli_w.dumps({"lock-version": "1.0", "created-by": "x", "packages": [], **data})
    for reader in (
        lambda: read_pyproject("pyproject.toml", project),
        lambda: read_pyproject("pyproject.toml", project, Wanted([extra], [extra], CPU)),
        lambda: read_uv_lock("uv.lock", lock, CPU, extras=[extra]),
        lambda: read_pylock("pylock.toml", pylock, CPU),
    ):
        found = attempted(reader)
        if found is not None:
            assert all(str(one).isprintable() for one in found.left_out)
            written = profile_text("mine", "", found, choose(LINUX, None, None).table)
            load("mine", lambda _, text=written: Source("mine.toml", text))


OWN = """\
[build-system]
requires = ["hatchling"]
[project]
name = "Lan.tern"
dependencies = ["anchor"]
[project.optional-dependencies]
fast = ["six; python_version >= '3.10'", "lan_tern[all]"]
all = ["lan-tern[fast]; sys_platform == 'linux'", "lan-tern", "idna"]
[dependency-groups]
dev = ["lan-tern[gone]", "lan-tern[all]"]
[project.scripts]
lantern-train = "lan_tern:main"
lantern-eval = "lan_tern:main"
"""


def test_the_projects_own_name_means_its_extras_and_no_package() -> None:
    read = read_pyproject("pyproject.toml", OWN, Wanted(["all"]))
    assert read.requires == [
        "anchor",
        'six; sys_platform == "linux" and python_version >= "3.10"',
        "idna",
    ]
    by_group = read_pyproject("pyproject.toml", OWN, Wanted(groups=["dev"]))
    assert by_group.requires == read.requires
    assert any("lan-tern[gone]: there is no extra gone in this project" in one for one in left(by_group))


def test_extras_that_name_each_other_come_to_an_end() -> None:
    rows = [f"e{n} = [\"me[e{n + 1}]; os_name == '{n}'\", \"me[e{n + 1}]; os_name != '{n}'\"]" for n in range(30)]
    text = "\n".join(['[project]\nname = "me"\n[project.optional-dependencies]', *rows, 'e30 = ["six"]'])
    with pytest.raises(ProfileError, match=r"more extras of extras|longer than any requirement"):
        read_pyproject("pyproject.toml", text, Wanted(["e0"]))
    circle = 'a = ["me[b]; os_name == \'x\'", "anchor"]\nb = ["me[a]; python_version > \'3\'", "six"]\n'
    read = read_pyproject(
        "pyproject.toml", f'[project]\nname = "me"\n[project.optional-dependencies]\n{circle}', Wanted(["a"])
    )
    assert read.requires == ['six; os_name == "x"', "anchor"]


@pytest.mark.parametrize(
    ("file", "text"),
    [("pyproject.toml", OWN), ("requirements.txt", "lan-tern[all]\nanchor\n")],
    ids=["project", "list"],
)
def test_beside_a_package_its_code_is_named_and_never_required(sandbox: Sandbox, file: str, text: str) -> None:
    (sandbox.work / "src/lan_tern").mkdir(parents=True)
    (sandbox.work / "src/lan_tern/__init__.py").write_text("def main(): print('trained')\n")
    (sandbox.work / "pyproject.toml").write_text(OWN)
    make_wheel(sandbox.wheels, "lan_tern", "9.0")
    done = imported(sandbox, file, text, "--name", "small").succeeded()
    assert made(sandbox, "small")["project"] == {"path": "."}
    assert made(sandbox, "small")["packages"]["requires"] == ["anchor"]
    assert made(sandbox, "small")["trainer"]["command"] == ["lantern-train"]
    assert ("drydock import pyproject.toml --extra all" in done.stderr) == (file != "pyproject.toml")


def test_a_project_below_and_one_elsewhere(sandbox: Sandbox) -> None:
    for folder in (sandbox.work / "inner", sandbox.root / "other"):
        (folder / "lan_tern").mkdir(parents=True)
        (folder / "lan_tern/__init__.py").write_text("")
        (folder / "pyproject.toml").write_text(OWN)
    sandbox.drydock("import", "inner/pyproject.toml", "--name", "below").succeeded()
    assert made(sandbox, "below")["project"] == {"path": "inner"}
    done = sandbox.drydock("import", "../other/pyproject.toml", "--name", "other").succeeded()
    assert "project" not in made(sandbox, "other")
    assert "[project] cannot name its code" in done.stderr
    (sandbox.work / "inner/lan_tern/__init__.py").unlink()
    done = sandbox.drydock("import", "inner/pyproject.toml", "--name", "empty").succeeded()
    assert "project" not in made(sandbox, "empty")
    assert "[project] was not written: there is no code to import in inner" in done.stderr


def test_an_extra_that_is_not_there_is_refused(sandbox: Sandbox) -> None:
    imported(sandbox, "pyproject.toml", PROJECT, "--extra", "cuda").failed(1, 'no extra "cuda"', "there: gpu")


# --- locks of others -----------------------------------------------------------------------------------------------


def test_a_lock_of_uv_gives_the_versions_of_the_target(sandbox: Sandbox, tmp_path: Path) -> None:
    make_wheel(sandbox.wheels, "buoy", "1.0", requires=["rope; sys_platform == 'darwin'", "sail[big]"])
    make_wheel(sandbox.wheels, "rope", "3.0")
    make_wheel(sandbox.wheels, "sail", "2.0", requires=["mast; extra == 'big'"], metadata=["Provides-Extra: big"])
    make_wheel(sandbox.wheels, "mast", "5.0")
    make_wheel(sandbox.wheels, "test-tool", "1.0")
    project = '[project]\nname = "own"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["buoy"]\n'
    (sandbox.work / "pyproject.toml").write_text(f'{project}[dependency-groups]\ndev = ["test-tool"]\n')
    sandbox.run([sandbox.environment["DRYDOCK_UV"], "lock", "-q", "-p", "3.11"]).succeeded()
    text = (sandbox.work / "uv.lock").read_text()
    mac = Target.model_validate(choose(MAC, None, None).table)
    found = read_uv_lock("uv.lock", text, CPU)
    assert found.requires == ["buoy==1.0", "mast==5.0", "sail==2.0"]
    assert found.name == "own"
    assert "the group dev" in left(found)[0]
    assert read_uv_lock("uv.lock", text, mac, groups=["dev"]).requires == [
        "buoy==1.0",
        "mast==5.0",
        "rope==3.0",
        "sail==2.0",
        "test-tool==1.0",
    ]
    with pytest.raises(ProfileError):
        read_uv_lock("uv.lock", text, CPU, extras=["absent"])


UV_LOCK = """\
version = 1
requires-python = ">=3.11"
[[package]]
name = "own"
source = { virtual = "." }
dependencies = [{ name = "torch", version = "2.0+cpu" }, { name = "a" }, { name = "b" }]
[[package]]
name = "torch"
version = "2.0"
source = { registry = "https://one.example/simple" }
[[package]]
name = "torch"
version = "2.0+cpu"
source = { registry = "https://me:hunter22@host.example/whl/cpu" }
[[package]]
name = "a"
version = "1"
source = { registry = "https://one.example/simple" }
dependencies = [{ name = "c", extra = ["c"] }]
[[package]]
name = "b"
version = "1"
source = { git = "https://one.example/b?rev=v1#c0ffee" }
[[package]]
name = "c"
version = "1"
source = { registry = "https://one.example/simple" }
dependencies = [{ name = "a" }]
"""


def test_a_lock_of_uv_keeps_the_index_of_each_package() -> None:
    found = read_uv_lock("uv.lock", UV_LOCK, CPU)
    assert found.requires == ["a==1", "b @ git+https://one.example/b@c0ffee", "c==1", "torch==2.0+cpu"]
    assert found.indexes == {"host-cpu": "https://host.example/whl/cpu"}
    assert found.index == {"torch": "host-cpu"}
    assert "hunter22" not in "".join(left(found))


@pytest.mark.parametrize(
    "text",
    [
        "version = 2\n",
        "package = 3\nversion = 1\n",
        UV_LOCK.replace('virtual = "."', 'registry = "x"'),
        UV_LOCK.replace('{ name = "b" }', '{ name = "b", marker = "import os" }'),
    ],
)
def test_a_lock_of_uv_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ProfileError):
        read_uv_lock("uv.lock", text, CPU)


@pytest.mark.slow
def test_what_export_writes_import_reads(locked: Sandbox) -> None:
    locked.drydock("export", "small", "--format", "pylock", "-o", "pylock.toml").succeeded()
    locked.drydock("import", "pylock.toml", "--name", "again", "--platform", "linux-x86_64").succeeded()
    assert made(locked, "again")["packages"] == {"requires": ["anchor==1.0"]}
    locked.drydock("import", "pylock.toml", "--name", "mac", "--platform", "macos-arm64").failed(1, "--platform")
    locked.drydock("export", "small", "--format", "requirements", "-o", "small.txt").succeeded()
    done = locked.drydock("import", "small.txt", "--name", "third").succeeded()
    assert made(locked, "third")["packages"] == {"requires": ["anchor==1.0"]}
    assert "the hashes of 1 requirements" in done.stderr


PYLOCK = """\
lock-version = "1.0"
created-by = "a test"
default-groups = ["main"]
[[packages]]
name = "a"
version = "1"
marker = "'main' in dependency_groups and sys_platform == 'linux'"
index = "https://one.example/simple"
wheels = [{ url = "https://one.example/a-1-py3-none-any.whl", hashes = { sha256 = "aa" } }]
[[packages]]
name = "b"
version = "1"
marker = "'extra' in extras"
index = "https://one.example/simple"
wheels = [{ url = "https://one.example/b-1-py3-none-any.whl", hashes = { sha256 = "aa" } }]
[[packages]]
name = "c"
vcs = { type = "git", url = "https://one.example/c", commit-id = "aa" }
"""


def test_a_pylock_gives_what_its_markers_say() -> None:
    found = read_pylock("pylock.toml", PYLOCK, CPU)
    assert found.requires == ["a==1"]
    assert left(found) == [
        'pylock.toml:16: c: comes from elsewhere than an index: require it by its place, "NAME @ URL"'
    ]
    assert read_pylock("pylock.toml", PYLOCK, CPU, extras=["Extra"]).requires == ["a==1", "b==1"]
    with pytest.raises(ProfileError):
        read_pylock("pylock.toml", PYLOCK.replace('"a test"', "3"), CPU)


# --- conda ---------------------------------------------------------------------------------------------------------

ENVIRONMENT = """\
name: My_Env
channels: [conda-forge]
dependencies:
  - python=3.10
  - pytorch::pytorch=2.1
  - numpy=1.26
  - scipy>=1.10,<2
  - pandas=2.2.0=py311_0
  - libfoo
  - pip
  - pip:
      - anchor==1.0
      - -r more.txt
variables:
  OMP_NUM_THREADS: 4
"""


def test_a_conda_environment_gives_its_pip_part_and_what_has_the_same_name() -> None:
    found = read_environment("environment.yml", ENVIRONMENT, lambda *_: "six\n")
    assert found.name == "My_Env"
    assert found.python == "3.10"
    assert found.requires == [
        "torch==2.1.*",
        "numpy==1.26.*",
        "scipy<2,>=1.10",
        "pandas==2.2.0",
        "anchor==1.0",
        "six",
    ]
    assert found.env == {"OMP_NUM_THREADS": "4"}
    told = left(found)
    assert any(text.startswith("environment.yml:9: libfoo: no Python packages") for text in told)


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:os.system [touch pwned]",
        "name: !evil x",
        "!!python/name:os.system {}",
        "dependencies: [",
        "- a",
        "",
        "dependencies: [';x']",
        "dependencies: [" + "[" * 1100,
        "name: \x07",
    ],
)
def test_yaml_that_is_no_environment_is_refused_and_makes_nothing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProfileError):
        read_environment("environment.yml", text, no_file)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dependency", ["numpy b", "numpy=", "numpy b;c", "numpy 1.7|1.8", "numpy ==1=2=3"])
def test_a_range_that_only_conda_has_is_left_out(dependency: str) -> None:
    found = read_environment("environment.yml", f"dependencies: ['{dependency}']", no_file)
    assert found.requires == []
    assert "a range of versions that only conda has" in left(found)[-1]


def test_aliases_without_end_end() -> None:
    bomb = "a: &a [x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(20)
    )
    assert read_environment("environment.yml", f"{bomb}dependencies: [numpy]\n", no_file).requires == ["numpy"]


# --- a virtual environment -----------------------------------------------------------------------------------------


def test_a_venv_gives_what_is_installed_and_runs_nothing_of_it(sandbox: Sandbox) -> None:
    uv = sandbox.environment["DRYDOCK_UV"]
    wheel = make_wheel(sandbox.root / "direct", "direct", "1.0")
    make_wheel(sandbox.wheels, "buoy", "2.0+red")
    sandbox.run([uv, "venv", "-q", "-p", python_3_11(), "old"]).succeeded()
    sandbox.run([uv, "pip", "install", "-q", "-p", "old/bin/python", "anchor", "buoy", str(wheel)]).succeeded()
    (sandbox.work / "old/bin/python").unlink()
    (sandbox.work / "old/bin/python").write_text("#!/bin/sh\ntouch pwned\n")
    (sandbox.work / "old/bin/python").chmod(0o755)
    done = sandbox.drydock("import", "old", "--name", "mine").succeeded()
    assert made(sandbox, "mine")["packages"]["requires"] == ["anchor==1.0", "buoy==2.0+red"]
    assert made(sandbox, "mine")["python"] == {"version": "3.11"}
    assert "direct==1.0: installed from a file" in done.stderr
    assert "buoy==2.0+red is not on the default index" in done.stderr
    assert not (sandbox.work / "pwned").exists()


@pytest.mark.parametrize("metadata", ["Name: ../../x\nVersion: 1\n", "Name: a\nVersion: 1; rm\n", "", "\0" * 99])
def test_metadata_that_lies_is_left_out(tmp_path: Path, metadata: str) -> None:
    info = tmp_path / "old/lib/python3.11/site-packages/a-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(metadata)
    (info / "direct_url.json").symlink_to("/dev/zero")
    found = read_venv(tmp_path / "old")
    assert "has no name and version" in left(found)[0]
    assert found.requires == []


# --- a shell script ------------------------------------------------------------------------------------------------

SCRIPT = """\
#!/bin/bash
set -euo pipefail
export PYTORCH_ENABLE_MPS_FALLBACK=1
export PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0
export PYTORCH_MPS_ALLOCATOR_POLICY=garbage_collection
export OMP_NUM_THREADS=$(touch pwned; sysctl -n hw.ncpu)
export HF_TOKEN=hf_abcdefghijkl
export HF_HUB_DOWNLOAD_TIMEOUT="${HF_HUB_DOWNLOAD_TIMEOUT:-120}"
CONFIG_PATH=${CONFIG_PATH:-configs/a.yaml}
NAME='a b'
export A="$NAME" B=it\\'s # why
unset MKL_NUM_THREADS
export PATH="/x:$PATH" BASH_ENV=/tmp/x
export HTTPS_PROXY=http://me:hunter22@proxy
if [ "$1" ]; then
  export ONLY_SOMETIMES=1
fi
python -m venv .venv && source .venv/bin/activate
pip install --upgrade pip
pip install anchor==1.0 "six>=1" -r requirements.txt; pip install $MORE
cat > foo.py <<'EOF'
export IN_A_DOCUMENT=1
EOF
SEED=1 exec "$HOME/.venv/bin/python3" -m own.train --config "$CONFIG_PATH" --name "$NAME" \\
  --identity "${IDENTITY:-swarm.pem}" --token "$HF_TOKEN" --proxy "$HTTPS_PROXY" "$@"
python other.py
"""


def test_a_run_script_gives_variables_packages_and_the_trainer(sandbox: Sandbox) -> None:
    (sandbox.work / "requirements.txt").write_text("numpy\n")
    done = imported(sandbox, "run.sh", SCRIPT, "--name", "mac", "--platform", "macos-arm64").succeeded()
    profile = made(sandbox, "mac")
    assert profile["env"] == {
        "PYTORCH_ENABLE_MPS_FALLBACK": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": {"default": "120"},
        "A": "a b",
        "B": "it's",
        "MKL_NUM_THREADS": {"unset": True},
        "SEED": "1",
    }
    assert profile["packages"]["requires"] == ["anchor==1.0", "six>=1", "numpy"]
    assert profile["commands"] == {"other": ["python", "other.py"]}
    assert profile["trainer"] == {
        "command": ["python", "-m", "own.train", "--name", "a b"],
        "options": [
            {"flag": "--config", "from": "CONFIG_PATH", "default": "configs/a.yaml"},
            {"flag": "--identity", "from": "IDENTITY", "default": "swarm.pem"},
            {"flag": "--proxy", "from": "HTTPS_PROXY", "default": ""},
        ],
    }
    for words in (
        "run.sh:4: PYTORCH_MPS_HIGH_WATERMARK_RATIO: 0.0 lifts PyTorch's limit",
        "run.sh:5: PYTORCH_MPS_ALLOCATOR_POLICY: nothing reads it",
        "run.sh:6: OMP_NUM_THREADS: its value is only known when the script runs",
        "run.sh:7: HF_TOKEN, HTTPS_PROXY (line 14): a secret",
        "run.sh:13: PATH, an argument of pip install (line 20): its value is only known",
        "run.sh:13: BASH_ENV: this variable belongs to the shell",
        "run.sh:16: ONLY_SOMETIMES: it is set under a condition only",
        "--token from HF_TOKEN: a secret",
    ):
        assert words in done.stderr, words
    assert "hunter22" not in done.stderr
    assert "hf_abc" not in done.stderr + (sandbox.work / "profiles/mac.toml").read_text()
    assert not (sandbox.work / "pwned").exists()


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("uv run train.py --x 1", ["python", "train.py", "--x", "1"]),
        ("uv run python -m own", ["python", "-m", "own"]),
        ("uv run torchrun --nproc 2 train.py", ["torchrun", "--nproc", "2", "train.py"]),
        ("uv run --with six python x.py", []),
        ("uv run bash x.sh", []),
        ("accelerate launch train.py 2>&1 | tee log", ["accelerate", "launch", "train.py"]),
        ("nohup python3.11 -u train.py > log 2> log2 &", ["python", "-u", "train.py"]),
        ("env A=1 /opt/v/bin/python train.py; echo done", ["python", "train.py"]),
        ("f() { python train.py; }", ["python", "train.py"]),
        (
            "python get_data.py\nif x; then srun -n 4 --gpus=1 torchrun -m own.train; fi",
            ["torchrun", "-m", "own.train"],
        ),
        ("python get_data.py\nlantern-cli train a.yaml --x 1", ["lantern-cli", "train", "a.yaml", "--x", "1"]),
        ("python a.py\nuv run --extra gpu python scripts/train.py", ["python", "scripts/train.py"]),
        ("python train.py --conf $(pick) --name x", ["python", "train.py", "--name", "x"]),
        ("python train.py $1 --conf=$(pick) --name x", ["python", "train.py", "--name", "x"]),
        ("for d in 1 2; do python train.py --depth $d --name x; done", ["python", "train.py", "--name", "x"]),
        ("A=(--x 'a b'\n --y)\npython train.py ${A[@]}", ["python", "train.py", "--x", "a b", "--y"]),
        ('A=(--x)\nA+=(--y)\nA=("${A[@]}" --z)\npython train.py ${A[@]}', ["python", "train.py", "--x", "--y", "--z"]),
        ("A=(${B[@]})\nB=(${A[@]})\npython train.py ${B[@]} --x", ["python", "train.py", "--x"]),
        ("A='--x 1'\npython train.py $A \"$A\"", ["python", "train.py", "--x", "1", "--x 1"]),
        ("torchrun --nproc=${N:-8} --rdzv $H train.py --x", ["torchrun", "--nproc=8", "train.py", "--x"]),
        ("N=${N:-8}; torchrun --nproc=$N train.py", ["torchrun", "--nproc=8", "train.py"]),
        ("python $WHAT --x 1", []),
        ("train.sh", []),
        ("mkdir -p train; cp train x; wget train", []),
        ("python -c 'import os'", []),
    ],
)
def test_the_trainer_is_found_among_what_starts_it(line: str, command: list[str]) -> None:
    assert read_script("run.sh", f"{line}\n", no_file).command == command


def test_what_is_lost_of_a_command_has_its_name_and_its_own_line() -> None:
    text = "export A\npython data.py\nA=1\npython -m own.train \\\n  --conf $(pick) \\\n  --name x\napt-get install x\n"
    found = read_script("run.sh", text, no_file)
    assert found.command == ["python", "-m", "own.train", "--name", "x"]
    assert found.commands == {"data": ["python", "data.py"]}
    assert found.env == {"A": "1"}
    assert left(found) == [
        "run.sh:5: --conf $(pick): its value is only known when the script runs: write it into [trainer]",
        "run.sh:7: apt-get (line 7): only variables, pip install and what is started are carried over",
    ]


def test_a_variable_that_is_set_where_it_has_no_value_has_a_default() -> None:
    for condition in ('[ -z "$RUN" ]', "[[ -z ${RUN:-} ]]"):
        text = f"if {condition}; then\n  RUN=dummy\nfi\npython train.py --run=$RUN\n"
        found = read_script("run.sh", text, no_file)
        assert found.options == [{"flag": "--run", "from": "RUN", "default": "dummy"}]
        other = read_script("run.sh", text.replace("fi\n", "else\n  RUN=x\nfi\n"), no_file)
        assert other.options == []


@pytest.mark.parametrize(
    "argument", ["--hf-token hunter22", "--token=hunter22", "--db http://me:hunter22@host", "http://:hunter22@x"]
)
def test_a_secret_among_the_arguments_is_left_out(argument: str) -> None:
    found = read_script("run.sh", f"python train.py --steps 5 {argument} --seed 1\n", no_file)
    assert found.command == ["python", "train.py", "--steps", "5", "--seed", "1"]
    assert "a secret has no place among arguments" in left(found)[0]
    assert "hunter22" not in left(found)[0]


_PIECES = st.sampled_from(
    ["export ", "A", "=", "$", "${", "}", "B:-", "'", '"', "\\", "`", "$(", ")", ";", "&&", "|", "\n", " ", "#",
     "<<EOF\n", "EOF", "python ", "-m ", "x", "if ", "fi", "pip install ", "anchor", "unset ", "--f ",
     "@", "\x1b", "torchrun "]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=25).map("".join))
@example("export A=${B:-'}\npython $(")
def test_any_script_gives_a_good_profile_or_words(text: str) -> None:
    found = attempted(lambda: read_script("run.sh", text, no_file))
    if found is None:
        return
    settle(found, CPU, Where("run.sh"))
    assert all(line.isprintable() for line in left(found))
    written = profile_text("mine", "", found, choose(LINUX, None, None).table)
    load("mine", lambda _: Source("mine.toml", written))


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "a" * (1 << 20),
        "a://" * (1 << 18),
        "a\n" * (1 << 19),
        "".join(f"p{number}\n" for number in range(20_000)),
        f"a; {'(' * 900}python_version > '3'{')' * 900}",
        "a \\\n" * (1 << 18),
        "'a'b" * (1 << 18),
        "export A=" + "${" * (1 << 19),
        "python " + "$(" * (1 << 19),
        "-r x.txt " * (1 << 17),
    ],
    ids=lambda text: text[:12],
)
def test_large_texts_come_to_an_end(text: str) -> None:
    """What takes the square of their size would not, in our time."""
    attempted(lambda: requirements(text, x="six\n"))
    attempted(lambda: read_script("run.sh", text, no_file))
    attempted(lambda: read_environment("environment.yml", f"dependencies: ['{text[:99999]}']", no_file))


def test_a_large_lock_comes_to_an_end() -> None:
    rows = "".join(
        f'[[package]]\nname = "p{n}"\nversion = "1"\nsource = {{ registry = "https://x/simple" }}\n'
        f'dependencies = [{{ name = "p{n + 1}" }}, {{ name = "p{n + 2}" }}]\n'
        for n in range(3000)
    )
    text = UV_LOCK.replace('{ name = "b" }', '{ name = "p0" }') + rows
    found = read_uv_lock("uv.lock", text, CPU)
    assert len(found.requires) == 3003
    assert {one.what for one in found.left_out} >= {"p3000", "p3001"}


def test_words_are_read_as_a_shell_does(tmp_path: Path) -> None:
    """Each value beside what sh makes of the same line."""
    lines = [
        "V='a b'",
        'V="a  b"',
        "V=a\\ b",
        "V=a'b'\"c\"",
        "V='$x'",
        'V="\\$x"',
        "V=a#b",
        "V=",
        "V='a;b' # c",
        "V=a;W=b",
    ]
    for line in lines:
        shell = subprocess.run(["sh", "-c", f'{line}\nprintf %s "$V"'], capture_output=True, text=True, check=True)
        found = read_script("run.sh", f"export {line}\n", no_file)
        assert found.env["V"] == shell.stdout, line


def test_a_profile_that_would_not_load_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ProfileError):
        check("mine", 'schema = 1\nname = "mine"\nnonsense = 1\n', tmp_path / "mine.toml")


def test_help_needs_no_reader() -> None:
    readers = ("yaml", "packaging", "tree_sitter")
    code = f"import sys, builder.cli.author; print([m for m in sys.modules if m.split('.')[0] in {readers}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_range_of_torch_is_no_build(sandbox: Sandbox) -> None:
    imported(sandbox, "environment.yml", "dependencies:\n- pytorch=2.5\n", "--name", "mine").succeeded()
    assert made(sandbox, "mine")["packages"]["requires"] == ["torch==2.5.*"]
