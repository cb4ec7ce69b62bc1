# row: qkctl completes command lines in bash and zsh | run | quick | 15
"""Types into real shells, on a terminal, and looks at the line they make."""

import os
import pty
import re
import select
import signal
import time
import unittest

from programs import PATIENCE_S, Server, end_on_sigterm, work_folder
from rows import build_folder, need, run, step

PROMPT = "<ready>"
# Writes the line that is being edited to a file.
SHOW = b"\x18\x0c"  # Ctrl-X Ctrl-L

BASH = r"""
PS1='<ready'; PS1+='>'
show_line() { printf %s "$READLINE_LINE" >"$SHOWN.part"; mv "$SHOWN.part" "$SHOWN"; }
bind -x '"\C-x\C-l": show_line'
"""
ZSH = r"""
PS1='<ready'; PS1+='>'
show_line() { print -rn -- "$BUFFER" >"$SHOWN.part"; command mv "$SHOWN.part" "$SHOWN" }
zle -N show_line; bindkey '^X^L' show_line; unsetopt zle_bracketed_paste
"""


class Shell:
    """An interactive shell that has read `setup`."""

    def __init__(self, command, setup, folder, environment):
        self.shown = folder / "shown"
        self.output = b""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder / "files")
            os.execvpe(command[0], command,
                       {**os.environ, "TERM": "dumb", "HOME": str(folder),
                        "SHOWN": str(self.shown), **environment})
        os.write(self.terminal, setup.replace("\n", "; ").encode() + b"\n")
        # The words themselves are in the setup; the prompt is in no line of it.
        self.wait(lambda: PROMPT.encode() in self.output)

    def wait(self, condition):
        limit = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < limit, self.output
            if select.select([self.terminal], [], [], 0.05)[0]:
                self.output += os.read(self.terminal, 65536)

    def type(self, keys):
        """Returns the line that is there after these keys."""
        self.shown.unlink(missing_ok=True)
        self.output = b""
        os.write(self.terminal, keys.encode() + SHOW)
        self.wait(self.shown.exists)
        line = self.shown.read_text("utf-8")
        os.write(self.terminal, b"\x15")  # clears the line
        return line

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


class CompletionTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        need("bash", "zsh")
        cls.work = work_folder(cls)
        cls.prefix = cls.work / "prefix"
        run("cmake", "--install", build_folder(), "--prefix", cls.prefix,
            "--component", "client")
        files = cls.work / "files"
        files.mkdir()
        (files / "saved analysis.json").touch()
        (files / "p.safetensors").touch()
        server = Server(cls.work, "--model",
                        f"smollm2={os.environ['QKSCOPE_DEMO_MODEL']}")
        cls.addClassCleanup(server.stop)
        cls.address = server.listen
        step("server")

    def shell(self, command, setup):
        path = f"{self.prefix}/bin:{os.environ['PATH']}"
        shell = Shell(command, setup, self.work,
                      {"PATH": path, "QKSCOPE_SERVER": self.address})
        self.addCleanup(shell.end)
        return shell

    def bash(self, setup=None):
        share = self.prefix / "share/bash-completion/completions/qkctl"
        return self.shell(["bash", "--norc", "-i"],
                          (setup or f"source {share}\n") + BASH.strip())

    def zsh(self, setup=None):
        share = self.prefix / "share/zsh/site-functions"
        return self.shell(
            ["zsh", "-f", "-i"],
            (setup or f"fpath=({share} $fpath)\n"
             "autoload -Uz compinit\ncompinit -u -D\n") + ZSH.strip())

    def both(self, keys, line):
        for name, shell in self.shells.items():
            with self.subTest(keys, shell=name):
                self.assertEqual(shell.type(keys), line)

    def test_lines(self):
        self.shells = {"bash": self.bash(), "zsh": self.zsh()}
        self.both("qkctl hea\t", "qkctl health ")
        self.both("qkctl --ser\t", "qkctl --server ")
        self.both("qkctl analyze --raw-sh\t", "qkctl analyze --raw-sha256 ")
        self.both("qkctl analyze --form norm_o\t",
                  "qkctl analyze --form norm_over_tokens ")
        self.both("qkctl analyze --form=norm_o\t",
                  "qkctl analyze --form=norm_over_tokens ")
        self.both("qkctl analyze --arm top_k:1,replace=zero --exp\t",
                  "qkctl analyze --arm top_k:1,replace=zero --explain ")
        self.both("qkctl analyze --prompt 'a b: c' --exp\t",
                  "qkctl analyze --prompt 'a b: c' --explain ")
        self.both("qkctl analyze --points hook_z,hook_p\t",
                  "qkctl analyze --points hook_z,hook_pattern ")
        self.both("qkctl model unl\t", "qkctl model unload ")
        self.both("qkctl nosuch unl\t", "qkctl nosuch unl")
        step("lines")
        # Names of files, with what must be quoted.
        self.both("qkctl replay p.sa\t", "qkctl replay p.safetensors ")
        self.both("qkctl replay saved\t", "qkctl replay saved\\ analysis.json ")
        self.both("qkctl result x --out=p.sa\t",
                  "qkctl result x --out=p.safetensors ")
        step("files")
        # Names of models, which the server knows.
        self.both("qkctl health --model \t", "qkctl health --model smollm2 ")
        self.both("qkctl health --model=\t", "qkctl health --model=smollm2 ")
        self.both("qkctl models sm\t", "qkctl models smollm2 ")
        # A server that is not there. The line names it with a colon.
        self.both("qkctl health --server 127.0.0.1:1 --model \t",
                  "qkctl health --server 127.0.0.1:1 --model ")
        self.both(f"qkctl health --server {self.address} --model s\t",
                  f"qkctl health --server {self.address} --model smollm2 ")
        # The cursor is in the middle of the line: Ctrl-A, Ctrl-F. zsh adds a
        # space there.
        for shell in self.shells.values():
            line = shell.type("qkctl hea --wait\x01" + "\x06" * 9 + "\t")
            self.assertEqual(line.split(), ["qkctl", "health", "--wait"])
        step("models")

    def test_lists(self):
        """Where several words fit, all are shown: zsh with their meaning."""
        shown = {}
        for name, shell in (("bash", self.bash()), ("zsh", self.zsh())):
            shell.type("qkctl model \t\t")
            shell.wait(lambda: b"reload-config" in shell.output)
            shell.type("qkctl tok\t--ke\t--\t\t")
            shell.wait(lambda: b"--decode" in shell.output)
            shown[name] = shell.output.decode()
        self.assertNotIn("--keep-special", re.sub(
            r".*qkctl tokenize --keep-special", "", shown["bash"], flags=re.S))
        self.assertIn("turn ids into text instead", shown["zsh"])
        step("lists")

    def test_scripts_by_hand(self):
        """As qkctl completion --help says."""
        bash = self.bash("source <(qkctl completion bash)\n")
        self.assertEqual(bash.type("qkctl hea\t"), "qkctl health ")
        zsh = self.zsh("autoload -Uz compinit\ncompinit -u -D\n"
                       "source <(qkctl completion zsh)\n")
        self.assertEqual(zsh.type("qkctl hea\t"), "qkctl health ")
        step("by hand")

    def test_every_flag_is_offered(self):
        qkctl = self.prefix / "bin/qkctl"
        commands = re.findall(r"^  ([a-z-]+) +[A-Z]", run(
            qkctl, "--help").partition("Common flags")[0], re.M)
        self.assertGreaterEqual(len(commands), 18)
        for name in commands:
            flags = re.findall(r"^  (--[a-z0-9-]+)",
                               run(qkctl, name, "--help"), re.M)
            offered = run(qkctl, "completion", "words", "--", name,
                          "-").splitlines()
            self.assertEqual([line.split("\t")[0] for line in offered],
                             ["words", *flags])
        step("flags")


if __name__ == "__main__":
    end_on_sigterm()
    unittest.main()
