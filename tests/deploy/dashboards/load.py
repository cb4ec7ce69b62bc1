"""Known work: what is called, by whom, and what comes of it, is counted."""

import collections
import time

import grpc

from processes import metrics
from programs import wait_until

from stubs import admin, admin_grpc, analysis, analysis_grpc, spec

PROMPTS = [
    "The city of Paris lies on the river Seine, and the tower that everybody "
    "knows was built there for a great world fair.",
    "Water boils at a lower temperature on a mountain, because the air there "
    "is thin.",
    "My neighbour keeps bees, and every autumn she brings us three jars of "
    "honey from the lime trees.",
    "In 1905 a clerk in the patent office of Bern wrote four papers that "
    "changed what people know of light and time.",
    "def mean(values):\n    return sum(values) / len(values)\n\nprint(mean([3, "
    "1, 4, 1, 5, 9, 2, 6]))",
    "Der Zug nach Wien hat heute eine halbe Stunde Verspaetung, weil auf der "
    "Strecke gebaut wird.",
    "The committee meets on the first Monday of each month, and its minutes "
    "are kept for ten years.",
    "Peel the apples, cut them into slices, and cook them with a little sugar "
    "and cinnamon until they are soft.",
]
ARMS = {"clean": [], "disrupted": [{"top_k": {"k": 1}}],
        "control": [{"bottom_k": {"k": 1}}]}
POINTS = {spec.HOOK_Q: ("q", "before"), spec.HOOK_ROT_Q: ("q", "after"),
          spec.HOOK_K: ("k", "before"), spec.HOOK_ROT_K: ("k", "after"),
          spec.HOOK_V: ("v", "none")}
TINY_IDS = [1 + i % 90 for i in range(24)]
NEW_TOKENS = 6
LONG = 2000  # tokens of a text that nobody waits for
LAYERS = 30  # of SmolLM2-135M

# What came of an analysis: `statistics` and `norms` by (tensor, rope, arm,
# layer); `began` and `ended` are times.
Analysis = collections.namedtuple(
    "Analysis", "model prompt statistics norms began ended finished")


class Tally:
    """What was done, by server ("one" or "two") where several do it."""

    def __init__(self):
        self.calls = collections.Counter()      # (server, method, code)
        self.users = collections.Counter()      # alias
        self.refused = collections.Counter()    # reason
        self.cancelled = collections.Counter()  # reason
        self.prompt = collections.Counter()     # (server, model)
        self.generated = collections.Counter()  # (server, model)
        self.samples = collections.Counter()    # (model, source)
        self.analyses = []                      # Analysis, of "one"
        # Prompts of smollm2 that were measured, but not for the client.
        self.unseen = []
        self.rows = collections.Counter()       # (server, model)

    def copy(self):
        out = Tally()
        for name, value in vars(self).items():
            setattr(out, name, value.copy())
        return out

    def total(self, server="one", code=None, method=None):
        return sum(number for (s, m, c), number in self.calls.items()
                   if s == server and code in (None, c)
                   and method in (None, m))


class Caller:
    """Calls one server, and counts what it does in `tally`."""

    def __init__(self, name, channel, tokens):
        self.name = name
        self.tally = Tally()
        self._analysis = analysis_grpc.AnalysisStub(channel)
        self._admin = admin_grpc.ModelAdminStub(channel)
        self._tokens = tokens

    def open(self, user, method, request, timeout=None):
        """Starts a call."""
        stub = self._admin if hasattr(self._admin, method) else self._analysis
        token = self._tokens.get(user)
        return getattr(stub, method)(request, timeout=timeout, metadata=(
            [("authorization", f"Bearer {token}")] if token else []))

    def ended(self, user, method, code="OK"):
        self.tally.calls[self.name, method, code] += 1
        if self._tokens:
            self.tally.users[user] += 1

    def answer(self, user, method, request):
        """A call with one answer."""
        answer = self.open(user, method, request)
        self.ended(user, method)
        return answer

    def events(self, user, method, request):
        """All events of a stream that ends with OK."""
        events = list(self.open(user, method, request))
        self.ended(user, method)
        return events

    def fails(self, user, method, request, code, timeout=None):
        """A stream that must end with this code."""
        try:
            for _ in self.open(user, method, request, timeout):
                pass
        except grpc.RpcError as error:
            if error.code().name != code:
                raise
            self.ended(user, method, code)
            return
        raise AssertionError(f"{method} did not end with {code}")

    def analyze(self, user, model, prompt, arms=tuple(ARMS)):
        """An analysis of all hook points."""
        began = time.time()
        events = self.events(user, "Analyze", analyze_request(
            model, prompt, arms=arms))
        statistics, norms = {}, {}
        for event in events:
            if event.WhichOneof("event") == "layer":
                layer = event.layer
                key = (*POINTS[layer.point], layer.arm, layer.layer)
                statistics[key] = layer.statistics
                norms[key] = (tuple(layer.shape), layer.data)
        finished = events[-1].finished
        self.count_run(model, finished.prompt_tokens, 0, len(arms))
        self.tally.samples[model, "analyze"] += 1
        if self.name == "one":
            self.tally.analyses.append(
                Analysis(model, prompt, statistics, norms, began, time.time(),
                         finished))
        return finished

    def generate(self, user, model, prompt, tokens=NEW_TOKENS):
        events = self.events(user, "Generate", generate_request(
            model, prompt, tokens))
        finished = events[-1].finished
        self.count_run(model, finished.prompt_tokens,
                       finished.summary.generated_tokens)
        self.tally.samples[model, "generate"] += 1
        if model == "smollm2":
            self.tally.unseen.append(prompt)

    def score(self, user, model, pairs):
        request = analysis.ScoreRequest(model=model, pairs=[
            {"context": {"token_ids": {"ids": context}},
             "continuation": {"token_ids": {"ids": continuation}}}
            for context, continuation in pairs])
        answer = self.answer(user, "Score", request)
        for one in answer.results:
            self.count_run(
                model, one.context_tokens + one.continuation_tokens, 0)
        self.tally.samples[model, "score"] += len(pairs)

    def count_run(self, model, prompt, generated, arms=1):
        """A run, of whose generated tokens the last is no row of a pass."""
        self.tally.prompt[self.name, model] += prompt
        self.tally.generated[self.name, model] += generated
        self.tally.rows[self.name, model] += (
            prompt * arms + max(0, generated - 1))


def input_of(prompt):
    if isinstance(prompt, str):
        return {"text": prompt.encode()}
    return {"token_ids": {"ids": prompt}}


def analyze_request(model, prompt, arms=("clean",), points=tuple(POINTS),
                    form=spec.NORM_OVER_TOKENS, **more):
    return analysis.AnalyzeRequest(
        model=model, input=input_of(prompt),
        arms=[{"name": name, "disruptions": ARMS[name]} for name in arms],
        capture={"points": points, "form": form}, **more)


def generate_request(model, prompt, tokens):
    return analysis.GenerateRequest(
        model=model, input=input_of(prompt),
        generate={"max_new_tokens": tokens, "ignore_eos": True})


class Work:
    """The work on both servers. Its parts may be done any number of times."""

    def __init__(self, main, second):
        self._main, self._second = main, second
        credentials = grpc.ssl_channel_credentials(main.ca.read_bytes())
        # A stream that is not read must stop the server soon.
        self.one = Caller("one", grpc.secure_channel(
            main.server.listen, credentials,
            [("grpc.http2.bdp_probe", 0)]), main.tokens)
        self.two = None
        self.open_second()
        # Lines of the log that are not of this work: health.
        self._others = len(main.rpcs())
        self._counted = 0

    def open_second(self):
        """A channel to the second server, which may have started anew."""
        tally = self.two.tally if self.two else Tally()
        self.two = Caller(
            "two", grpc.insecure_channel(self._second.server.listen), {})
        self.two.tally = tally

    def count_anew(self):
        """Begins new tallies."""
        self.settle()
        self._counted += self.one.tally.total()
        self.one.tally, self.two.tally = Tally(), Tally()

    def settle(self):
        """Waits until the main server has counted all calls so far, and both
        have ended and charged all their runs."""
        wanted = self._others + self._counted + self.one.tally.total()
        wait_until(lambda: len(self._main.rpcs()) >= wanted,
                         "the log of the last calls")
        for server in (self._main, self._second):
            wait_until(lambda: metrics(server.server)[
                "qkscope_running_requests"][""] == 0, "the end of all runs")

    def load(self, name):
        self.one.events("ops", "LoadModel", admin.LoadModelRequest(
            name=name, path=name))

    def save_baseline(self):
        self.one.answer("ops", "SaveBaseline",
                        admin.SaveBaselineRequest(model="smollm2"))

    def usage(self):
        """alias -> UserUsage."""
        answer = self.one.answer("ops", "GetUsage", analysis.GetUsageRequest(
            all_users=True))
        return {one.user: one for one in answer.users}

    def models(self):
        """name -> ModelInfo."""
        answer = self.one.answer("ops", "ListModels",
                                 analysis.ListModelsRequest())
        return {one.name: one for one in answer.models}

    def round(self, number):
        """Calls of many kinds, one after the other; at the end an analysis, so
        that it is the last that the activations show."""
        one = self.one
        prompt = PROMPTS[number % len(PROMPTS)]
        one.generate("bob", "smollm2", prompt)
        one.score("ada", "tiny", [(TINY_IDS[:10], TINY_IDS[10:14]),
                                  (TINY_IDS[:8], TINY_IDS[8:11])])
        one.answer("cy", "Tokenize", analysis.TokenizeRequest(
            model="smollm2", input=input_of(prompt)))
        one.analyze("cy", "tiny", TINY_IDS)
        one.analyze("bob", "poisoned", TINY_IDS, arms=["clean"])
        one.fails("cy", "Analyze", analyze_request("absent", TINY_IDS),
                  "NOT_FOUND")
        one.fails("eve", "Analyze", analyze_request("tiny", TINY_IDS),
                  "RESOURCE_EXHAUSTED")
        one.tally.refused["user_budget"] += 1
        one.fails("ops", "LoadModel", admin.LoadModelRequest(
            name="broken", path="tiny", sha256="0" * 64), "DATA_LOSS")
        self._keep(prompt)
        self.two.generate("anonymous", "tiny", TINY_IDS)
        self.two.analyze("anonymous", "tiny", TINY_IDS[4:])
        one.analyze("ada", "smollm2", prompt)

    def _keep(self, prompt):
        """Ada leaves a request behind and fetches its result."""
        one = self.one
        events = one.events("ada", "Analyze", analyze_request(
            "smollm2", prompt, detach=True))
        request_id = events[0].accepted.request_id
        events = one.events("ada", "GetResult", analysis.GetResultRequest(
            request_id=request_id))
        one.tally.samples["smollm2", "analyze"] += 1
        one.tally.unseen.append(prompt)
        one.count_run("smollm2", events[-1].finished.prompt_tokens, 0)

    def run_and_cancel(self, while_running):
        """Bob loses interest in a long text; calls `while_running`."""
        one = self.one
        call = one.open("bob", "Generate", generate_request(
            "smollm2", PROMPTS[0], LONG))
        next(iter(call))
        while_running()
        call.cancel()
        one.ended("bob", "Generate", "CANCELLED")
        one.tally.cancelled["client"] += 1
        one.tally.samples["smollm2", "generate"] += 1
        one.tally.unseen.append(PROMPTS[0])
        self.settle()

    def hold(self, while_held):
        """Ada does not read a large answer, so Bob's must wait for buffers.
        Calls `while_held` when nothing moves any more, then ends both. Returns
        the time before and after Bob's request was seen in the queue, and the
        bytes of the answer."""
        request = analyze_request(
            "smollm2", " ".join(PROMPTS[:4] * 3), form=spec.RAW,
            points=[spec.HOOK_ROT_Q, spec.HOOK_ROT_K, spec.HOOK_V])
        one = self.one
        stalled = one.open("ada", "Analyze", request)
        next(iter(stalled))
        self._await_states(STREAMING=1)
        before = time.time()
        waiting = one.open("bob", "Analyze", request)
        self._await_states(STREAMING=1, QUEUED=1)
        times = before, time.time()
        while_held()
        stalled.cancel()
        one.ended("ada", "Analyze", "CANCELLED")
        one.tally.cancelled["client"] += 1
        finished = list(waiting)[-1].finished
        one.ended("bob", "Analyze")
        for _ in range(2):  # both have run
            one.count_run("smollm2", finished.prompt_tokens, 0)
        self.settle()
        return *times, finished.streamed_bytes

    def requests(self):
        """All users' requests that have not ended: [(alias, state)]."""
        answer = self.one.answer("ops", "ListRequests",
                                 analysis.ListRequestsRequest(all_users=True))
        name = analysis.ListedRequest.State.Name
        return [(one.user, name(one.state)) for one in answer.requests
                if name(one.state) != "FINISHED"]

    def _await_states(self, **wanted):
        def reached():
            states = [state for _, state in self.requests()]
            return all(states.count(state) == number
                       for state, number in wanted.items())
        wait_until(reached, f"requests in the states {wanted}")
