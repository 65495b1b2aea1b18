"""Real servers on loopback for mirrors that are far away: OpenSSH's, and moto's S3."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import until


@contextmanager
def sshd(folder: Path, home: Path) -> Iterator[str]:
    """An ssh server that lets the user of `home` in, by a key of their own; gives HOST:PORT."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None or shutil.which("ssh-keygen") is None:
        pytest.skip("there is no sshd here")
    folder.mkdir()
    (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
    for key in (folder / "host", home / ".ssh/id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    port = free_port()
    public = (folder / "host.pub").read_text().split()
    (home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n")
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nStrictModes no\nUsePAM no\nPidFile none\n"
        f"AuthorizedKeysFile {home}/.ssh/id_ed25519.pub\nSubsystem sftp internal-sftp\nSetEnv SHLVL=2\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([program, "-D", "-f", f"{folder}/config", "-E", f"{folder}/log"])
    try:
        wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def s3(folder: Path) -> Iterator[Mapping[str, str]]:
    """An S3 with the bucket `bucket`; gives the environment that leads there."""
    port = free_port()
    folder.mkdir()
    env = {
        "AWS_ACCESS_KEY_ID": "AKIATESTING",
        "AWS_SECRET_ACCESS_KEY": "not-really-a-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(port, process)
            make = "import boto3; boto3.client('s3').create_bucket(Bucket='bucket')"
            subprocess.run([sys.executable, "-c", make], env={**os.environ, **env}, check=True)
            yield env
        finally:
            process.terminate()
            process.wait()


def free_port() -> int:
    """A port of loopback that no program has now, nor gets from the kernel, which gives out those above 32767."""
    while True:
        port = random.randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the program listens there."""

    def listens() -> bool:
        assert process.poll() is None, f"nothing listens at {port}"
        with socket.create_connection(("127.0.0.1", port), 1):
            return True

    until(listens)
