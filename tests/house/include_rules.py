"""The include rules of docs/folders.md, and a check of a tree against them."""

import dataclasses
import pathlib
import re
import sys

TABLES = "docs/folders.md"
TOPS = ("server", "engine", "client")
SOURCES = (".cc", ".h", ".cu", ".cuh")
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]')
PROJECT_HEADER = re.compile(r"(server|engine|client|tests)/.*")
# CUDA's headers are for one folder, and its launches for one file.
CUDA_FOLDER = "engine/cuda/"
CUDA_LAUNCH = "engine/cuda/launch.h"
CUDA_HEADER = re.compile(r"(cu|nv)[A-Za-z0-9_]*\.h|(nv|cooperative_groups)/.*")
HEADER_CELLS = ["folder", "one sentence", "may include"]


@dataclasses.dataclass
class Rule:
    folder: str
    line: int  # of its row
    text: str  # the row's last column
    folders: set  # that it may include
    files: set  # single headers that any of its files may include
    pairs: set  # (header, file): one header, for one file only


class BadTable(Exception):
    pass


def _bad(line, what):
    return BadTable(f"{TABLES}:{line}: {what}")


def read_rules(root):
    """Returns {folder: Rule}. Folders end in "/"."""
    rules = {}
    for rows in _tables((root / TABLES).read_text().splitlines()):
        for index, (line, folder, text) in enumerate(rows):
            if folder in rules:
                raise _bad(line, f"{folder} has a row at line "
                           f"{rules[folder].line} already")
            lower = {row[1] for row in rows[index + 1:]}
            rules[folder] = _rule(folder, line, text, lower)
    if not rules:
        raise _bad(1, "there is no table")
    for rule in rules.values():
        _check_names(root, rule, rules)
    return rules


def _tables(lines):
    """Returns the rows (line, folder, what it may include) of each table."""
    tables = []
    inside = False
    for number, line in enumerate(lines, 1):
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not inside:
            if cells != HEADER_CELLS:
                raise _bad(number, f"a table begins with the columns "
                           f"{HEADER_CELLS}, not {cells}")
            tables.append([])
            inside = True
        elif not all(set(cell) <= set("-") for cell in cells):
            if len(cells) != 3:
                raise _bad(number, f"a row has 3 cells, not {len(cells)}")
            folder = re.fullmatch(r"`((?:[a-z0-9_]+/)+)`", cells[0])
            if not folder:
                raise _bad(number, f"a row begins with `FOLDER/`, not "
                           f"{cells[0]}")
            tables[-1].append((number, folder[1], cells[2]))
    return tables


def _rule(folder, line, text, lower):
    rule = Rule(folder, line, text, {folder}, set(), set())
    for part in text.split(", "):
        pair = re.fullmatch(r"`([^`]+\.h)` from `([^`]+)`", part)
        if part == "lower":
            rule.folders |= lower
        elif pair:
            rule.pairs.add((pair[1], pair[2]))
        elif re.fullmatch(r"`[^`]+/`", part):
            rule.folders.add(part.strip("`"))
        elif re.fullmatch(r"`[^`]+\.h`", part):
            rule.files.add(part.strip("`"))
        elif part != "nothing":
            raise _bad(line, f"{folder}: cannot read {part!r}")
    return rule


def _check_names(root, rule, rules):
    """Checks that each folder in a row has a row and sources; files exist."""
    for folder in sorted(rule.folders - set(rules)):
        raise _bad(rule.line, f"{rule.folder} may include {folder}, which has "
                   "no row of its own")
    if not any(path.suffix in SOURCES
               for path in (root / rule.folder).glob("*")):
        raise _bad(rule.line, f"there are no sources in {rule.folder}")
    files = rule.files.union(*rule.pairs)
    for name in sorted(files):
        if not (root / name).is_file():
            raise _bad(rule.line, f"{rule.folder} names {name}, which does "
                       "not exist")


def violations(root, rules):
    """Returns lines "FILE:LINE: ...", one for each forbidden include."""
    found = []
    for top in TOPS:
        for path in sorted((root / top).rglob("*")):
            if path.suffix not in SOURCES:
                continue
            name = path.relative_to(root).as_posix()
            folder = name.rsplit("/", 1)[0] + "/"
            if folder in rules:
                found += _of_file(path, name, rules[folder])
            else:
                found.append(f"{name}:1: {folder} has no row in {TABLES}")
    return found


def _of_file(path, name, rule):
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if "<<<" in line and name != CUDA_LAUNCH:
            found.append(f"{name}:{number}: launches a kernel; {CUDA_LAUNCH} "
                         "does that")
        match = INCLUDE.match(line)
        if not match:
            continue
        header = match[1]
        if CUDA_HEADER.fullmatch(header) and rule.folder != CUDA_FOLDER:
            found.append(f"{name}:{number}: includes {header}; only "
                         f"{CUDA_FOLDER} may include CUDA's headers")
        if not PROJECT_HEADER.fullmatch(header):
            # "pass.h" or "../hooks/capture.h" would evade the rules.
            if (path.parent / header).is_file():
                found.append(f"{name}:{number}: includes {header}; a header of "
                             "the project is named by its path from the root")
            continue
        allowed = (header.rsplit("/", 1)[0] + "/" in rule.folders
                   or header in rule.files or (header, name) in rule.pairs)
        if not allowed:
            found.append(f"{name}:{number}: includes {header}; {rule.folder} "
                         f"may include: {rule.text}")
    return found


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    try:
        found = violations(root, read_rules(root))
    except BadTable as error:
        found = [str(error)]
    for line in found:
        print(line)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
