"""Generated scripts, run without a build: on a store path that is there already, or with a uv that only takes notes."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from builder.script.plan import Plan
from builder.script.templates import rendered
from tests.support.shells import SHELLS

# Stands in for the trainer's Python: tells its environment, as the kernel has it, and its arguments.
TELLER = """\
#!/bin/sh
cat "/proc/$$/environ"
printf '\\0ARGV\\0'
for word do printf '%s\\0' "$word"; done
"""

# Stands in for uv: notes its arguments, and makes a Python that does what the real machinery would.
NOTING_UV = """\
#!/bin/sh
{ printf 'CALL\\0'; for word do printf '%s\\0' "$word"; done; } >>"$UV_NOTES"
case "$*" in
  *' venv '*)
    for frame do :; done
    mkdir -p "$frame/bin"
    printf '%s\\n' '#!/bin/sh' 'exec sh "$MACHINERY_NOTES" "$@"' >"$frame/bin/python"
    chmod +x "$frame/bin/python"
    ;;
esac
"""

# Stands in for the machinery: -I -S -B -c CODE FOLDER SHA256 build PLAN ENV ARGUMENTS. Keeps what it was given.
MACHINERY = """\
shift 5
sha256=$2
shift 2
case $1 in
  build)
    [ "$PPID" = "$8" ] || exit 9
    mkdir -p "$3/.drydock" "$3/bin"
    (cd "$2" && tar -cf - .) | (cd "$3/.drydock" && tar -xf -)
    cat >"$3/.drydock/machinery"
    printf '%s' "$sha256" >"$3/.drydock/machinery.sha256"
    printf '{}\\n' >"$3/.drydock/manifest.json"
    printf '#!/bin/sh\\n' >"$3/bin/python"
    chmod +x "$3/bin/python"
    ;;
esac
"""


@dataclass(frozen=True)
class Told:
    """What the trainer was given, and what the script said before."""

    environment: dict[str, str]
    arguments: list[str]
    stderr: str


class Desk:
    """A folder with a run script in it, and a home whose store has the script's environment, or none."""

    def __init__(self, folder: Path, script: str, file: str, store_name: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.store = self.home / ".local/share/drydock/store"
        self.env = self.store / store_name
        self.script = folder / file
        self.script.parent.mkdir(parents=True, exist_ok=True)
        self.script.write_text(script, encoding="utf-8")
        self.environment = {
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
        }

    @classmethod
    def of(cls, folder: Path, plan: Plan) -> Desk:
        """A desk with the run script of a plan."""
        file = plan.profile.run_script
        return cls(folder, rendered(plan)[file], file, plan.store_name)

    def built(self) -> Desk:
        """This desk, with an environment that needs no build."""
        (self.env / ".drydock").mkdir(parents=True, exist_ok=True)
        (self.env / ".drydock/manifest.json").write_text("{}")
        self.program("python", TELLER)
        return self

    def program(self, name: str, text: str) -> None:
        """Put a program into the environment."""
        path = self.env / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def run(self, shell: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        """Run the script under one of the shells."""
        return self.shell(shell, str(self.script), *arguments, **env)

    def shell(self, shell: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        """Run one of the shells, in the folder."""
        return subprocess.run(
            [*SHELLS[shell], *arguments],
            env={**self.environment, **env},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    def train(self, shell: str, *arguments: str, **env: str) -> Told:
        """Start the trainer, and let it tell what it was given."""
        done = self.run(shell, "--", *arguments, **env)
        assert done.returncode == 0, (shell, done.returncode, done.stderr)
        variables, _, words = done.stdout.partition(b"\0ARGV\0")
        pairs = (pair.split(b"=", 1) for pair in variables.split(b"\0") if pair)
        environment = {name.decode(): value.decode() for name, value in pairs}
        return Told(environment, [word.decode() for word in words.split(b"\0")[:-1]], done.stderr.decode())

    def build(self, shell: str, **env: str) -> list[list[str]]:
        """Build with programs that only take notes; gives the calls of uv."""
        (self.folder / "uv").write_text(NOTING_UV)
        (self.folder / "uv").chmod(0o755)
        (self.folder / "machinery").write_text(MACHINERY)
        notes = self.folder / "notes"
        notes.unlink(missing_ok=True)
        stand_ins = {
            "DRYDOCK_UV": str(self.folder / "uv"),
            "UV_NOTES": str(notes),
            "MACHINERY_NOTES": str(self.folder / "machinery"),
        }
        done = self.run(shell, "--build-only", **stand_ins, **env)
        assert done.returncode == 0, (shell, done.stderr)
        assert done.stdout.decode() == f"{self.env}\n"
        return [call.split("\0")[:-1] for call in notes.read_bytes().decode().split("CALL\0")[1:]]
