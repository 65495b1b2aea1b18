"""Two packages that bring one path: the same bytes, others, and an order in the profile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.embedded.overlap import winner
from tests.support import Sandbox, make_wheel

SITE = "lib/python3.11/site-packages"
ORDER = 'overlap = { "cv2/*" = "ovl-b", "cv2/data/*" = "Ovl_A" }'


@pytest.fixture
def desk(sandbox: Sandbox) -> Sandbox:
    """Two packages that bring one folder, as the two opencv-python do, and a module that does not differ."""
    for name in ("ovl-a", "ovl-b"):
        files = {
            "cv2/__init__.py": f"name = {name!r}\n",
            "cv2/data/face.xml": f"<{name}/>\n",
            "cv2/shared.py": "same = True\n",
            f"{name.replace('-', '_')}.py": "",
        }
        make_wheel(sandbox.wheels, name, "1.0", files=files)
    profile(sandbox)
    return sandbox


def profile(sandbox: Sandbox, overlap: str = "") -> None:
    path = sandbox.profile("small")
    text = path.read_text().replace('requires = ["anchor"]', f'requires = ["anchor", "ovl-a", "ovl-b"]\n{overlap}')
    path.write_text(text.replace("import anchor; print('trained with', anchor.version)", "import cv2; print(cv2.name)"))


@pytest.mark.slow
def test_two_packages_with_one_path_and_different_bytes_are_an_error(desk: Sandbox) -> None:
    desk.drydock("lock", "small").succeeded()
    words = (
        "error: ovl-a and ovl-b bring cv2/__init__.py, each another one, and 1 more file so; nothing was left",
        'hint: one of them, or say in the profile whose counts: [packages] overlap = { "cv2/*" = "ovl-b" }',
    )
    desk.drydock("build", "small").failed(1, *words)
    assert desk.environments() == []
    # What is in them is known now, and so a lock says it too.
    (desk.work / "profiles/small.lock.toml").unlink()
    desk.drydock("lock", "small").failed(1, "ovl-a and ovl-b bring cv2/__init__.py", "[packages] overlap = {")
    assert not (desk.work / "profiles/small.lock.toml").exists()
    profile(desk, ORDER)
    desk.drydock("lock", "small").succeeded()


@pytest.mark.slow
def test_the_profile_orders_them_and_verify_holds_it_to_that(desk: Sandbox, tmp_path: Path) -> None:
    profile(desk, ORDER)
    desk.drydock("lock", "small").succeeded()
    lock = (desk.work / "profiles/small.lock.toml").read_text()
    for _ in range(2):  # unpacked now, then linked only
        env = Path(desk.drydock("build", "small").succeeded().stdout.strip())
        assert desk.drydock("run", "small").succeeded().stdout == "ovl-b\n"
        assert (env / SITE / "cv2/data/face.xml").read_text() == "<ovl-a/>\n"
        desk.drydock("verify", "small").succeeded()
        desk.drydock("store", "verify").succeeded()
        desk.remove(env.name)
    env = Path(desk.drydock("build", "small").succeeded().stdout.strip())
    assert json.loads((env / ".drydock/manifest.json").read_text())["plan"]["overlap"] == {
        "cv2/*": "ovl-b",
        "cv2/data/*": "ovl-a",
    }
    # The file of the other one is not what was built.
    module = env / SITE / "cv2/__init__.py"
    module.parent.chmod(0o755)
    module.unlink()
    module.write_text("name = 'ovl-a'\n")
    desk.drydock("verify", "small").failed(1)
    desk.remove(env.name)
    # Another order is another environment of the same lock.
    profile(desk, 'overlap = { "cv2/*" = "ovl-a" }')
    other = Path(desk.drydock("build", "small").succeeded().stdout.strip())
    assert other != env
    assert (desk.work / "profiles/small.lock.toml").read_text() == lock
    assert desk.drydock("run", "small").succeeded().stdout == "ovl-a\n"
    desk.drydock("build", "small", "--cross", str(tmp_path / "cross")).succeeded()
    assert (tmp_path / "cross" / SITE / "cv2/__init__.py").read_text() == "name = 'ovl-a'\n"


@pytest.mark.slow
def test_a_virtual_environment_gets_the_same_order(desk: Sandbox) -> None:
    profile(desk, ORDER)
    desk.drydock("lock", "small").succeeded()
    script, venv = desk.script("small"), desk.root / "venv"
    desk.run([desk.environment["DRYDOCK_PYTHON"], "-m", "venv", "--without-pip", str(venv)]).succeeded()
    desk.run(["sh", str(script), "--into", str(venv), "--yes"]).succeeded()
    assert (venv / SITE / "cv2/__init__.py").read_text() == "name = 'ovl-b'\n"
    # The one that does not count comes again alone.
    (venv / SITE / "ovl_a.py").write_text("changed = True\n")
    desk.run(["sh", str(script), "--into", str(venv), "--check"]).failed(1)
    desk.run(["sh", str(script), "--into", str(venv), "--yes"]).succeeded()
    assert (venv / SITE / "cv2/__init__.py").read_text() == "name = 'ovl-b'\n"
    assert (venv / SITE / "cv2/data/face.xml").read_text() == "<ovl-a/>\n"


@pytest.mark.slow
def test_the_same_bytes_are_no_error(sandbox: Sandbox) -> None:
    for name in ("ovl-a", "ovl-b"):
        make_wheel(sandbox.wheels, name, "1.0", files={"cv2/__init__.py": "name = 'both'\n", "cv2/empty.py": ""})
    profile(sandbox)
    sandbox.drydock("lock", "small").succeeded()
    sandbox.drydock("build", "small").succeeded()
    sandbox.drydock("verify", "small").succeeded()
    assert sandbox.drydock("run", "small").succeeded().stdout == "both\n"


@pytest.mark.slow
def test_programs_that_two_packages_bring(sandbox: Sandbox) -> None:
    for name in ("ovl-a", "ovl-b"):
        module = name.replace("-", "_")
        make_wheel(
            sandbox.wheels,
            name,
            "1.0",
            files={f"{module}.py": "", "cv2.py": "name = 1\n"},
            entry_points=f"[console_scripts]\ntool = {module}:main\n",
        )
    profile(sandbox)
    sandbox.drydock("lock", "small").succeeded()
    sandbox.drydock("build", "small").failed(1, "ovl-a and ovl-b bring bin/tool", '{ "bin/tool" = "ovl-b" }')
    profile(sandbox, 'overlap = { "bin/tool" = "ovl-a" }')
    env = Path(sandbox.drydock("build", "small").succeeded().stdout.strip())
    assert "ovl_a" in (env / "bin/tool").read_text()
    sandbox.drydock("verify", "small").succeeded()


@pytest.mark.parametrize(
    ("overlap", "words"),
    [
        ('overlap = { "cv2/*" = "gone" }', '"gone" has the files "cv2/*", and is not in the lock'),
        ('overlap = { "../cv2/*" = "ovl-a" }', "packages.overlap"),
    ],
)
def test_an_order_that_cannot_be(desk: Sandbox, overlap: str, words: str) -> None:
    profile(desk, overlap)
    done = desk.drydock("lock", "small")
    if done.code == 0:
        done = desk.drydock("render", "small")
    assert done.code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_longest_pattern_counts_whatever_the_order() -> None:
    overlap = {"cv2/*": "a", "cv2/data/*": "b", "*": "c"}
    for order in (overlap, dict(reversed(overlap.items()))):
        assert winner("lib/python3.11/site-packages/cv2/data/x", ["a", "b"], order) == "b"
        assert winner("lib/python3.11/site-packages/cv2/data/x", ["a", "c"], order) == "a"
        assert winner("lib/python3.11/site-packages/cv2/__pycache__/x.cpython-311.pyc", ["a", "c"], order) == "a"
        assert winner("bin/x", ["a", "b"], order) is None
