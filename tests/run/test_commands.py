"""[commands]: programs beside the trainer, by name, in `drydock run` and in the script."""

from __future__ import annotations

import pytest

from tests.support import SHELLS, Sandbox, make_wheel

COMMANDS = """\
[commands]
eval = ["python", "-c", "import anchor, sys; print('evaluated', anchor.version, sys.argv[1:])", "it's", "$HOME"]
show-env = ["python", "-c", "import os; print(os.environ['MODE'])"]

[env]
MODE = "fast"
"""


@pytest.fixture
def desk(sandbox: Sandbox) -> Sandbox:
    sandbox.profile("small", tail=COMMANDS)
    sandbox.drydock("lock", "small").succeeded()
    return sandbox


@pytest.mark.slow
def test_a_command_is_run_by_its_name_and_gets_what_is_after_the_dashes(desk: Sandbox) -> None:
    done = desk.drydock("run", "small", "eval", "--", "--all", "a b").succeeded()
    assert done.stdout == "evaluated 1.0 [\"it's\", '$HOME', '--all', 'a b']\n"
    assert desk.drydock("run", "small", "show-env").succeeded().stdout == "fast\n"
    assert desk.drydock("run", "small", "train").succeeded().stdout == "trained with 1.0\n"
    assert desk.drydock("run", "small").succeeded().stdout == "trained with 1.0\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evil",), ("small has no command evil", "did you mean eval?", "after --: drydock run small -- evil")),
        (("lr=3",), ("small has no command lr=3", "it has eval, show-env")),
        (("eval", "more"), ("more is not an argument of drydock run",)),
        (("eval", "--supervise"), ("--supervise is for the trainer only",)),
        (("eval", "--stop"), ("eval is for a trainer",)),
    ],
    ids=lambda value: value[0],
)
def test_what_is_no_command_is_refused_before_anything_is_built(
    desk: Sandbox, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    desk.drydock("run", "small", *arguments).failed(2, *words)
    assert desk.environments() == []


@pytest.mark.parametrize("options", [(), ("--supervise",)])
def test_nothing_is_built_for_a_trainer_that_cannot_run_here(sandbox: Sandbox, options: tuple[str, ...]) -> None:
    path = sandbox.profile("small")
    path.write_text(path.read_text().replace("[trainer]", '[trainer]\nneeds = "rl/train.py"\nneeds-hint = "go there"'))
    sandbox.drydock("lock", "small").succeeded()
    sandbox.drydock("run", "small", *options).failed(1, "there is no rl/train.py in", "hint: go there")
    assert sandbox.environments() == []
    sandbox.drydock("build", "small").succeeded()


@pytest.mark.slow
def test_a_command_that_came_after_the_current_generation_is_said_to_need_a_build(desk: Sandbox) -> None:
    make_wheel(desk.wheels, "spare", "1.0")
    path = desk.profile("small", tail="")
    desk.drydock("lock", "small").succeeded()
    desk.drydock("build", "small").succeeded()
    path.write_text(path.read_text().replace('"anchor"', '"anchor", "spare"') + COMMANDS)
    desk.drydock("lock", "small").succeeded()
    done = desk.drydock("run", "small", "eval")
    done.failed(2, "small has eval now, and had no such command when its current generation was built")
    assert "hint: drydock build small" in done.stderr
    desk.drydock("build", "small").succeeded()
    assert desk.drydock("run", "small", "eval").succeeded().stdout.startswith("evaluated 1.0")


@pytest.mark.slow
def test_the_script_runs_its_commands_under_every_shell(desk: Sandbox) -> None:
    script = str(desk.script("small"))
    desk.run(["sh", script, "--build-only"]).succeeded()
    for shell in SHELLS.values():
        done = desk.run([*shell, script, "eval", "--", "--all"]).succeeded()
        assert done.stdout == "evaluated 1.0 [\"it's\", '$HOME', '--all']\n"
    assert desk.run(["sh", script, "train"]).succeeded().stdout == "trained with 1.0\n"
    usage = desk.run(["sh", script, "--help"]).succeeded().stdout
    assert "eval: python -c" in usage
    assert "show-env: " in usage
    desk.run(["sh", script, "evil"]).failed(2, "evil is not an option")
    desk.run(["sh", script, "eval", "--where-not"]).failed(2, "--where-not is not an option")
    desk.run(["sh", script, "eval", "--build-only"]).failed(2, "eval is run without an option")


@pytest.mark.slow
def test_commands_are_inherited_by_name_and_change_no_key(desk: Sandbox) -> None:
    text = (desk.work / "profiles/small.toml").read_text()
    child = 'schema = 1\nname = "child"\ndescription = "more"\nextends = ["small"]\n[commands]\nmore = ["true"]\n'
    (desk.work / "profiles/child.toml").write_text(child)
    desk.drydock("lock", "child").succeeded()
    assert desk.drydock("run", "child", "more").succeeded().stdout == ""
    assert desk.drydock("run", "child", "show-env").succeeded().stdout == "fast\n"
    key = desk.environments()
    (desk.work / "profiles/small.toml").write_text(text.replace("'evaluated'", "'again'"))
    assert "again" in desk.drydock("run", "child", "eval").succeeded().stdout
    assert desk.environments() == key


def test_the_trainer_has_its_name_for_itself(desk: Sandbox) -> None:
    desk.profile("small", tail='[commands]\ntrain = ["true"]\n')
    desk.drydock("profile", "check", "small").failed(1, "commands", "train is the name of the trainer itself")


@pytest.mark.slow
def test_a_run_says_where_the_committed_script_does_something_else(desk: Sandbox) -> None:
    desk.drydock("render", "small").succeeded()
    desk.drydock("build", "small").succeeded()
    assert "warning" not in desk.drydock("run", "small").succeeded().stderr
    path = desk.work / "profiles/small.toml"
    path.write_text(path.read_text().replace('MODE = "fast"', 'MODE = "slow"'))
    done = desk.drydock("run", "small", "show-env").succeeded()
    assert done.stdout == "slow\n"
    assert "generated/small/run_small.sh is not what small renders to now" in done.stderr
