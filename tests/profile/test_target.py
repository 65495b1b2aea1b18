"""Which wheels a target takes: decided by the target alone, never by the host."""

from __future__ import annotations

from typing import Any

import pytest
from packaging.tags import Tag
from packaging.utils import parse_wheel_filename
from pydantic import ValidationError

from builder.profile.target import Target

MAC = {"platform": "macos-arm64", "accelerator": "mps", "min-os": "14.0"}
ARM = {"platform": "linux-arm64", "accelerator": "cpu", "glibc": "2.28"}
X86 = {"platform": "linux-x86_64", "accelerator": "cpu", "glibc": "2.28"}


def target(data: dict[str, str], **changes: str) -> Target:
    """A target with `changes`; min_os stands for min-os."""
    return Target.model_validate({**data, **{key.replace("_", "-"): value for key, value in changes.items()}})


def platforms(one: Target, python: str = "3.11") -> list[str]:
    """The platform tags, best first, without `any`."""
    found = [tag.platform for tag in one.wheel_tags(python) if tag.interpreter == f"cp{python.replace('.', '')}"]
    return [platform for platform in dict.fromkeys(found) if platform != "any"]


def takes(one: Target, file: str, python: str = "3.11") -> bool:
    """Whether the target runs the wheel."""
    return bool(parse_wheel_filename(file)[3] & set(one.wheel_tags(python)))


def best(one: Target, *files: str) -> str:
    """The wheel that the target prefers."""
    places = {tag: place for place, tag in enumerate(one.wheel_tags("3.11"))}
    return min(files, key=lambda file: min(places.get(tag, 10**6) for tag in parse_wheel_filename(file)[3]))


# --- wheels --------------------------------------------------------------------------------------------------------

NUMPY_11 = "numpy-2.3.1-cp311-cp311-macosx_11_0_arm64.whl"
NUMPY_14 = "numpy-2.3.1-cp311-cp311-macosx_14_0_arm64.whl"
NUMPY_13_3 = "numpy-2.3.1-cp311-cp311-macosx_13_3_arm64.whl"


def test_min_os_decides_which_wheel_of_numpy_a_mac_takes() -> None:
    assert best(target(MAC, min_os="14.0"), NUMPY_11, NUMPY_14) == NUMPY_14
    assert best(target(MAC, min_os="15.2"), NUMPY_11, NUMPY_14) == NUMPY_14
    assert best(target(MAC, min_os="13.7"), NUMPY_11, NUMPY_14) == NUMPY_11
    assert not takes(target(MAC, min_os="13.7"), NUMPY_14)


def test_a_mac_takes_wheels_by_major_release_only_from_macos_11_on() -> None:
    # No tag of 13.3 is made for a macOS that is newer: pip and uv leave such wheels out in the same way.
    assert platforms(target(MAC))[:4] == [
        "macosx_14_0_arm64",
        "macosx_14_0_universal2",
        "macosx_13_0_arm64",
        "macosx_13_0_universal2",
    ]
    assert not takes(target(MAC), NUMPY_13_3)


@pytest.mark.parametrize(
    ("file", "taken"),
    [
        ("a-1-cp311-cp311-macosx_11_0_universal2.whl", True),
        ("a-1-cp311-cp311-macosx_10_9_universal2.whl", True),
        ("a-1-cp311-cp311-macosx_10_9_x86_64.whl", False),
        ("a-1-cp311-cp311-macosx_15_0_arm64.whl", False),
        ("a-1-cp311-cp311-macosx_15_0_universal2.whl", False),
        ("a-1-cp38-abi3-macosx_11_0_arm64.whl", True),
        ("a-1-cp312-abi3-macosx_11_0_arm64.whl", False),
        ("a-1-cp311-cp311-manylinux_2_17_aarch64.whl", False),
        ("a-1-cp310-cp310-macosx_11_0_arm64.whl", False),
        ("a-1-py3-none-any.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-py2-none-any.whl", False),
        ("a-1-py311-none-any.whl", True),
        ("a-1-py312-none-any.whl", False),
        ("a-1-py3-none-macosx_11_0_arm64.whl", True),
        ("a-1-cp311-none-any.whl", True),
        ("a-1-pp311-pypy311_pp73-macosx_11_0_arm64.whl", False),
        ("a-1-cp311-cp311t-macosx_11_0_arm64.whl", False),
    ],
)
def test_wheels_of_a_mac(file: str, taken: bool) -> None:
    assert takes(target(MAC), file) is taken


@pytest.mark.parametrize(
    ("glibc", "file", "taken"),
    [
        ("2.28", "a-1-cp311-cp311-manylinux_2_28_{}.whl", True),
        ("2.27", "a-1-cp311-cp311-manylinux_2_28_{}.whl", False),
        ("2.28", "a-1-cp311-cp311-manylinux2014_{}.whl", True),
        ("2.17", "a-1-cp311-cp311-manylinux2014_{}.whl", True),
        ("2.16", "a-1-cp311-cp311-manylinux2014_{}.whl", False),
        ("2.28", "a-1-cp311-cp311-manylinux_2_17_{0}.manylinux2014_{0}.whl", True),
        ("2.28", "a-1-cp311-cp311-linux_{}.whl", True),
        ("2.28", "a-1-cp311-cp311-musllinux_1_1_{}.whl", False),
        ("2.28", "a-1-cp37-abi3-manylinux_2_17_{}.whl", True),
        ("2.28", "a-1-cp312-cp312-manylinux_2_17_{}.whl", False),
    ],
)
@pytest.mark.parametrize(("data", "machine"), [(ARM, "aarch64"), (X86, "x86_64")])
def test_wheels_of_linux(data: dict[str, str], machine: str, glibc: str, file: str, taken: bool) -> None:
    assert takes(target(data, glibc=glibc), file.format(machine)) is taken


def test_a_wheel_of_another_processor_is_never_taken() -> None:
    for data, machine in ((ARM, "x86_64"), (X86, "aarch64"), (X86, "i686"), (ARM, "armv7l")):
        assert not takes(target(data), f"a-1-cp311-cp311-manylinux_2_17_{machine}.whl")


def test_legacy_names_stand_right_after_the_release_that_they_mean() -> None:
    # PEP 600: manylinux2014 is 2.17, manylinux2010 is 2.12, manylinux1 is 2.5; aarch64 has had 2014 only.
    names = platforms(target(X86))
    for release, name in (("2_17", "manylinux2014"), ("2_12", "manylinux2010"), ("2_5", "manylinux1")):
        assert names[names.index(f"manylinux_{release}_x86_64") + 1] == f"{name}_x86_64"
    assert names[0] == "manylinux_2_28_x86_64"
    assert names[-2:] == ["manylinux1_x86_64", "linux_x86_64"]
    assert platforms(target(ARM))[-3:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64", "linux_aarch64"]
    assert len(names) == 28 - 5 + 1 + 3 + 1


def test_a_newer_glibc_is_preferred_and_a_native_wheel_to_a_pure_one() -> None:
    files = [
        "a-1-py3-none-any.whl",
        "a-1-cp311-cp311-manylinux2014_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        "a-1-cp39-abi3-manylinux_2_28_x86_64.whl",
    ]
    assert best(target(X86), *files) == files[2]
    assert best(target(X86), *files[:2]) == files[1]
    assert best(target(X86), files[0], files[3]) == files[3]


def test_the_tags_are_those_of_the_wanted_python() -> None:
    tags = target(X86).wheel_tags("3.13")
    assert tags[0] == Tag("cp313", "cp313", "manylinux_2_28_x86_64")
    assert {tag.abi for tag in tags} == {"cp313", "abi3", "none"}
    assert Tag("cp32", "abi3", "manylinux2014_x86_64") in tags
    assert not any(tag.interpreter in ("cp311", "cp314") and tag.abi.startswith("cp") for tag in tags)


def test_no_tag_comes_twice() -> None:
    for data in (MAC, ARM, X86):
        tags = target(data).wheel_tags("3.11")
        assert len(tags) == len(set(tags))


# --- what uv is told -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glibc", "told"),
    [("2.17", 17), ("2.18", 17), ("2.27", 17), ("2.28", 28), ("2.30", 28), ("2.31", 31), ("2.40", 40), ("2.99", 40)],
)
def test_uv_is_told_the_newest_glibc_that_it_knows_and_that_is_not_too_new(glibc: str, told: int) -> None:
    assert target(X86, glibc=glibc).uv_platform == f"x86_64-manylinux_2_{told}"
    assert target(ARM, glibc=glibc).uv_platform == f"aarch64-manylinux_2_{told}"


def test_a_mac_is_told_to_uv_with_its_release() -> None:
    assert target(MAC).uv_platform == "aarch64-apple-darwin"
    assert target(MAC).uv_environment() == {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
    assert target(ARM).uv_environment() == {}


@pytest.mark.parametrize(
    ("data", "told"), [(MAC, ("Darwin", "arm64")), (ARM, ("Linux", "aarch64")), (X86, ("Linux", "x86_64"))]
)
def test_a_target_knows_what_uname_prints_there(data: dict[str, str], told: tuple[str, str]) -> None:
    assert (target(data).system, target(data).machine) == told


# --- what cannot be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"platform": "macos-arm64", "accelerator": "mps"}, "a macOS target needs min-os"),
        ({"platform": "linux-arm64", "accelerator": "cpu"}, "a Linux target needs glibc"),
        ({**MAC, "glibc": "2.17"}, "a macOS target has no glibc and no CUDA"),
        ({**MAC, "accelerator": "cuda", "cuda": "12.4"}, "a macOS target has no glibc and no CUDA"),
        ({**X86, "min-os": "14.0"}, "a Linux target has no min-os and no MPS"),
        ({**X86, "accelerator": "mps"}, "a Linux target has no min-os and no MPS"),
        ({**X86, "accelerator": "cuda"}, 'goes with accelerator = "cuda"'),
        ({**X86, "cuda": "12.4"}, 'goes with accelerator = "cuda"'),
        ({**MAC, "min-os": "14"}, "should match pattern"),
        ({**MAC, "min-os": "14.1.2"}, "should match pattern"),
        ({**MAC, "min-os": "14.0; id"}, "should match pattern"),
        ({**X86, "glibc": "3.0"}, "should match pattern"),
        ({**X86, "glibc": "2.\u0661\u0667"}, "should match pattern"),
        ({**X86, "glibc": "2.17\n"}, "should match pattern"),
        ({**X86, "accelerator": "cuda", "cuda": "twelve"}, "should match pattern"),
        ({**X86, "platform": "windows"}, "'macos-arm64', 'linux-arm64' or 'linux-x86_64'"),
        ({**X86, "match": {"processor": "x"}}, "Extra inputs are not permitted"),
        ({**X86, "min_os": "14.0"}, "Extra inputs are not permitted"),
    ],
)
def test_a_target_that_cannot_be_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Target.model_validate(data)
    assert message in str(caught.value)


def test_cuda_is_for_linux_with_a_release() -> None:
    cuda = target(X86, accelerator="cuda", cuda="12.4")
    assert (cuda.cuda, cuda.uv_platform) == ("12.4", "x86_64-manylinux_2_28")
