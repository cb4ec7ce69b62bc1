"""Compares the status page with what RPCs say, and looks at what it hides."""

import collections
import hashlib
import json
import pathlib
import re
import shutil
import signal
import unittest

import grpc
import numpy as np
from google.protobuf import text_format
from safetensors.numpy import load_file, save_file

from processes import (PATIENCE_S, PATIENT, ROOT, TINY_MODEL, Client,
                       GatedServer, Server, qkctl, scratch_folder, wait_until)
from status_page import Page, colour, get, seconds
from stubs import analysis, analysis_grpc, spec

GOLDENS = ROOT / "tests" / "goldens"
POINTS = {spec.HOOK_ROT_Q: "Q", spec.HOOK_ROT_K: "K", spec.HOOK_V: "V"}
COLUMNS = 24  # prompts in a heat map
ARMS = ("arms {name: 'clean'} arms {name: 'top' disruptions {top_k {k: 2}}} "
        "arms {name: 'low' disruptions {bottom_k {k: 1}}} ")
DOCUMENTS = {"operating.md", "using.md", "models.md", "reliability.md",
             "configuration.md"}


def human_bytes(text):
    number, unit = text.split()
    return float(number) * 1024 ** ["B", "KiB", "MiB", "GiB"].index(unit)


def massive(layer):
    """Counts what is massive in the norms that were streamed."""
    norms = np.frombuffer(layer.data, "<f4").astype(np.float64).reshape(
        layer.shape)
    return int((norms > 5 * norms.mean(1, keepdims=True)).sum())


class StatusPageCase(unittest.TestCase):
    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def start(self, models, *flags, server_class=Server):
        server = server_class(models, *flags)
        self.addCleanup(server.stop)
        return server

    def stub(self, server):
        channel = grpc.insecure_channel(server.address)
        self.addCleanup(channel.close)
        return analysis_grpc.AnalysisStub(channel)

    def page(self, server, path="/", token=None):
        status, headers, text = get(server, path, token)
        self.assertEqual(status, 200, text)
        self.assertEqual(headers["Content-Type"], "text/html; charset=utf-8")
        return Page(text)


class NumbersTest(StatusPageCase):
    def massive_model(self, name):
        """Copies a model, with more massive values in each layer."""
        folder = self.folder / name
        shutil.copytree(GOLDENS / name, folder)
        weights = load_file(folder / "model.safetensors")
        for key, weight in weights.items():
            layer = re.search(r"layers\.(\d+)\.self_attn\.([qkv])_proj.weight",
                              key)
            if layer is not None:
                rows = weight.shape[0] // 8 * int(layer[1]) // 2 + 1
                weight[:8 * rows:8] *= 100
        save_file(weights, folder / "model.safetensors")
        return folder

    def analyze(self, stub, model, tokens, more=ARMS):
        ids = " ".join(f"ids: {1 + (7 * i + tokens) % 90}"
                       for i in range(tokens))
        request = text_format.Parse(
            f"model: '{model}' input {{token_ids {{{ids}}}}} {more}",
            analysis.AnalyzeRequest())
        return [event.layer for event in stub.Analyze(
            request, timeout=PATIENCE_S) if event.HasField("layer")]

    def test_heat_maps_show_the_last_prompts(self):
        models = {name: self.massive_model(name) for name in
                  ("tiny_llama_gqa", "tiny_gemma3")}
        server = self.start(models)
        stub = self.stub(server)
        # Of each model: the prompts in order, by (tensor, layer).
        prompts = collections.defaultdict(list)
        for i in range(10):
            for model in models:
                more = ARMS
                if i == 4:
                    more += "capture {layers: 1} "
                if i == 5:  # What a request calls massive changes no map.
                    more += "statistics {lambda: 1.5} "
                arms = {}
                for layer in self.analyze(stub, model, 5 + i, more):
                    count = massive(layer)
                    if i != 5:
                        self.assertEqual(layer.statistics.massive_count,
                                         count)
                    arms.setdefault(layer.arm, {})[
                        POINTS[layer.point], layer.layer] = count
                prompts[model] += arms.values()
        page = self.page(server)
        self.assertEqual(list(page.maps), ["tiny_gemma3", "tiny_llama_gqa"])
        for model, shown in page.maps.items():
            self.assertEqual(len(prompts[model]), 30)
            last = prompts[model][-COLUMNS:]
            want = {"Q": {}, "K": {}, "V": {}}
            for column, counts in enumerate(last):
                for (tensor, layer), count in counts.items():
                    want[tensor][column, layer] = f"c{colour(count)}"
            self.assertEqual(shown, want, model)
            self.assertGreater(len({cell for cells in want.values()
                                    for cell in cells.values()}), 1,
                               "all cells are alike")
            self.assertEqual(page.numbers[model], [
                [str(layer), *(str(last[-1][tensor, layer])
                               for tensor in "QKV")]
                for layer in range(len(page.numbers[model]))])

    def test_a_reloaded_model_begins_again(self):
        root = self.folder / "models"
        root.mkdir()
        for name in ("config.json", "model.safetensors"):
            (root / name).write_bytes((TINY_MODEL / name).read_bytes())
        digest = hashlib.sha256(b"t").hexdigest()
        config = self.folder / "q.conf"
        config.write_text(
            PATIENT + f"users {{alias: 'ops' token_sha256: '{digest}' "
            "role: 'operator'} model_admin {enabled: true root: "
            f"'{self.folder}'}}")
        server = self.start({"tiny": TINY_MODEL}, "--config", config)
        result = qkctl(server, "analyze", "--token-ids", "1,2,3", token="t")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(list(self.page(server, token="t").maps), ["tiny"])
        result = qkctl(server, "model", "load", "tiny", "models", "--replace",
                       token="t")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(list(self.page(server, token="t").maps), [])

    def test_models_usage_and_kept_results_are_those_of_rpcs(self):
        server = self.start(
            {"tiny": TINY_MODEL, "jamba": GOLDENS / "tiny_jamba"},
            "--spool", self.folder / "spool")
        stub = self.stub(server)
        for tokens in (20, 30):
            self.analyze(stub, "tiny", tokens)
            self.analyze(stub, "tiny", tokens, "detach: true")
        wait_until(lambda: server.log_text().count("kept_run_ended") == 2,
                   server.log_text)
        page = self.page(server)
        self.assertEqual(page.title, "Serving - qkscope")
        self.assertEqual(page.state, "Serving")
        about = stub.GetServerInfo(analysis.GetServerInfoRequest(),
                                   timeout=PATIENCE_S)
        self.assertEqual(page.facts["Server", "Version"], about.version)
        self.assertEqual(page.facts["Server", "Backend"],
                         about.backends[0].name)
        self.assertEqual(page.facts["Server", "Device"],
                         about.backends[0].device)
        listed = stub.ListModels(analysis.ListModelsRequest(),
                                 timeout=PATIENCE_S).models
        self.assertEqual(set(page.tables["Models"]),
                         {model.name for model in listed})
        for model in listed:
            row = page.tables["Models"][model.name]
            self.assertEqual(row["State"], "ready")
            self.assertEqual(row["Architecture"], model.architecture)
            self.assertEqual(row["Layers"], str(model.num_layers))
            self.assertEqual(row["Parameters"], f"{model.parameters:,}")
            self.assertEqual(row["Weights"], model.weights_dtype)
            self.assertEqual(row["Computed in"], model.compute_type)
            self.assertAlmostEqual(seconds(row["Loaded in"]) * 1e3,
                                   model.load_ms,
                                   delta=1 + model.load_ms / 50)
            for column, size in (("Host memory", model.host_bytes),
                                 ("Device memory", model.device_bytes)):
                self.assertAlmostEqual(human_bytes(row[column]), size,
                                       delta=size / 20)
        (usage,) = stub.GetUsage(analysis.GetUsageRequest(),
                                 timeout=PATIENCE_S).users
        ((alias, row),) = page.tables["Users"].items()
        self.assertEqual(alias, usage.user)
        self.assertGreater(usage.device_ms, 0)
        self.assertAlmostEqual(seconds(row["Device time in window"]) * 1e3,
                               usage.device_ms,
                               delta=1 + usage.device_ms / 50)
        self.assertAlmostEqual(human_bytes(row["Bytes in window"]),
                               usage.streamed_bytes,
                               delta=usage.streamed_bytes / 20)
        self.assertEqual(row["Kept results"].split(",")[0],
                         str(usage.kept_results))
        self.assertEqual(usage.kept_results, 2)
        self.assertEqual(page.facts["Kept results", "Results"],
                         f"2 of {10_000:,}")
        self.assertAlmostEqual(
            human_bytes(page.facts["Kept results", "Bytes"].split(" of ")[0]),
            usage.kept_bytes, delta=usage.kept_bytes / 20)
        self.assertEqual(page.facts["Kept results", "Kept for"], "1 h 0 min")

    def test_the_queue_and_draining(self):
        server = self.start({"tiny": TINY_MODEL}, server_class=GatedServer)
        self.assertEqual(self.page(server).facts["Queue", "Oldest waits"],
                         "nobody waits")
        server.shut()
        clients = []
        for _ in range(3):
            clients.append(Client(server, "generate", "--token-ids", "3,1,41",
                                  "--max-new-tokens", "2", "--json"))
            self.addCleanup(clients[-1].__exit__)
            server.await_held()
        wait_until(lambda: len(json.loads(
            qkctl(server, "queue", "--json").stdout)["requests"]) == 3,
                   server.log_text)
        page = self.page(server)
        running = int(page.facts["Queue", "Running"])
        waiting = int(page.facts["Queue", "Waiting"])
        self.assertEqual(running + waiting, 3)
        self.assertGreaterEqual(waiting, 1)
        self.assertEqual(page.facts["Queue", "Places taken"],
                         f"{waiting} of 256")
        self.assertGreater(seconds(page.facts["Queue", "Oldest waits"]), 0)
        row = page.tables["Users"]["anonymous"]
        self.assertEqual((int(row["Running"]), int(row["Waiting"])),
                         (running, waiting))
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: self.page(server).state == "Draining",
                   server.log_text)
        server.open()
        for client in clients:
            self.assertEqual(client.finish()[0], 0)
        self.assertEqual(server.wait(), 0)


class AnswersTest(StatusPageCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server({"tiny": TINY_MODEL})
        cls.addClassCleanup(cls.server.stop)

    def test_the_policy_allows_no_script_and_nothing_from_elsewhere(self):
        for path in ("/", "/live", "/style.css", "/docs/operating.md"):
            status, headers, text = get(self.server, path)
            self.assertEqual(status, 200, path)
            policy = headers["Content-Security-Policy"].split("; ")
            self.assertIn("default-src 'none'", policy)
            self.assertIn("style-src 'self'", policy)
            self.assertNotIn("unsafe", headers["Content-Security-Policy"])
            self.assertEqual(headers["Cache-Control"], "no-store")
            if path != "/docs/operating.md":
                self.assertNotIn("://", text)

    def test_it_reloads_only_if_asked_to(self):
        _, _, still = get(self.server)
        self.assertNotIn("http-equiv", still)
        _, _, live = get(self.server, "/live")
        self.assertIn('<meta http-equiv="refresh" content="10">', live)
        self.assertIn("/live", self.page(self.server).links)
        self.assertIn("/", self.page(self.server, "/live").links)

    def test_every_link_leads_somewhere(self):
        links = self.page(self.server).links
        self.assertGreater(len(links), 4)
        for link in links:
            self.assertEqual(get(self.server, link)[0], 200, link)
        self.assertLessEqual({f"/docs/{name}" for name in DOCUMENTS},
                             set(links))

    def test_documents_are_those_of_this_version(self):
        for link in self.page(self.server).links:
            if not link.startswith("/docs/"):
                continue
            _, headers, text = get(self.server, link)
            self.assertEqual(headers["Content-Type"],
                             "text/plain; charset=utf-8")
            self.assertEqual(text, (ROOT / link[1:]).read_text(), link)
        for path in ("/docs/", "/docs/../README.md", "/docs/nonesuch.md",
                     "/docs/folders.md", "/index.html"):
            self.assertEqual(get(self.server, path)[0], 404, path)

    def test_it_only_reads(self):
        self.assertEqual(get(self.server, "/", method="POST")[0], 405)
        status, headers, text = get(self.server, "/", method="HEAD")
        self.assertEqual((status, text), (200, ""))
        self.assertGreater(int(headers["Content-Length"]), 1000)


class ViewersTest(StatusPageCase):
    def test_o9_viewers_see_what_they_may_use(self):
        users = self.folder / "users.conf"
        tokens = {}
        for alias, flags in (
                ("ada", ["--models", "tiny"]), ("bob", []),
                ("ops", ["--role", "operator"])):
            tokens[alias] = qkctl("", "user", "add", alias, "--users-file",
                                  users, *flags).stdout.strip()
        server = self.start({"tiny": TINY_MODEL, "secret": TINY_MODEL},
                            "--users-file", users)
        for alias, model in (("ada", "tiny"), ("bob", "secret"),
                             ("bob", "tiny")):
            result = qkctl(server, "analyze", "--model", model, "--token-ids",
                           "1,2,3", token=tokens[alias])
            self.assertEqual(result.returncode, 0, result.stderr)
        everything = {"tiny", "secret"}
        for viewer, models, aliases in (
                (None, {"tiny"}, set()), ("ada", {"tiny"}, {"ada"}),
                ("bob", everything, {"bob"}),
                ("ops", everything, {"ada", "bob"})):
            page = self.page(server, token=tokens.get(viewer))
            self.assertEqual(set(page.tables["Models"]), models, viewer)
            self.assertEqual(set(page.maps), models, viewer)
            self.assertEqual(set(page.tables.get("Users", {})), aliases,
                             viewer)
            for hidden in ({"ada", "bob"} - aliases) | (everything - models):
                self.assertNotIn(hidden, page.text, viewer)
            for token in tokens.values():
                self.assertNotIn(token, page.text)
        for path in ("/", "/live"):
            status, headers, text = get(server, path, "qks_wrong")
            self.assertEqual(status, 401)
            self.assertEqual(headers["WWW-Authenticate"], "Bearer")
            self.assertNotIn("tiny", text)
        # Style and documents are about nobody.
        self.assertEqual(get(server, "/style.css", "qks_wrong")[0], 200)


if __name__ == "__main__":
    unittest.main()
