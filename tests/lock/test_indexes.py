"""Indexes that leave out what others say: hashes, sizes, upload times; and files that are in two places."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import Sandbox, Web, make_wheel


@pytest.fixture
def desk(sandbox: Sandbox, tmp_path: Path) -> Sandbox:
    """A desk with a profile that is not locked, and a cache of its own."""
    sandbox.profile("small")
    sandbox.environment["UV_CACHE_DIR"] = str(tmp_path / "cache")
    return sandbox


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["md5", "sha512", ""])
def test_an_index_without_sha256_and_sizes(desk: Sandbox, algorithm: str) -> None:
    desk.drydock("lock", "small").succeeded()
    lock = desk.work / "profiles/small.lock.toml"
    whole = lock.read_text()
    lock.unlink()
    desk.index.algorithm, desk.index.sizes, desk.index.days = algorithm, False, False
    desk.environment["UV_CACHE_DIR"] += "-2"
    desk.drydock("lock", "small").succeeded()
    assert lock.read_text() == whole
    desk.drydock("build", "small").succeeded()
    desk.drydock("push", "small", str(desk.root / "mirror")).succeeded()
    desk.drydock("export", "small", "--format", "pylock").succeeded()


def test_an_index_that_sends_something_else_than_its_md5_says(desk: Sandbox) -> None:
    desk.index.algorithm = "md5"
    desk.index.tamper = lambda name, content: content[:-1] + b"x" if name.startswith("anchor") else content
    desk.drydock("lock", "small").failed(1, "is not what its index says", "md5")


def test_an_index_without_sizes(desk: Sandbox) -> None:
    desk.index.sizes = False
    desk.drydock("lock", "small").succeeded()
    size = (desk.wheels / "anchor-1.0-py3-none-any.whl").stat().st_size
    assert f"size = {size}" in (desk.work / "profiles/small.lock.toml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "more"),
    [
        ("exclude-newer-package = { anchor = false }", ""),
        ('index = { anchor = "own" }\nexclude-newer-index = { own = false }', '[indexes]\nown = "URL"\n'),
        ("", "child"),
    ],
)
def test_an_index_without_upload_times(desk: Sandbox, line: str, more: str) -> None:
    desk.index.days = False
    text = desk.profile("small").read_text().replace("[packages]\n", '[packages]\nexclude-newer = "2025-01-01"\n')
    desk.profile("small", text)
    desk.drydock("lock", "small").failed(
        1, "does not say when its files were uploaded", "anchor = false", "exclude-newer-index", "exclude-newer = false"
    )
    if more == "child":
        desk.profile("part", text.replace('"small"', '"part"'))
        desk.profile("small", 'schema = 1\nname = "small"\nextends = ["part"]\n[packages]\nexclude-newer = false\n')
    else:
        own = more.replace("URL", desk.index.url)
        desk.profile("small", text.replace("[packages]\n", f"[packages]\n{line}\n") + own)
    desk.drydock("lock", "small").succeeded()
    desk.index.days = True


def test_a_file_that_is_really_newer_is_not_called_undated(desk: Sandbox) -> None:
    text = desk.profile("small").read_text().replace("[packages]\n", '[packages]\nexclude-newer = "2019-01-01"\n')
    desk.profile("small", text)
    done = desk.drydock("lock", "small").failed(1, "exclude-newer")
    assert "does not say when" not in done.stderr


def test_a_day_for_an_index_that_there_is_not(desk: Sandbox) -> None:
    text = desk.profile("small").read_text()
    desk.profile("small", text.replace("[packages]\n", "[packages]\nexclude-newer-index = { owm = false }\n"))
    desk.drydock("lock", "small").failed(1, '"owm" is not among [indexes]')


def test_a_wheel_that_is_in_a_folder_and_on_the_index(desk: Sandbox) -> None:
    desk.environment |= {"UV_FIND_LINKS": str(desk.root / "folder")}
    (desk.root / "folder").mkdir()
    name = "anchor-1.0-py3-none-any.whl"
    (desk.root / "folder" / name).write_bytes((desk.wheels / name).read_bytes())
    desk.drydock("lock", "small").succeeded()
    make_wheel(desk.root / "folder", "anchor", "1.0", files={"anchor/__init__.py": "version = 'mine'\n"})
    (desk.work / "profiles/small.lock.toml").unlink()
    desk.drydock("lock", "small").failed(1, "anchor is there twice", str(desk.root / "folder"), "remove one")


def test_no_python_is_fetched_to_resolve_for_another(desk: Sandbox, tmp_path: Path) -> None:
    """Asked for no Python, `uv pip compile` downloads that of the target where there is none."""
    path = desk.profile("small")
    path.write_text(path.read_text().replace('version = "3.11"', 'version = "3.10"'))
    with Web(tmp_path / "pythons") as web:
        env = {
            "UV_PYTHON_INSTALL_MIRROR": web.url,
            "UV_PYTHON_INSTALL_DIR": str(tmp_path / "none"),
            "UV_PYTHON_DOWNLOADS": "automatic",
        }
        desk.drydock("lock", "small", env=env).succeeded()
    assert web.requests == []
