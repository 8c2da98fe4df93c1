"""Slurm on this machine alone, for as long as a command runs:

python tests/cluster/one_node.py COMMAND ...

Needs Debian's packages slurm-wlm and munge, and no systemd. All files lie in a scratch folder; the
daemons are children of this process and end with it. Processes are tracked by their parents and
not by cgroups, so that it runs in containers too. There is no accounting, which needs a database:
a script of the same name answers for `sacct` from what the controller remembers.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
PATIENCE = 30  # seconds until the node is ready

CONFIG = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=10
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait=60
MinJobAge=3600
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off
"""

SACCT = r"""#!/usr/bin/env bash
# JobID|State|NodeList of every job that the controller remembers.
echo "JobID|State|NodeList"
scontrol --oneliner show job | awk '{
  id = ""; array = ""; task = ""; state = ""; nodes = ""
  for (i = 1; i <= NF; i++) {
    split($i, pair, "=")
    if (pair[1] == "JobId") id = pair[2]
    if (pair[1] == "ArrayJobId") array = pair[2]
    if (pair[1] == "ArrayTaskId") task = pair[2]
    if (pair[1] == "JobState") state = pair[2]
    if (pair[1] == "NodeList") nodes = pair[2]
  }
  if (task ~ /[-,%]/) task = "[" task "]"
  if (id != "") print (array == "" ? id : array "_" task) "|" state "|" nodes
}'
"""


def missing() -> list[str]:
    """The programs that are not here."""
    return [name for name in NEEDED if shutil.which(name, path=PATH) is None]


@contextlib.contextmanager
def cluster(cpus: int = 2) -> Iterator[dict[str, str]]:
    """A cluster of one node with `cpus` CPUs; yields the environment of its users' commands.

    Partition `low` is the default; jobs of `high` preempt and requeue its jobs.

    Raises:
      RuntimeError: a daemon did not come up, with the end of its log.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    daemons: list[subprocess.Popen] = []
    try:
        environment = _write(folder, cpus)
        munge = folder / "munge"
        _start(daemons, environment, munge / "log", [
            "munged", "--foreground", "--force", f"--key-file={munge}/key",
            f"--socket={munge}/socket", f"--pid-file={munge}/pid", f"--log-file={munge}/log",
            f"--seed-file={munge}/seed",
        ])  # fmt: skip
        _wait(lambda: (munge / "socket").exists(), munge / "log")
        conf = ["-f", str(folder / "slurm.conf")]
        _start(daemons, environment, folder / "slurmctld.log", ["slurmctld", "-D", "-i", *conf])
        _start(daemons, environment, folder / "slurmd.log", ["slurmd", "-D", *conf])
        _wait(lambda: _idle(environment), folder / "slurmd.log", folder / "slurmctld.log")
        yield environment
    finally:
        with contextlib.suppress(OSError, UnboundLocalError):
            subprocess.run(
                ["scancel", "--user", environment["USER"]], env=environment, capture_output=True
            )
        for daemon in reversed(daemons):
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _write(folder, cpus):
    """The cluster's files; returns the environment that makes commands find them."""
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    folder.chmod(0o755)
    for name in ("munge", "state", "spool", "bin"):
        (folder / name).mkdir()
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    controller_port, node_port = _free_ports(2)
    text = CONFIG.format(
        host=host, user=user, folder=folder, cpus=cpus, controller_port=controller_port,
        node_port=node_port,
    )  # fmt: skip
    (folder / "slurm.conf").write_text(text)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (folder / "bin" / "sacct").write_text(SACCT)
    (folder / "bin" / "sacct").chmod(0o755)
    path = os.pathsep.join((str(folder / "bin"), PATH))
    conf = str(folder / "slurm.conf")
    return {**os.environ, "SLURM_CONF": conf, "PATH": path, "USER": user}


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _start(daemons, environment, log, command):
    with log.open("a") as file:
        daemons.append(
            subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        )


def _idle(environment):
    told = subprocess.run(
        ["sinfo", "--noheader", "-o", "%T"], env=environment, capture_output=True, text=True
    )
    return "idle" in told.stdout.split()


def _wait(ready, *logs):
    end = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > end:
            ends = [log.read_text()[-1500:] for log in logs if log.exists()]
            raise RuntimeError("Slurm did not come up:\n" + "\n".join(ends))
        time.sleep(0.5)


if __name__ == "__main__":
    with cluster() as users_environment:
        sys.exit(subprocess.run(sys.argv[1:], env=users_environment).returncode)
