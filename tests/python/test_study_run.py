"""Studies against a real server: killed and resumed, by the command line, and
what is wrong."""

import csv
import io
import math
import random
import signal
import subprocess
import sys
import unittest
from unittest import mock

import numpy as np
import study_served
from processes import PATIENCE_S

import qkscope
from qkscope import Arm, Capture
from qkscope.study import plan, report, rope_origin, runner, spec
from qkscope.study.errors import StudyError
from qkscope.study.store import Store
from study_served import SMALL, VALUES

# Runs a study, and ends itself with SIGKILL when SQLite begins its Nth
# statement, wherever that is: while the file is made, in the middle of a
# transaction, or between two.
KILLED = """
import os, pathlib, signal, sqlite3, sys
import qkscope
from qkscope.study import runner, spec, store

statements = int(sys.argv[1])
connect = store._connect

def count(statement):
    global statements
    statements -= 1
    if statements == 0:
        print(statement, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

def traced(path):
    connection = connect(path)
    connection.set_trace_callback(count)
    return connection

store._connect = traced
with qkscope.connect(sys.argv[2]) as lab:
    runner.run_study(lab, spec.load(sys.argv[3]), pathlib.Path(sys.argv[4]))
"""


def tables(path):
    with Store.open(path) as store:
        return report.tables(store)


class ResumeTest(study_served.ServedCase):

    KILLS = 20

    def test_killed_at_random_points(self):
        text = SMALL.replace("count = 12", "count = 36")
        file = self.folder / self.write("s.toml", text)
        with qkscope.connect(self.server.address) as lab:
            runner.run_study(lab, spec.load(str(file)),
                             self.folder / "once.sqlite")
        out = self.folder / "killed.sqlite"
        numbers = random.Random(20)
        kills, ended = [], None
        while ended is None:
            if len(kills) < 4:  # while the plan is written
                after = numbers.randint(1, 55)
            elif len(kills) < self.KILLS:
                after = numbers.randint(20, 50) if out.exists() else 130
            else:
                after = 1_000_000
            result = subprocess.run(
                [sys.executable, "-B", "-c", KILLED, str(after),
                 self.server.address, str(file), str(out)],
                capture_output=True, encoding="utf-8", timeout=PATIENCE_S,
                check=False)
            if result.returncode == -signal.SIGKILL:
                kills.append(result.stdout)
                continue
            self.assertEqual(result.returncode, 0, result.stderr)
            ended = len(kills)
        self.assertEqual(ended, self.KILLS)
        for inside in ("INSERT INTO units", "INSERT INTO answers"):
            self.assertIn(inside, "".join(kills))
        self.assertEqual(tables(out), tables(self.folder / "once.sqlite"))
        self.check_file(out, self.folder / "once.sqlite")

    def check_file(self, killed, once):
        with Store.open(killed) as one, Store.open(once) as other:
            self.assertEqual(one.counts(), (42, 42))
            self.assertEqual(list(one.answers()), list(other.answers()))
            for unit in other.units():
                self.assertEqual(one.manifest(unit.key),
                                 other.manifest(unit.key))
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()),
                         ["killed.sqlite", "once.sqlite", "s.toml"])

    def test_a_server_that_goes_away(self):
        study = spec.parse(SMALL)
        out = self.folder / "r.sqlite"
        with qkscope.connect(self.server.address) as lab:
            real, calls = lab.analyze, []

            def analyze(*arguments, **options):
                calls.append(1)
                if len(calls) > 4:
                    raise qkscope.Unavailable("the server is gone")
                return real(*arguments, **options)

            with mock.patch.object(qkscope.Lab, "analyze",
                                   lambda self, *a, **o: analyze(*a, **o)):
                with self.assertRaisesRegex(
                        StudyError, "the server is gone; run the same command "
                        "to go on"):
                    runner.run_study(lab, study, out, concurrency=1)
            with Store.open(out) as store:
                done, planned = store.counts()
            self.assertEqual(planned, 18)
            self.assertLess(0, done)
            self.assertLess(done, planned)
            seen = []
            runner.run_study(lab, study, out, progress=lambda now: seen.append(
                (now.units_done, now.seconds_left)))
        self.assertEqual([units for units, _ in seen],
                         list(range(done, planned + 1)))
        self.assertIsNone(seen[0][1])
        self.assertEqual(seen[-1][1], 0)

    def test_another_model_under_the_name(self):
        out = self.folder / "r.sqlite"
        study = spec.parse(SMALL)
        with qkscope.connect(self.server.address) as lab:
            runner.run_study(lab, study, out)
            real = plan.model_infos

            def other(*arguments):
                return {name: {**info, "weights_sha256": "0" * 64}
                        for name, info in real(*arguments).items()}

            with mock.patch.object(plan, "model_infos", other):
                with self.assertRaisesRegex(StudyError, "model tiny is not the "
                                            "one that .* was begun with"):
                    runner.run_study(lab, study, out)


class ValuesTest(study_served.ServedCase):
    """What is stored is what the server says when asked directly."""

    def test_answers(self):
        out = self.folder / "r.sqlite"
        with qkscope.connect(self.server.address) as lab:
            runner.run_study(lab, spec.parse(SMALL), out)
            with Store.open(out) as store:
                answers = {}
                for key, answer in store.answers():
                    answers.setdefault(key, []).append(answer)
                units = list(store.units())
            for unit in (units[0], units[-1]):
                for answer, arm in zip(answers[unit.key], [
                        "clean", "preset:rope_with_llm/llama/control",
                        "preset:rope_with_llm/llama"]):
                    told = lab.generate(
                        "tiny", unit.prompt["text"], arm=Arm.parse(arm),
                        max_new_tokens=5 if unit.task == "sports" else 4,
                        stop=["\n"]).result()
                    self.assertEqual(answer.text, told.text)
                    self.assertEqual(answer.stop_reason, told.stop_reason)
                    self.assertLessEqual(abs(answer.mean_logprob - np.mean(
                        [token.logprob for token in told.tokens])), 1e-6)
                    self.check_alone(lab, unit, answer, arm)

    def check_alone(self, lab, unit, answer, arm):
        if unit.task == "sports":
            self.assertIsNone(answer.alone_mean_logprob)
        elif arm == "clean":
            ids = lab.tokenize("tiny", answer.text).ids
            (score,) = lab.score("tiny", [(ids[:1], ids[1:])])
            self.assertLessEqual(abs(
                answer.alone_mean_logprob - score.logprob / (len(ids) - 1)),
                1e-5)
        else:
            self.assertTrue(math.isfinite(answer.alone_mean_logprob))

    def test_values(self):
        out = self.folder / "r.sqlite"
        study = spec.parse(VALUES)
        with qkscope.connect(self.server.address) as lab:
            runner.run_study(lab, study, out)
            with Store.open(out) as store:
                unit, *others = store.units()
                rows = [row for key, row in store.layers() if key == unit.key]
                kept = {key for key, row in store.layers() if row.norms}
                compared = {row.arm: row for key, row in store.comparisons()
                            if key == unit.key}
            self.assertEqual(kept, {unit.key})
            run = lab.analyze("tiny", unit.prompt["text"], arms=[
                "clean", "disrupted=top_k:1", "control=bottom_k:1"],
                statistics=1.5)
        self.assertEqual(len(rows), 3 * 3 * 2)
        for row in rows:
            norms = run[row.arm].point(row.point).layer(row.layer)
            mean = norms.mean(axis=1, keepdims=True)
            self.assertEqual(row.massive_count,
                             int((norms > 1.5 * mean).sum()))
            self.assertLessEqual(abs(row.ratio - (norms / mean).max()), 1e-5)
            shape, data = row.norms
            self.assertEqual(shape, norms.shape)
            np.testing.assert_allclose(
                np.frombuffer(data, "<f2").reshape(shape), norms / mean,
                rtol=1e-3)
        for arm in run.arms:
            self.assertEqual(compared[arm].top1_flips,
                             run[arm].comparison.top1_flips)

    def test_seeds_reach_arms_and_sampling(self):
        study = spec.parse(SMALL.replace(
            'kind = "tasks"', 'kind = "tasks"\nseeds = [3, 4]\n'
            "temperature = 1.5").replace(
            'control = "family"', 'control = "random_k:1"').replace(
            'disrupted = "family"',
            'disrupted = "preset:rope_with_llm/mistral/control"'))
        out = self.folder / "r.sqlite"
        with qkscope.connect(self.server.address) as lab:
            runner.run_study(lab, study, out)
        texts = {3: [], 4: []}
        with Store.open(out) as store:
            self.assertEqual(store.counts(), (36, 36))
            units = {unit.key: unit for unit in store.units()}
            for key, answer in store.answers():
                texts[units[key].seed].append(answer.text)
            for unit in list(units.values())[::7]:
                expanded = store.manifest(unit.key)["expanded"]
                self.assertEqual(expanded["generate"]["sampling"]["seed"],
                                 str(unit.seed))
                seeds = {rule["random_k"]["seed"] for arm in expanded["arms"][1:]
                         for rule in arm["disruptions"]}
                self.assertEqual(seeds, {str(unit.seed)})
        self.assertNotEqual(texts[3], texts[4])

    def test_rope_origin(self):
        prompt = "The passkey is 71432. What is the passkey?"
        with qkscope.connect(self.server.address) as lab:
            text = rope_origin.table(lab, "tiny", prompt)
            run = lab.analyze("tiny", prompt, capture=Capture(
                points=list(rope_origin.POINTS)))
        lines = text.splitlines()
        self.assertEqual(len(lines), 2 + 2 + 1)
        for i, point in enumerate(rope_origin.POINTS):
            counts = [int(value) for value in
                      [line[5 + 16 * i:15 + 16 * i] for line in lines[2:]]]
            self.assertEqual(counts[:2], list(
                run["clean"].point(point).massive_count))
            self.assertEqual(counts[2], sum(counts[:2]))


class CommandLineTest(study_served.ServedCase):

    def test_run_report_table(self):
        self.write("s.toml", SMALL)
        done = self.study("run", "s.toml")
        self.assertIn("small.sqlite is complete", done.stdout)
        self.assertIn("18 of 18", done.stderr)
        again = self.study("run", "s.toml")
        self.assertEqual(again.stderr, "18 of 18\n")
        self.assertIn("tiny             passkey              clean",
                      self.study("table", "small.sqlite").stdout)
        rows = list(csv.DictReader(io.StringIO(self.study(
            "table", "small.sqlite", "--csv", "scores").stdout)))
        self.assertEqual(len(rows), 2 * 3 * 2)
        self.study("report", "small.sqlite", "-o", "out")
        self.assertEqual(sorted(p.name for p in (
            self.folder / "out").iterdir()), [
                "accuracy_tiny_paper_code.png", "accuracy_tiny_paper_code.svg",
                "accuracy_tiny_strict.png", "accuracy_tiny_strict.svg",
                "report.html", "scores.csv", "tests.csv"])
        for file in (self.folder / "out").iterdir():
            self.assertGreater(file.stat().st_size, 500)

    def test_variants_of_a_model(self):
        self.write("q.toml", """
name = "q"
kind = "tasks"
compare = "models"
[arms]
clean = "clean"
[[tasks]]
name = "sports"
count = 6
max_new_tokens = 4
""")
        self.study("run", "q.toml", "--model", "tiny:none", "--model",
                   "variant:none", "--out", "q.sqlite")
        (self.folder / "out").mkdir()
        rows = tables(self.folder / "q.sqlite")["tests"]
        tests = list(csv.DictReader(io.StringIO(rows)))
        self.assertEqual([(t["model"], t["first"], t["second"], t["lost"])
                          for t in tests], [("clean", "tiny", "variant", "0")] * 2)

    def test_list_and_rope_origin(self):
        listed = self.study("list").stdout
        for name in ("contextual_vs_parametric", "knowledge_conflict"):
            self.assertIn(name, listed)
        shown = self.study("rope_origin", "--model", "tiny", "--prompt", "Hello")
        self.assertIn("Q before", shown.stdout)

    def test_ctrl_c(self):
        # So many that they are not done when the signal comes.
        self.write("s.toml", SMALL.replace("count = 6", "count = 20000"))
        process = subprocess.Popen(
            [sys.executable, "-B", "-m", "qkscope.study", "run", "s.toml",
             "--task", "passkey", "--concurrency", "2", "--server",
             self.server.address], cwd=self.folder, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, encoding="utf-8",
            preexec_fn=lambda: signal.signal(signal.SIGINT,
                                             signal.default_int_handler))
        with process:
            self.assertEqual(process.stderr.readline(), "0 of 20000\n")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode, 130, said)
        self.assertEqual(said.splitlines()[-1],
                         "stopped; the same command goes on")
        self.assertNotIn("Traceback", said)
        with Store.open(self.folder / "small.sqlite") as store:
            self.assertLess(store.counts()[0], 20000)
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()),
                         ["s.toml", "small.sqlite"])

    def error(self, *arguments, expect=1):
        result = self.study(*arguments, expect=expect)
        lines = result.stderr.strip().splitlines()
        self.assertTrue(lines[-1].startswith("error: "), result.stderr)
        self.assertNotIn("Traceback", result.stderr)
        self.assertLess(len(lines[-1]), 500)
        return lines[-1]

    def test_what_is_wrong_is_one_sentence(self):
        self.write("s.toml", SMALL)
        self.write("bad.toml", SMALL + "zzz = 1")
        self.write("arm.toml", SMALL.replace('disrupted = "family"',
                                             'disrupted = "top_q:1"'))
        self.write("large.toml", SMALL.replace('disrupted = "family"',
                                               'disrupted = "top_k:999"'))
        self.write("long.toml", SMALL.replace("lengths = [0]",
                                              "lengths = [5000]"))
        self.write("format.toml", SMALL.replace('"none"', '"klingon"'))
        self.write("model.toml", SMALL.replace('"tiny"', '"none-such"'))
        self.write("data.toml", SMALL.replace('name = "sports"',
                                              'name = "gsm8k"'))
        self.write("text.sqlite", "this is no database, only a text file " * 30)
        for arguments, message in [
                (["run", "bad.toml"], "unknown key 'zzz'"),
                (["run", "nothing"], "nothing is no file, and no ready study"),
                (["run", "arm.toml"], "top_q"),
                (["run", "large.toml"], "model tiny, task passkey: arms[1]"),
                (["run", "long.toml"], "model tiny, task passkey"),
                (["run", "format.toml"], "no chat format 'klingon'"),
                (["run", "model.toml"], "the server has no model 'none-such'; "
                 "it has tiny or variant"),
                (["run", "data.toml"], "--data FOLDER must name a folder with "
                 "gsm8k/test.jsonl"),
                (["run", "s.toml", "--task", "art"], "no such task"),
                (["run", "s.toml", "--count", "0"], "--count must be at least"),
                (["run", "s.toml", "--out", "text.sqlite"],
                 "is no SQLite database"),
                (["run", "s.toml", "--out", "a/b.sqlite"], "there is no folder"),
                (["run", "s.toml", "--model", "a b"], "--model[0]: name must"),
                (["run", "s.toml", "--server", "127.0.0.1:1"],
                 "127.0.0.1:1"),
                (["report", "none.sqlite", "-o", "x"], "does not exist"),
                (["table", "text.sqlite"], "is no SQLite database")]:
            with self.subTest(arguments=arguments):
                self.assertIn(message, self.error(*arguments))
        self.assertEqual(
            [p.name for p in self.folder.iterdir() if p.suffix == ".sqlite"],
            ["text.sqlite"])


if __name__ == "__main__":
    unittest.main()
