"""A Docker engine of a check's own. It runs in new namespaces of processes,
mounts and, unless the check must reach the registries, network, with a /run of
its own. So it cannot see any other engine, and the kernel ends everything of it
with its first process, however that ends.

A row calls `main(checks)`. That starts the row again in those namespaces, once
for each check, waits, clears up, and fails if anything is left.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOT_RUN = 77
# Longer than anything here takes on a busy machine: a build, and a wait.
PATIENCE_S = 7200
WAIT_S = 600
PROGRAMS = ("dockerd", "containerd", "docker", "docker-compose", "iptables",
            "ip", "unshare", "openssl")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
CGROUPS = pathlib.Path("/sys/fs/cgroup")
# Where daemons write, if they are let.
TRACES = ("/etc/docker/key.json", "/opt/containerd", "/var/lib/docker",
          "/var/lib/containerd", "/run/docker", "/run/containerd")
READY = "ready"
_INSIDE = "QK_OWN_ENGINE"
_traces = {path for path in TRACES if os.path.exists(path)}


class Failed(Exception):
    """A check has failed; the message says how."""


def require(condition, what):
    if not condition:
        raise Failed(what)


def wait_until(done, what, patience_s=WAIT_S):
    """Waits until `done` returns something true, and returns that. `what`, a
    text or a call that makes one, says what hangs otherwise."""
    until = time.monotonic() + patience_s
    while not (result := done()):
        if time.monotonic() > until:
            raise Failed("hangs: " + (what if isinstance(what, str)
                                      else what()))
        time.sleep(0.1)
    return result


# --- inside the namespaces


def _available_bytes():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


class Engine:
    """containerd and dockerd, for as long as the namespaces live, with a folder
    `work` for all that the check makes: in memory, if there is enough and the
    check is small, because other rows keep the disk busy."""

    def __init__(self, folder, check):
        self.folder = folder
        self.work = work = folder / "work"
        work.mkdir()
        if check.small and _available_bytes() > 8 << 30:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4g", "tmpfs",
                            work], check=True)
        self.environment = {
            **{name: value for name, value in os.environ.items()
               if not name.startswith(("DOCKER_", "COMPOSE_", "QKSCOPE_"))},
            "PATH": PATH, "HOME": str(work / "home"),
            "DOCKER_HOST": "unix:///run/docker.sock",
            "DOCKER_CONFIG": str(work / "home"),
        }
        (work / "home").mkdir()
        self._run_root()
        socket = "/run/containerd.sock"
        (work / "containerd.toml").write_text(
            f'version = 2\nroot = "{work}/containerd"\n'
            'state = "/run/containerd-state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\n  address = "{socket}"\n')
        self._start("containerd", "--config", work / "containerd.toml")
        wait_until(lambda: pathlib.Path(socket).exists(), self.logs)
        flags = ([] if check.network else
                 ["--iptables=false", "--ip6tables=false", "--ip-masq=false",
                  "--ip-forward=false", "--bridge=none"])
        self._start(
            "dockerd", "--host", self.environment["DOCKER_HOST"],
            "--containerd", socket, "--data-root", work / "docker",
            "--exec-root", "/run/docker-exec", "--pidfile", "/run/docker.pid",
            "--storage-driver", "overlay2", "--cgroup-parent",
            "/" + os.environ[_INSIDE], "--exec-opt",
            "native.cgroupdriver=cgroupfs", *flags)
        wait_until(self._answers, self.logs)

    def _run_root(self):
        names = pathlib.Path("/etc/resolv.conf").read_text()
        # Sockets and locks of other engines are out of sight from here on, and
        # what the daemons write to /etc (a key) and /opt ends in memory.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        for folder in ("etc", "opt"):
            layers = [f"/run/over/{folder}/{part}" for part in ("up", "work")]
            for layer in layers:
                os.makedirs(layer)
            subprocess.run(
                ["mount", "-t", "overlay", "overlay", "-o",
                 f"lowerdir=/{folder},upperdir={layers[0]},workdir={layers[1]}",
                 f"/{folder}"], check=True)
        # It may have been a link to /run.
        pathlib.Path("/etc/resolv.conf").unlink()
        pathlib.Path("/etc/resolv.conf").write_text(names)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    def _start(self, program, *arguments):
        with open(self.work / f"{program}.log", "wb") as log:
            subprocess.Popen([program, *map(str, arguments)],
                             env=self.environment, stdin=subprocess.DEVNULL,
                             stdout=log, stderr=log)

    def _answers(self):
        return subprocess.run(["docker", "version"], env=self.environment,
                              check=False, capture_output=True).returncode == 0

    def logs(self):
        """The ends of the daemons' logs."""
        return "".join(
            f"{file.name}:\n{file.read_text(errors='replace')[-3000:]}\n"
            for file in sorted(self.work.glob("*.log")))

    def run(self, *command, check=True, **options):
        """Runs a command that knows this engine alone; returns its result."""
        environment = {**self.environment, **options.pop("environment", {})}
        result = subprocess.run(
            list(map(str, command)), env=environment, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
            timeout=PATIENCE_S, **options)
        if check and result.returncode != 0:
            raise Failed(f"{' '.join(map(str, command))}: exit "
                         f"{result.returncode}\n{result.stdout[-6000:]}")
        return result

    def docker(self, *arguments, check=True, **options):
        """Runs docker; returns what it prints."""
        return self.run("docker", *arguments, check=check,
                        **options).stdout.strip()

    def ready(self):
        """For a check that is to be killed."""
        (self.folder / READY).touch()
        signal.pause()

    def inspect(self, name):
        return json.loads(self.docker("inspect", name))[0]


# --- outside


def _processes(name, work):
    """Processes in the check's cgroups or with its folder as QK_WORK."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            settings = (folder / "environ").read_bytes().split(b"\0")
            if (f"/{name}" in (folder / "cgroup").read_text()
                    or f"QK_WORK={work}".encode() in settings):
                command = (folder / "cmdline").read_bytes()
                found.append(f"{folder.name} {command[:200]!r}")
    return found


def _cgroups(name):
    return [folder for controller in (CGROUPS, *CGROUPS.glob("*"))
            if (folder := controller / name).is_dir()]


def _remove_cgroups(name):
    """Removes the check's cgroups; true if there are none. The kernel counts
    ended processes for a moment."""
    for top in _cgroups(name):
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    return not _cgroups(name)


def _end_with_parent():
    """The child ends when this process ends, however that happens."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _left_behind(name, work):
    left = [f"mount {line.split()[1]}" for line in
            pathlib.Path("/proc/self/mounts").read_text().splitlines()
            if str(work) in line]
    left += [f"cgroup {folder}" for folder in _cgroups(name)]
    left += [f"process {line}" for line in _processes(name, work)]
    left += [path for path in TRACES if path not in _traces and
             os.path.exists(path)]
    return left


def _missing():
    """Why no engine can run here, or nothing."""
    if os.geteuid() != 0:
        return "this takes root"
    for program in PROGRAMS:
        if shutil.which(program, path=PATH) is None:
            return f"{program} is not installed"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc",
         "mount", "-t", "tmpfs", "tmpfs", "/run"], check=False,
        capture_output=True, encoding="utf-8")
    if tried.returncode != 0:
        return "no namespaces can be made: " + tried.stderr.strip()
    return ""


def in_namespaces(name, work, check):
    """Starts this program again in namespaces of its own."""
    return subprocess.Popen(
        ["unshare", *(["--net"] if check.network else []), "--mount", "--pid",
         "--fork", "--kill-child", "--mount-proc", sys.executable, "-B",
         sys.argv[0], check.name],
        env={**os.environ, _INSIDE: name, "QK_WORK": str(work)},
        stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent)


def _clear_up(process, name, work):
    # unshare ends after the namespaces' first process, and that after all
    # others in them.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        children = pathlib.Path(
            f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        for child in children.split():
            os.kill(int(child), signal.SIGKILL)
        process.wait(60)
    process.kill()
    process.wait()
    wait_until(lambda: not _processes(name, work),
               lambda: f"its end: {_processes(name, work)}", 60)
    wait_until(lambda: _remove_cgroups(name), "the end of its cgroups", 60)


@dataclasses.dataclass
class Check:
    name: str
    function: object  # is called with an Engine
    network: bool = True  # has a network of its own
    small: bool = True  # makes less than 4 GiB
    # It is killed as soon as it has made the file READY.
    killed: bool = False


def _await_ready(process, work):
    wait_until(lambda: process.poll() is not None or (work / READY).exists(),
               "the check that is to be killed")
    require(process.poll() is None, "ended before it was killed")


def run_and_clear_up(check):
    """Runs this program again, for one check, in namespaces with a folder of
    its own, and clears up. Returns what went wrong."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="engine.",
                                         dir=os.environ.get("QK_WORK")))
    name = f"qkscope-check-{os.getpid()}"
    process = in_namespaces(name, work, check)
    problems = []
    try:
        if check.killed:
            _await_ready(process, work)
        elif process.wait() != 0:
            problems.append(f"exit status {process.returncode}")
    except Failed as failure:
        problems.append(str(failure))
    finally:
        _clear_up(process, name, work)
        shutil.rmtree(work)
    return problems + [f"left behind: {what}"
                       for what in _left_behind(name, work)]


def _end(number, _):
    sys.exit(128 + number)


def _run_inside(check):
    engine = None
    try:
        engine = Engine(pathlib.Path(os.environ["QK_WORK"]), check)
        check.function(engine)
    except Exception:  # whatever it is, the logs tell more
        if engine is not None:
            print(engine.logs(), flush=True)
        traceback.print_exc()
        return 1
    return 0


def main(checks):
    """Returns the exit status of a row of deploy/check.sh."""
    if _INSIDE in os.environ:
        (check,) = [check for check in checks if check.name == sys.argv[1]]
        return _run_inside(check)
    signal.signal(signal.SIGTERM, _end)
    if missing := _missing():
        print(missing)
        return NOT_RUN
    for check in checks:
        problems = run_and_clear_up(check)
        for problem in problems:
            print(f"{check.name}: {problem}")
        if problems:
            return 1
    return 0
