"""Profiles: how files are read and merged, and what their errors say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import ProfileError, Where
from builder.isolation import LEAKS
from builder.profile.detect import Choice, Detect
from builder.profile.load import read_part
from builder.profile.model import Profile
from builder.profile.source import Source
from builder.profile.target import Match
from builder.project.catalogue import Catalogue
from tests.conftest import ROOT
from tests.support.profiles import load

TARGET = '[target]\nplatform = "linux-x86_64"\naccelerator = "cpu"\nglibc = "2.17"\n'
WHOLE = f'{TARGET}[python]\nversion = "3.11"\n[trainer]\ncommand = ["python", "train.py"]\n'


def sources(files: dict[str, str]) -> Callable[[str], Source]:
    """A reader of files in memory: name to text. The schema and the name are put before each."""

    def read(name: str) -> Source:
        if name not in files:
            raise ProfileError(f'no profile "{name}"', hint="known profiles: " + ", ".join(files))
        return Source(f"profiles/{name}.toml", f'schema = 1\nname = "{name}"\n{files[name]}')

    return read


def loaded(child: str, **parents: str) -> Profile:
    """The profile `child`, a whole one: its text beside those of its parents."""
    return load("child", sources({"child": child, "whole": WHOLE, **parents}))


def one(text: str) -> Profile:
    """A profile that is whole by itself, with `text` after it."""
    return load("one", sources({"one": WHOLE + text}))


def refused(run: Callable[[], Any]) -> ProfileError:
    """The error of a profile that is refused."""
    with pytest.raises(ProfileError) as caught:
        run()
    return caught.value


def wrong(text: str, *, tail: str = "") -> ProfileError:
    """The error of a profile with `text` after its name, and `tail` at its end."""
    return refused(lambda: load("one", sources({"one": f"{text}\n{WHOLE}{tail}"})))


# --- merging -------------------------------------------------------------------------------------------------------


def test_a_child_has_what_its_parents_have() -> None:
    profile = loaded('extends = ["whole"]')
    assert (profile.target.glibc, profile.python.version) == ("2.17", "3.11")
    assert profile.trainer.command == ["python", "train.py"]


def test_a_child_wins_over_its_parents_key_by_key() -> None:
    profile = loaded(
        f'extends = ["whole"]\n{TARGET.replace("2.17", "2.28")}[trainer]\nneeds = "data"\n',
        whole=WHOLE.replace("[python]", "match = { chip = 'A*' }\n[python]"),
    )
    assert (profile.target.glibc, profile.target.match) == ("2.28", Match(chip="A*"))
    assert (profile.trainer.needs, profile.trainer.command) == ("data", ["python", "train.py"])


def test_a_child_may_add_options_to_the_trainer_that_it_inherits() -> None:
    option = '[[trainer.options]]\nflag = "{0}"\nfrom = "{0}"\n'
    profile = loaded('extends = ["whole"]\n' + option.format("B"), whole=WHOLE + option.format("A"))
    assert [option.flag for option in profile.trainer.options] == ["A", "B"]
    assert profile.trainer.command == ["python", "train.py"]


def test_a_target_is_given_whole() -> None:
    error = refused(lambda: loaded('extends = ["whole"]\n[target]\nglibc = "2.28"'))
    assert (error.message, error.where) == (
        'the key "platform" is missing',
        Where("profiles/child.toml", 4, "target.platform"),
    )


def test_a_list_of_words_is_replaced_whole() -> None:
    profile = loaded('extends = ["whole"]\n[trainer]\ncommand = ["other"]\narguments = []', whole=WHOLE + "\n")
    assert profile.trainer.command == ["other"]


def test_requirements_are_merged_by_package_name_in_any_spelling() -> None:
    profile = loaded(
        'extends = ["whole", "pins"]\n[packages]\nrequires = ["Torch_Vision==2", "new"]',
        pins='[packages]\nrequires = ["kept>=1", "torch.vision==1", "torch"]',
    )
    assert profile.packages.requires == ["kept>=1", "Torch_Vision==2", "torch", "new"]


def test_requirements_on_one_package_in_one_file_are_all_kept_and_replaced_together() -> None:
    two = '[packages]\nrequires = ["a>=1", "a<2; python_version < \'3.12\'", "b"]'
    assert one(two).packages.requires == ["a>=1", "a<2; python_version < '3.12'", "b"]
    profile = loaded('extends = ["whole", "two"]\n[packages]\nrequires = ["a==3"]', two=two)
    assert profile.packages.requires == ["a==3", "b"]


def test_tables_by_package_name_are_merged_in_any_spelling() -> None:
    profile = loaded(
        'extends = ["whole", "builds"]\n[packages.build]\nPython_BaseConv = ["hatchling"]',
        builds='[packages.build]\npython-baseconv = ["setuptools"]\nvarint = ["setuptools"]',
    )
    assert profile.packages.build == {"python-baseconv": ["hatchling"], "varint": ["setuptools"]}


def test_lists_of_tables_append_in_the_order_of_extends() -> None:
    check = '[[checks]]\nfile = "proofs/{}.py"\nwhy = "because"\n'
    profile = loaded(
        'extends = ["whole", "first", "second"]\n' + check.format("own"),
        first=check.format("first"),
        second=check.format("second") + check.format("third"),
    )
    names = ["proofs/first.py", "proofs/second.py", "proofs/third.py", "proofs/own.py"]
    assert [item.file for item in profile.checks] == names


def test_a_table_that_two_parents_have_from_one_grandparent_is_there_once() -> None:
    check = '[[checks]]\nfile = "proofs/shared.py"\nwhy = "because"\n'
    profile = loaded(
        f'extends = ["whole", "left", "right"]\n{check}',
        left='extends = ["top"]',
        right='extends = ["top"]',
        top=check,
    )
    assert [item.file for item in profile.checks] == ["proofs/shared.py"]


@pytest.mark.parametrize("order", [["some", "none"], ["none", "some"]])
def test_an_empty_list_of_tables_takes_nothing_away(order: list[str]) -> None:
    profile = loaded(
        f'extends = ["whole", "{order[0]}", "{order[1]}"]\nchecks = []',
        some='[[checks]]\nfile = "a.py"\nwhy = "because"\n',
        none="checks = []",
    )
    assert [item.file for item in profile.checks] == ["a.py"]


def test_an_environment_variable_is_replaced_whole() -> None:
    profile = loaded(
        'extends = ["whole", "noisy"]\n[env]\nA = { default = "2" }',
        noisy='[env]\nA = { value = "1", note = "careful" }\nB = "3"',
    )
    assert profile.env["A"].model_dump(exclude_none=True) == {"default": "2"}
    assert profile.env["B"].value == "3"


@pytest.mark.parametrize(
    ("mine", "theirs"), [('file = "a.py"', 'command = ["b"]'), ('command = ["b"]', 'file = "a.py"')]
)
def test_a_trainer_of_the_other_kind_replaces_the_inherited_one(mine: str, theirs: str) -> None:
    whole = WHOLE.partition("[trainer]")[0] + f'[trainer]\n{theirs}\narguments = ["--x"]\n'
    trainer = loaded(f'extends = ["whole"]\n[trainer]\n{mine}', whole=whole).trainer
    kinds = {"file": trainer.file == "a.py" and trainer.command is None, "command": trainer.command == ["b"]}
    assert kinds[mine.split()[0]]
    assert trainer.arguments == ["--x"]


def test_what_a_file_says_of_itself_is_not_inherited() -> None:
    profile = loaded(
        'extends = ["described"]',
        described=f'description = "of the parent"\n{WHOLE}[generated]\nrun = "parent.sh"\n',
    )
    assert (profile.name, profile.description, profile.run_script) == ("child", "", "run_child.sh")
    assert profile.extends == ["described"]
    assert (profile.fix_patches_script, profile.fix_dependencies_script) == (
        "fix_child_patches.py",
        "fix_child_dependencies.sh",
    )


def test_a_grandparent_is_reached_through_a_parent_that_says_nothing_of_it() -> None:
    profile = loaded('extends = ["middle"]', middle='extends = ["whole"]\n[env]\nA = "1"')
    assert (profile.env["A"].value, profile.target.glibc) == ("1", "2.17")


# --- disagreement --------------------------------------------------------------------------------------------------

LEFT = '[packages]\nrequires = ["torch==2.5.1"]\n[env]\nA = "1"\n'
RIGHT = '[packages]\nrequires = ["torch==2.6.0"]\n[env]\nA = "1"\n'


def test_two_parents_that_pin_one_package_differently_are_an_error() -> None:
    error = refused(lambda: loaded('extends = ["whole", "left", "right"]', left=LEFT, right=RIGHT))
    assert error.message == 'the requirement on torch is "torch==2.5.1" in left and "torch==2.6.0" in right'
    assert error.hint == "set it in profiles/child.toml"
    assert error.where == Where("profiles/child.toml", 3, "extends")


def test_a_word_from_the_child_settles_a_disagreement() -> None:
    child = 'extends = ["whole", "left", "right"]\n[packages]\nrequires = ["torch==2.7.0"]'
    assert loaded(child, left=LEFT, right=RIGHT).packages.requires == ["torch==2.7.0"]


def test_parents_that_agree_need_no_word() -> None:
    assert loaded('extends = ["whole", "left", "right"]', left=LEFT, right=LEFT).packages.requires == ["torch==2.5.1"]


def test_any_value_can_be_disagreed_on() -> None:
    error = refused(
        lambda: loaded('extends = ["whole", "a", "b"]', a='[env]\nX = "1"', b='[env]\nX = { default = "1" }')
    )
    assert error.message == "env.X is \"1\" in a and {'default': '1'} in b"
    error = refused(lambda: loaded('extends = ["whole", "a"]', a=TARGET.replace("2.17", "2.28")))
    assert error.message == 'target.glibc is "2.17" in whole and "2.28" in a'


def test_a_day_is_the_same_with_and_without_quotes() -> None:
    profile = loaded(
        'extends = ["whole", "a", "b"]',
        a='[packages]\nexclude-newer = "2025-07-01"',
        b="[packages]\nexclude-newer = 2025-07-01",
    )
    assert profile.packages.exclude_newer == "2025-07-01"


@pytest.mark.parametrize(
    "order", ['["whole", "base", "fast"]', '["whole", "fast", "base"]', '["whole", "plain", "fast"]']
)
def test_a_parent_that_replaced_the_word_of_the_other_does_not_disagree_with_it(order: str) -> None:
    profile = loaded(
        f"extends = {order}",
        base='[env]\nA = "1"',
        plain='extends = ["base"]',
        fast='extends = ["base"]\n[env]\nA = "2"',
    )
    assert profile.env["A"].value == "2"


def test_two_parents_that_replaced_one_word_differently_disagree() -> None:
    error = refused(
        lambda: loaded(
            'extends = ["whole", "slow", "fast"]',
            base='[env]\nA = "1"',
            slow='extends = ["base"]\n[env]\nA = "0"',
            fast='extends = ["base"]\n[env]\nA = "2"',
        )
    )
    assert error.message == 'env.A is "0" in slow and "2" in fast'


def test_a_word_that_was_replaced_stays_replaced_whoever_agrees_with_the_new_one() -> None:
    profile = loaded(
        'extends = ["whole", "fast", "same", "base"]',
        base='[env]\nA = "1"',
        fast='extends = ["base"]\n[env]\nA = "2"',
        same='[env]\nA = "2"',
    )
    assert profile.env["A"].value == "2"


def test_a_disagreement_is_noticed_in_any_spelling_of_a_package() -> None:
    error = refused(
        lambda: loaded(
            'extends = ["whole", "a", "b"]',
            a='[packages.build]\nPython_BaseConv = ["setuptools"]',
            b='[packages.build]\npython-baseconv = ["hatchling"]',
        )
    )
    assert error.message == "packages.build.python-baseconv is ['setuptools'] in a and ['hatchling'] in b"


def test_a_disagreement_between_grandparents_is_settled_by_the_parent() -> None:
    profile = loaded(
        'extends = ["whole", "middle"]',
        middle='extends = ["left", "right"]\n[packages]\nrequires = ["torch==2.6.0"]',
        left=LEFT,
        right=RIGHT,
    )
    assert profile.packages.requires == ["torch==2.6.0"]


# --- extends -------------------------------------------------------------------------------------------------------


def test_a_cycle_is_shown_as_the_way_round() -> None:
    error = refused(lambda: loaded('extends = ["a"]', a='extends = ["b"]', b='description = "x"\nextends = ["a"]'))
    assert error.message == "extends is circular: a -> b -> a"
    assert error.hint == "remove one of them from extends"
    assert error.where == Where("profiles/a.toml", 3, "extends")


def test_a_profile_that_extends_itself_is_a_cycle() -> None:
    assert refused(lambda: loaded('extends = ["child"]')).message == "extends is circular: child -> child"


def test_a_parent_that_is_not_there_is_missed_where_it_is_named() -> None:
    error = refused(lambda: loaded('description = "x"\nextends = ["gone"]'))
    assert (error.message, error.where) == ('no profile "gone"', Where("profiles/child.toml", 4, "extends"))
    assert error.hint == "known profiles: child, whole"


def test_a_parent_that_cannot_be_read_is_itself_named() -> None:
    def read(name: str) -> Source:
        if name == "broken":
            raise ProfileError("not UTF-8", where=Where("profiles/broken.toml", 7))
        return Source("profiles/child.toml", 'schema = 1\nname = "child"\nextends = ["broken"]\n')

    assert refused(lambda: load("child", read)).where == Where("profiles/broken.toml", 7)


def test_an_error_in_a_parent_names_the_parent() -> None:
    error = refused(lambda: loaded('extends = ["whole", "bad"]', bad='[env]\nA = "1"\nB = 2'))
    assert error.where == Where("profiles/bad.toml", 5, "env.B")


@pytest.mark.parametrize("table", ["target", "python", "trainer"])
def test_a_part_cannot_be_built(table: str) -> None:
    tables = {
        "target": TARGET,
        "python": '[python]\nversion = "3.11"\n',
        "trainer": '[trainer]\ncommand = ["python"]\n',
    }
    text = "".join(text for name, text in tables.items() if name != table)
    error = refused(lambda: load("part", sources({"part": text})))
    assert error.message == f'profile "part" is a part to extend: it has no [{table}] and cannot be built'
    assert error.hint == 'extend it in a profile of your own: extends = ["part"]'
    assert error.where == Where("profiles/part.toml")


# --- errors name the file, the line and the key, what was found and what is allowed ---------------------------------


def test_a_name_that_differs_from_the_files_is_an_error() -> None:
    error = refused(lambda: load("one", lambda _: Source("one.toml", f'schema = 1\nname = "two"\n{WHOLE}')))
    assert error.message == 'the file is called one.toml, but its name is "two"'
    assert error.where == Where("one.toml", 2, "name")


@pytest.mark.parametrize(
    ("text", "key", "line", "message", "hint"),
    [
        ('descripton = "x"', "descripton", 3, 'unknown key "descripton"', 'did you mean "description"?'),
        ("[packages]\nrequries = []", "packages.requries", 4, 'unknown key "requries"', 'did you mean "requires"?'),
        ('[packages]\nexclude_newer = "2025-07-01"', "packages.exclude_newer", 4, "unknown key", '"exclude-newer"?'),
        ("[env.A]\nvalu = '1'", "env.A.valu", 4, 'unknown key "valu"', 'did you mean "value"?'),
        ("[env]\nA = { defualt = '1' }", "env.A.defualt", 4, 'unknown key "defualt"', 'did you mean "default"?'),
        ("[generated]\nrnu = 'x'", "generated.rnu", 4, 'unknown key "rnu"', 'did you mean "run"?'),
        ("[[checks]]\nflie = 'x'\nwhy = 'x'", "checks.0.flie", 4, 'unknown key "flie"', 'did you mean "file"?'),
        ("[[patches]]\npackage = 'a'", "patches.0.versions", 3, 'the key "versions" is missing', None),
        (
            "[packages]\nzzz = 1",
            "packages.zzz",
            4,
            'unknown key "zzz"',
            "known here: build, exclude-newer, exclude-newer-index, exclude-newer-package, index, overlap, overrides, "
            "requires",
        ),
    ],
)
def test_an_unknown_or_missing_key_is_named_with_the_nearest(
    text: str, key: str, line: int, message: str, hint: str | None
) -> None:
    error = wrong(text)
    assert error.where == Where("profiles/one.toml", line, key)
    assert error.message.startswith(message)
    assert hint in error.hint if hint and error.hint else error.hint is hint


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "words"),
    [
        (
            '"linux-x86_64"',
            '"linux-x86"',
            4,
            "target.platform",
            ['"linux-x86" is not one of macos-arm64, linux-arm64, linux-x86_64'],
        ),
        ('"cpu"', '"gpu"', 5, "target.accelerator", ['"gpu" is not one of mps, cuda, rocm, xpu, cpu']),
        ('"2.17"', '"3.1"', 6, "target.glibc", ["2\\.", '(found "3.1")']),
        ('"3.11"', '"3"', 8, "python.version", ['(found "3")']),
        ('"3.11"', "3.11", 8, "python.version", ["not text, but a number: 3.11"]),
        ("schema = 1", "schema = 2", 1, "schema", ["should be 1", "(found 2)"]),
        ('["python", "train.py"]', "[]", 9, "trainer", ["command is empty"]),
        ('["python", "train.py"]', '"python"', 10, "trainer.command", ["valid list", '(found "python")']),
    ],
)
def test_a_wrong_value_is_shown_with_what_is_allowed(old: str, new: str, line: int, key: str, words: list[str]) -> None:
    text = f'schema = 1\nname = "one"\n{WHOLE}'
    assert text.count(old) == 1
    error = refused(lambda: load("one", lambda _: Source("one.toml", text.replace(old, new))))
    assert error.where == Where("one.toml", line, key)
    assert [word for word in words if word not in error.message] == []


def test_a_number_in_place_of_text_gets_its_quotes() -> None:
    """As Python's version is written first by everybody; and gpu is not nearly xpu."""
    text = f'schema = 1\nname = "one"\n{WHOLE}'
    error = refused(lambda: load("one", lambda _: Source("one.toml", text.replace('"3.11"', "3.11"))))
    assert error.hint == 'put it in quotes: version = "3.11"'
    assert refused(lambda: load("one", lambda _: Source("one.toml", text.replace('"cpu"', '"gpu"')))).hint is None
    assert refused(lambda: load("one", lambda _: Source("one.toml", ""))).hint == "a profile begins with: schema = 1"
    conflict = refused(lambda: load("one", lambda _: Source("one.toml", f"<<<<<<< HEAD\n{text}")))
    assert conflict.hint == "git left a conflict in it: solve that first"


def test_a_typo_in_a_value_gets_the_nearest_allowed_one() -> None:
    text = f'schema = 1\nname = "one"\n{WHOLE}'.replace("linux-x86_64", "linux-x86-64")
    error = refused(lambda: load("one", lambda _: Source("one.toml", text)))
    assert error.hint == 'did you mean "linux-x86_64"?'


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ('[packages]\nrequires = ["a @ ftp://example.org/a.whl"]', "packages.requires.0", "ftp:// is not a place"),
        ('[packages]\nrequires = ["a", "-r other.txt"]', "packages.requires.1", "not a requirement (PEP 508)"),
        ('[packages]\nrequires = ["a==1\\n--index-url x"]', "packages.requires.0", "not a requirement (PEP 508)"),
        ('[[packages.overrides]]\nrequirement = "a<"\nreason = "x"', "packages.overrides.0.requirement", "not a req"),
        ('[[packages.overrides]]\nrequirement = "a"\nreason = ""', "packages.overrides.0.reason", "at least 1"),
        ('[packages.build]\na = ["b @ file:///b"]', "packages.build.a.0", "a requirement by URL"),
        ('[packages]\nexclude-newer = "2025-13-01"', "packages.exclude-newer", "not a day"),
        ('[packages]\nexclude-newer = "1 July"', "packages.exclude-newer", "not a day"),
        ('[packages]\nexclude-newer = "\u0662\u0660\u0662\u0665-01-01"', "packages.exclude-newer", "not a day"),
        ("[packages]\nexclude-newer = 2025-07-01T12:00:00Z", "packages.exclude-newer", "not a day"),
        ("[packages]\nexclude-newer = 20250701", "packages.exclude-newer", "not a day"),
        ('[packages]\nexclude-newer-package = { a = "x" }', "packages.exclude-newer-package.a", "not a day"),
        ('[packages]\nindex = { a = "A" }', "packages.index.a", "should match pattern"),
        ('[packages]\nindex = { a = "nowhere" }', "packages.index.a", 'the index "nowhere" is not among [indexes]'),
        ('[indexes]\na = "ftp://example.org/"', "indexes.a", "must be an https://, http:// or file:// URL"),
        ('[indexes]\na = "https://example.org/ x"', "indexes.a", "must be an https://"),
        ('[indexes]\na = "https://example.org/\\n"', "indexes.a", "must be an https://"),
        ('[indexes]\na = "https://me:secret@example.org/"', "indexes.a", "a user name or password has no place"),
        ('[indexes]\na = "https://token@example.org"', "indexes.a", "a user name or password has no place"),
        ("[env]\nA = 4", "env.A", "an environment variable is a string; put it in quotes (found 4)"),
        ("[env]\nA = true", "env.A", "an environment variable is a string; put it in quotes (found True)"),
        ("[env]\nA = { default = 4 }", "env.A.default", "not text, but a number: 4"),
        ('[env]\nA = { value = "1", default = "2" }', "env.A", "exactly one of"),
        ('[env]\nA = { note = "x" }', "env.A", "exactly one of"),
        ("[env]\nA = { unset = false }", "env.A.unset", "should be True"),
        ('[env]\nA = "a\\u0000b"', "env.A.value", "a NUL byte"),
        ('[env]\n1A = "x"', "env.1A", "should match pattern"),
        ('[env]\n"A-B" = "x"', "env.A-B", "should match pattern"),
        ('[env]\n"A=B" = "x"', "env.A=B", "should match pattern"),
        ('[generated]\nrun = "../run.sh"', "generated.run", "should match pattern"),
        ('[generated]\nrun = "-rf"', "generated.run", "should match pattern"),
        ('[generated]\nrun = "a b.sh"', "generated.run", "should match pattern"),
        ('extends = ["../base"]', "extends.0", "not the name of a profile"),
        ('description = "a\\u0000b"', "description", "a NUL byte"),
    ],
)
def test_a_value_that_cannot_be_is_refused_at_its_place(text: str, key: str, message: str) -> None:
    own_line = text.startswith(("extends", "description"))
    error = wrong(text) if own_line else wrong("", tail=text)
    assert error.where is not None
    assert error.where.key == key
    assert message in error.message
    # The line is that of the key itself, or of the list or table that it is written in.
    line = f'schema = 1\nname = "one"\n{text if own_line else ""}\n{WHOLE}{"" if own_line else text}'.split("\n")
    assert error.where.line is not None
    assert any(part in line[error.where.line - 1] for part in key.split(".") if not part.isdigit())


NUL = '"a\\u0000b"'


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"command = [{NUL}]", "trainer.command.0"),
        (f'command = ["a"]\narguments = ["b", {NUL}]', "trainer.arguments.1"),
        (f'command = ["a"]\nneeds = {NUL}', "trainer.needs"),
        (f'command = ["a"]\nneeds-hint = {NUL}', "trainer.needs-hint"),
        (f'command = ["a"]\n[[trainer.options]]\nfrom = "A"\nflag = {NUL}', "trainer.options.0.flag"),
        (
            f'command = ["a"]\n[[trainer.options]]\nfrom = "A"\nflag = "-a"\ndefault = {NUL}',
            "trainer.options.0.default",
        ),
        ('command = ["a"]\nfile = "b.py"', "trainer"),
        ('arguments = ["a"]', "trainer"),
        ('command = ["a"]\n[[trainer.options]]\nfrom = "A B"\nflag = "-a"', "trainer.options.0.from"),
        ('command = ["a"]\n[[trainer.options]]\nfrom = "A"\nflag = ""', "trainer.options.0.flag"),
        ('command = ["a"]\n[[trainer.options]]\nfrom = "A"\nflag = "-a"\nwhen = "$(id)"', "trainer.options.0.when"),
    ],
)
def test_a_trainer_that_cannot_be_run_is_refused(text: str, key: str) -> None:
    head = WHOLE.partition("[trainer]")[0]
    error = refused(lambda: load("one", sources({"one": f"{head}[trainer]\n{text}\n"})))
    assert error.where is not None
    assert error.where.key == key
    assert error.where.line is not None


@pytest.mark.parametrize(
    "path",
    [
        "../x.py",
        "a/../x.py",
        "/etc/passwd",
        "a//b",
        "./a",
        "a/",
        "",
        "a\\\\b",
        ".hidden",
        "a b",
        "-x",
        "a\\n",
        "a/b\\n",
    ],
)
@pytest.mark.parametrize(
    ("table", "key"),
    [
        ('[[checks]]\nwhy = "x"\nfile = "{}"', "checks.0.file"),
        ('[[patches]]\npackage = "a"\nversions = "==1"\nwhy = "x"\nproof = "p.py"\nfile = "{}"', "patches.0.file"),
        ('[[patches]]\npackage = "a"\nversions = "==1"\nwhy = "x"\nfile = "p"\nproof = "{}"', "patches.0.proof"),
    ],
)
def test_a_path_that_leaves_the_folder_is_refused(path: str, table: str, key: str) -> None:
    error = wrong("", tail=table.format(path))
    assert error.message.startswith("must be a plain path inside the profile's own folder")
    assert error.where is not None
    assert error.where.key == key


@pytest.mark.parametrize("path", ["manifest.json", "Manifest.JSON", "plan.json", "PLAN.json/x.py"])
def test_a_file_of_the_users_has_no_name_of_ours(path: str) -> None:
    error = wrong("", tail=f'[[checks]]\nwhy = "x"\nfile = "{path}"')
    assert error.message.startswith("Drydock has a file of that name beside yours")
    assert error.where is not None
    assert error.where.key == "checks.0.file"


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("checks/look.py", "checks/Look.py", "checks/look.py and checks/Look.py differ in case alone"),
        ("a", "A/b.py", "a and A/b.py cannot be a file and a folder"),
        ("a/b/c", "a", "a and a/b/c cannot be a file and a folder"),
    ],
)
def test_two_files_that_a_mac_takes_for_one_are_refused(first: str, second: str, words: str) -> None:
    rows = "\n".join(f'[[checks]]\nwhy = "x"\nfile = "{file}"' for file in (first, second))
    error = wrong("", tail=rows)
    assert words in error.message
    assert error.where is not None
    assert error.where.key in ("checks.0.file", "checks.1.file")
    assert error.where.line is not None


def test_one_file_may_have_two_uses_and_two_folders_a_name() -> None:
    rows = "\n".join(f'[[checks]]\nwhy = "x"\nfile = "{file}"' for file in ("a/x.py", "a/x.py", "A/y.py"))
    load("one", sources({"one": f"\n{WHOLE}{rows}"}))


def test_a_version_range_of_a_patch_is_checked() -> None:
    patch = '[[patches]]\npackage = "a"\nversions = "1.x"\nfile = "a"\nproof = "b"\nwhy = "x"'
    assert wrong("", tail=patch).message == 'not a version range; write for instance ">=1.0,<1.9" (found "1.x")'


ISOLATION = sorted({"PATH", "PYTHONNOUSERSITE", "VIRTUAL_ENV", *LEAKS})


@pytest.mark.parametrize("name", ISOLATION)
def test_what_isolates_the_environment_is_not_for_profiles(name: str) -> None:
    error = wrong("", tail=f'[env]\nA = "1"\n{name} = "x"')
    assert error.message.startswith("set by the script itself, to isolate the environment")
    assert error.where == Where("profiles/one.toml", 14, f"env.{name}")


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("RANDOM", "shell"), ("SECONDS", "shell"), ("OPTIND", "shell"), ("PPID", "shell"), ("UID", "shell"),
        ("IFS", "shell"), ("BASHOPTS", "shell"), ("LINENO", "shell"), ("COLUMNS", "shell"), ("_", "script"),
        ("_key", "script"), ("_env", "script"), ("_uv_sha256", "script"), ("__", "script"),
    ],
)  # fmt: skip
def test_names_that_shells_and_scripts_use_themselves_are_refused(name: str, owner: str) -> None:
    # RANDOM and its like are numbers to the shells: they evaluate what is assigned, commands and all.
    for table, key in (
        (f'[env]\n{name} = "a[$(id)]"', f"env.{name}"),
        (f'[[trainer.options]]\nflag = "-a"\nfrom = "{name}"', "trainer.options.0.from"),
        (f'[[trainer.options]]\nflag = "-a"\nfrom = "A"\nunless = "{name}"', "trainer.options.0.unless"),
    ):
        error = wrong("", tail=table)
        assert owner in error.message
        assert error.where is not None
        assert error.where.key == key


@pytest.mark.parametrize(
    "name", ["OMP_NUM_THREADS", "http_proxy", "A", "_A", "MAX_TOKENS", "RANDOM_SEED", "key", "env", "HOME"]
)
def test_other_names_are_free(name: str) -> None:
    assert one(f'[env]\n{name} = "4"').env[name].value == "4"


def test_options_may_read_what_profiles_may_not_set() -> None:
    options = one('[[trainer.options]]\nflag = "--venv"\nfrom = "VIRTUAL_ENV"\nwhen = "PATH"').trainer.options
    assert (options[0].source, options[0].when) == ("VIRTUAL_ENV", "PATH")


@pytest.mark.parametrize(
    ("text", "line"),
    [("[env", 3), ("[env]\nA = 1\nA = 2", 5), ('[env]\nA = "x\ny"', 4), ('why = """never\nended\n', 4), ("a = ", 3)],
)
def test_text_that_is_not_toml_is_named_with_its_line(text: str, line: int) -> None:
    error = refused(lambda: load("one", sources({"one": text})))
    assert error.message.startswith("not TOML: ")
    assert error.where is not None
    assert (error.where.file, error.where.line) == ("profiles/one.toml", line)


def test_days_may_be_written_as_toml_dates_or_as_strings() -> None:
    for day in ("2025-07-01", '"2025-07-01"'):
        packages = one(f"[packages]\nexclude-newer = {day}\nexclude-newer-package = {{ A_b = {day} }}").packages
        assert (packages.exclude_newer, packages.exclude_newer_package) == ("2025-07-01", {"a-b": "2025-07-01"})


def test_a_part_is_checked_alone() -> None:
    part = read_part("part", sources({"part": 'extends = ["not-read"]\n[env]\nA = "1"'})("part")).model
    assert (part.extends, part.env["A"].value, part.target) == (["not-read"], "1", None)


VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(
    st.dictionaries(st.from_regex(r"[A-Z]{2,9}_[A-Z]", fullmatch=True), VALUES),
    st.lists(VALUES, min_size=1),
    VALUES,
)
def test_text_survives_loading(env: dict[str, str], command: list[str], description: str) -> None:
    data = {
        "schema": 1,
        "name": "one",
        "description": description,
        "target": {"platform": "linux-x86_64", "accelerator": "cpu", "glibc": "2.17"},
        "python": {"version": "3.11"},
        "trainer": {"command": command},
        "env": env,
    }
    profile = load("one", lambda _: Source("one.toml", tomli_w.dumps(data)))
    assert {name: setting.value for name, setting in profile.env.items()} == env
    assert (profile.trainer.command, profile.description) == (command, description)


# --- the profiles that are built in --------------------------------------------------------------------------------

BUILT_IN = Catalogue([ROOT / "profiles"])
BUILDABLE = ["arm64", "cpu", "cpu-swarm", "cuda", "m4", "m4-upstream"]
NEWEST_SWARM = ["cuda-swarm-0-7", "mac-swarm-0-7"]
STARTERS = ["cpu-arm64", "cuda12", "cuda13", "cuda13-arm64", "mac", "mlx"]
RL_SWARM = {"colorlog", "datasets", "hf-transfer", "hivemind", "peft", "tensorboard", "trl", "wandb", "web3"}
OPTIONS = {
    "--identity_path", "--host_maddr", "--initial_peers", "--public_maddr", "--config", "--game", "--modal_org_id",
    "--contract_address",
}  # fmt: skip


def requirements(profile: Profile) -> dict[str, str]:
    """Package to requirement."""
    from packaging.requirements import Requirement

    return {Requirement(text).name: text for text in profile.packages.requires}


def test_the_profiles_are_those_that_were_asked_for() -> None:
    parts = [
        "accelerate-patched",
        "base",
        "low-memory",
        "old-torch",
        "resumable",
        "rl-swarm",
        "rl-swarm-0-7",
        "starter",
    ]
    assert BUILT_IN.names() == sorted([*parts, *BUILDABLE, *NEWEST_SWARM, *STARTERS])
    for name in parts:
        assert "is a part to extend" in refused(partial(BUILT_IN.profile, name)).message


@pytest.mark.parametrize("name", BUILDABLE)
def test_a_built_in_profile_loads_and_says_what_it_is_for(name: str) -> None:
    profile = BUILT_IN.profile(name)
    assert profile.description
    assert profile.python.version == "3.11"
    assert requirements(profile)["transformers"] == "transformers==4.52.4"
    assert BUILT_IN.texts(name)


@pytest.mark.parametrize(
    ("name", "platform", "accelerator", "torch"),
    [
        ("m4", "macos-arm64", "mps", "torch==2.5.1"),
        ("m4-upstream", "macos-arm64", "mps", "torch==2.10.0"),
        ("arm64", "linux-arm64", "cpu", "torch==2.10.0"),
        ("cuda", "linux-x86_64", "cuda", "torch==2.10.0"),
        ("cpu", "linux-x86_64", "cpu", "torch==2.13.0+cpu"),
        ("cpu-swarm", "linux-x86_64", "cpu", "torch==2.13.0+cpu"),
    ],
)
def test_each_target_has_its_torch(name: str, platform: str, accelerator: str, torch: str) -> None:
    profile = BUILT_IN.profile(name)
    assert (profile.target.platform, profile.target.accelerator) == (platform, accelerator)
    assert requirements(profile)["torch"] == torch
    if "+cpu" in torch:
        assert profile.packages.index == {"torch": "pytorch-cpu"}
        assert profile.indexes == {"pytorch-cpu": "https://download.pytorch.org/whl/cpu"}
    if accelerator == "cuda":
        assert profile.target.cuda == "12.8"


@pytest.mark.parametrize("name", ["cpu", "cpu-swarm", "m4"])
def test_accelerate_1_1_1_comes_with_both_patches(name: str) -> None:
    profile = BUILT_IN.profile(name)
    assert requirements(profile)["accelerate"] == "accelerate==1.1.1"
    assert [patch.file for patch in profile.patches] == [
        "patches/accelerate-empty-dataloader.patch",
        "patches/accelerate-unwrap-model.patch",
    ]


@pytest.mark.parametrize("name", ["arm64", "cuda", "m4-upstream"])
def test_beside_the_recipe_there_is_a_repaired_accelerate_and_no_patch(name: str) -> None:
    profile = BUILT_IN.profile(name)
    assert requirements(profile)["accelerate"] == "accelerate>=1.9"
    assert profile.patches == []


def test_m4_sets_the_four_variables_of_the_seed_and_warns_of_the_lifted_limit() -> None:
    env = BUILT_IN.profile("m4").env
    memory = {"detect": "memory-gb", "at-least": 24}
    assert {name: setting.default for name, setting in env.items()} == {
        "TOKENIZERS_PARALLELISM": "false",
        "PYTORCH_ENABLE_MPS_FALLBACK": "1",
        "OMP_NUM_THREADS": Detect(detect="performance-cores", fallback=4),  # the seed's 4 fits the base M4 only
        "OMP_WAIT_POLICY": "passive",
        "HF_HUB_DOWNLOAD_TIMEOUT": "120",
        "PYTORCH_MPS_HIGH_WATERMARK_RATIO": Choice.model_validate({**memory, "then": "0.0", "otherwise": "1.0"}),
        "PYTORCH_MPS_LOW_WATERMARK_RATIO": Choice.model_validate({**memory, "then": "1.4", "otherwise": "0.8"}),
    }
    note = env["PYTORCH_MPS_HIGH_WATERMARK_RATIO"].note
    assert note is not None
    assert "lifts PyTorch's limit" in note


@pytest.mark.parametrize("name", ["m4", "m4-upstream", "arm64", "cuda", "cpu-swarm"])
def test_rl_swarm_has_its_packages_its_trainer_and_the_options_of_its_launcher(name: str) -> None:
    profile = BUILT_IN.profile(name)
    assert requirements(profile).keys() >= RL_SWARM
    assert requirements(profile)["hivemind"] == "hivemind==1.1.12"
    assert profile.trainer.command == ["python", "-m", "hivemind_exp.gsm8k.train_single_gpu"]
    assert {option.flag for option in profile.trainer.options} >= OPTIONS
    assert [option.flag for option in profile.trainer.options if option.source == "HF_TOKEN"] == ["--hf_token"]
    assert [option.flag for option in profile.trainer.options if option.hidden] == ["--hf_token"]


def test_cpu_has_a_trainer_of_its_own() -> None:
    assert BUILT_IN.profile("cpu").trainer.file == "trainers/tiny_lm.py"


def test_mlx_on_a_mac_is_guarded() -> None:
    assert BUILT_IN.profile("mlx").memory_guard is not None
    assert BUILT_IN.profile("mac").memory_guard is None
