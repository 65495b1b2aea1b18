"""[data]: models and data sets of a hub, of URLs and of folders, locked by content, in the store, used offline."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Result, Sandbox, Web
from tests.support.hub import Hub, Repo

WEIGHTS = os.urandom(300_000)
MODEL = {"config.json": b'{"model_type": "gpt2"}\n', "weights/model.safetensors": WEIGHTS, "README.md": b"# it\n"}
ROWS = b"".join(b"row %d\n" % number for number in range(500))
HUB = """
[data.tiny]
hub = "org/tiny"
files = ["*.json", "weights/"]
"""
TRAINER = """\
import os
for name in sorted(os.environ):
    if name.startswith(("DRYDOCK_DATA_", "HF_HUB_")):
        print(name, os.environ[name])
"""


class Desk:
    """A profile with data, and a hub."""

    def __init__(self, sandbox: Sandbox, hub: Hub, web: Web) -> None:
        self.sandbox, self.hub, self.web = sandbox, hub, web
        hub.repos["models/org/tiny"] = Repo(MODEL)
        sandbox.environment["HF_ENDPOINT"] = hub.url
        self.data = sandbox.store.parent / "data"

    def profile(self, tail: str) -> None:
        self.sandbox.trainer(TRAINER)
        with (self.sandbox.work / "profiles/small.toml").open("a") as file:
            file.write(tail)

    def lock(self, *options: str) -> Result:
        return self.sandbox.drydock("lock", "small", *options)

    @property
    def locked(self) -> str:
        return (self.sandbox.work / "profiles/small.lock.toml").read_text()

    def script(self, *arguments: str, **env: str) -> Result:
        """Run the script as on a machine that never saw it: by itself, elsewhere, in a store of its own."""
        path = self.sandbox.root / "generated/small/run_small.sh"
        if not path.exists():
            self.sandbox.script("small")
        away = self.sandbox.root / "away"
        away.mkdir(exist_ok=True)
        environment = {"DRYDOCK_HOME": str(self.elsewhere), **env}
        return self.sandbox.run(["sh", str(path), *arguments], cwd=away, env=environment)

    @property
    def elsewhere(self) -> Path:
        return self.sandbox.root / "elsewhere"

    def files(self) -> list[str]:
        """The contents that the store elsewhere has, by sha256; each is what its name says."""
        found = sorted((self.elsewhere / "data/files").iterdir())
        for path in found:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        return [path.name for path in found]


@pytest.fixture
def desk(sandbox: Sandbox, tmp_path: Path) -> Iterator[Desk]:
    with Hub() as hub, Web(tmp_path / "served") as web:
        web.folder.mkdir()
        yield Desk(sandbox, hub, web)


def variables(result: Result) -> dict[str, str]:
    rows = (line.partition(" ") for line in result.succeeded().stdout.splitlines())
    return {name: value for name, _, value in rows}


def test_all_three_kinds_are_locked_fetched_once_and_used_offline(desk: Desk) -> None:
    (desk.web.folder / "files").mkdir()
    (desk.web.folder / "files/rows.txt").write_bytes(ROWS)
    corpus = desk.sandbox.work / "corpus"
    (corpus / "deep").mkdir(parents=True)
    (corpus / "deep/a b.txt").write_text("\u00e9\n")
    (corpus / ".gitignore").write_text("*\n")
    desk.profile(f'{HUB}[data.rows]\nurl = "{desk.web.url}/files/rows.txt"\n[data.own]\nfolder = "corpus"\n')
    desk.lock().succeeded()
    commit = desk.hub.repos["models/org/tiny"].head
    assert f'commit = "{commit}"' in desk.locked
    assert "127.0.0.1" not in desk.locked
    assert "README.md" not in desk.locked
    assert not [path for path in desk.hub.fetched() if path.startswith("/cdn/")], "the hub has said its sha256"
    shutil.copytree(corpus, desk.sandbox.root / "away/corpus")
    found = variables(desk.script())
    (view,) = (desk.elsewhere / "data/views").iterdir()
    model = Path(found["DRYDOCK_DATA_TINY"])
    assert model == view / f"hub/models--org--tiny/snapshots/{commit}"
    assert found["HF_HUB_CACHE"] == f"{view}/hub"
    assert found["HF_HUB_OFFLINE"] == "1"
    assert (model.parent.parent / "refs/main").read_text() == commit
    assert sorted(path.name for path in model.rglob("*")) == ["config.json", "model.safetensors", "weights"]
    assert (model / "weights/model.safetensors").read_bytes() == WEIGHTS
    assert Path(found["DRYDOCK_DATA_ROWS"]).read_bytes() == ROWS
    assert Path(found["DRYDOCK_DATA_ROWS"]).name == "rows.txt"
    assert (Path(found["DRYDOCK_DATA_OWN"]) / "deep/a b.txt").read_text() == "\u00e9\n"
    assert len(desk.files()) == 5
    assert not list((desk.elsewhere / "data/partial").iterdir())
    # From now on nothing of it is asked for.
    desk.hub.repos.clear()
    shutil.rmtree(desk.web.folder / "files")
    shutil.rmtree(desk.sandbox.root / "away/corpus")
    assert variables(desk.script()) == found
    assert "export DRYDOCK_DATA_TINY=" in desk.script("--print-env").succeeded().stdout
