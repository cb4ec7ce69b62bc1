"""Fetches every Prometheus console from a real Prometheus that scraped a real
server under real work, and compares the pages with what follows from that work:
counters with the calls that were made, cells of heat maps with the counts that
Analyze returned, lines with Prometheus's own range queries. Also: pages without
any data, with strange parameters, in a narrow window.

  consoles_check.py --pictures DIR    also saves the pictures of docs/pictures
"""
# row: Prometheus consoles: pages, their numbers, pictures | run | quick | 40

import collections
import concurrent.futures
import itertools
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

import browser
import programs
from programs import BIN, PATIENCE_S, fetch, free_port, wait_until
from html_page import StrictPage

CONSOLES = programs.ROOT / "deploy" / "prometheus" / "consoles"
PAGES = ("index", "service", "activations", "model", "fleet")
POINTS = ["--points", "hook_q,hook_k,hook_v,hook_rot_q,hook_rot_k"]
TENSORS = {"hook_q": ("q", "before"), "hook_k": ("k", "before"),
           "hook_v": ("v", "none"), "hook_rot_q": ("q", "after"),
           "hook_rot_k": ("k", "after")}
KINDS = {"clean": "clean", "top": "disrupted", "low": "control"}
PROMPTS = ["The city of Paris is in", "1 2 3 4 5 6 7 8", "Once upon a time",
           "A long story about a king who lived by the sea",
           "def main(): return 0", "aaaaaaaaaaaaaaaaaaaaaaaaa"]
PICTURES = (pathlib.Path(sys.argv.pop()) if sys.argv[1:2] == ["--pictures"]
            else None)


class Page(StrictPage):
    """`tiles` and `tables` (heading -> rows by name -> column -> value), where a
    value is that of the element data if there is one; `cells` (caption -> x,
    layer -> class and count); `lines` (heading -> paths); `legends` (heading ->
    what follows)."""

    TEXT = {"h1", "h2", "h3", "dt", "dd", "td", "th", "title", "li"}

    def __init__(self, text):
        self.tiles, self.tables, self.cells = {}, {}, {}
        self.lines, self.legends = {}, {}
        self._heading = self._caption = self._term = self._use = None
        self._exact = None
        self._head, self._row = [], []
        super().__init__(text)

    def begin(self, tag, values):
        if tag in self.TEXT:
            self._exact = None
        if tag == "data":
            self._exact = float(values["value"])
        elif tag == "tr":
            self._row = []
        elif tag == "use":
            self._use = int(values["x"]), int(values["y"]), values["class"]
        elif tag == "path" and values.get("class", "").startswith("line s") \
                and self.inside("g"):
            self.lines.setdefault(self._heading, []).append(values["d"])

    def end(self, tag, values, said):
        value = said if self._exact is None else self._exact
        if tag == "h2":
            self._heading = said
        elif tag == "h3":
            self._caption = said
        elif tag == "dt":
            self._term = said
        elif tag == "dd":
            self.tiles[self._term] = value
        elif tag == "title" and self._use is not None:
            self._end_cell(said)
        elif tag in ("td", "th"):
            self._row.append(value)
        elif tag == "tr" and self.inside("thead"):
            self._head = self._row
        elif tag == "tr":
            self.tables.setdefault(self._heading, {})[self._row[0]] = dict(
                zip(self._head, self._row))
        elif tag == "li" and self._heading:
            self.legends.setdefault(self._heading, []).append(said)

    def _end_cell(self, said):
        x, layer, style = self._use
        count = re.fullmatch(rf"layer {layer}, .*: (\S+)", said)[1]
        cells = self.cells.setdefault(self._caption, {})
        if (x, layer) in cells:
            raise AssertionError(f"two cells at {x}, {layer}")
        cells[x, layer] = style, float(count)
        self._use = None


def points(path):
    """x -> y of a line."""
    return {int(x): float(y)
            for x, y in re.findall(r"[ML](\d+) ([\d.]+)", path)}


class ConsolesCase(programs.RealCase):

    @classmethod
    def start_prometheus(cls, folder, config):
        folder.mkdir()
        (folder / "prometheus.yml").write_text(json.dumps(config))
        address = f"127.0.0.1:{free_port()}"
        cls.keep(programs.Program(
            folder, "prometheus", "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={address}",
            f"--web.console.templates={CONSOLES}",
            f"--web.console.libraries={CONSOLES}"))
        url = f"http://{address}"
        wait_until(lambda: fetch(f"{url}/-/ready"), "Prometheus")
        return url

    def console(self, url, name, **parameters):
        """Returns a page; an error of a template fails."""
        address = (f"{url}/consoles/{name}.html?"
                   + urllib.parse.urlencode(parameters))
        try:
            with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            self.fail(f"{name} {parameters}: {error.code} "
                      + error.read().decode())
        for wrong in ("ZgotmplZ", "<no value>", "%!", "error executing"):
            self.assertNotIn(wrong, text)
        self.assertNotIn("<script", text)
        return Page(text)


class ConsolesCheck(ConsolesCase):

    @classmethod
    def setUpClass(cls):
        cls.folder = programs.work_folder(cls)
        users = cls.folder / "users.conf"
        cls.tokens = {}
        for alias, *flags in (("ada",), ("bob",), ("ops", "--role",
                                                   "operator")):
            made = subprocess.run(
                [BIN / "qkctl", "user", "add", alias, "--users-file", users,
                 *flags], capture_output=True, encoding="utf-8", check=True)
            cls.tokens[alias] = cls.folder / f"{alias}.token"
            cls.tokens[alias].write_text(made.stdout)
        users.write_text(re.sub(
            r'alias: "bob"', 'alias: "bob" budget {device_ms_per_window: '
            "3600000}", users.read_text()))
        cls.server = cls.keep(programs.Server(
            cls.folder, "--model",
            f"smollm2={os.environ['QKSCOPE_DEMO_MODEL']}", "--model",
            f"tiny={programs.TINY_MODEL}", "--users-file", users, "--spool",
            cls.folder / "spool"))
        jobs = [{"job_name": name, "metrics_path": path,
                 "authorization": {"credentials_file":
                                   str(cls.tokens["ops"])},
                 "static_configs": [{"targets": [cls.server.metrics]}]}
                for name, path in (("qkscope", "/metrics"),
                                   ("qkscope_activations",
                                    "/metrics/activations"))]
        cls.url = cls.start_prometheus(cls.folder / "prometheus", {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": jobs})
        wait_until(lambda: len(cls.query("up == 1")) == 2,
                   lambda: fetch(f"{cls.url}/api/v1/targets"))
        cls.work()
        before = time.time()
        page = Page(fetch(f"{cls.url}/consoles/service.html?step=1s"))
        cls.while_working = before, page, time.time()
        cls.settle()

    @classmethod
    def call(cls, alias, *arguments, expect=0):
        result = cls.server.qkctl(*arguments, "--token-file",
                                  cls.tokens[alias])
        if result.returncode != expect:
            raise AssertionError(f"{arguments}: {result.returncode} "
                                 + result.stderr)
        return result.stdout

    @classmethod
    def work(cls):
        """Known work: 12 analyses by ada, 6 generations by bob and 2 that
        fail, and a baseline of the first two prompts. It takes long enough for
        lines to have several points."""
        cls.counts = {}  # of smollm2's last prompt: (arm, tensor, rope, layer)
        for number, prompt in enumerate(PROMPTS):
            if number == 2:
                cls.call("ops", "baseline", "save", "smollm2")
            out = cls.call("ada", "analyze", "--model", "smollm2", "--prompt",
                           prompt, *POINTS, "--arm", "clean", "--arm",
                           "top=top_k:1", "--arm", "low=random_k:1,seed=7",
                           "--json")
            for line in out.splitlines():
                layer = json.loads(line).get("layer")
                if layer is not None:
                    cls.counts[KINDS[layer["arm"]],
                               *TENSORS[layer["point"].lower()],
                               int(layer.get("layer", 0))] = int(
                                   layer["statistics"].get("massive_count", 0))
            cls.call("ada", "analyze", "--model", "tiny", "--token-ids",
                     "3,1,41,59,26")
            cls.call("bob", "generate", "--model", "smollm2", "--prompt",
                     prompt, "--max-new-tokens", 8)
            cls.await_clock(3)
        for _ in range(2):
            cls.call("bob", "generate", "--model", "smollm2", "--prompt", "x",
                     "--max-new-tokens", 100_000, expect=4)

    @classmethod
    def await_clock(cls, seconds):
        """Waits until Prometheus has scraped for that long."""
        def scraped():
            return float(cls.query("min(timestamp(up))")[0]["value"][1])
        began = scraped()
        wait_until(lambda: scraped() >= began + seconds, "scrapes")

    @classmethod
    def settle(cls):
        """Waits until the work's end has been scraped, and counts its calls by
        the server's log."""
        cls.await_clock(3)
        cls.calls = collections.Counter()
        for line in cls.server.lines():
            if line["event"] == "rpc":
                cls.calls[line["method"], line["code"]] += 1

    @classmethod
    def query(cls, expression, **more):
        path = "query_range" if more else "query"
        answer = json.loads(fetch(f"{cls.url}/api/v1/{path}?"
                                  + urllib.parse.urlencode(
                                      {"query": expression, **more})))
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def page(self, name, **parameters):
        return self.console(self.url, name, step="1s", **parameters)

    def test_counters_are_the_calls_that_were_made(self):
        total = sum(self.calls.values())
        self.assertGreaterEqual(total, 20)
        service = self.page("service")
        self.assertEqual(service.tiles["Servers up"], 1)
        self.assertEqual(service.tiles["Calls"], total)
        self.assertEqual(service.tiles["Serving"], 1)
        self.assertEqual(service.tiles["Running"], 0)
        for page in ("index", "fleet"):
            self.assertEqual(self.page(page).tiles["Calls"], total, page)
        methods = {item.split()[0] for item in
                   service.legends["Calls per second, by method"]}
        self.assertEqual(methods, {method for method, _ in self.calls})
        codes = {item.split()[0] for item in
                 service.legends["Calls per second that fail, by code"]}
        self.assertEqual(codes, {code for _, code in self.calls
                                 if code != "OK"})
        rows = service.tables["Users"]
        self.assertEqual(rows["ada"]["Requests"], 2 * len(PROMPTS))
        self.assertEqual(rows["bob"]["Requests"], len(PROMPTS) + 2)
        self.assertEqual(rows["ada"]["Budget used"], "no budget")
        self.assertRegex(rows["bob"]["Budget used"], r"^[\d.]+(e-\d+)?%$")
        self.assertGreater(len(service.lines["Mean duration, by phase"]), 2)

    def test_the_page_of_a_model(self):
        page = self.page("model", model="smollm2")
        self.assertEqual(page.tiles["Generated tokens"], 8 * len(PROMPTS))
        self.assertEqual(page.tiles["Ready on servers"], 1)
        self.assertEqual(page.tiles["Measured prompts"], len(PROMPTS))
        self.assertEqual(page.tiles["Prompts of the baseline"], 2)
        self.assertEqual(page.tiles["Failed passes"], 0)
        self.assertEqual(page.tiles["Values not finite"], 0)
        tiny = self.page("model", model="tiny")
        self.assertEqual(tiny.tiles["Prompt tokens"], 5 * len(PROMPTS))
        self.assertEqual(tiny.tiles["Generated tokens"], 0)
        # Without a name it is the one that is used most.
        self.assertIn('aria-current="true">smollm2<', self.page("model").text)

    def test_heat_maps_show_the_counts(self):
        for arm in KINDS.values():
            before = time.time()
            page = self.page("activations", model="smollm2", arm=arm)
            after = time.time()
            for caption, tensor, rope in (("Q after RoPE", "q", "after"),
                                          ("K after RoPE", "k", "after"),
                                          ("V", "v", "none")):
                cells = page.cells[caption]
                now = {layer: count for (x, layer), (_, count)
                       in cells.items() if x == 0}
                want = {key[3]: count for key, count in self.counts.items()
                        if key[:3] == (arm, tensor, rope)}
                self.assertEqual(len(want), 30)
                self.assertEqual(now, want, (arm, caption))
                for style, count in cells.values():
                    self.assertEqual(
                        style, f"c{min(8, int(count).bit_length())}")
                self.assertIn(cells, list(self.history(
                    arm, tensor, before, after)), (arm, caption))
            self.assertEqual(
                page.tiles["Massive values of Q"],
                sum(count for key, count in self.counts.items()
                    if key[:3] == (arm, "q", "after")))

    def history(self, arm, tensor, before, after):
        """What a heat map's cells may be: the page was made in one of these
        seconds."""
        for end in range(math.floor(before), math.floor(after) + 1):
            cells = {}
            for series in self.query(
                    "qkscope_activation_massive_entries{model=\"smollm2\","
                    f"arm=\"{arm}\",tensor=\"{tensor}\",rope!=\"before\"}}",
                    start=end - 29, end=end, step=1):
                for at, count in series["values"]:
                    cells[end - int(at), int(series["metric"]["layer"])] = (
                        f"c{min(8, int(count).bit_length())}", float(count))
            yield cells

    def test_lines_by_layer_show_the_counts(self):
        page = self.page("activations", model="smollm2")
        for heading, keys in (
                ("Massive values of Q, by arm",
                 [(arm, "q", "after") for arm in ("clean", "control",
                                                  "disrupted")]),
                ("Massive values of K, before and after RoPE",
                 [("clean", "k", rope) for rope in ("after", "before")])):
            paths = page.lines[heading]
            self.assertEqual(len(paths), len(keys))
            counts = [{key[3]: count for key, count in self.counts.items()
                       if key[:3] == wanted} for wanted in keys]
            most = max(max(series.values()) for series in counts)
            tops = {scale * 10 ** power for scale in (1, 2, 5)
                    for power in range(4)}
            top = min(top for top in tops if top >= most)
            for path, series in zip(paths, counts):
                got = points(path)
                self.assertEqual(set(got), set(series))
                for layer, count in series.items():
                    self.assertAlmostEqual(got[layer], 100 - 100 * count / top,
                                           delta=0.06)

    def test_drift_is_what_was_scraped(self):
        page = self.page("activations", model="smollm2")
        scraped = {}
        for line in self.scrape().splitlines():
            if line.startswith("qkscope_activation_drift_ratio{"):
                labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
                if labels["rope"] != "before":
                    scraped[labels["tensor"], int(labels["layer"])] = float(
                        line.rsplit(" ", 1)[1])
        self.assertEqual(len(scraped), 90)
        top = max(scraped.values())
        self.assertGreater(top, 0)
        self.assertAlmostEqual(page.tiles["Largest drift"], top, delta=1e-9)
        heading = "Drift from the baseline, by layer"
        tensors = [item.split()[0] for item in page.legends[heading]]
        scales = []
        for tensor, path in zip(tensors, page.lines[heading]):
            got = points(path)
            self.assertEqual(len(got), 30)
            scales += [(100 - y) / scraped[tensor, layer]
                       for layer, y in got.items() if y < 90]
        self.assertGreater(len(scales), 10)
        self.assertLess(max(scales) / min(scales), 1.02)

    def scrape(self):
        """What the server shows an operator."""
        request = urllib.request.Request(
            f"http://{self.server.metrics}/metrics/activations", headers={
                "Authorization":
                "Bearer " + self.tokens["ops"].read_text().strip()})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.read().decode()

    def test_lines_over_time_are_those_of_a_range_query(self):
        """Of the time in which the calls came."""
        expression = ('sum(rate(qkscope_rpc_handled_total{job="qkscope",'
                      'method="Analyze"}[1m]))')
        before, page, after = self.while_working
        heading = "Calls per second, by method"
        methods = [item.split()[0] for item in page.legends[heading]]
        got = points(page.lines[heading][methods.index("Analyze")])
        # The newest point may not have known the scrape of its second.
        got.pop(0, None)
        self.assertGreater(len(got), 10)
        self.assertGreater(len(set(got.values())), 3, "the line is flat")
        matches = 0
        for end in range(math.floor(before), math.floor(after) + 1):
            (series,) = self.query(expression, start=end - 29, end=end, step=1)
            values = {end - int(at): float(value)
                      for at, value in series["values"] if int(at) < end}
            if set(values) == set(got):
                # y is 100 - 100 * value / top, whatever the top is.
                scales = [(100 - y) / values[x] for x, y in got.items()
                          if values[x] > 0]
                matches += max(scales) - min(scales) < 0.06 * 2 / min(
                    value for value in values.values() if value > 0)
        self.assertGreaterEqual(matches, 1)

    def test_strange_parameters_break_nothing(self):
        for name in PAGES:
            for parameters in (
                    {"instance": '"} or vector(1) #', "model": "smollm2"},
                    {"model": '<script>alert(1)</script>"\\'},
                    {"step": "1y", "arm": "x"}, {"instance": "nobody:1"}):
                page = self.console(self.url, name, **parameters)
                self.assertNotIn("<script", page.text)
                if parameters.get("instance") == "nobody:1" and name in (
                        "service", "index"):
                    self.assertEqual(page.tiles["Calls"], "none")

    def test_pictures(self):
        for name in PAGES:
            url = (f"{self.url}/consoles/{name}.html?"
                   + urllib.parse.urlencode({"step": "1s",
                                             "model": "smollm2"}))
            text = fetch(url)
            for width in (400, 1280):
                measured = browser.measure(self.folder, text, width=width)
                self.assertEqual(measured["width"], width,
                                 (name, measured["wide"]))
            picture = browser.screenshot(
                self.folder, url, self.folder / f"{name}.png",
                height=measured["height"])
            page = browser.rgb(browser.themes(text)["light"]["page"])
            self.assertEqual(picture.getpixel((2, 2)), page)
            if name == "activations":
                self.check_cells(picture, measured, text)

    @unittest.skipUnless(PICTURES, "for the documents")
    def test_z_pictures_of_the_documents(self):
        """Of a server that several users keep busy."""
        stop = threading.Event()

        def keep_busy(number):
            for prompt in itertools.cycle(PROMPTS):
                if stop.is_set():
                    return
                if number < 2:
                    self.call("ada", "analyze", "--model", "smollm2",
                              "--prompt", prompt, *POINTS, "--arm", "clean",
                              "--arm", "top_k:1", "--arm",
                              "random_k:1,seed=7")
                else:
                    self.call("bob", "generate", "--model", "smollm2",
                              "--prompt", prompt, "--max-new-tokens", 4)

        with concurrent.futures.ThreadPoolExecutor() as pool:
            users = [pool.submit(keep_busy, number) for number in range(3)]
            self.await_clock(35)
            for name in PAGES:
                url = (f"{self.url}/consoles/{name}.html?step=1s"
                       "&model=smollm2")
                text = fetch(url)
                measured = browser.measure(self.folder, text)
                browser.save_small(browser.screenshot(
                    self.folder, url, self.folder / f"{name}.png",
                    height=measured["height"]),
                    PICTURES / f"console_{name}.png", text)
            stop.set()
            for user in users:
                user.result()

    def check_cells(self, picture, measured, text):
        """The newest column of the first map."""
        colours = browser.themes(text)["light"]
        x, y, width, _ = measured["heat"][0]
        left, top, units, _ = measured["view"][0]
        scale = width / units
        for layer in range(30):
            count = self.counts["clean", "q", "after", layer]
            at = (round(x + scale * (295 - left)),
                  round(y + scale * (7 * (layer + .5) - top)))
            self.assertEqual(
                picture.getpixel(at),
                browser.rgb(colours[f"c{min(8, count.bit_length())}"]),
                (layer, count, at))

    def test_colours_can_be_read_and_told_apart(self):
        browser.check_colours(self, (CONSOLES / "qkscope.lib").read_text())


class EmptyCheck(ConsolesCase):
    """A Prometheus that has scraped nothing."""

    def test_pages_without_data(self):
        url = self.start_prometheus(
            programs.work_folder(type(self)) / "prometheus", {})
        for name in PAGES:
            page = self.console(url, name)
            self.assertTrue(page.tiles or "has been measured" in page.text
                            or "no data" in page.text, name)
            self.assertEqual(page.cells, {})


if __name__ == "__main__":
    programs.end_on_sigterm()
    unittest.main(argv=[word for word in sys.argv if word != "--pictures"],
                  verbosity=2)
