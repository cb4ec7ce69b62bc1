"""The include rules of docs/folders.md, and a check of a tree against them."""

import dataclasses
import pathlib
import re

INCLUDE = re.compile(r'^\s*#\s*include\s+"((?:server|engine|client|tests)/[^"]+)"')
SOURCES = (".cc", ".h", ".cu", ".cuh")


@dataclasses.dataclass
class Rule:
    folder: str
    text: str  # the row's last column
    folders: set  # that it may include
    files: set  # single headers that any of its files may include
    pairs: set  # (header, file): one header, for one file only


class BadTable(Exception):
    pass


def read_rules(table_file):
    """Returns {folder: Rule}. Folders end in "/"."""
    rules = {}
    table = []  # of the present heading
    for line in table_file.read_text().splitlines() + ["## end"]:
        if line.startswith("## "):
            for index, (folder, text) in enumerate(table):
                lower = {name for name, _ in table[index + 1:]}
                rules[folder] = _rule(folder, text, lower)
            table = []
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if line.startswith("| `") and len(cells) == 3:
            table.append((cells[0].strip("`"), cells[2]))
    known = set(rules)
    for rule in rules.values():
        for folder in rule.folders - known:
            raise BadTable(f"{rule.folder} may include {folder}, which has no "
                           "row of its own")
    return rules


def _rule(folder, text, lower):
    rule = Rule(folder, text, {folder}, set(), set())
    for part in text.split(", "):
        pair = re.fullmatch(r"`([^`]+)` from `([^`]+)`", part)
        if part == "lower":
            rule.folders |= lower
        elif pair:
            rule.pairs.add((pair[1], pair[2]))
        elif re.fullmatch(r"`[^`]+/`", part):
            rule.folders.add(part.strip("`"))
        elif re.fullmatch(r"`[^`]+\.h`", part):
            rule.files.add(part.strip("`"))
        elif part != "nothing":
            raise BadTable(f"{folder}: cannot read {part!r}")
    return rule


def violations(root, rules):
    """Lines "FILE:LINE: ...", one for each include that is not allowed."""
    found = []
    for top in ("server", "engine", "client"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix not in SOURCES:
                continue
            name = path.relative_to(root).as_posix()
            folder = name.rsplit("/", 1)[0] + "/"
            if folder not in rules:
                found.append(f"{name}:1: the folder {folder} has no row in the "
                             "table")
                continue
            found += _of_file(path, name, rules[folder])
    return found


def _of_file(path, name, rule):
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        header = match[1]
        allowed = (header.rsplit("/", 1)[0] + "/" in rule.folders
                   or header in rule.files or (header, name) in rule.pairs)
        if not allowed:
            found.append(f"{name}:{number}: includes {header}; {rule.folder} "
                         f"may include: {rule.text}")
    return found


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    for line in violations(root, read_rules(root / "docs/folders.md")):
        print(line)


if __name__ == "__main__":
    main()
