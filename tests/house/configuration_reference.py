"""Writes docs/configuration.md, the reference of the server's configuration,
from the comments of proto/qkscope/v1/config.proto and the flags that
server/config/flags.cc knows.

    build/venv/bin/python tests/house/configuration_reference.py            prints it
    build/venv/bin/python tests/house/configuration_reference.py --update   writes it
"""

import pathlib
import re
import sys
import tempfile

import grpc_tools
import grpc_tools.protoc
from google.protobuf import descriptor_pb2

DOCUMENT = "docs/configuration.md"
COMMAND = "build/venv/bin/python tests/house/configuration_reference.py"
HEADER = f"""\
# The server's configuration

`qkscoped --config FILE` reads a `ServerConfig` as
[text proto](https://protobuf.dev/reference/protobuf/textformat-spec/). Flags override it. `qkscoped --config FILE
--check-config` says what is wrong with one. This page is made from
[config.proto](../proto/qkscope/v1/config.proto) by `{COMMAND} --update`.

```proto
listen: "127.0.0.1:7461"
models {{ name: "smollm2" path: "SmolLM2-135M-Instruct-Q4_1.gguf" }}
spool {{ directory: "/var/lib/qkscope/spool" }}
limits {{ max_new_tokens: 1024 max_buffered_bytes: 268435456 }}
```
"""
# Flags whose names are not those of their fields.
FLAGS = {
    ("ServerConfig", "models"): "--model",
    ("SpoolConfig", "directory"): "--spool",
    ("TlsConfig", "certificate_file"): "--tls-cert",
    ("TlsConfig", "key_file"): "--tls-key",
    ("TlsConfig", "client_ca_file"): "--tls-client-ca",
}
# Flags that are no settings.
ACTIONS = {"--config", "--check-config", "--help", "--version"}

_Field = descriptor_pb2.FieldDescriptorProto


def read_config(root):
    """Returns the FileDescriptorProto of config.proto, with its comments."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "set"
        if grpc_tools.protoc.main(
                ["protoc", f"-I{root / 'proto'}", "--include_source_info",
                 f"--descriptor_set_out={out}",
                 "qkscope/v1/config.proto"]) != 0:
            raise SystemExit("protoc cannot read config.proto")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return files.file[0]


def flags_in_help(root):
    source = (root / "server/config/flags.cc").read_text()
    help_text = re.search(r'kHelp\[\] =\s*R"\((.*?)\n\)";', source, re.S)[1]
    usage = help_text.partition("\nLogs are")[0]
    # A line of flags may have words on the right, after a gap.
    names = set()
    for line in usage.splitlines():
        if line.startswith("  --"):
            left = line.strip().partition("   ")[0]
            names.update(re.findall(r"--[a-z-]+", left))
    return names


def _comments(file):
    """Returns the comment of each part by its path in the file."""
    return {tuple(location.path):
            " ".join(f"{location.leading_comments} "
                     f"{location.trailing_comments}".split())
            for location in file.source_code_info.location}


def _type(field):
    if field.type_name:
        name = field.type_name.rpartition(".")[2]
        return name
    return _Field.Type.Name(field.type).removeprefix("TYPE_").lower()


def _cell(text):
    return text.replace("|", "\\|")


def _flag(message, field, known):
    flag = FLAGS.get((message, field.name))
    if (flag is None and message == "ServerConfig"
            and field.type != _Field.TYPE_MESSAGE):
        flag = "--" + field.name.replace("_", "-")
    return flag if flag in known else None


def _message(message, path, comments, flags, used):
    lines = [f"## {message.name}", ""]
    if comments.get(path):
        lines += [comments[path], ""]
    lines += ["| field | type | meaning |", "|---|---|---|"]
    for i, field in enumerate(message.field):
        kind = _type(field)
        if field.type == _Field.TYPE_MESSAGE:
            kind = f"[{kind}](#{kind.lower()})"
        if field.label == _Field.LABEL_REPEATED:
            kind += ", repeated"
        meaning = comments.get((*path, 2, i), "")
        if field.type == _Field.TYPE_ENUM:
            meaning += _values(message, path, field, comments)
        flag = _flag(message.name, field, flags)
        if flag:
            used.add(flag)
            meaning += f" Flag: `{flag}`."
        lines.append(f"| `{field.name}` | {kind} | {_cell(meaning.strip())} |")
    return lines + [""]


def _values(message, path, field, comments):
    name = field.type_name.rpartition(".")[2]
    for i, enum in enumerate(message.enum_type):
        if enum.name == name:
            before = comments.get((*path, 4, i), "")
            return f" {before} " + " ".join(
                f"`{value.name}`: {comments[(*path, 4, i, 2, j)]}"
                for j, value in enumerate(enum.value))
    return ""


def make(root):
    """Returns the document. A flag without a setting is an error."""
    file = read_config(root)
    comments = _comments(file)
    flags = flags_in_help(root)
    used = set()
    lines = []
    for i, message in enumerate(file.message_type):
        lines += _message(message, (4, i), comments, flags, used)
    unknown = flags - used - ACTIONS
    if unknown:
        raise ValueError(f"flags that set no field: {sorted(unknown)}")
    return HEADER + "\n" + "\n".join(lines).rstrip() + "\n"


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    if sys.argv[1:] == ["--update"]:
        (root / DOCUMENT).write_text(make(root))
    else:
        print(make(root), end="")


if __name__ == "__main__":
    main()
