"""Tests deploy/make_sbom.py: its SPDX is valid and names what is linked."""
# row: SBOM: SPDX JSON of both programs, validated | run | quick | 8

import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from spdx_tools.spdx.parser import parse_anything
from spdx_tools.spdx.validation import document_validator

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ["QK_BIN"])


def make():
    environment = dict(os.environ, SOURCE_DATE_EPOCH="1700000000")
    return subprocess.run(
        [sys.executable, "-B", ROOT / "deploy/make_sbom.py",
         "--build", BIN.parent,
         "--python", ROOT / "tests/deploy/requirements.txt",
         BIN / "qkscoped", BIN / "qkctl"],
        check=True, capture_output=True, text=True, env=environment).stdout


def faults(text):
    """Returns what spdx-tools finds wrong with a document."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "x.spdx.json"
        file.write_text(text)
        try:
            document = parse_anything.parse_file(str(file))
        except Exception as error:  # its parsers raise several kinds
            return [str(error)]
    return document_validator.validate_full_spdx_document(document)


def needed(program):
    """Returns the packages of a program's direct libraries, from dpkg's lists
    of files."""
    names = re.findall(r"NEEDED.*\[(.+)\]", subprocess.run(
        ["readelf", "-d", program], check=True, capture_output=True,
        text=True).stdout)
    cache = subprocess.run(["/sbin/ldconfig", "-p"], check=True,
                           capture_output=True, text=True).stdout
    owners = set()
    for name in names:
        path = pathlib.Path(
            re.search(rf"^\s*{re.escape(name)} .*=> (.+)$", cache, re.M)[1])
        for spelled in {str(path.resolve()),
                        str(path.resolve()).removeprefix("/usr")}:
            for listing in pathlib.Path("/var/lib/dpkg/info").glob("*.list"):
                if f"\n{spelled}\n" in listing.read_text():
                    owners.add(listing.name.split(":")[0]
                               .removesuffix(".list"))
    return owners


class SbomTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.text = make()
        cls.document = json.loads(cls.text)

    def test_it_is_valid_spdx(self):
        self.assertEqual(faults(self.text), [])

    def test_the_validator_finds_faults(self):
        bad = copy.deepcopy(self.document)
        bad["relationships"][0]["relatedSpdxElement"] = "SPDXRef-not-there"
        self.assertNotEqual(faults(json.dumps(bad)), [])

    def test_it_is_the_same_each_time(self):
        self.assertEqual(make(), self.text)

    def test_it_names_every_direct_library(self):
        for program in ("qkscoped", "qkctl"):
            packages = needed(BIN / program)
            self.assertIn("libgrpc++1.51", packages)
            linked = {
                r["relatedSpdxElement"] for r in self.document["relationships"]
                if r["spdxElementId"] == f"SPDXRef-program-{program}"}
            names = {p["name"] for p in self.document["packages"]
                     if p["SPDXID"] in linked}
            self.assertLessEqual(packages, names)

    def test_versions_are_those_of_dpkg(self):
        found = {p["name"]: p["versionInfo"] for p in self.document["packages"]
                 if "referenceLocator" in str(p) and "pkg:deb" in str(p)}
        self.assertGreater(len(found), 20)
        for name, version in found.items():
            status = subprocess.run(["dpkg", "-s", name], check=True,
                                    capture_output=True, text=True).stdout
            self.assertIn(f"\nVersion: {version}\n", status)

    def test_it_names_python_packages(self):
        self.assertTrue(any(p["name"] == "spdx-tools"
                            for p in self.document["packages"]))


if __name__ == "__main__":
    unittest.main()
