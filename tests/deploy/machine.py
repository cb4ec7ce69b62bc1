"""A Debian machine with systemd, in systemd-nspawn, for the package's tests."""

import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess

from programs import PATIENCE_S, ROOT, wait_until
from rows import run

BASE = ["systemd", "systemd-sysv", "logrotate"]


def make_packages(out, build, *arguments):
    """Builds the .deb files, and returns {package: file}."""
    with open(out.parent / f"{out.name}.log", "w", encoding="utf-8") as log:
        run("bash", ROOT / "deploy/debian/build.sh", "--build", build, *arguments, out,
            stdout=log, stderr=log)
    files = {file.name.partition("_")[0]: file for file in out.glob("*.deb")}
    assert set(files) == {"qkscope-server", "qkscope-client",
                          "libqkscope-dev"}, files
    return files


def dependencies(*packages):
    """Returns the names of what the .deb files depend on, without versions."""
    names = set()
    for package in packages:
        for part in run("dpkg-deb", "-f", package, "Depends").split(","):
            names.add(re.match(r"[^ (|:]+", part.strip())[0])
    return sorted(names)


def root_archive(names):
    """Makes a Debian root with these packages, once, beside QK_ROOT_TAR."""
    names = sorted({*names, *BASE})
    folder = pathlib.Path(os.environ["QK_ROOT_TAR"]).parent
    key = hashlib.sha256(" ".join(names).encode()).hexdigest()[:12]
    archive = folder / f"package_root-{key}.tar"
    with open(folder / "package_root.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            for old in folder.glob("package_root-*.tar"):
                old.unlink()
            part = folder / "package_root.part.tar"
            run("mmdebstrap", "--quiet", "--variant=minbase",
                f"--include={','.join(names)}", "bookworm", part)
            part.rename(archive)
    return archive


class Machine:
    """Boots a root folder. Its network has nothing but loopback."""

    def __init__(self, root, *binds):
        self.root = root
        self.name = f"qkscope-{os.getpid()}"
        self.binds = [f"--bind-ro={source}:{target}"
                      for source, target in binds]
        self.process = None
        self.leader = None

    def boot(self):
        with open(f"{self.root}.console", "ab") as console:
            self.process = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit",
                 "--boot", f"--directory={self.root}",
                 f"--machine={self.name}", "--private-network",
                 "--console=read-only", *self.binds],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        wait_until(self._is_up, "the machine boots")

    def _is_up(self):
        assert self.process.poll() is None, self.console()
        children = pathlib.Path(
            f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.leader = (children.read_text().split() or [None])[0]
        if self.leader is None:
            return False
        state = self.run("systemctl", "is-system-running", check=False)
        return state.stdout.strip() == "running"

    def console(self):
        return pathlib.Path(f"{self.root}.console").read_text(
            "utf-8", "replace")[-4000:]

    def command(self, *command):
        return ["nsenter", "--target", self.leader, "--all", "--wdns=/",
                "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8",
                *map(str, command)]

    def run(self, *command, **more):
        """As rows.run, inside."""
        return run(*self.command(*command),
                   **{"stderr": subprocess.STDOUT, **more})

    def show(self, unit):
        """Returns the unit's properties."""
        lines = self.run("systemctl", "show", unit).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)  # systemd-nspawn: power off
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            # Its init's end is that of all processes inside.
            os.kill(int(self.leader), signal.SIGKILL)
            self.process.wait(PATIENCE_S)
        self.process = None
        # systemd-nspawn leaves it where /run is on a disk.
        shutil.rmtree(f"/run/systemd/nspawn/propagate/{self.name}",
                      ignore_errors=True)
