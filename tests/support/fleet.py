"""Hosts of a fleet: each a real sshd on loopback, without root, with its own key, home and store."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.support.remote import free_port, wait_for
from tests.support.sandbox import python_3_11


@dataclass
class Host:
    """A host: its `home`, and what it may be made to do."""

    name: str
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    python: str = field(default_factory=python_3_11)
    _behind: list[psutil.Process] = field(default_factory=list)

    runtime: str = "/nowhere"
    """XDG_RUNTIME_DIR: where the user's systemd answers, if there is one."""

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def drydock(self) -> Path:
        return self.home / ".local/share/drydock"

    def current(self, profile: str) -> str:
        """The store name that a profile stands for there; "" for none."""
        link = self.drydock / "profiles" / profile
        return link.resolve().name if link.exists() else ""

    def answers(self, text: str) -> None:
        """From now on it runs this shell text for whatever it is asked; $SSH_ORIGINAL_COMMAND has that."""
        (self.folder / "command").write_text(f"#!/bin/sh\n{text}\n")

    def behaves(self) -> None:
        """It does what it is asked, as a user with nothing but a home."""
        env = f"env -i HOME={self.home} PATH=/usr/local/bin:/usr/bin:/bin DRYDOCK_PYTHON={self.python} UV_OFFLINE=1"
        env += f" XDG_RUNTIME_DIR={self.runtime}"
        self.answers(f'cd {self.home} && exec {env} UV_CACHE_DIR={self.folder}/uv-cache sh -c "$SSH_ORIGINAL_COMMAND"')

    def start(self) -> None:
        program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        assert program is not None
        self.process = subprocess.Popen([program, "-D", "-f", f"{self.folder}/config", "-E", f"{self.folder}/log"])
        wait_for(self.port, self.process)

    def processes(self) -> list[psutil.Process]:
        """Its server and all that runs in its sessions."""
        if self.process is None or not psutil.pid_exists(self.process.pid):
            return []
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]

    def pull_the_plug(self) -> None:
        """All of it dies at once."""
        for process in [*reversed(self.processes()), *self._behind]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            self.process.wait()

    def freeze(self) -> None:
        """It accepts connections, and says nothing."""
        for process in self.processes():
            process.send_signal(signal.SIGSTOP)

    def cut_off(self) -> None:
        """Nobody reaches it, and nothing that is said to it or by it arrives; what runs on it runs on."""
        server, *others = self.processes()
        for process in others:
            if process.name().startswith("sshd"):
                process.send_signal(signal.SIGSTOP)
        server.kill()
        self._behind = [process for process in others if process.name().startswith("sshd")]
        assert self.process is not None
        self.process.wait()

    def reach_again(self) -> None:
        for process in self._behind:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        self.start()

    def thaw(self) -> None:
        for process in self.processes():
            process.send_signal(signal.SIGCONT)


@contextmanager
def hosts(folder: Path, names: list[str]) -> Iterator[tuple[dict[str, Host], Path]]:
    """Hosts by their names, and a folder with an `ssh` that knows them: what PATH must begin with."""
    if shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("there is no sshd here")
    folder.mkdir()
    if Path("/usr/sbin/sshd").exists() and Path("/run").stat().st_uid == 0:
        with suppress(OSError):
            Path("/run/sshd").mkdir(exist_ok=True)
    _key(folder / "user")
    made: dict[str, Host] = {}
    config, known = [], []
    for name in names:
        host = Host(name, folder / name, free_port())
        host.home.mkdir(parents=True)
        _key(host.folder / "key")
        host.behaves()
        (host.folder / "command").chmod(0o755)
        # Where it is no first shell, bash leaves alone the .bashrc of this user, which may take longer than the test.
        (host.folder / "config").write_text(
            f"Port {host.port}\nListenAddress 127.0.0.1\nHostKey {host.folder}/key\nStrictModes no\nUsePAM no\n"
            f"PidFile none\nAuthorizedKeysFile {folder}/user.pub\nForceCommand {host.folder}/command\n"
            "MaxStartups 100:30:200\nPasswordAuthentication yes\nSetEnv SHLVL=2\n"
        )
        public = (host.folder / "key.pub").read_text().split()
        known.append(f"[127.0.0.1]:{host.port} {public[0]} {public[1]}\n")
        config.append(f"Host {name}\n  HostName 127.0.0.1\n  Port {host.port}\n")
        made[name] = host
    (folder / "known_hosts").write_text("".join(known))
    (folder / "ssh_config").write_text(
        "".join(config) + f"Host *\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
        "  KexAlgorithms curve25519-sha256\n"
    )
    (folder / "bin").mkdir()
    ssh = folder / "bin/ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    ssh.chmod(0o755)
    try:
        for host in made.values():
            host.start()
        yield made, folder / "bin"
    finally:
        for host in made.values():
            host.pull_the_plug()


def _key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
