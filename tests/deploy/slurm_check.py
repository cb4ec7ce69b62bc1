#!/usr/bin/env python3
# row: Slurm: servers as jobs, found through a file, drained | run | quick | 40
"""Runs deploy/slurm/qkscoped.sbatch on a Slurm cluster of this machine alone:
munged, slurmctld and slurmd with a configuration and folders of their own, on
loopback."""

import contextlib
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
import urllib.request

import replicas
from replicas import SHORT, Stalled, check, ok, qkctl, replica_of, wait_until

SCRIPT = replicas.ROOT / "deploy" / "slurm" / "qkscoped.sbatch"


def program(name):
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")


class Cluster:
    """One node with three places for jobs."""

    def __init__(self, folder, stack):
        self.folder = folder
        host = socket.gethostname().split(".")[0]
        ports = [replicas.free_address().rsplit(":", 1)[1] for _ in range(2)]
        key = folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        for name in ("state", "spool"):
            (folder / name).mkdir()
        config = folder / "slurm.conf"
        config.write_text(f"""
ClusterName=qkscope
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=600
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=3 State=UNKNOWN
PartitionName=all Nodes=node1 Default=YES MaxTime=UNLIMITED State=UP
""")
        self.environment = {**os.environ, "SLURM_CONF": str(config)}
        self._start(stack, "munged", "--foreground", "--force",
                    f"--socket={folder}/munge", f"--key-file={key}",
                    f"--pid-file={folder}/munge.pid",
                    f"--log-file={folder}/munge.log",
                    f"--seed-file={folder}/munge.seed")
        wait_until((folder / "munge").exists, "munged")
        self._start(stack, "slurmctld", "-D", "-f", config)
        wait_until(lambda: self.run("scontrol", "ping").returncode == 0,
                   "slurmctld")
        self._start(stack, "slurmd", "-D", "-N", "node1", "-f", config)
        wait_until(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T").stdout,
                   lambda: "slurmd:\n" + (folder / "slurmd.log").read_text())

    def _start(self, stack, name, *arguments):
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [program(name), *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment)
        stack.callback(process.wait)
        stack.callback(process.terminate)

    def run(self, *command):
        return subprocess.run(command, env=self.environment,
                              capture_output=True, encoding="utf-8",
                              stdin=subprocess.DEVNULL, check=False)

    def submit(self, **variables):
        result = subprocess.run(
            ["sbatch", "--parsable", "--time=1-00:00:00",
             f"--output={self.folder}/job-%j.out", str(SCRIPT)],
            env={**self.environment, **variables}, capture_output=True,
            encoding="utf-8", check=False)
        return ok(result).strip()

    def show(self, job, key):
        text = ok(self.run("scontrol", "show", "job", job))
        return re.search(rf"\b{key}=(\S+)", text)[1]

    def cancel_all(self):
        """Ends all jobs and waits until their processes have gone."""
        self.run("scancel", "--signal=KILL", "--full", "--user=root")
        self.run("scancel", "--user=root")
        until = time.monotonic() + 60
        while (self.run("squeue", "-h", "-t", "R,CG,PD").stdout.strip()
               and time.monotonic() < until):
            time.sleep(0.1)


class Servers:
    """The jobs' servers, and the list of them."""

    def __init__(self, cluster, folder):
        self.cluster = cluster
        self.list = folder / "servers"
        self.targets = folder / "targets"
        self.logs = folder / "logs"
        config = folder / "q.conf"
        config.write_text(
            replicas.PATIENT + "shutdown_grace_s: 3600 "
            f"models {{name: 'tiny' path: '{replicas.TINY_MODEL}'}}")
        self.variables = {
            "QKSCOPE_CONFIG": str(config), "QKSCOPE_SERVERS": str(self.list),
            "QKSCOPE_PROGRAM": str(pathlib.Path(os.environ["QK_BIN"])
                                   / "qkscoped"),
            "QKSCOPE_HOST": "127.0.0.1", "QKSCOPE_LISTEN": "127.0.0.1:0",
            "QKSCOPE_METRICS_LISTEN": "127.0.0.1:0",
            "QKSCOPE_SPOOL": str(folder / "spools"),
            "QKSCOPE_LOGS": str(self.logs),
            "QKSCOPE_TARGETS": str(self.targets)}

    def submit(self):
        job = self.cluster.submit(**self.variables)
        entry = self.list / f"job-{job}"
        wait_until(lambda: entry.exists() or self.cluster.show(
            job, "JobState") not in ("PENDING", "RUNNING"), "the entry")
        check(entry.exists(), lambda: (
            self.cluster.folder / f"job-{job}.out").read_text())
        wait_until(lambda: qkctl(self.address(job), "health").returncode == 0,
                   f"the server of job {job}")
        return job

    def address(self, job):
        address, name = (self.list / f"job-{job}").read_text().split()
        check(name == f"job-{job}", name)
        return address

    def call(self, *arguments):
        return qkctl(f"file://{self.list}", *arguments)

    def who(self):
        """The replica that answers a call."""
        events = ok(self.call(*SHORT, "--json", "--retries", "5"))
        return replica_of(json.loads(events.splitlines()[0])["accepted"][
            "request_id"])

    def log(self, job):
        return (self.logs / f"qkscope-{job}.0.log").read_text()

    def await_draining(self, job):
        wait_until(lambda: '"event":"draining"' in self.log(job), "a drain")
        wait_until(lambda: not (self.list / f"job-{job}").exists(),
                   f"job {job} stays in the list")
        check(not (self.targets / f"job-{job}.json").exists(), "a target stays")

    def await_end(self, job, state):
        wait_until(lambda: self.cluster.show(job, "JobState") not in (
            "RUNNING", "COMPLETING"), f"the end of job {job}")
        check(self.cluster.show(job, "JobState") == state,
              lambda: self.cluster.show(job, "JobState"))
        check('"event":"stopped"' in self.log(job), lambda: self.log(job))


def check_results_are_found(servers, jobs):
    ids = {}
    while len(ids) < len(jobs):
        request = ok(servers.call(*SHORT, "--detach", "--retries", "5")).strip()
        ids[replica_of(request)] = request
    check(set(ids) == {f"job-{job}" for job in jobs}, ids)
    for request in ids.values():
        for _ in range(3):
            ok(servers.call("result", request))


def check_target(servers, job):
    (entry,) = json.loads((servers.targets / f"job-{job}.json").read_text())
    (address,) = entry["targets"]
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        text = answer.read().decode()
    check(f'qkscope_replica_info{{replica="job-{job}"}} 1' in text, text)
    check(entry["labels"] == {"replica": f"job-{job}"}, entry)


def check_drain(servers, stack, job, others, cancel, state):
    """A drain finishes a stream that is in the middle, and no call is lost."""
    stream = stack.enter_context(Stalled(types.SimpleNamespace(
        address=servers.address(job), client_flags=[])))
    ok(servers.cluster.run(*cancel, job))
    servers.await_draining(job)
    for _ in range(6):
        check(servers.who() in {f"job-{other}" for other in others},
              "a call to a server that drains")
    check(servers.cluster.show(job, "JobState") != "COMPLETED", "no drain")
    stream.release()
    code, events, err = stream.finish()
    check(code == 0 and "finished" in events[-1], err)
    servers.await_end(job, state)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if os.geteuid() != 0:
        print("Slurm's daemons need root")
        sys.exit(77)
    with contextlib.ExitStack() as stack:
        # munged's socket has a short path.
        folder = pathlib.Path(stack.enter_context(
            tempfile.TemporaryDirectory(prefix="qks")))
        cluster = Cluster(folder, stack)
        stack.callback(cluster.cancel_all)
        servers = Servers(cluster, folder)
        nobody = servers.call("health")
        check(nobody.returncode == replicas.EXIT_UNAVAILABLE
              and "cannot be read" in nobody.stderr, nobody.stderr)
        # What a job left that died without a word.
        servers.list.mkdir()
        dead, fresh = servers.list / "job-998", servers.list / "job-999"
        for path, age in ((dead, 3600), (fresh, 60)):
            path.write_text(f"{replicas.free_address()} {path.name}\n")
            os.utime(path, (time.time() - age,) * 2)
        jobs = [servers.submit() for _ in range(3)]
        wait_until(lambda: not dead.exists(), "the stale entry")
        check(fresh.exists(), "a fresh entry has gone")
        check_results_are_found(servers, jobs)
        # Its time is nearly up, so Slurm tells the job when it looks.
        ok(cluster.run("scontrol", "update", f"JobId={jobs[2]}", "TimeLimit=1"))
        check_target(servers, jobs[0])
        check_drain(servers, stack, jobs[0], jobs[1:],
                    ["scancel", "--batch", "--signal=TERM"], "COMPLETED")
        check(cluster.show(jobs[0], "ExitCode") == "0:0", "no exit 0")
        print("scancel --batch --signal=TERM: drained, exit 0")
        servers.await_draining(jobs[2])
        servers.await_end(jobs[2], "COMPLETED")
        check(cluster.show(jobs[2], "ExitCode") == "0:0", "no exit 0")
        print("time limit: drained, exit 0")
        jobs.append(servers.submit())
        check_drain(servers, stack, jobs[1], jobs[3:], ["scancel"], "CANCELLED")
        print("scancel: drained")


if __name__ == "__main__":
    main()
