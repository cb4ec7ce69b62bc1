"""Holds the API in proto/ against proto/api.txt, which lists every name, number
and type of it and the release that each came with.

What a release has, stays: names, numbers and types do not change, and a field
or enum value that goes leaves both its number and its name reserved. Additions
are free; each needs a line in CHANGELOG.md. What has been in no release yet may
still change.

    build/venv/bin/python tests/house/proto_api.py             what is wrong
    build/venv/bin/python tests/house/proto_api.py --update    lists what is new
    build/venv/bin/python tests/house/proto_api.py --release X.Y.Z
        gives what is unreleased a version, here and in CHANGELOG.md
"""

import argparse
import dataclasses
import datetime
import pathlib
import re
import sys
import tempfile

import grpc_tools
import grpc_tools.protoc
from google.protobuf import descriptor_pb2

PACKAGE = "qkscope.v1"
LIST = "proto/api.txt"
CHANGELOG = "CHANGELOG.md"
UNRELEASED = "unreleased"
# The release with which the list began: its parts were not additions.
FIRST = "0.1.0"
COMMAND = "build/venv/bin/python tests/house/proto_api.py"
HEADER = f"""\
# The whole API: the release that each part came with, its kind, name and type.
# "A-B": it came with A and left with B. Do not edit: tests/house/proto_api.py
# writes this and says what may change.
"""
LINE = re.compile(r"(?P<since>[^- ]+)(?:-(?P<until>\S+))? (?P<kind>\w+) "
                  r"(?P<name>[\w.]+)(?P<type>.*)")

_Field = descriptor_pb2.FieldDescriptorProto


class CannotRead(Exception):
    pass


@dataclasses.dataclass
class Part:
    """A message, field, enum, value, service or rpc."""
    kind: str
    name: str  # "Layer.crc32c"
    type: str  # " = 14, fixed32"
    since: str = UNRELEASED
    until: str = ""  # the release that removed it

    @property
    def key(self):
        return self.kind, self.name

    @property
    def parent(self):
        return self.name.rpartition(".")[0]

    def line(self):
        span = f"{self.since}-{self.until}" if self.until else self.since
        return f"{span} {self.kind} {self.name}{self.type}"

    def __str__(self):
        return f"{self.kind} {self.name}"


@dataclasses.dataclass
class Api:
    parts: dict  # by key, in the order of the files
    reserved: dict  # by message or enum: its reserved names and numbers

    def is_reserved(self, part):
        """Returns whether a field's or value's name and number are reserved."""
        names, ranges = self.reserved.get(part.parent, (set(), []))
        number = int(re.match(r" = (-?\d+)", part.type)[1])
        return (part.name.rpartition(".")[2] in names
                and any(begin <= number <= end for begin, end in ranges))


# ---------------------------------------------------------------- proto/

def read_protos(root):
    """Returns the Api in root/proto."""
    protos = sorted(str(path) for path in root.glob("proto/qkscope/v1/*.proto"))
    googles = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "set"
        if not protos or grpc_tools.protoc.main(
                ["protoc", f"-I{root / 'proto'}", f"-I{googles}",
                 f"--descriptor_set_out={out}", *protos]) != 0:
            raise CannotRead(f"protoc cannot read {root / 'proto'}")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    api = Api({}, {})
    for file in files.file:
        if file.package != PACKAGE:
            raise CannotRead(f"{file.name}: its package is not {PACKAGE}")
        for enum in file.enum_type:
            _add_enum(api, "", enum)
        for message in file.message_type:
            _add_message(api, "", message)
        for service in file.service:
            _add(api, "service", service.name, "")
            for rpc in service.method:
                _add(api, "rpc", f"{service.name}.{rpc.name}", _rpc_type(rpc))
    return api


def _add(api, kind, name, type_):
    api.parts[kind, name] = Part(kind, name, type_)


def _add_enum(api, outer, enum):
    name = outer + enum.name
    _add(api, "enum", name, "")
    # An enum's ranges include their end, a message's do not.
    api.reserved[name] = (set(enum.reserved_name),
                          [(r.start, r.end) for r in enum.reserved_range])
    for value in enum.value:
        _add(api, "value", f"{name}.{value.name}", f" = {value.number}")


def _add_message(api, outer, message):
    name = outer + message.name
    _add(api, "message", name, "")
    api.reserved[name] = (set(message.reserved_name),
                          [(r.start, r.end - 1) for r in message.reserved_range])
    maps = {f".{PACKAGE}.{name}.{nested.name}": nested
            for nested in message.nested_type if nested.options.map_entry}
    for field in message.field:
        _add(api, "field", f"{name}.{field.name}",
             f" = {field.number}, {_field_type(field, message, maps)}")
    for enum in message.enum_type:
        _add_enum(api, name + ".", enum)
    for nested in message.nested_type:
        if not nested.options.map_entry:
            _add_message(api, name + ".", nested)


def _plain_type(field):
    if field.type_name:
        return field.type_name.removeprefix(f".{PACKAGE}.").removeprefix(".")
    return _Field.Type.Name(field.type).removeprefix("TYPE_").lower()


def _field_type(field, message, maps):
    if field.type_name in maps:
        key, value = maps[field.type_name].field
        return f"map<{_plain_type(key)}, {_plain_type(value)}>"
    if field.label == _Field.LABEL_REPEATED:
        return f"repeated {_plain_type(field)}"
    if field.proto3_optional:
        return f"optional {_plain_type(field)}"
    if field.HasField("oneof_index"):
        oneof = message.oneof_decl[field.oneof_index].name
        return f"{_plain_type(field)} in oneof {oneof}"
    return _plain_type(field)


def _rpc_type(rpc):
    sides = [("stream " if streams else "") +
             type_.removeprefix(f".{PACKAGE}.").removeprefix(".")
             for streams, type_ in [(rpc.client_streaming, rpc.input_type),
                                    (rpc.server_streaming, rpc.output_type)]]
    return ": {} -> {}".format(*sides)


# ---------------------------------------------------------------- the list

def read_list(root):
    """Returns the parts in root's api.txt, by key."""
    parts = {}
    for number, line in enumerate((root / LIST).read_text().splitlines(), 1):
        if line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if not match:
            raise CannotRead(f"{LIST}:{number}: cannot read {line!r}")
        part = Part(match["kind"], match["name"], match["type"],
                    match["since"], match["until"] or "")
        if part.key in parts:
            raise CannotRead(f"{LIST}:{number}: {part} a second time")
        parts[part.key] = part
    return parts


def write_list(root, parts):
    lines = [part.line() for part in parts]
    (root / LIST).write_text(HEADER + "\n".join(lines) + "\n")


# ---------------------------------------------------------------- the rules

def breaks(listed, api):
    """Returns changes that would break programs of a released version."""
    found = []
    for part in listed.values():
        now = api.parts.get(part.key)
        leaves_with = _outermost_missing(part, listed, api)
        if part.since == UNRELEASED or leaves_with not in (None, part):
            continue
        if now is not None and part.until:
            found.append(f"{part} is back: it left with {part.until}. Give the "
                         "new one another name and number.")
        elif now is not None and now.type != part.type:
            found.append(f"{part} was{_said(part.type)} and is now"
                         f"{_said(now.type)}. Releases have it as it was: keep "
                         "it, and add what you need under a new name and "
                         "number.")
        elif now is None and part.kind not in ("field", "value"):
            found.append(f"{part} is missing. Releases have it: it stays.")
        elif now is None and not api.is_reserved(part):
            number = re.match(r" = (-?\d+)", part.type)[1]
            name = part.name.rpartition(".")[2]
            found.append(
                f"{part} is missing. Releases have it: keep it, or write "
                f"`reserved {number}; reserved \"{name}\";` into {part.parent} "
                "in its place. (A new name is a removal and an addition.)")
    return found


def _said(type_):
    return f" `{type_.lstrip(' :')}`"


def _outermost_missing(part, listed, api):
    """Returns the outermost of `part` and its parents now missing."""
    words = part.name.split(".")
    for end in range(1, len(words) + 1):
        for kind in ("message", "enum", "service", part.kind):
            key = kind, ".".join(words[:end])
            if key in listed and key not in api.parts:
                return listed[key]
    return None


def updated(listed, api):
    """Returns the parts of the new list, in order. `breaks` must be empty."""
    parts = []
    for key, part in api.parts.items():
        old = listed.get(key, part)
        parts.append(dataclasses.replace(part, since=old.since))
    for key, part in listed.items():
        if key not in api.parts and part.since != UNRELEASED:
            parts.append(dataclasses.replace(part,
                                             until=part.until or UNRELEASED))
    return parts


def not_in_changelog(listed, changelog):
    """Returns changes that their release's section does not name."""
    sections = {}
    for section in re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]:
        title = re.match(r"\[([^\]]+)\]", section)
        if title:
            sections[title[1].lower()] = section
    found = []
    for part in listed.values():
        for release, verb in ((part.since, "is new"), (part.until, "is gone")):
            inside = any(
                listed[kind, part.parent].since == release
                for kind in ("message", "enum", "service")
                if (kind, part.parent) in listed)
            if release in ("", FIRST) or (inside and verb == "is new"):
                continue
            name = rf"(?<![\w.]){re.escape(part.name)}(?![\w.]*\w)"
            if not re.search(name, sections.get(release, "")):
                title = "Unreleased" if release == UNRELEASED else release
                found.append(f"{part} {verb}: write a line about it under "
                             f"\"## [{title}]\" in {CHANGELOG} that names "
                             f"`{part.name}`.")
    return found


def problems(root):
    """Returns lines, each saying what is wrong and what to do."""
    api = read_protos(root)
    listed = read_list(root)
    found = breaks(listed, api)
    if found:
        return found
    wanted = {part.key: part for part in updated(listed, api)}
    stale = [str(part) for part in wanted.values()
             if listed.get(part.key) != part]
    stale += [str(part) for key, part in listed.items() if key not in wanted]
    if stale:
        found.append(f"{LIST} is not up to date with proto/ "
                     f"({', '.join(stale)}): run `{COMMAND} --update` and "
                     "commit it.")
    return found + not_in_changelog(wanted, (root / CHANGELOG).read_text())


def update(root):
    """Writes the list anew, unless the API breaks it; returns the breaks."""
    api = read_protos(root)
    listed = read_list(root)
    found = breaks(listed, api)
    if not found:
        write_list(root, updated(listed, api))
    return found


def release(root, version):
    """Gives the unreleased parts a version, in the list and the changelog; if
    something is wrong, returns that instead."""
    found = problems(root)
    if found:
        return found
    parts = read_list(root).values()
    write_list(root, [dataclasses.replace(
        part,
        since=version if part.since == UNRELEASED else part.since,
        until=version if part.until == UNRELEASED else part.until)
        for part in parts])
    changelog = (root / CHANGELOG).read_text()
    (root / CHANGELOG).write_text(changelog.replace(
        "## [Unreleased]\n",
        f"## [Unreleased]\n\n## [{version}] - {datetime.date.today()}\n", 1))
    return problems(root)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--release", metavar="X.Y.Z")
    arguments = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2]
    if arguments.release:
        found = release(root, arguments.release)
    else:
        found = (update(root) if arguments.update else []) or problems(root)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
