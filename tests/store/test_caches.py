"""What is kept to be quicker is measured and removed, and nothing else is."""

from __future__ import annotations

import json

import pytest

from builder.store import caches
from tests.support import Sandbox


def sizes(desk: Sandbox) -> dict[str, int]:
    return {one["name"]: one["size"] for one in json.loads(desk.drydock("cache", "size", "--json").succeeded().stdout)}


def test_caches_are_measured_and_removed_and_an_environment_goes_on(
    built: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    built.drydock("push", "small", str(built.store.parent / "cache/mirror")).succeeded()
    assert sizes(built).keys() >= {"evaluations", "mirror", "wheels"}
    monkeypatch.setenv("DRYDOCK_HOME", str(built.store.parent))
    monkeypatch.setattr("builder.store.roots.running", list)  # what a test before ran may still look for changes
    monkeypatch.setattr(caches, "_YOUNG", 1e9)
    assert caches.clean()[0][0].files == 0, "what is young may be about to be used"
    monkeypatch.setattr(caches, "_YOUNG", -1.0)
    would, _ = caches.clean(dry_run=True)
    assert would[0].files > 0
    assert sizes(built)["evaluations"] > 0
    removed, kept = caches.clean()
    assert (removed, kept) == (would, [])
    assert "evaluations" not in sizes(built)
    assert "mirror" in sizes(built), "it is there to build without a network"
    assert "trained with" in built.drydock("run", "small").succeeded().stdout
    assert built.drydock("cache", "clean", "mirror").succeeded().stdout.startswith("mirror: ")
    assert "mirror" not in sizes(built)
    built.drydock("verify", "small").succeeded()


def test_the_uv_of_scripts_stays_while_one_runs(built: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = built.store.parent / "tools/uv-1/bin/uv"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\n")
    monkeypatch.setattr(caches, "_YOUNG", -1.0)
    monkeypatch.setenv("DRYDOCK_HOME", str(built.store.parent))
    monkeypatch.setattr("builder.store.roots.running", lambda: ["somebody"])
    caches.clean(["tools"])
    assert tool.exists()
    monkeypatch.setattr("builder.store.roots.running", list)
    caches.clean(["tools"])
    assert not tool.exists()


def test_what_a_collection_removes_and_what_is_unknown_is_said(built: Sandbox) -> None:
    built.drydock("cache", "clean", "wheels").failed(2, "wheels are removed when no environment needs them")
    built.drydock("cache", "clean", "mirrors").failed(2, 'no cache "mirrors"', "did you mean")
