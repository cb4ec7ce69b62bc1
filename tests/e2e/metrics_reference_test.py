"""Holds docs/metrics.md against what a real server with every option shows.

    QK_BIN_DIR=build/release/bin build/venv/bin/python \\
        tests/e2e/metrics_reference_test.py --update    writes the document
"""

import hashlib
import pathlib
import re
import sys
import unittest

import exposition
from certificates import Authority, client_flags
from processes import ROOT, Server, demo_model, qkctl, scratch_folder

DOCUMENT = ROOT / "docs/metrics.md"
PAGES = {
    "/metrics": "The service. At most 2,000 series with 50 models and 500 "
                "users.",
    "/metrics/activations":
        "What the models' activations look like. At most 20,000 series; the "
        "models used last (`activation_models`) are shown by layer.",
}
HEADER = """\
# The metrics

The server shows them at its metrics port, in Prometheus's text format. Labels come from closed sets: at most 50 models
and the 100 busiest users have their names there, the others are `other`. This page is made from a real server's answers
by `tests/e2e/metrics_reference_test.py --update`.
"""
TOKEN = "token-of-ops"


def make(folder):
    """Returns the document, from a server that has all that can be had here."""
    authority = Authority(folder, "ca")
    pair = authority.issue("server", "localhost", "IP:127.0.0.1,DNS:localhost")
    config = folder / "q.conf"
    config.write_text(f"""
        users {{ alias: "ops" role: "operator"
          token_sha256: "{hashlib.sha256(TOKEN.encode()).hexdigest()}"
          budget {{ device_ms_per_window: 3600000 }} }}
        tls {{ certificate_file: "{pair.cert}" key_file: "{pair.key}" }}
        spool {{ directory: "{folder}/spool" }}
        replica: "r1"
        model_admin {{ enabled: true root: "{folder}" }}
        """)
    token = folder / "token"
    token.write_text(TOKEN)
    server = Server({"smollm2": demo_model()}, "--config", config, client_flags=[
        *client_flags(authority), "--token-file", str(token)])
    try:
        done = qkctl(server, "analyze", "--model", "smollm2", "--prompt",
                     "The city of Paris", "--points",
                     "hook_q,hook_k,hook_v,hook_rot_q,hook_rot_k", "--arm",
                     "clean", "--arm", "top_k:1", "--arm", "bottom_k:1")
        assert done.returncode == 0, done.stderr
        for command in (["baseline", "save", "smollm2"],
                        ["analyze", "--model", "smollm2", "--prompt", "A"]):
            done = qkctl(server, *command)
            assert done.returncode == 0, done.stderr
        pages = {path: exposition.Scrape(
            exposition.fetch(server, path, token=TOKEN)) for path in PAGES}
    finally:
        server.stop()
    lines = [HEADER]
    for path, scrape in pages.items():
        lines += [f"## {path}", "", PAGES[path], "",
                  "| metric | type | labels | meaning |", "|---|---|---|---|"]
        lines += [row(scrape, name) for name in scrape.help]
        if path == "/metrics":
            lines += [f"| `{name}` | gauge | `device` | {text} Only with a "
                      "GPU. |" for name, text in gpu_metrics()]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def row(scrape, name):
    labels = {key for (sample, pairs) in scrape.samples
              for key, _ in pairs
              if re.fullmatch(re.escape(name) + "(_bucket|_sum|_count)?",
                              sample)} - {"le"}
    text = scrape.help[name].replace("\\\\", "\\").replace("|", "\\|")
    return (f"| `{name}` | {scrape.type[name]} | "
            f"{', '.join(f'`{label}`' for label in sorted(labels))} | {text} |")


def gpu_metrics():
    """No GPU is here, so these come from the source."""
    source = (ROOT / "server/observe/device_metrics.cc").read_text()
    source = re.sub(r'"\s*\n\s*"', "", source)
    found = re.findall(r'add\("(qkscope_device_\w+)",\s*"([^"]+)"', source)
    assert len(found) == source.count('add("'), found
    return found


class MetricsReferenceTest(unittest.TestCase):
    def test_it_is_up_to_date(self):
        with scratch_folder() as folder:
            self.assertEqual(
                DOCUMENT.read_text(), make(pathlib.Path(folder)),
                "run tests/e2e/metrics_reference_test.py --update")

    def test_every_name_in_the_source_is_there(self):
        """Metrics that this server does not show would be missing."""
        named = set()
        for path in (ROOT / "server").rglob("*.cc"):
            named.update(re.findall(r'"((?:qkscope|process)_[a-z_]+)"',
                                    path.read_text()))
        document = DOCUMENT.read_text()
        self.assertGreater(len(named), 60)
        self.assertEqual(
            sorted(name for name in named if f"| `{name}` |" not in document),
            [])


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        with scratch_folder() as scratch:
            DOCUMENT.write_text(make(pathlib.Path(scratch)))
    else:
        unittest.main()
