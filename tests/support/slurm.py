"""A real cluster of Slurm on this machine: slurmctld, and hosts with a network, processes, a name and a TMPDIR each.

Hosts are namespaces (ip-netns(8), unshare(1)) below one bridge; they share the disk, as hosts of a cluster share a file
system. Killing the first process of one pulls its plug.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.waiting import LONG

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "setpriv", "unshare")
SBIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CONFIGURATION = """\
ClusterName=drydock
SlurmctldHost=desk(10.77.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
SlurmdTimeout={timeout}
InactiveLimit=0
KillWait=5
MessageTimeout=5
TCPTimeout=2
SchedulerParameters=sched_interval=2,sched_min_interval=0,bf_interval=2
NodeName={nodes} CPUs=2 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=desk
AccountingStoragePass={root}/munge.socket
MinJobAge=2
"""

DATABASE = """\
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
DbdHost=desk
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StorageUser=root
StorageLoc=slurm
LogFile={root}/slurmdbd.log
PidFile={root}/slurmdbd.pid
"""

# The first process of a host.
INIT = """\
#!/bin/sh
set -e
hostname "$1"
mount --bind "$2/hosts" /etc/hosts
mount --bind "$2/local-$1" "$2/local"
exec slurmd -D -f "$2/slurm.conf"
"""


def missing() -> str | None:
    """Why there can be no cluster here."""
    if os.geteuid() != 0:
        return "a cluster of namespaces needs root"
    lacking = [name for name in PROGRAMS if shutil.which(name, path=SBIN) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)} (apt-get install slurmctld slurmd slurm-client munge iproute2)"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "namespaces cannot be made here"


def missing_accounting() -> str | None:
    """Why there can be no accounting here."""
    lacking = [name for name in ("slurmdbd", "mariadbd", "mariadb-install-db") if shutil.which(name, path=SBIN) is None]
    return f"not installed: {', '.join(lacking)} (apt-get install slurmdbd mariadb-server)" if lacking else missing()


_NUMBERS = itertools.count()


class Cluster:
    """A cluster of `count` hosts, h1, h2 and so on, as long as a `with` lasts; `root` is its folder, on a disk.

    A host that does not answer for `timeout` seconds is down. With `accounting` there is a slurmdbd, and squeue soon
    forgets a job that is over.
    """

    def __init__(self, root: Path, count: int, *, timeout: int = 15, accounting: bool = False) -> None:
        self.root = root
        self._accounting = accounting
        self.hosts = [f"h{number + 1}" for number in range(count)]
        self._prefix = f"dd{os.getpid()}-{next(_NUMBERS)}"  # a process may have several clusters
        self._timeout = timeout
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            "PATH": SBIN,
            "HOME": str(root / "home"),
            "LANG": "C.UTF-8",
            "SLURM_CONF": str(root / "slurm.conf"),
            "TMPDIR": str(root / "local"),
        }

    def __enter__(self) -> Self:
        for name in ("state", "local", "home", *(f"spool-{host}" for host in self.hosts)):
            (self.root / name).mkdir(parents=True)
        addresses = {"desk": "10.77.0.1", **{host: f"10.77.0.{10 + at}" for at, host in enumerate(self.hosts)}}
        lines = ["127.0.0.1 localhost", *(f"{address} {host}" for host, address in addresses.items())]
        (self.root / "hosts").write_text("\n".join(lines) + "\n")
        nodes = f"h[1-{len(self.hosts)}]"
        text = CONFIGURATION.format(root=self.root, nodes=nodes, timeout=self._timeout)
        (self.root / "slurm.conf").write_text(text + (ACCOUNTING.format(root=self.root) if self._accounting else ""))
        (self.root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # which is not used, and v2 wants systemd
        (self.root / "init").write_text(INIT)
        try:
            self._connect(addresses)
            self._start_munge()
            if self._accounting:
                self._start_database()
            self._start_on_desk("slurmctld", "-D", "-f", str(self.root / "slurm.conf"))
            for host in self.hosts:
                self.plug_in(host)
            self.wait(lambda: self.states() == dict.fromkeys(self.hosts, "idle"))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            _kill(process)
        for namespace in self.namespaces:
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)

    @property
    def namespaces(self) -> list[str]:
        """The names of all networks, the desk's first."""
        return [self._namespace(host) for host in ("desk", *self.hosts)]

    def _namespace(self, host: str) -> str:
        return f"{self._prefix}-{host}"

    def _in(self, host: str, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self._namespace(host), *command]

    def _connect(self, addresses: Mapping[str, str]) -> None:
        """Give each host a network, and all of them a bridge, which is the desk's."""
        desk = self._namespace("desk")
        for host in addresses:
            _call("ip", "netns", "add", self._namespace(host))
            _call("ip", "-n", self._namespace(host), "link", "set", "lo", "up")
        _call("ip", "-n", desk, "link", "add", "br0", "type", "bridge")
        _call("ip", "-n", desk, "addr", "add", f"{addresses['desk']}/24", "dev", "br0")
        _call("ip", "-n", desk, "link", "set", "br0", "up")
        for host in self.hosts:
            there = self._namespace(host)
            _call("ip", "-n", desk, "link", "add", f"v{host}", "type", "veth", "peer", "name", "e0", "netns", there)
            _call("ip", "-n", desk, "link", "set", f"v{host}", "master", "br0", "up")
            _call("ip", "-n", there, "addr", "add", f"{addresses[host]}/24", "dev", "e0")
            _call("ip", "-n", there, "link", "set", "e0", "up")

    def _start_munge(self) -> None:
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.root}/munge.{name}" for option, name in names.items()]
        self._start("munged", ["munged", "--foreground", "--force", *options])
        self.wait(lambda: (self.root / "munge.socket").exists())

    def _start_database(self) -> None:
        data = self.root / "mariadb"
        _call("mariadb-install-db", "--user=root", f"--datadir={data}", "--skip-test-db")
        listening = ["--bind-address=127.0.0.1", "--skip-grant-tables", f"--socket={data}/socket"]
        self._start_on_desk("mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", *listening)
        self.wait(lambda: (data / "socket").exists())
        configuration = self.root / "slurmdbd.conf"
        configuration.write_text(DATABASE.format(root=self.root))
        configuration.chmod(0o600)
        self._start_on_desk("slurmdbd", "-D")
        add = ("sacctmgr", "--immediate", "add", "cluster", "drydock")
        self.wait(lambda: self.run(*add, cwd=self.root).returncode == 0)

    def _start_on_desk(self, *command: str) -> None:
        """Start a service on the desk, which has that name to it."""
        apart = ("unshare", "--uts", "--mount", "sh", "-c", _DESK, str(self.root))
        self._start(command[0], self._in("desk", *apart, *command))

    def _start(self, name: str, command: Sequence[str]) -> None:
        """Start a service that ends with us, also where we are killed."""
        command = ["setpriv", "--pdeathsig", "KILL", *command]
        with (self.root / f"{name}.out").open("ab") as out:
            self._running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.environment, start_new_session=True
            )

    def local(self, host: str) -> Path:
        """What is TMPDIR on a host."""
        return self.root / f"local-{host}"

    def plug_in(self, host: str) -> None:
        """Start a host, or start it again."""
        self.local(host).mkdir(exist_ok=True)
        _call("ip", "-n", self._namespace("desk"), "link", "set", f"v{host}", "up")
        init = ["sh", str(self.root / "init"), host, str(self.root)]
        apart = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._start(host, self._in(host, *apart, *init))

    def pull_plug(self, host: str) -> None:
        """End a host with all that runs there, and its network: nobody hears of it."""
        desk = self._namespace("desk")
        subprocess.run(["ip", "-n", desk, "link", "set", f"v{host}", "down"], capture_output=True, check=False)
        self.crash(host)

    def crash(self, host: str) -> None:
        """End a host with all that runs there; its connections are closed, as others see at once."""
        _kill(self._running.pop(host))

    def run(self, *command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the desk, which is the login node."""
        return subprocess.run(
            self._in("desk", "unshare", "--uts", "--mount", "sh", "-c", _DESK, str(self.root), *command),
            env={**self.environment, **env},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def states(self) -> dict[str, str]:
        """The states of the hosts, as sinfo has them."""
        done = self.run("sinfo", "--noheader", "--Node", "--format=%N %t", cwd=self.root)
        return dict(line.split() for line in done.stdout.splitlines())

    def state(self, job: str) -> str:
        """The state of a job."""
        query = ("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")
        return self.run(*query, cwd=self.root).stdout.strip()

    def wait(self, happened: Callable[[], bool], seconds: float = LONG) -> None:
        """Wait until something has happened."""
        until = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > until:
                logs = "\n".join(
                    f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}"
                    for path in sorted([*self.root.glob("*.log"), *self.root.glob("*.out")])
                )
                pytest.fail(f"not within {seconds} s\n{logs}")
            time.sleep(0.2)


_DESK = 'hostname desk; mount --bind "$0/hosts" /etc/hosts; exec "$@"'


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole session: with the first process of a namespace, all others of it end."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(LONG)
