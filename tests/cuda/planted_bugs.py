"""Plants bugs in the CUDA kernels, one at a time, and checks that the tests
under the emulation find each: a kernel's test must fail, in the plain build or
in one with a sanitizer.

    planted_bugs.py BUILD...    folders of built tests, e.g. build/release
"""

import dataclasses
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

import bugs

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMEOUT = 300  # seconds; a kernel that hangs is found


class Build:
    """A build folder whose tests are built."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder).resolve()
        commands = json.loads(
            (self.folder / "compile_commands.json").read_text())
        self.commands = {
            pathlib.Path(c["file"]).name: c for c in commands
            if "/cuda_on_cpu/" in c.get("output", c["command"])
        }

    def run(self, name):
        return subprocess.run(name, cwd=self.folder, capture_output=True,
                              text=True, timeout=TIMEOUT, check=False)

    def compile(self, source, includes, to):
        """Compiles source, as the kernel of that name is compiled."""
        command = self.commands[source.name]
        words = shlex.split(command["command"])
        words[words.index("-o") + 1] = str(to)
        words[words.index("-c") + 1] = str(source)
        words = [w for w in words if "ccache" not in w]
        words.insert(1, f"-I{includes}")
        done = self.run(words)
        if done.returncode != 0:
            sys.exit(f"{source}: does not compile:\n{done.stderr}")

    def link(self, test, object_file, to):
        """Links a test; object_file stands for the library's member."""
        plan = self.run(["ninja", "-t", "commands", "-s", f"bin/{test}"])
        words = shlex.split(plan.stdout.strip().splitlines()[-1])
        words = words[words.index("&&") + 1:]
        words = words[:words.index("&&")]
        words[words.index("-o") + 1] = str(to)
        library = next(i for i, w in enumerate(words)
                       if w.endswith("libqk_cuda_on_cpu.a"))
        words.insert(library, str(object_file))
        done = self.run(words)
        if done.returncode != 0:
            sys.exit(f"{test}: does not link:\n{done.stderr}")

    def finds(self, bug, folder):
        """Returns what a test says about the bug; "" if it passes."""
        object_file, test = folder / "kernel.o", folder / "test"
        kernel = folder / "engine/cuda" / bug.kernel
        self.compile(kernel, folder, object_file)
        self.link(f"cuda_{bug.test}_kernels_test", object_file, test)
        try:
            done = self.run([test, f"--gtest_filter={bug.filter}"])
        except subprocess.TimeoutExpired:
            return "it hangs"
        if done.returncode == 0:
            if "1 test" not in done.stdout and "tests ran" not in done.stdout:
                sys.exit(f"{bug.name}: {bug.filter} runs no test")
            return ""
        for line in (done.stdout + done.stderr).splitlines():
            if any(mark in line for mark in (
                    "Failure", ".cu:", "ERROR: Addr", "WARNING: Thread",
                    "runtime error")):
                return line.strip()[:100]
        return f"exit {done.returncode}"


def plant(bug, folder):
    """Copies the bug's files into folder, with the bug."""
    to = folder / "engine/cuda"
    to.mkdir(parents=True)
    for name in {bug.kernel, bug.file}:
        (to / name).write_text((ROOT / "engine/cuda" / name).read_text())
    text = (to / bug.file).read_text()
    if text.count(bug.old) != 1:
        sys.exit(f"{bug.name}: {bug.file} has {text.count(bug.old)} times "
                 f"{bug.old!r}, expected 1")
    (to / bug.file).write_text(text.replace(bug.old, bug.new))


def main():
    builds = [Build(folder) for folder in sys.argv[1:]]
    if not builds:
        sys.exit(__doc__)
    missed = 0
    clean = {}  # each kernel's tests first without a bug
    for bug in bugs.BUGS:
        key = (bug.test, bug.filter, bug.kernel)
        clean.setdefault(key, dataclasses.replace(
            bug, name=f"no bug in {bug.kernel}, {bug.filter}", new=bug.old))
    planted = list(clean.values()) + bugs.BUGS
    for bug in planted:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            plant(bug, folder)
            found = {}
            wanted = bug.old != bug.new
            # That tests are clean under sanitizers is CTest's to show.
            for build in builds if wanted else builds[:1]:
                said = build.finds(bug, folder)
                if said:
                    found[build.folder.name] = said
                    break
        good = bool(found) == wanted
        missed += not good
        what = "; ".join(f"{k}: {v}" for k, v in found.items()) or "passes"
        print(f"{'ok    ' if good else 'MISSED'} {bug.name}: {what}",
              flush=True)
    print(f"{len(planted) - missed} passed, {missed} failed")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
