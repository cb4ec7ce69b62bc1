"""Does the known work between two scrapes, and notes what is known of it
without asking Prometheus."""

import os
import pathlib
import time
import urllib.request

import processes
import scraped
from ask import Window
from load import Work
from programs import wait_until

JOBS = ("qkscope", "qkscope_activations")
TICKS = os.sysconf("SC_CLK_TCK")


def page(instance, path, token):
    request = urllib.request.Request(
        f"http://{instance}{path}",
        headers={"Authorization": f"Bearer {token.read_text()}"})
    with urllib.request.urlopen(request, timeout=60) as got:
        return got.read().decode()


def cpu_seconds(pid):
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2:].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def start_time(pid):
    """When the process started, by the system's own clock."""
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    ticks = int(text[text.rindex(")") + 2:].split()[19])
    boot = next(int(line.split()[1]) for line in
                pathlib.Path("/proc/stat").read_text().splitlines()
                if line.startswith("btime"))
    return boot + ticks / TICKS


class Facts:
    """What is known. Times are seconds; a window begins and ends with a scrape
    of the main server between two works."""

    def __init__(self, main, second, prometheus):
        self.main, self.second, self.prometheus = main, second, prometheus
        self.work = Work(main, second)
        self.windows = {}
        self.moments = {}  # name -> job -> time of a scrape
        self.marks = []    # (time of a scrape, Analysis)

    def scrape(self):
        """job -> the time of a scrape that began after this call."""
        return {job: self.prometheus.next_scrape(job, self.main.instance)
                for job in JOBS}

    def gather(self, rounds, pause, every=0):
        """`rounds` of the work, `pause` seconds between them; with `every`, a
        text is cancelled and an answer held back every so many rounds, too."""
        self._begin()
        for number in range(rounds):
            if number == rounds // 2 or every and number % every == 0:
                self._moments()
            if number == rounds - 1:
                self._restart()
            self.work.round(number + 1)
            if number in (0, rounds // 2, rounds - 1):
                at = self.scrape()["qkscope_activations"]
                self.marks.append((at, self.work.one.tally.analyses[-1]))
            time.sleep(pause)
        self._end()

    def _begin(self):
        """Work that makes every series exist, and a baseline."""
        self.work.load("tiny")
        self.work.load("poisoned")
        for number in (0, 1):
            self.work.round(number)
        self.before_baseline = self.work.one.tally.copy()
        self.work.save_baseline()
        self.work.run_and_cancel(lambda: None)
        # A new channel would open connections within the window.
        self.usage_before = self.work.usage()
        self.work.count_anew()
        self.lines_before = len(self.main.server.lines())
        self.cpu = cpu_seconds(self.main.server.process.pid)
        self.begun = self.scrape()
        # Its first counts in the window must be those before the work.
        self.prometheus.next_scrape("qkscope", self.second.instance)

    def _moments(self):
        def running():
            self.moments["running"] = self.scrape()
            self.requests_running = self.work.requests()

        def held():
            self.requests_held = self.work.requests()
            self.moments["held"] = self.scrape()

        self.work.run_and_cancel(running)
        self.waited_from, self.waited_until, self.held_bytes = (
            self.work.hold(held))

    def _restart(self):
        self.prometheus.next_scrape("qkscope", self.second.instance)
        self.second.stop()
        now = time.time()
        failed = wait_until(
            lambda: [at for at, up in self.prometheus.scrapes(
                "qkscope", self.second.instance) if at > now and not up],
            "a scrape that fails")
        # The main server's next scrape comes after that.
        self.down_at = max(failed[0], self.scrape()["qkscope"])
        self.second.start()
        self.work.open_second()
        self.prometheus.next_scrape("qkscope", self.second.instance)

    def _end(self):
        self.work.settle()
        self.prometheus.next_scrape("qkscope", self.second.instance)
        ended = self.scrape()
        self.cpu = cpu_seconds(self.main.server.process.pid) - self.cpu
        self.open_files = processes.open_files(self.main.server.process.pid)
        self.resident = processes.resident_bytes(
            self.main.server.process.pid)
        self.pages = [page(server.instance, path,
                           self.main.operator_token)
                      for path in ("/metrics", "/metrics/activations")
                      for server in (self.main, self.second)]
        self.metrics = scraped.parse(*self.pages)
        self.bounds = scraped.bounds(*self.pages)
        self.one = self.work.one.tally.copy()
        self.two = self.work.two.tally.copy()
        written = self.main.server.lines()[self.lines_before:]
        self.lines = [line for line in written if line["event"] == "rpc"]
        # Runs that went on after their calls have lines of their own.
        self.ran = [line for line in written if "prefill_ms" in line]
        self.models = self.work.models()
        self.usage = self.work.usage()
        self.started = {
            server.instance: start_time(server.server.process.pid)
            for server in (self.main, self.second)}
        self.windows = {job: Window(self.begun[job], ended[job])
                        for job in JOBS}
        self.moments["end"] = ended
