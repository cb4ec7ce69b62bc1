"""Writes what qkscope's programs consist of as SPDX 2.3 JSON (an SBOM).

    python3 deploy/make_sbom.py --build build/release \
        build/release/bin/qkscoped build/release/bin/qkctl > qkscope.spdx.json

Shared libraries come from `ldd`, archives that were linked in from the link
commands of --build (a folder of CMake and Ninja), and both become Debian
packages by dpkg: name, version, architecture, source, homepage, licences as
their copyright files name them. A library that no package has (NVIDIA's CUDA
runtime) is listed with its SHA-256. --python adds the packages of a requirements
file as pip's metadata describe them. The same inputs give the same bytes if
SOURCE_DATE_EPOCH is set. Images and Debian packages hold such a file of their
own programs in /usr/share/doc.
"""

import argparse
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys
import uuid

NOT_KNOWN = "NOASSERTION"
# A licence that SPDX's grammar takes as an identifier.
IDENTIFIER = re.compile(r"^[A-Za-z0-9][A-Za-z0-9.+-]*$")


def run(*command):
    return subprocess.run(command, check=True, capture_output=True,
                          text=True).stdout


def shared_libraries(program):
    """Returns the files that the loader takes for `program`."""
    return {pathlib.Path(path).resolve()
            for path in re.findall(r"(?:=> )?(/\S+) \(0x", run("ldd", program))}


def linked_archives(build, program):
    """Returns the system's archives in the program's link command."""
    commands = run("ninja", "-C", str(build), "-t", "commands",
                   f"bin/{program.name}")
    link = commands.strip().splitlines()[-1]
    return {pathlib.Path(word).resolve() for word in link.split()
            if word.endswith(".a") and word.startswith("/")}


@functools.cache
def package_of(file):
    """Returns the Debian package that has the file, or None."""
    # Since Debian merged /lib into /usr/lib, packages know either name.
    for name in (str(file), str(file).removeprefix("/usr")):
        found = subprocess.run(["dpkg-query", "-S", name], text=True,
                               capture_output=True, check=False)
        if found.returncode == 0:
            return found.stdout.split(": ")[0].split(",")[0]
    return None


def licences(copyright_file):
    """Returns the licences that a machine-readable copyright file names."""
    if not copyright_file.exists():
        return NOT_KNOWN
    text = copyright_file.read_text(errors="replace")
    if "copyright-format/1.0" not in text:
        return NOT_KNOWN
    names = {name.strip() for name in re.findall(r"^License: *(\S.*)$", text,
                                                 re.M)}
    # Debian's own names are references, as SPDX calls them.
    return sorted(re.sub(r"[^A-Za-z0-9.+-]+", "-", name) for name in names)


def spdx_id(*parts):
    return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]+", "-", "-".join(parts))


def debian_package(name):
    form = "${Package}\t${Version}\t${Architecture}\t${source:Package}\t" \
           "${Homepage}\t${Maintainer}"
    package, version, arch, source, homepage, maintainer = run(
        "dpkg-query", "-W", "-f", form, name).split("\t")
    named = licences(pathlib.Path("/usr/share/doc") / package / "copyright")
    known = "" if named == NOT_KNOWN else (
        "Licences named in its copyright file: " + ", ".join(named))
    return {
        "SPDXID": spdx_id("deb", package, arch),
        "name": package,
        "versionInfo": version,
        "supplier": "Organization: Debian",
        "originator": f"Person: {maintainer}" if "@" in maintainer
                      else NOT_KNOWN,
        "downloadLocation": NOT_KNOWN,
        "homepage": homepage or NOT_KNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": NOT_KNOWN,
        "licenseDeclared": NOT_KNOWN,
        "licenseComments": known,
        "copyrightText": NOT_KNOWN,
        "sourceInfo": f"built from Debian's source package {source}",
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator":
                f"pkg:deb/debian/{package}@{version}?arch={arch}",
        }],
    }


def other_library(file):
    """A library that no Debian package has, such as NVIDIA's."""
    return {
        "SPDXID": spdx_id("file", file.name),
        "name": file.name,
        "supplier": NOT_KNOWN,
        "downloadLocation": NOT_KNOWN,
        "filesAnalyzed": False,
        "checksums": [sha256(file)],
        "licenseConcluded": NOT_KNOWN,
        "licenseDeclared": NOT_KNOWN,
        "copyrightText": NOT_KNOWN,
    }


def sha256(file):
    return {"algorithm": "SHA256",
            "checksumValue": hashlib.sha256(file.read_bytes()).hexdigest()}


def python_package(name):
    data = importlib.metadata.metadata(name)
    licence = data.get("License-Expression") or ""
    return {
        "SPDXID": spdx_id("pypi", data["Name"]),
        "name": data["Name"],
        "versionInfo": data["Version"],
        "supplier": NOT_KNOWN,
        "downloadLocation": NOT_KNOWN,
        "homepage": data.get("Home-page") or NOT_KNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": NOT_KNOWN,
        "licenseDeclared": licence if IDENTIFIER.match(licence) else NOT_KNOWN,
        "copyrightText": NOT_KNOWN,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator":
                f"pkg:pypi/{data['Name'].lower()}@{data['Version']}",
        }],
    }


def program_package(program, version):
    return {
        "SPDXID": spdx_id("program", program.name),
        "name": program.name,
        "versionInfo": version,
        "supplier": NOT_KNOWN,
        "downloadLocation": NOT_KNOWN,
        "filesAnalyzed": False,
        "checksums": [sha256(program)],
        "licenseConcluded": "Apache-2.0",
        "licenseDeclared": "Apache-2.0",
        "copyrightText": NOT_KNOWN,
        "primaryPackagePurpose": "APPLICATION",
    }


def requirements(file):
    """Returns the names in a requirements file and all that they need."""
    lines = [line.split("#")[0].strip()
             for line in file.read_text().splitlines()]
    todo = [re.split(r"[\s<>=!~\[;]", line)[0] for line in lines if line]
    found = set()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        found.add(name)
        for need in importlib.metadata.requires(name) or []:
            if "extra ==" in need:
                continue
            other = re.split(r"[\s<>=!~\[;(]", need)[0]
            try:
                importlib.metadata.metadata(other)
            except importlib.metadata.PackageNotFoundError:
                continue  # its marker excludes this machine
            todo.append(other)
    return sorted(found)


def make(programs, build, python):
    created = datetime.datetime.fromtimestamp(
        int(os.environ.get("SOURCE_DATE_EPOCH",
                           datetime.datetime.now().timestamp())),
        datetime.timezone.utc)
    packages, relations = {}, []
    for program in programs:
        name = program.name
        version = run(program, "--version").split()[-1]
        packages[name] = program_package(program, version)
        files = {path: "DYNAMIC_LINK" for path in shared_libraries(program)}
        if build:
            files |= {path: "STATIC_LINK"
                      for path in linked_archives(build, program)}
        for file, how in sorted(files.items()):
            owner = package_of(file) or file.name
            if owner not in packages:
                packages[owner] = (other_library(file) if owner == file.name
                                   else debian_package(owner))
            relations.append((packages[name]["SPDXID"], how,
                              packages[owner]["SPDXID"]))
    for name in requirements(python) if python else []:
        packages[f"pypi {name}"] = python_package(name)
        relations.append(("SPDXRef-DOCUMENT", "DESCRIBES",
                          packages[f"pypi {name}"]["SPDXID"]))
    own = [packages[program.name] for program in programs]
    relations += [("SPDXRef-DOCUMENT", "DESCRIBES", package["SPDXID"])
                  for package in own]
    sums = "".join(package["checksums"][0]["checksumValue"] for package in own)
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "qkscope-" + own[0]["versionInfo"],
        "documentNamespace":
            f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, sums)}",
        "creationInfo": {
            "created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: qkscope-make_sbom"],
        },
        "packages": list(packages.values()),
        "relationships": [
            {"spdxElementId": one, "relationshipType": how,
             "relatedSpdxElement": other}
            for one, how, other in sorted(set(relations))],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", type=pathlib.Path, nargs="+",
                        metavar="PROGRAM", help="qkscoped or qkctl")
    parser.add_argument("--build", type=pathlib.Path,
                        help="the folder that Ninja built the programs in")
    parser.add_argument("--python", type=pathlib.Path,
                        help="a requirements file whose packages this Python "
                             "has")
    arguments = parser.parse_args()
    json.dump(make([program.resolve() for program in arguments.programs],
                   arguments.build, arguments.python), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
