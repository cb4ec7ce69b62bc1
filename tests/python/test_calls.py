"""Retries, resumption, errors and long lists, against a service that answers as
a test tells it. Both call layers do the same."""

import asyncio
import time
import unittest
from unittest import mock

import grpc
from fake_service import Answer, FakeService, with_ids
from fake_stream import fake_stream

import qkscope
from qkscope import Arm, connect, connect_async
from qkscope import retry as retries
from qkscope.v1 import analysis_pb2 as v1

CODE = grpc.StatusCode
GONE = Answer(0, CODE.UNAVAILABLE, "gone")


class Case(unittest.TestCase):

    def setUp(self):
        # What is waited between retries is another test's business.
        patcher = mock.patch.object(retries, "_FIRST_BACKOFF_S", 0.001)
        patcher.start()
        self.addCleanup(patcher.stop)

    def service(self, *answers, events=None):
        service = FakeService(fake_stream() if events is None else events)
        service.answers = list(answers)
        self.addCleanup(service.__exit__)
        return service

    def both(self, make_service, call, check):
        """Runs `call(lab)`, a call or a coroutine, with both labs, each on a
        service of its own, and `check(service, result or error)`."""
        service = make_service()
        with self.subTest("Lab"), connect(service.address) as lab:
            try:
                result = call(lab)
            except qkscope.QkscopeError as error:
                result = error
            check(service, result)
        service = make_service()

        async def run():
            async with connect_async(service.address) as lab:
                try:
                    return await call(lab)
                except qkscope.QkscopeError as error:
                    return error
        with self.subTest("AsyncLab"):
            check(service, asyncio.run(run()))

    def analyze(self, make_service, check, **options):
        self.both(make_service,
                  lambda lab: lab.analyze("fake", [1], **options), check)


class CallsTest(Case):

    def test_a_run(self):
        def check(service, run):
            self.assertEqual(run.arms, ["clean", "top_k:1"])
            self.assertEqual(run["clean"].q.norms.shape, (2, 2, 4))
            self.assertEqual(run["clean"].q.massive_count.tolist(), [1, 1])
            self.assertEqual(run["top_k:1"].comparison.mean_kl, 0.5)
            self.assertEqual(run["top_k:1"].replaced, 6)
            self.assertEqual(run.request_id, "fake-1")
            self.assertEqual(run.token_ids, [10, 11, 12])
            self.assertTrue(service.calls[0][1].strict)
        self.analyze(self.service, check)

    def test_requests_are_strict(self):
        from qkscope.spec import generate_request, score_request
        self.assertTrue(score_request("m", [("a", "b")]).strict)
        self.assertTrue(generate_request("m", "a", 5).strict)

    def test_unavailable_is_tried_again(self):
        def check(service, run):
            self.assertIsInstance(run, qkscope.Run)
            self.assertEqual(service.methods(), ["Analyze"] * 3)
        self.analyze(lambda: self.service(GONE, GONE), check)

    def test_retries_end(self):
        def check(service, error):
            self.assertIsInstance(error, qkscope.Unavailable)
            self.assertEqual(len(service.calls), 4)
        self.analyze(lambda: self.service(*[GONE] * 9), check)

    def test_a_full_queue_is_tried_again_when_it_says_so(self):
        full = Answer(1, CODE.RESOURCE_EXHAUSTED, "the queue is full", 0.002)
        self.analyze(lambda: self.service(full),
                     lambda service, run: self.assertEqual(
                         len(service.calls), 2))

        def check(service, error):
            self.assertIsInstance(error, qkscope.OverLimit)
            self.assertIsNone(error.retry_after)
            self.assertEqual(error.request_id, "abc")
            self.assertIn("[request abc]", str(error))
            self.assertEqual(len(service.calls), 1)
        self.analyze(lambda: self.service(
            Answer(0, CODE.RESOURCE_EXHAUSTED, "too large",
                   request_id="abc")), check)

    def test_the_servers_delay_is_kept(self):
        begin = time.monotonic()
        service = self.service(
            Answer(0, CODE.RESOURCE_EXHAUSTED, "full", retry_after=0.3))
        with connect(service.address) as lab:
            lab.analyze("fake", [1])
        self.assertGreaterEqual(time.monotonic() - begin, 0.3)

    def test_a_delay_past_the_deadline_is_not_waited_for(self):
        service = self.service(
            Answer(0, CODE.RESOURCE_EXHAUSTED, "full", retry_after=3000))
        with connect(service.address, timeout=10) as lab:
            with self.assertRaises(qkscope.OverLimit) as caught:
                lab.analyze("fake", [1])
        self.assertEqual(caught.exception.retry_after, 3000)

    def test_what_has_begun_is_not_tried_again(self):
        for code in (CODE.UNAVAILABLE, CODE.INTERNAL, CODE.UNKNOWN, CODE.OK):
            def check(service, error, code=code):
                self.assertIsInstance(error, qkscope.IncompleteStream)
                self.assertIn("after 4 events without Finished", str(error))
                self.assertEqual(error.request_id, "fake-1")
                self.assertEqual(len(service.calls), 1, code)
            self.analyze(lambda code=code: self.service(Answer(5, code)),
                         check)

    def test_nothing_is_handed_over_twice(self):
        def check(service, error):
            self.assertIsInstance(error, qkscope.OverLimit)
            self.assertEqual(len(service.calls), 1)
        self.analyze(lambda: self.service(
            Answer(5, CODE.RESOURCE_EXHAUSTED, "budget", 0.001)), check)

    def test_a_status_with_a_reason_stays(self):
        def check(service, error):
            self.assertIsInstance(error, qkscope.Cancelled)
            self.assertEqual(len(service.calls), 1)
        self.analyze(lambda: self.service(Answer(5, CODE.CANCELLED)), check)

    def test_a_late_status_does_not_matter(self):
        self.analyze(lambda: self.service(Answer(None, CODE.UNAVAILABLE)),
                     lambda _, run: self.assertIsInstance(run, qkscope.Run))

    def test_a_violation_is_told(self):
        events = fake_stream()
        events[4].layer.crc32c ^= 1

        def check(service, error):
            self.assertIsInstance(error, qkscope.IncompleteStream)
            self.assertIn("checksum of the chunk at byte 0", str(error))
            self.assertEqual(len(service.calls), 1)
        self.analyze(lambda: self.service(events=events), check)

    def test_a_resumable_stream_is_taken_up(self):
        breaks = [Answer(5, CODE.UNAVAILABLE), Answer(3, CODE.INTERNAL),
                  GONE, Answer(1, CODE.UNKNOWN)]

        def check(service, run):
            self.assertIsInstance(run, qkscope.Run, run)
            self.assertEqual(len(run.tensors), 12)
            self.assertEqual(service.methods(),
                             ["Analyze"] + ["GetResult"] * 4)
            self.assertEqual([call[1].from_seq for call in service.calls[1:]],
                             [4, 6, 6, 6])
            self.assertEqual({call[1].request_id
                              for call in service.calls[1:]}, {"fake-1"})
        self.analyze(lambda: self.service(*breaks), check, resumable=True)

    def test_resumptions_without_progress_end(self):
        def check(service, error):
            self.assertIsInstance(error, qkscope.IncompleteStream)
            self.assertEqual(service.methods(),
                             ["Analyze"] + ["GetResult"] * 4)
        self.analyze(lambda: self.service(Answer(5, CODE.UNAVAILABLE),
                                          *[GONE] * 9), check, resumable=True)

    def test_detach_and_result(self):
        self.both(self.service, lambda lab: lab.detach("fake", [1]),
                  lambda _, id_: self.assertEqual(id_, "fake-1"))

        def check(service, run):
            self.assertIsInstance(run, qkscope.Run, run)
            self.assertEqual([call[1].from_seq for call in service.calls],
                             [0, 3])
            self.assertEqual(service.calls[0][2]["x-qkscope-replica"], "b")
        self.both(lambda: self.service(Answer(4, CODE.UNAVAILABLE)),
                  lambda lab: lab.result("0123456789abcdef-b"), check)

    def test_layers_come_while_the_stream_runs(self):
        service = self.service(events=fake_stream()[:5])
        service.hang = True
        with connect(service.address) as lab:
            with lab.stream("fake", [1]) as stream:
                names = [next(stream).name for _ in range(3)]
            self.assertEqual(names[0], "clean/layer.0.hook_rot_q")
            # Leaving the block has cancelled the call.
            self.assertTrue(service.cancelled.wait(600))

    def test_leaving_a_resumable_stream_cancels_the_request(self):
        service = self.service(events=fake_stream()[:5])
        service.hang = True
        service.unary["Cancel"] = [v1.CancelResponse(was_running=True)]
        with connect(service.address) as lab:
            with lab.stream("fake", [1], resumable=True) as stream:
                next(stream)
        self.assertEqual(service.methods(), ["Analyze", "Cancel"])
        self.assertEqual(service.calls[1][1].request_id, "fake-1")

    def test_a_deadline(self):
        def hanging():
            service = self.service(events=fake_stream()[:5])
            service.hang = True
            return service

        def check(_, error):
            self.assertIsInstance(error, qkscope.DeadlineExceeded)
        self.analyze(hanging, check, timeout=0.2)

    def test_the_token_is_sent(self):
        service = self.service()
        with connect(service.address, token="secret") as lab:
            lab.analyze("fake", [1])
        self.assertEqual(service.calls[0][2]["authorization"], "Bearer secret")

    def test_errors(self):
        for code, message, kind, field, told in (
                (CODE.INVALID_ARGUMENT, "arms[0].name: is empty",
                 qkscope.InvalidRequest, "arms[0].name", "is empty"),
                (CODE.OUT_OF_RANGE, "input.token_ids.ids[3]: 7 is too large",
                 qkscope.InvalidRequest, "input.token_ids.ids[3]", "too large"),
                (CODE.INVALID_ARGUMENT,
                 "capture: unknown field 99 (strict is set)",
                 qkscope.VersionMismatch, "capture", "older than this client"),
                (CODE.UNIMPLEMENTED, "", qkscope.VersionMismatch, "",
                 "does not have this call"),
                (CODE.UNAUTHENTICATED, "unknown token",
                 qkscope.Unauthenticated, "", "QKSCOPE_TOKEN"),
                (CODE.PERMISSION_DENIED, "operators only",
                 qkscope.PermissionDenied, "", "operators only"),
                (CODE.NOT_FOUND, "model 'x' is not loaded; see ListModels",
                 qkscope.NotFound, "", "models() lists"),
                (CODE.INTERNAL, "bug", qkscope.ServerError, "", "bug"),
                (CODE.ABORTED, "x", qkscope.ServerError, "", "x")):
            def check(_, error, told=told, kind=kind, field=field, code=code):
                self.assertIsInstance(error, kind)
                self.assertEqual(error.field, field)
                self.assertEqual(error.code, code.name)
                self.assertIn(told, str(error))
                self.assertNotIn("\n", str(error))
            self.analyze(lambda code=code, message=message: self.service(
                Answer(0, code, message)), check)

    def test_details_that_cannot_be_read(self):
        class Strange:  # pylint: disable=missing-class-docstring
            def code(self):
                return CODE.INTERNAL

            def details(self):
                return "x"

            def trailing_metadata(self):
                return [("grpc-status-details-bin", b"\xff\xff\xff")]
        from qkscope.errors import from_rpc_error
        self.assertEqual(str(from_rpc_error(Strange(), "s")), "x")

    def test_long_lists_come_in_parts(self):
        def service():
            service = self.service()
            service.unary["ListModels"] = [
                v1.ListModelsResponse(models=[{"name": "a"}, {"name": "b"}],
                                      next_offset=2),
                v1.ListModelsResponse(models=[{"name": "c"}])]
            return service

        def check(service, models):
            self.assertEqual([model.name for model in models],
                             ["a", "b", "c"])
            self.assertEqual([call[1].offset for call in service.calls], [0, 2])
        self.both(service, lambda lab: lab.models(), check)

        def stuck():
            service = self.service()
            service.unary["ListModels"] = [
                v1.ListModelsResponse(next_offset=0)]
            return service
        self.both(stuck, lambda lab: lab.models(),
                  lambda _, error: self.assertIn("next_offset", str(error)))

    def test_unary_calls_are_tried_again(self):
        def service():
            service = self.service(GONE)
            service.unary["GetModel"] = [v1.ModelInfo(name="a")]
            return service

        def check(service, model):
            self.assertEqual(model.name, "a")
            self.assertEqual(service.methods(), ["GetModel"] * 2)
        self.both(service, lambda lab: lab.model("a"), check)

    def test_many_pairs_are_scored_in_several_calls(self):
        def service():
            service = self.service()
            service.unary["GetServerInfo"] = [
                v1.ServerInfo(limits={"max_score_pairs": 60})]
            service.unary["Score"] = [
                v1.ScoreResponse(results=[{"logprob": -i} for i in range(60)]),
                v1.ScoreResponse(results=[{"logprob": -i} for i in range(40)])]
            return service

        def check(service, scores):
            self.assertEqual([len(call[1].pairs) for call in service.calls
                              if call[0] == "Score"], [60, 40])
            self.assertEqual([score.logprob for score in scores],
                             [-i for i in range(60)] + [-i for i in range(40)])
        self.both(service, lambda lab: lab.score("fake", [([1], [2])] * 100),
                  check)


class GenerationTest(Case):

    def events(self):
        return [v1.GenerateEvent(token=v1.Token(step=i, id=i, text=text))
                for i, text in enumerate((b"Hel", b"lo"))] + [
                    v1.GenerateEvent(finished=v1.GenerateFinished(
                        prompt_tokens=3, summary=v1.ArmSummary(
                            generated_text=b"Hello", stop_reason="length")))]

    def test_generation(self):
        service = self.service(GONE, events=self.events())
        with connect(service.address) as lab:
            generation = lab.generate("fake", [1], arm=Arm.top_k(1), stop="x")
            self.assertEqual([token.text for token in generation],
                             ["Hel", "lo"])
            self.assertEqual(generation.text, "Hello")
            self.assertEqual(generation.stop_reason, "length")
            self.assertEqual(generation.prompt_tokens, 3)
            self.assertEqual([t.id for t in generation.tokens], [0, 1])
        request = service.calls[1][1]
        self.assertEqual(list(request.generate.stop_strings), ["x"])
        self.assertEqual(request.arm.name, "top_k:1")

    def test_a_broken_generation(self):
        for code in (CODE.OK, CODE.UNAVAILABLE):
            service = self.service(Answer(1, code), events=self.events())
            with connect(service.address) as lab:
                with self.assertRaises(qkscope.IncompleteStream):
                    lab.generate("fake", [1]).result()
            self.assertEqual(len(service.calls), 1)


class ManyTest(Case):

    def many(self, service, prompts, **options):
        with connect(service.address) as lab:
            return list(lab.analyze_many("fake", prompts, **options))

    def test_results_and_errors_in_order(self):
        service = self.service()
        service.many_events = with_ids({
            "0": fake_stream(), "1": v1.ManyPromptError(code=3, message="bad"),
            "2": fake_stream()})
        results = self.many(service, iter([[1], [2], [3]]))
        self.assertEqual([result.id for result in results], ["0", "1", "2"])
        self.assertIsNone(results[0].error)
        self.assertEqual(len(results[2].run.tensors), 12)
        self.assertIsInstance(results[1].error, qkscope.InvalidRequest)
        self.assertEqual(len(service.calls[0][1]), 4)

    def test_a_retry_sends_all_prompts_again(self):
        service = self.service(GONE)
        service.many_events = with_ids({"a": fake_stream(),
                                        "b": fake_stream()})
        results = self.many(service, iter([[1], [2]]), ids=["a", "b"])
        self.assertEqual([result.id for result in results], ["a", "b"])
        self.assertEqual(len(service.calls), 2)

    def test_broken_streams(self):
        good = with_ids({"0": fake_stream(), "1": fake_stream()})
        swapped = with_ids({"1": fake_stream(), "0": fake_stream()})
        early = with_ids({"0": fake_stream()})
        miscounted = with_ids({"0": fake_stream(), "1": fake_stream()})
        miscounted[-1].finished.failed = 1
        ok = with_ids({"0": v1.ManyPromptError(), "1": fake_stream()})
        for events, message in (
                (good[:-1], "without Finished"), (good[:5], "without Finished"),
                (swapped, "expected prompt '0', got '1'"),
                (early, "the summary came before the end of prompt '1'"),
                (miscounted, "the summary counts 2 prompts, 1 failed"),
                (ok, "failed with the code OK"),
                (good + good[-1:], "an event after the summary"),
                (with_ids({"0": fake_stream(), "1": fake_stream(),
                           "2": fake_stream()}), "after the last one")):
            service = self.service()
            service.many_events = events
            with self.subTest(message), self.assertRaisesRegex(
                    qkscope.IncompleteStream, message):
                self.many(service, [[1], [2]])

    def test_a_prompt_that_is_none(self):
        service = self.service()
        with self.assertRaisesRegex(qkscope.InvalidRequest, "give text"):
            self.many(service, [[1], 3.5])

    def test_an_aggregate(self):
        entry = v1.AggregateEntry(
            arm="clean", layer=1, point=4, phase=1, stage=1, count=2,
            shape=[1, 2], mean=b"\0\0\x80?\0\0\0@", variance=bytes(8))
        service = self.service()
        service.many_events = [
            v1.AnalyzeManyEvent(error=v1.ManyPromptError(
                id="0", code=3, message="bad")),
            v1.AnalyzeManyEvent(aggregate=v1.Aggregate(entries=[entry])),
            v1.AnalyzeManyEvent(finished=v1.ManyFinished(prompts=1, failed=1))]
        with connect(service.address) as lab:
            aggregate = lab.analyze_many("fake", [[1]], aggregate=True)
        self.assertEqual(aggregate.entries[0].mean.tolist(), [[1, 2]])
        self.assertEqual(aggregate.select(layer=1, point="hook_rot_q"),
                         aggregate.entries)
        self.assertEqual(list(aggregate.errors), ["0"])


class ConnectTest(unittest.TestCase):

    def test_nobody_there(self):
        with connect("127.0.0.1:1", retries=0) as lab:
            with self.assertRaises(qkscope.Unavailable) as caught:
                lab.models()
        self.assertIn("is a server running at 127.0.0.1:1?",
                      str(caught.exception))

    def test_options(self):
        for options, message in (
                ({"token": "two words"}, "printable ASCII"),
                ({"certificate": b"x"}, "give both or neither"),
                ({"token_file": "/nowhere/t"}, "cannot read /nowhere/t"),
                ({"ca": "/nowhere/ca"}, "ca: cannot read /nowhere/ca"),
                ({"timeout": -1}, "timeout: must be seconds >= 0")):
            with self.subTest(message), self.assertRaisesRegex(
                    qkscope.QkscopeError, message):
                connect("127.0.0.1:1", **options).models()

    def test_the_environment(self):
        with FakeService() as service, mock.patch.dict("os.environ", {
                "QKSCOPE_SERVER": service.address, "QKSCOPE_TOKEN": "t"}):
            service.unary["ListModels"] = [v1.ListModelsResponse()]
            with connect() as lab:
                self.assertEqual(lab.models(), [])
            self.assertEqual(service.calls[0][2]["authorization"], "Bearer t")


if __name__ == "__main__":
    unittest.main()
