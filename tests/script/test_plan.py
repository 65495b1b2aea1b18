"""The plan and its key: they follow what decides an environment, and nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.embedded.plan import key_of
from builder.lock.model import Artefact, Lock, LockedPatch, PatchedFile
from builder.profile.model import Profile
from builder.script.parts import plan_json
from builder.script.plan import Plan, make_plan

PROFILE: dict[str, Any] = {
    "schema": 1,
    "name": "small",
    "target": {"platform": "linux-x86_64", "accelerator": "cpu", "glibc": "2.17"},
    "python": {"version": "3.11"},
    "packages": {"index": {"anchor": "own"}},
    "indexes": {"own": "https://one.example.org/"},
    "patches": [{"package": "anchor", "versions": ">=1", "file": "a.patch", "proof": "p.py", "why": "it is wrong"}],
    "checks": [{"file": "check.py", "why": "so"}],
    "trainer": {"file": "train.py"},
}
TEXTS = {"a.patch": "patch", "p.py": "proof", "check.py": "check", "train.py": "trainer"}


def artefact(name: str, sha: str = "a") -> Artefact:
    """A wheel; `sha` is the letter that its sha256 is made of."""
    file = f"{name}-1.0-py3-none-any.whl"
    return Artefact(name=name, version="1.0", file=file, size=10, sha256=sha * 64, required_by=["profile"])


def lock(**fields: Any) -> Lock:
    """A lock with other fields."""
    files = [PatchedFile(path="anchor/a.py", preimage="c" * 64, postimage="d" * 64)]
    made: dict[str, Any] = {
        "packages": [artefact("anchor").model_copy(update={"index": "own"}), artefact("b")],
        "build_requires": [artefact("setuptools")],
        "patches": [LockedPatch(package="anchor", file="a.patch", sha256="b" * 64, files=files)],
        "digest": "",
        "uv": artefact("uv"),
    }
    return Lock(schema_=1, profile="small", **{**made, **fields})


def plan(texts: dict[str, str] | None = None, locked: Lock | None = None, **tables: Any) -> Plan:
    """The plan of the profile with other tables."""
    return make_plan(Profile.model_validate({**PROFILE, **tables}), locked or lock(), texts or TEXTS)


# --- the key -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tables",
    [
        {"env": {"OMP_NUM_THREADS": "3"}},
        {"env": {"A": {"default": "1", "note": "x"}, "B": {"unset": True}}},
        {"trainer": {"file": "train.py", "arguments": ["--x"], "needs": "data", "needs-hint": "get it"}},
        {"trainer": {"file": "train.py", "options": [{"flag": "-a", "from": "A", "default": "1"}]}},
        {"description": "another"},
        {"generated": {"run": "other.sh"}},
        {"indexes": {"own": "https://mirror.example.org/"}},
        {"patches": [{**PROFILE["patches"][0], "why": "other words", "versions": ">=1,<3"}]},
    ],
)
def test_the_key_does_not_follow_what_decides_no_file(tables: dict[str, Any]) -> None:
    assert plan(**tables).key == plan().key


@pytest.mark.parametrize(
    "tables",
    [
        {"target": {**PROFILE["target"], "glibc": "2.28"}},
        {"target": {**PROFILE["target"], "platform": "linux-arm64"}},
        {"target": {**PROFILE["target"], "accelerator": "cuda", "cuda": "12.4"}},
        {"target": {"platform": "macos-arm64", "accelerator": "mps", "min-os": "14.0"}},
        {"target": {"platform": "macos-arm64", "accelerator": "cpu", "min-os": "14.0"}},
        {"python": {"version": "3.12"}},
        {"trainer": {"command": ["python"]}},
        {"checks": []},
        {"checks": [*PROFILE["checks"], {"file": "p.py", "why": "x"}], "patches": []},
    ],
)
def test_the_key_follows_the_target_the_python_and_what_is_carried(tables: dict[str, Any]) -> None:
    assert plan(**tables).key != plan().key


def test_targets_that_differ_have_keys_that_differ() -> None:
    mac = {"platform": "macos-arm64", "accelerator": "mps", "min-os": "14.0"}
    targets = [mac, {**mac, "min-os": "15.0"}, {**mac, "accelerator": "cpu"}, PROFILE["target"]]
    assert len({plan(target=target).key for target in targets}) == len(targets)


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_the_key_follows_every_text_that_is_carried(name: str) -> None:
    assert plan({**TEXTS, name: TEXTS[name] + "\n"}).key != plan().key


def test_the_key_follows_every_hash_of_the_lock() -> None:
    whole = lock()
    hashes = 0
    keys = {plan().key}
    for group in ("packages", "build_requires"):
        for number, package in enumerate(getattr(whole, group)):
            for field, value in (("sha256", "f" * 64), ("version", "2.0"), ("file", "x.whl"), ("name", "x")):
                packages = list(getattr(whole, group))
                packages[number] = package.model_copy(update={field: value})
                keys.add(plan(locked=whole.model_copy(update={group: packages})).key)
                hashes += 1
    [patch] = whole.patches
    for field in ("preimage", "postimage"):
        file = patch.files[0].model_copy(update={field: "f" * 64})
        keys.add(plan(locked=lock(patches=[patch.model_copy(update={"files": [file]})])).key)
        hashes += 1
    keys.add(plan(locked=lock(patches=[patch.model_copy(update={"sha256": "f" * 64})])).key)
    keys.add(plan(locked=lock(packages=whole.packages[:1])).key)
    keys.add(plan(locked=lock(patches=[])).key)
    assert len(keys) == 1 + hashes + 3


def test_the_key_does_not_follow_who_requires_what_nor_where_it_comes_from_nor_the_uv() -> None:
    packages = [artefact("anchor").model_copy(update={"required_by": ["x"], "size": 9}), artefact("b")]
    assert plan(locked=lock(packages=packages, digest="x", uv=artefact("uv", "f"))).key == plan().key


def test_the_key_is_this_one_for_this_plan() -> None:
    # Worked out by hand, so that a change of the format is seen: it would rebuild everybody's environments.
    content = {
        "format": 1,
        "target": {"system": "Linux", "machine": "x86_64", "accelerator": "cpu", "glibc": "2.17"},
        "python": "3.11",
        "packages": [
            {"name": name, "version": "1.0", "file": f"{name}-1.0-py3-none-any.whl", "sha256": "a" * 64}
            for name in ("anchor", "b")
        ],
        "build-requires": [
            {"name": "setuptools", "version": "1.0", "file": "setuptools-1.0-py3-none-any.whl", "sha256": "a" * 64}
        ],
        "patches": [
            {
                "package": "anchor",
                "file": "a.patch",
                "sha256": "b" * 64,
                "files": [{"path": "anchor/a.py", "preimage": "c" * 64, "postimage": "d" * 64}],
            }
        ],
        "files": [{"path": name, "sha256": hashlib.sha256(TEXTS[name].encode()).hexdigest()} for name in sorted(TEXTS)],
        "verify": ["p.py", "check.py"],
    }
    assert plan().content == content
    assert plan().key == "w996yxzp1q7fk33hl3q27laa12zrl6dk"
    assert plan().store_name == "w996yxzp1q7fk33hl3q27laa12zrl6dk-small"


def test_what_is_carried_is_what_is_named_and_nothing_else() -> None:
    assert plan({**TEXTS, "other.py": "not named"}).texts == TEXTS
    assert plan().index == {"anchor": "own"}


def test_the_script_carries_the_very_plan() -> None:
    written = json.loads(plan_json(plan()))
    beside = {"size": "0 MB", "indexes": {"own": "https://one.example.org/"}}
    assert written == {"name": "small", "key": plan().key, "index": {"anchor": "own"}, "plan": plan().content, **beside}
    assert key_of(written["plan"]) == written["key"]


# --- Nix's base32 --------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PLANS = st.dictionaries(st.text(), JSON, max_size=4)


def base32(content: bytes) -> str:
    """Nix's printHash32, bit by bit: five bits at a time from the end, of bytes in little endian."""
    bits = "".join(f"{byte:08b}"[::-1] for byte in content)  # the lowest bit first
    bits += "0" * (-len(bits) % 5)
    digits = [bits[start : start + 5][::-1] for start in range(0, len(bits), 5)]
    return "".join("0123456789abcdfghijklmnpqrsvwxyz"[int(five, 2)] for five in reversed(digits))


def by_the_book(data: dict[str, Any]) -> str:
    """The key of a plan, without the code that is tested."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    full = hashlib.sha256(text.encode("ascii")).digest()
    return base32(bytes(full[place] ^ (full[place + 20] if place + 20 < 32 else 0) for place in range(20)))


def test_the_base32_of_these_tests_is_nixs() -> None:
    # What `nix-hash --type sha256 --base32` prints for an empty file.
    told = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
    assert base32(hashlib.sha256(b"").digest()) == told


@given(PLANS)
def test_the_key_is_the_folded_hash_in_nixs_base32(data: dict[str, Any]) -> None:
    key = key_of(data)
    assert key == by_the_book(data)
    assert len(key) == 32
    assert not set(key) & set("eotu")  # left out by Nix, so that no key is a word


@given(PLANS)
def test_the_order_of_keys_does_not_matter(data: dict[str, Any]) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(item) for item in value] if isinstance(value, list) else value

    assert key_of(turned(data)) == key_of(data)
    assert key_of(json.loads(json.dumps(data))) == key_of(data)


@given(PLANS, PLANS)
def test_other_plans_have_other_keys(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert (json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)) == (key_of(one) == key_of(two))
