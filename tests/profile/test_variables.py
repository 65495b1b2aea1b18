"""Settings: how the linter reads them, against C and the libraries themselves; each rule, through the program too."""

from __future__ import annotations

import ctypes
import json
import math
import os
import re
import struct
import subprocess
from pathlib import Path
from typing import TypedDict, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from builder.profile.variables import FOLKLORE, KNOWN, Acknowledgeable, Finding, advise, findings
from builder.profile.variables.reading import strtod, strtol
from builder.project.catalogue import Catalogue
from tests.conftest import ROOT
from tests.support import Sandbox, names_in

HIGH, LOW = "PYTORCH_MPS_HIGH_WATERMARK_RATIO", "PYTORCH_MPS_LOW_WATERMARK_RATIO"


class _Where(TypedDict):
    platform: str
    accelerator: str


MAC: _Where = {"platform": "macos-arm64", "accelerator": "mps"}
GPU: _Where = {"platform": "linux-x86_64", "accelerator": "cuda"}


def codes(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.name, finding.code) for finding in found]


# --- numbers, as C reads them --------------------------------------------------------------------------------------

_C = ctypes.CDLL(None)
_C.strtod.restype = ctypes.c_double
_C.strtol.restype = ctypes.c_long
_NUMBERS = st.from_regex(r"[ \t\n]{0,2}[+-]?(0[xX])?[0-9a-fA-F]{0,20}[.,]?[0-9a-f]{0,5}([eEpP][+-]?[0-9]{0,5})?.{0,2}")
TEXTS = (
    st.one_of(
        _NUMBERS,
        st.floats().map(repr),
        st.integers().map(str),
        st.text(st.sampled_from("0123456789 +-.,eExXpPaAfFiInNtTyY()_\t\v"), max_size=12),
    )
    # What an environment variable can hold, byte for byte.
    .filter(lambda text: text.isascii() and "\0" not in text)
)


def c_reads(function: object, text: str, *base: int) -> tuple[float, str]:
    buffer = ctypes.create_string_buffer(text.encode())
    end = ctypes.c_char_p()
    value = function(buffer, ctypes.byref(end), *base)  # type: ignore[operator]
    return value, (end.value or b"").decode()


@given(TEXTS)
@example("0,7")
@example("0x1p-1074")
@example("0x.8p1")
@example("1e999999")
@example("-0x1p99999")
@example("infinity0")
@example("nan(abc)")
@example("nan(")
@example("0x")
@example("1e")
@example(".")
def test_strtod_reads_as_c_does(text: str) -> None:
    (value, rest), (expected, expected_rest) = strtod(text), c_reads(_C.strtod, text)
    assert rest == expected_rest
    assert math.isnan(value) if math.isnan(expected) else struct.pack("d", value) == struct.pack("d", expected)


@given(TEXTS, st.sampled_from([0, 10]))
@example("0x", 0)
@example("08", 0)
@example("-0x10", 0)
@example("99999999999999999999", 10)
@example("-99999999999999999999", 0)
def test_strtol_reads_as_c_does(text: str, base: int) -> None:
    assert strtol(text, base) == c_reads(_C.strtol, text, base)  # type: ignore[arg-type]


# --- one setting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", " ", "abc", "0,7", "0.7x", "1.5 GB", "true", "2.1", "-0.1", "nan", "inf"])
def test_a_watermark_that_is_no_ratio_is_refused(value: str) -> None:
    for name in (HIGH, LOW):
        (finding,) = advise(name, value)
        assert (finding.code, finding.refused) == ("value", True)


@pytest.mark.parametrize("value", ["0.7", " 0.7", "7e-1", "2", "1.0 "])
def test_a_watermark_that_is_a_ratio_is_not(value: str) -> None:
    assert advise(HIGH, value) == []


@pytest.mark.parametrize("value", ["0", "0.0", "-0.0", "0e5", " 0"])
def test_a_watermark_of_zero_lifts_the_limit_and_must_be_acknowledged(value: str) -> None:
    env = {HIGH: value}
    (finding,) = findings(env)
    assert (finding.code, finding.refused) == ("mps-unlimited-memory", True)
    assert 'acknowledge = ["mps-unlimited-memory"]' in (finding.hint or "")
    assert findings(env, {HIGH: ["mps-unlimited-memory"]}) == []


def test_to_acknowledge_a_limit_lifted_is_not_to_acknowledge_a_value_that_is_no_number() -> None:
    found = findings({HIGH: ""}, {HIGH: ["mps-unlimited-memory"]})
    assert codes(found) == [(HIGH, "value"), (HIGH, "unused-acknowledgement")]
    assert found[0].hint == "to remove a variable, write { unset = true }"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PYTORCH_ENABLE_MPS_FALLBACK", "true", "is not an int (stoi), and ends the program"),
        ("PYTORCH_ENABLE_MPS_FALLBACK", "", "ends the program with an exception"),
        ("PYTORCH_ENABLE_MPS_FALLBACK", "9999999999", "ends the program with an exception"),
        ("PYTORCH_ENABLE_MPS_FALLBACK", "1st", "is read as 1"),
        ("PYTORCH_MPS_PREFER_METAL", "0", "counts as on"),
        ("PYTORCH_DEBUG_MPS_ALLOCATOR", "verbose", "is read as 0"),
        ("OMP_NUM_THREADS", "4,3", "not a number of threads"),
        ("OMP_NUM_THREADS", "auto", "not a number of threads"),
        ("OMP_NUM_THREADS", "0", "is out of range"),
        ("MKL_NUM_THREADS", "true", "is taken for 1 by MKL"),
        ("OMP_PROC_BIND", "maybe", "is ignored"),
        ("TOKENIZERS_PARALLELISM", "disabled", "counts as on"),
        ("TORCH_SHOW_CPP_STACKTRACES", "true", "is ignored"),
        ("TORCH_DISTRIBUTED_DEBUG", "yes", "ends the program"),
        ("TORCH_DEVICE_BACKEND_AUTOLOAD", "true", "counts as off"),
        ("TORCH_COMPILE_DISABLE", "0", "counts as on in PyTorch 2.5"),
        ("TORCHDYNAMO_SUPPRESS_ERRORS", "0", "counts as on"),
        ("TRANSFORMERS_NO_ADVISORY_WARNINGS", "false", "counts as on"),
        ("HF_HUB_OFFLINE", "y", "counts as off"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "0", "is out of range"),
        ("HF_HUB_ETAG_TIMEOUT", "1.5", "is not a Python int"),
        ("HF_DATASETS_IN_MEMORY_MAX_SIZE", "0,5", "is not a Python float"),
        ("ACCELERATE_USE_CPU", "", "is neither yes nor no"),
        ("MASTER_PORT", "70000", "is out of range"),
        ("CUDA_VISIBLE_DEVICES", "all", "names no GPU"),
        ("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb=128", "option:value"),
        ("NCCL_P2P_DISABLE", "true", "is read as 0"),
        ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "4", "is out of range"),
        ("WANDB_MODE", "off", "ends the program"),
        ("PYTHONHASHSEED", "abc", "ends Python at its start"),
        ("PYTHONHASHSEED", "4294967296", "is out of range"),
    ],
)
def test_a_value_that_does_not_do_what_it_says_is_refused(name: str, value: str, said: str) -> None:
    (finding,) = advise(name, value)
    assert (finding.code, finding.refused) == ("value", True)
    assert said in finding.message
    assert finding.source


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTORCH_ENABLE_MPS_FALLBACK", "1"),
        ("OMP_NUM_THREADS", "4"),
        ("OMP_PROC_BIND", "spread,close"),
        ("OMP_STACKSIZE", "16M"),
        ("KMP_BLOCKTIME", "infinite"),
        ("TOKENIZERS_PARALLELISM", "true"),
        ("TOKENIZERS_PARALLELISM", ""),
        ("HF_HUB_OFFLINE", "on"),
        ("CUDA_VISIBLE_DEVICES", "0,1"),
        ("CUDA_VISIBLE_DEVICES", ""),
        ("CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c"),
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
        ("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:128,roundup_power2_divisions:[256:1,512:2,>:4]"),
        ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        ("NCCL_DEBUG", "info"),
        ("PYTHONHASHSEED", "0"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("MY_OWN", ""),
    ],
)
def test_a_good_value_is_not(name: str, value: str) -> None:
    assert advise(name, value) == []


@given(st.sampled_from(sorted(KNOWN)), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_value_has_an_answer(name: str, value: str) -> None:
    for finding in advise(name, value):
        assert finding.code == "value" or finding.code in get_args(Acknowledgeable)
        assert str(finding)


# --- settings beside each other ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "key", "said"),
    [
        ({HIGH: "0.7"}, HIGH, f"without {LOW} its default is 1.4"),
        ({HIGH: "0.7", LOW: None}, HIGH, f"without {LOW} its default is 1.4"),
        ({HIGH: "0.7", LOW: "0.8"}, LOW, "a low watermark (0.8) above the high one (0.7)"),
        ({LOW: "1.8"}, LOW, f"without {HIGH} its default is 1.7"),
    ],
)
def test_a_low_watermark_above_the_high_one_is_refused(env: dict[str, str | None], key: str, said: str) -> None:
    (finding,) = findings(env, **MAC)
    assert (finding.code, finding.name, finding.refused) == ("watermarks", key, True)
    assert said in finding.message


@pytest.mark.parametrize("env", [{HIGH: "0.7", LOW: "0.6"}, {LOW: "0.6"}, {HIGH: "1.5"}, {HIGH: "0.7", LOW: "0.7"}])
def test_a_low_watermark_below_the_high_one_is_not(env: dict[str, str | None]) -> None:
    assert findings(env, **MAC) == []


def test_without_a_limit_any_low_watermark_is_below_it() -> None:
    assert findings({HIGH: "0.0", LOW: "1.8"}, {HIGH: ["mps-unlimited-memory"]}, **MAC) == []


@given(st.floats(0.01, 2), st.floats(0.01, 2))
def test_the_low_watermark_that_the_hint_names_is_one(high: float, low: float) -> None:
    for finding in findings({HIGH: repr(high), LOW: repr(low)} if low > high else {HIGH: repr(high)}, **MAC):
        if finding.code == "watermarks":
            named = re.search(r'= "(.*)"|set it to (\S+)', finding.hint or "")
            assert named is not None
            assert float(named[1] or named[2]) <= high + 1e-6


def test_mkl_shadows_openmp_where_they_differ() -> None:
    assert codes(findings({"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "2"})) == [("OMP_NUM_THREADS", "shadowed")]
    assert findings({"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4"}) == []
    assert findings({"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": None}) == []


def test_weights_cannot_be_forced_both_ways() -> None:
    env = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "yes"}
    assert ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "value") in codes(findings(env))


def test_cuda_on_a_mac_and_mps_elsewhere_are_read_by_nothing_and_said_once() -> None:
    cuda = {"CUDA_VISIBLE_DEVICES": "all", "NCCL_DEBUG": "INFO"}
    assert codes(findings(cuda, **MAC)) == [(name, "other-target") for name in cuda]
    mps = {HIGH: "0.7", "PYTORCH_ENABLE_MPS_FALLBACK": "true"}
    assert codes(findings(mps, **GPU)) == [(name, "other-target") for name in mps]


def test_what_is_copied_from_recipe_to_recipe_is_read_by_nothing() -> None:
    for name, instead in FOLKLORE.items():
        (finding,) = advise(name, "1")
        assert (finding.code, finding.refused, finding.hint) == ("nothing-reads-it", False, instead)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("PYTORCH_ENABLE_MPS_FALLBACK", "0", "default"),
        (HIGH, "1.70", "default"),
        ("KMP_DUPLICATE_LIB_OK", "true", "caution"),
        ("CUDA_LAUNCH_BLOCKING", "1", "caution"),
        (LOW, "0.0", "caution"),
        ("TRANSFORMERS_CACHE", "/data", "deprecated"),
        ("NCCL_ASYNC_ERROR_HANDLING", "1", "deprecated"),
        ("NCCL_P2P_LEVEL", "NEW", "unknown-value"),
    ],
)
def test_what_is_of_no_use_or_has_a_price_is_a_warning(name: str, value: str, code: str) -> None:
    (finding,) = advise(name, value)
    assert (finding.code, finding.refused) == (code, False)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("OMP_NUM_THREAD", "OMP_NUM_THREADS"),
        ("PYTROCH_ENABLE_MPS_FALLBACK", "PYTORCH_ENABLE_MPS_FALLBACK"),
        ("TOKENIZER_PARALLELISM", "TOKENIZERS_PARALLELISM"),
        ("CUDA_VISIBLE_DEVICE", "CUDA_VISIBLE_DEVICES"),
        ("pytorch_enable_mps_fallback", "PYTORCH_ENABLE_MPS_FALLBACK"),
        ("HFHOME", "HF_HOME"),
    ],
)
def test_a_near_miss_names_what_is_meant(name: str, near: str) -> None:
    (finding,) = advise(name, "1")
    assert (finding.code, finding.refused) == ("near-miss", False)
    assert finding.message.endswith(f"did you mean {near}?")


@pytest.mark.parametrize(
    "name", ["GOMP_STACKSIZE", "NODE_RANK", "WANDB_DIR", "NCCL_IB_HCA", "HF_MODULES_CACHE", "LANG", "BANK", "TZ"]
)
def test_what_is_only_unknown_is_fine(name: str) -> None:
    assert advise(name, "1") == []


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "my_secret"]
)
def test_a_secret_is_refused_and_not_repeated(name: str) -> None:
    (finding,) = advise(name, "hunter2")
    assert (finding.code, finding.refused) == ("secret", True)
    assert "hunter2" not in str(finding)
    assert findings({name: None}) == []
    assert findings({name: "hunter2"}, {name: ["secret"]}) == []


@pytest.mark.parametrize(
    "name", ["MAX_TOKENS", "TOKENIZERS_PARALLELISM", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_TOKEN_PATH"]
)
def test_what_only_sounds_like_a_secret_is_not(name: str) -> None:
    assert not [finding for finding in advise(name, "1") if finding.code == "secret"]


def test_an_acknowledgement_of_nothing_is_said() -> None:
    found = findings({"OMP_NUM_THREADS": "4"}, {"OMP_NUM_THREADS": ["shadowed"]})
    assert [finding.message for finding in found] == ['there is no "shadowed" to acknowledge']


# --- the table -----------------------------------------------------------------------------------------------------


def test_every_row_is_whole() -> None:
    for name, variable in KNOWN.items():
        assert re.fullmatch(r"[A-Z][A-Z0-9_]+", name)
        assert variable.reader
        assert variable.when
        assert variable.source
        assert "://" not in variable.source
        assert set(variable.on) <= {"macos-arm64", "linux-arm64", "linux-x86_64", "cuda", "mps", "cpu"}
        if variable.default is not None:
            assert variable.read(variable.default).problem is None
    assert not set(FOLKLORE) & set(KNOWN)


# --- profiles, through the program ---------------------------------------------------------------------------------


def refused(desk: Sandbox, env: str, *words: str) -> str:
    desk.profile("small", tail=f"[env]\n{env}\n")
    return desk.drydock("profile", "check", "small").failed(1, *words).stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "key", "words"),
    [
        (
            'OMP_NUM_THREADS = "auto"',
            "OMP_NUM_THREADS",
            ['"auto" is not a number of threads', "allowed: a number of threads, 1 or more"],
        ),
        ('OMP_NUM_THREADS = { default = "" }', "OMP_NUM_THREADS", ["{ unset = true }"]),
        ('A = "1"\n\n[env.HF_TOKEN]\nvalue = "hf_abc"', "HF_TOKEN", ["a secret has no place in a profile"]),
    ],
)
def test_a_bad_setting_is_refused_with_its_place(built: Sandbox, env: str, key: str, words: list[str]) -> None:
    told = refused(built, env, "profiles/small.toml:", f": env.{key}", *words)
    assert "hf_abc" not in told


def mac(desk: Sandbox, env: str) -> None:
    path = desk.profile("small")
    text = path.read_text().replace('"linux-x86_64"', '"macos-arm64"').replace('"cpu"', '"mps"')
    path.write_text(text.replace('glibc = "2.17"', 'min-os = "14.0"') + f"\n[env]\n{env}\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "words"),
    [
        (f'{HIGH} = "0,7"', ['"0,7" is read as 0.0 (strtod)', "allowed: a number, from 0 to 2"]),
        (f'{HIGH} = ""', ['"" is read as 0.0 (strtod)', "{ unset = true }"]),
        (f'{HIGH} = "0.0"', ["lifts PyTorch's limit", 'acknowledge = ["mps-unlimited-memory"]']),
        (f'{HIGH} = "0.7"', ["a low watermark (1.4) above the high one (0.7)", f'{LOW} = "0.59"']),
        (f'{HIGH} = "0.7"\n{LOW} = "0.9"', [f"env.{LOW}", "set it to 0.7 or less"]),
        ('PYTORCH_ENABLE_MPS_FALLBACK = "true"', ["is not an int (stoi), and ends the program with an exception"]),
    ],
)
def test_a_bad_setting_for_a_mac_is_refused(built: Sandbox, env: str, words: list[str]) -> None:
    mac(built, env)
    for command in (["profile", "show", "small"], ["lock", "small"], ["render", "small"]):
        told = built.drydock(*command).failed(1, "where: profiles/small.toml:2", *words)
        assert told.stdout == ""


@pytest.mark.slow
def test_what_is_acknowledged_is_used(built: Sandbox) -> None:
    mac(built, f'{HIGH} = {{ value = "0.0", acknowledge = ["mps-unlimited-memory"] }}')
    shown = built.drydock("profile", "show", "small").succeeded()
    assert "mps-unlimited-memory" in shown.stdout


def test_of_two_texts_each_is_looked_at(built: Sandbox) -> None:
    """What the machine decides may be wrong on one machine only."""
    limit = '{ detect = "memory-gb", at-least = 24, then = "0.0", otherwise = "1.0" }'
    low = limit.replace("0.0", "1.4").replace("1.0", "0.8")
    low = f'{{ default = {low}, acknowledge = ["default"] }}'
    mac(built, f"{HIGH} = {{ default = {limit} }}\n{LOW} = {low}")
    built.drydock("profile", "show", "small").failed(1, "lifts PyTorch's limit")
    known = f'{HIGH} = {{ default = {limit}, acknowledge = ["mps-unlimited-memory"] }}'
    mac(built, f"{known}\n{LOW} = {low}")
    built.drydock("profile", "show", "small").succeeded()
    mac(built, known)
    built.drydock("profile", "show", "small").failed(1, "a low watermark (1.4) above the high one (1)")
    mac(built, f"{known}\n{LOW} = {low.replace('0.8', '1.8')}")
    built.drydock("profile", "show", "small").failed(1, "a low watermark (1.8) above the high one (1)")


def test_an_acknowledgement_goes_with_its_value(built: Sandbox) -> None:
    built.profile(
        "child",
        f'schema = 1\nname = "child"\nextends = ["m4"]\n[target]\nplatform = "macos-arm64"\n'
        f'accelerator = "mps"\nmin-os = "14.0"\n[env]\n{HIGH} = "0"\n',
    )
    built.drydock("profile", "show", "child").failed(1, "profiles/child.toml:9", "lifts PyTorch's limit")


@pytest.mark.slow
def test_what_is_acknowledged_is_no_difference(locked: Sandbox) -> None:
    before = locked.profile("small", tail='[env]\nWANDB_PROJECT = "huggingface"\n').read_text()
    locked.file(
        "other.toml",
        before.replace('"small"', '"other"').replace(
            '"huggingface"', '{ value = "huggingface", acknowledge = ["default"] }'
        ),
    )
    locked.drydock("lock", "other").succeeded()
    assert locked.drydock("diff", "small", "other").succeeded().stdout == "small and other: no difference\n"


def test_an_acknowledgement_is_one_of_a_few(built: Sandbox) -> None:
    env = f'{HIGH} = {{ value = "0.0", acknowledge = ["mps-unlimited-memry"] }}'
    refused(built, env, f"env.{HIGH}.acknowledge", 'did you mean "mps-unlimited-memory"?')


def test_a_setting_that_was_inherited_is_named_where_it_is(built: Sandbox) -> None:
    built.file("threads.toml", 'schema = 1\nname = "threads"\n[env]\nA = "1"\nOMP_NUM_THREADS = "many"\n')
    built.profile("small", head='extends = ["threads"]')
    built.drydock("profile", "check", "small").failed(1, "where: profiles/threads.toml:5: env.OMP_NUM_THREADS")


def test_warnings_come_with_place_reason_and_source_and_stop_nothing(locked: Sandbox) -> None:
    env = '[env]\nOMP_NUM_THREADS = "4"\nMKL_NUM_THREADS = "2"\nMPS_MEMORY_LIMIT = "8"\nOMP_NUM_THREAD = "4"\n'
    locked.profile("small", tail=env + 'NCCL_DEBUG = "INFO"\nHF_HOME = { value = "/a", acknowledge = ["default"] }\n')
    checked = locked.drydock("profile", "check", "small").succeeded()
    said = [line.removeprefix("warning: profiles/small.toml:") for line in checked.stderr.splitlines()[:-1]]
    assert [line.partition(":")[0] for line in said] == ["19", "21", "22", "23", "24"]
    assert [re.findall(r"\[([a-z-]+)\]$", line) for line in said] == [
        ["shadowed"], ["nothing-reads-it"], ["near-miss"], ["other-target"], ["unused-acknowledgement"],
    ]  # fmt: skip
    assert "PyTorch uses MKL_NUM_THREADS=2 instead; set both to the same value" in said[0]
    assert "source: PyTorch documentation" in said[0]
    assert "small: good" in checked.stderr
    assert locked.drydock("profile", "show", "small").succeeded().stderr == ""


def test_a_part_is_checked_for_what_is_wrong_whatever_extends_it(built: Sandbox) -> None:
    part = built.file("part.toml", f'schema = 1\nname = "part"\n[env]\n{HIGH} = "0.7"\nMPS_MEMORY_LIMIT = "8"\n')
    checked = built.drydock("profile", "check", "part").succeeded()
    assert re.findall(r"\[([a-z-]+)\]$", checked.stderr, re.MULTILINE) == ["nothing-reads-it"]
    part.write_text(part.read_text().replace("0.7", "0,7"))
    built.drydock("profile", "check", "part").failed(1, "where: profiles/part.toml:4", '"0,7" is read as 0.0')


def test_the_table_is_listed(built: Sandbox) -> None:
    listed = built.drydock("profile", "settings").succeeded()
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(KNOWN)
    (row,) = json.loads(built.drydock("profile", "settings", LOW, "--json").succeeded().stdout)
    assert (row["allowed"], row["default"], row["when"]) == ("a number, from 0 to 2", "1.4", "first use of MPS")
    built.drydock("profile", "settings", "OMP_NUM_THREAD").failed(2, "OMP_NUM_THREAD is not a known variable")


def test_the_profiles_that_are_built_in_have_nothing_to_be_said() -> None:
    catalogue = Catalogue([ROOT / "profiles"])
    for name in catalogue.names():
        assert catalogue.entry(name).resolved.warnings() == []


# --- the libraries themselves --------------------------------------------------------------------------------------


def run(environment: Path, code: str, **env: str) -> tuple[int, str]:
    done = subprocess.run(
        [environment / "bin/python", "-c", code],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "HF_HUB_OFFLINE": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).strip()


_THREADS = "import torch; print(torch.get_num_threads())"
# What torch says of these it says of each: one start of it, which takes two seconds, has them all.
_TOGETHER = "import torch; torch.ones(9).exp(); print(torch.get_num_threads())"
_HUB = "import huggingface_hub.constants as c; print(c.{})"


ROWS = [
    ("OMP_NUM_THREADS", "auto", _TOGETHER, "Invalid value for environment variable OMP_NUM_THREADS"),
    ("OMP_NUM_THREADS", "0", _THREADS, "Invalid value for environment variable OMP_NUM_THREADS"),
    ("MKL_NUM_THREADS", "true", _TOGETHER, "^1$"),
    ("OMP_PROC_BIND", "maybe", _TOGETHER, "Invalid value for environment variable OMP_PROC_BIND"),
    ("OMP_WAIT_POLICY", "lazy", _TOGETHER, "Invalid value for environment variable OMP_WAIT_POLICY"),
    ("OMP_DYNAMIC", "1", _TOGETHER, "Invalid value for environment variable OMP_DYNAMIC"),
    ("OMP_STACKSIZE", "big", _TOGETHER, "Invalid value for environment variable OMP_STACKSIZE"),
    ("OMP_THREAD_LIMIT", "x", _TOGETHER, "Invalid value for environment variable OMP_THREAD_LIMIT"),
    ("TORCH_CPP_LOG_LEVEL", "debug", _TOGETHER, "cannot be parsed"),
    ("TORCH_SHOW_CPP_STACKTRACES", "true", _TOGETHER, "Ignoring invalid value for boolean flag"),
    ("TORCH_DISTRIBUTED_DEBUG", "yes", "import torch.distributed", "must be OFF, INFO, or DETAIL"),
    ("ATEN_CPU_CAPABILITY", "avx3", _TOGETHER, "ignoring invalid value"),
    ("TORCHDYNAMO_SUPPRESS_ERRORS", "0", "import torch._dynamo.config as c; print(c.suppress_errors)", "True"),
    (
        "TORCHINDUCTOR_COMPILE_THREADS",
        "auto",
        "import torch._inductor.config as c; c.compile_threads",
        "ValueError",
    ),
    ("HF_HUB_DISABLE_TELEMETRY", "y", _HUB.format("HF_HUB_DISABLE_TELEMETRY"), "^False$"),
    ("HF_HUB_ETAG_TIMEOUT", "1.5", _HUB.format("HF_HUB_ETAG_TIMEOUT"), "ValueError"),
    ("HF_HUB_DOWNLOAD_TIMEOUT", "0", _HUB.format("HF_HUB_DOWNLOAD_TIMEOUT"), "^10$"),
    ("TRANSFORMERS_VERBOSITY", "quiet", "import transformers", "has to be one of: detail, debug, info"),
    ("ACCELERATE_USE_CPU", "maybe", "from accelerate import Accelerator; Accelerator()", "invalid truth value"),
    ("LOCAL_RANK", "x", "from accelerate import PartialState; PartialState()", "ValueError"),
    ("PYTHONHASHSEED", "abc", "", "PYTHONHASHSEED must be"),
]


@pytest.fixture(scope="session")
def torch_said(cpu_env: Path) -> str:
    """What torch says with all variables that are looked at together."""
    env = {name: value for name, value, code, _ in ROWS if code == _TOGETHER}
    return run(cpu_env, _TOGETHER, **env)[1]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value", "code", "expected"), ROWS)
def test_the_library_does_what_the_table_says(
    cpu_env: Path, torch_said: str, name: str, value: str, code: str, expected: str
) -> None:
    assert advise(name, value)[0].code in {"value", "unknown-value"}
    said = torch_said if code == _TOGETHER else run(cpu_env, code, **{name: value})[1]
    assert re.search(expected, said, re.MULTILINE), said


@pytest.mark.slow
@pytest.mark.parametrize("value", ["false", "FALSE", "f", "no", "n", "0", "off", "", "true", "1", "disabled"])
def test_tokenizers_reads_its_variable_as_the_linter_does(cpu_env: Path, value: str) -> None:
    code = (
        "import os; from tokenizers import Tokenizer, models; t = Tokenizer(models.BPE())\n"
        "t.encode_batch(['a'] * 999); print(len(os.listdir('/proc/self/task')) > 1)"
    )
    _, said = run(cpu_env, code, TOKENIZERS_PARALLELISM=value, RAYON_NUM_THREADS="3")
    assert said == str(KNOWN["TOKENIZERS_PARALLELISM"].read(value).value)


@pytest.mark.slow
def test_mkl_beats_openmp(cpu_env: Path) -> None:
    env = {"MKL_DYNAMIC": "false", "OMP_NUM_THREADS": "7"}
    assert run(cpu_env, _THREADS, **env) == (0, "7")
    assert run(cpu_env, _THREADS, **env, MKL_NUM_THREADS="3") == (0, "3")


@pytest.mark.slow
def test_the_names_are_in_what_reads_them_and_folklore_in_nothing(swarm_env: Path) -> None:
    words = names_in(swarm_env / "lib/python3.11/site-packages")
    assert not words & set(FOLKLORE)
    # Rust puts its texts together without a space; the test of tokenizers sets this one.
    others = ("Python", "MLX")
    elsewhere = {"RAYON_NUM_THREADS", *(name for name in KNOWN if KNOWN[name].on or KNOWN[name].reader in others)}
    assert set(KNOWN) - elsewhere - words == set()


@pytest.mark.slow
def test_mlx_has_its_variables_and_none_of_the_folklore(tmp_path: Path) -> None:
    """By the text of its library for Linux; those of Metal are in that for macOS alone."""
    from uv import find_uv_bin

    target = tmp_path / "mlx"
    subprocess.run([find_uv_bin(), "pip", "install", "-q", "--target", str(target), "mlx[cpu]==0.32.4"], check=True)
    text = b"".join(path.read_bytes() for path in target.rglob("*.so"))
    for name, variable in KNOWN.items():
        if variable.reader == "MLX" and not variable.on and "TF32" not in name and "PER_BUFFER" not in name:
            assert name.encode() in text
    assert not [name for name in FOLKLORE if name.encode() in text]
