"""Writes the man pages of qkscoped, qkctl and qkscoped.conf.

    python3 make_man.py QKSCOPED QKCTL CONFIG_PROTO OUT_FOLDER

The first two are programs, whose --help and --version are asked; the third is
proto/qkscope/v1/config.proto, whose comments say what the settings mean.
"""

import os
import pathlib
import re
import subprocess
import sys

SPECIAL = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha",
           "~": "\\(ti"}


def escaped(text):
    text = "".join(SPECIAL.get(c, c) for c in text)
    return re.sub(r"(?m)^(?=\.)", r"\\&", text)


def bold(text):
    return f"\\fB{escaped(text)}\\fR"


def run(program, *arguments):
    environment = {key: value for key, value in os.environ.items()
                   if not key.startswith("QKSCOPE_")}
    return subprocess.run([program, *arguments], check=True,
                          stdout=subprocess.PIPE, encoding="utf-8",
                          env=environment).stdout


def version_of(program):
    return run(program, "--version").split()[-1]


def header(name, section, version, manual, summary):
    return [f'.TH {name.upper()} {section} "" "qkscope {version}" "{manual}"',
            ".SH NAME", f"{escaped(name)} \\- {escaped(summary)}"]


def flag_term(left):
    """Returns "--name VALUE --other VALUE" with names bold, values italic."""
    left = re.sub(r"[A-Z]+(?:\[[^\]]*\])?", lambda m: f"\\fI{m[0]}\\fR",
                  escaped(left))
    return re.sub(r"(?<!\S)\\-\\-[a-z0-9\\-]+[a-z0-9]", lambda m: f"\\fB{m[0]}\\fR",
                  left)


class HelpText:
    """Turns the lines of a --help into those of a man page."""

    def __init__(self, text, heading):
        self.lines = text.rstrip("\n").split("\n")
        self.heading = heading  # ".SH" or ".SS"
        self.out = []

    def convert(self):
        at = 0
        while at < len(self.lines):
            line = self.lines[at]
            if not line:
                at += 1
            elif line.startswith("  --"):
                at = self.flag(at)
            elif line.startswith(" "):
                at = self.block(at)
            elif self.is_title(at):
                title = line[:-1]
                if self.heading == ".SH":
                    title = title.upper()
                self.out.append(f"{self.heading} {escaped(title)}")
                at += 1
            else:
                at = self.paragraph(at)
        return self.out

    def is_title(self, at):
        line = self.lines[at]
        return (line.endswith(":") and ". " not in line
                and self.indented(at + 1))

    def indented(self, at):
        return at < len(self.lines) and self.lines[at].startswith(" ")

    def flag(self, at):
        left, _, right = self.lines[at].strip().partition("  ")
        at += 1
        # The term may go on below, and its text is further to the right.
        while at < len(self.lines) and re.match(r" {6}\[", self.lines[at]):
            left += self.lines[at].strip()
            at += 1
        text = [right.strip()] if right else []
        while at < len(self.lines) and re.match(r" {10}", self.lines[at]):
            text.append(self.lines[at].strip())
            at += 1
        # A path may have been broken after a slash.
        text = " ".join(text).replace("/ ", "/")
        self.out += [".TP", flag_term(left), escaped(text)]
        return at

    def block(self, at):
        self.out += [".PP", ".EX"]
        while (self.indented(at)
               and not self.lines[at].startswith("  --")):
            self.out.append(escaped(self.lines[at]))
            at += 1
        self.out.append(".EE")
        return at

    def paragraph(self, at):
        self.out.append(".PP")
        while (at < len(self.lines) and self.lines[at]
               and not self.indented(at)):
            self.out.append(escaped(self.lines[at]))
            at += 1
        return at


def split_usage(text):
    """Returns (what precedes the usage line, its arguments, the rest)."""
    before, rest = re.split(r"^Usage: ", text, maxsplit=1, flags=re.M)
    usage, _, rest = rest.partition("\n")
    return before.strip(), usage, rest


def qkscoped_page(program):
    before, usage, rest = split_usage(run(program, "--help"))
    summary = before.partition(" - ")[2]
    return [
        *header("qkscoped", 8, version_of(program), "System administration",
                summary),
        ".SH SYNOPSIS", escaped(usage),
        ".SH OPTIONS", *HelpText(rest, ".SH").convert(),
        ".SH FILES",
        ".TP", "\\fI/etc/qkscope/qkscoped.conf\\fR",
        "The configuration that the systemd unit names.",
        ".SH SEE ALSO", "\\fBqkscoped.conf\\fR(5), \\fBqkctl\\fR(1)"]


def qkctl_page(program):
    before, usage, rest = split_usage(run(program, "--help"))
    names = re.findall(r"^  ([a-z-]+) +\S", rest.partition("\n\nSee ")[0],
                       re.M)
    summary = before.partition(" ")[2].rstrip(".")
    common = re.split(r"^(?=Common flags:$)", rest, flags=re.M)
    page = [*header("qkctl", 1, version_of(program), "User commands", summary),
            ".SH SYNOPSIS", escaped(usage),
            *HelpText(rest, ".SH").convert()]
    for name in names:
        _, usage, text = split_usage(run(program, name, "--help"))
        # These flags, and the exit codes, are those above.
        text = re.split(r"^Common flags:$", text, flags=re.M)[0]
        page += [f".SH {escaped(name).upper()}", bold(usage),
                 *HelpText(text, ".SS").convert()]
    assert len(common) == 2 and names
    return [*page, ".SH SEE ALSO", "\\fBqkscoped\\fR(8)"]


FIELD = re.compile(r"(?:(optional|repeated) )?([\w.]+) (\w+) = \d+;"
                   r"(?:\s*// (.*))?")
VALUE = re.compile(r"(\w+) = \d+;(?:\s*// (.*))?")
IGNORED = re.compile(r'(syntax|package|import|reserved)\b.*;')


def read_proto(text):
    """Returns {message: (comment, [(kind, type, name, comment)])}.

    An enum's values have the kind "value".
    """
    messages, stack, comment = {}, [], []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        opens = re.fullmatch(r"(?:message|enum) (\w+) \{(?: *// (.*))?", line)
        field = FIELD.fullmatch(line)
        value = VALUE.fullmatch(line)
        if line.startswith("//"):
            comment.append(line[2:].strip())
            continue
        if opens:
            messages[opens[1]] = (" ".join(filter(None, [*comment, opens[2]])),
                                  [])
            stack.append(opens[1])
        elif line == "}":
            stack.pop()
        elif value or field:
            kind, type_, name, after = (
                ("value", "", *value.groups()) if value else field.groups())
            messages[stack[-1]][1].append(
                (kind, type_, name, " ".join(filter(None, [*comment, after]))))
        elif line and not IGNORED.fullmatch(line):
            raise ValueError(f"line {number} is not understood: {line}")
        comment = []
    return messages


EXAMPLE = """\
models { name: "smollm2" path: "/srv/qkscope/smollm2.gguf" }
spool { directory: "/var/lib/qkscope/spool" }
users_file: "/etc/qkscope/users.conf"
limits { max_queued_requests: 64 }"""


def settings(fields, messages):
    lines = []
    for kind, type_, name, comment in fields:
        if kind == "value":
            term = bold(name)
        elif type_ in messages and messages[type_][1][0][0] != "value":
            term = f"{bold(name)} {{ \\fI{type_}\\fR }}"
        else:
            term = f"{bold(name)}: \\fI{type_}\\fR"
        if kind == "repeated":
            term += " (may be repeated)"
        lines += [".TP", term, escaped(comment) or "\\&"]
    return lines


def config_page(proto, version):
    messages = read_proto(proto)
    _, top = messages.pop("ServerConfig")
    page = [*header("qkscoped.conf", 5, version, "File formats",
                    "configuration of qkscoped"),
            ".SH DESCRIPTION",
            "The file is a text proto of the message qkscope.v1.ServerConfig: "
            "settings as", ".I name: value", "and groups of them as",
            ".IR \"name { ... }\" ,", "with comments after #. Flags of",
            ".BR qkscoped (8)", "override it.",
            ".B qkscoped \\-\\-config", ".I FILE", ".B \\-\\-check\\-config",
            "says what is wrong with it.",
            ".SH EXAMPLE", ".EX", *escaped(EXAMPLE).split("\n"), ".EE",
            ".SH SETTINGS", *settings(top, messages)]
    for name, (comment, fields) in messages.items():
        page += [f".SH {name}"]
        if comment:
            page += [escaped(comment)]
        page += settings(fields, messages)
    return [*page, ".SH SEE ALSO", "\\fBqkscoped\\fR(8), \\fBqkctl\\fR(1)"]


def main(qkscoped, qkctl, proto, folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    proto = pathlib.Path(proto).read_text("utf-8")
    for name, page in (("qkscoped.8", qkscoped_page(qkscoped)),
                       ("qkctl.1", qkctl_page(qkctl)),
                       ("qkscoped.conf.5",
                        config_page(proto, version_of(qkscoped)))):
        (folder / name).write_text("\n".join(page) + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
