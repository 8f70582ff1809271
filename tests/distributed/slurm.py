"""A Slurm of two nodes on this machine, by its own programs, in a folder: for tests of what is submitted to one.

Each node is a slurmd of its own, on a port of its own; what they call their GPUs are other devices. Nothing outside the
folder is read or written, and only the loopback interface is used.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

SERVERS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "squeue", "sinfo", "scancel", "scontrol", "sacct", "sacctmgr", "sshare")
FOLDERS = ("/usr/sbin", "/usr/local/sbin")  # not on everyone's PATH
NODES = ("node1", "node2")
START = 30.0  # seconds

CONF = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
GresTypes=gpu
{nodes}
PartitionName=gpu Nodes={names} Default=YES State=UP
"""
NODE = "NodeName={name} NodeAddr=127.0.0.1 NodeHostname=localhost Port={port} CPUs=4 RealMemory=1000000 Gres=gpu:2"
MUNGE = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
GRES = "Name=gpu File=/dev/null,/dev/zero\n"


def missing() -> list[str]:
    """Programs of Slurm and munge that are not here."""
    return [name for name in (*SERVERS, *COMMANDS) if found(name) is None]


def found(program: str) -> str | None:
    """Where a program is."""
    return shutil.which(program, path=os.pathsep.join([os.environ["PATH"], *FOLDERS]))


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start it; the environment in which its commands are found.

    They are scripts that name the configuration, as docs/cluster.md advises: jobs of snakemake do not keep SLURM_CONF.

    Args:
        folder: empty, with a short path (a socket's name has little room).
    """
    ports = free_ports(1 + len(NODES))
    nodes = [NODE.format(name=name, port=port) for name, port in zip(NODES, ports[1:], strict=True)]
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(
            folder=folder, controller=ports[0], user=getpass.getuser(), nodes="\n".join(nodes), names=",".join(NODES)
        )
    )
    (folder / "gres.conf").write_text(GRES)
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    (folder / "bin").mkdir()
    for name in COMMANDS:
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {found(name)} "$@"\n')
        script.chmod(0o755)
    variables = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    munge = [f"--{name}={folder}/munge.{end}" for name, end in MUNGE.items()]
    with ExitStack() as stack:
        # It would rather have a folder that only root may change.
        stack.enter_context(running(folder, "munged", "--foreground", "--force", *munge))
        until(lambda: (folder / "munge.socket").exists(), folder)
        stack.enter_context(running(folder, "slurmctld", "-D", "-f", str(conf)))
        for name in NODES:
            stack.enter_context(running(folder, "slurmd", "-D", "-N", name, "-f", str(conf)))
        until(lambda: idle(variables) == len(NODES), folder)
        try:
            yield variables
        finally:
            subprocess.run(["scancel", "--user", getpass.getuser()], env=variables, check=False)
            until(lambda: idle(variables) == len(NODES), folder)


@contextmanager
def running(folder: Path, program: str, *arguments: str) -> Iterator[None]:
    """A program that runs inside and is ended by its own process alone."""
    path = found(program)
    assert path is not None
    with (
        (folder / "said").open("a") as said,
        subprocess.Popen([path, *arguments], stdout=said, stderr=said) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(START)
            except subprocess.TimeoutExpired:
                process.kill()


def idle(variables: dict[str, str]) -> int:
    """How many nodes have nothing to do."""
    asked = ["sinfo", "--noheader", "--Node", "--states=idle", "--format=%N"]
    done = subprocess.run(asked, env=variables, capture_output=True, text=True, check=False)
    return len(done.stdout.split())


def until(condition: Callable[[], bool], folder: Path) -> None:
    """Wait for something that Slurm does.

    Raises:
        TimeoutError: with the ends of its logs.
    """
    deadline = time.monotonic() + START
    while not condition():
        if time.monotonic() > deadline:
            logs = [folder / "said", *sorted(folder.glob("*.log"))]
            ends = [f"{log.name}: {log.read_text(errors='replace')[-800:]}" for log in logs]
            raise TimeoutError("Slurm does not start:\n" + "\n".join(ends))
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
