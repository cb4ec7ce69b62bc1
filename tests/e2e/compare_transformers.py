"""Compares a running qkscoped with transformers, in float64, on a real model.

    python tests/e2e/compare_transformers.py --gguf FILE.gguf \
        --server-binary build/release/bin/qkscoped
    python tests/e2e/compare_transformers.py --gguf FILE.gguf \
        --server HOST:PORT --model NAME

A developer's script, not part of CI: it needs torch, transformers, gguf,
accelerate and grpcio-tools, and takes minutes. The server must serve the model
from the same file with f32 compute. Models of families other than Llama run
clean only.

Every prompt runs with the arms clean, top_k:1 and bottom_k:1 (pooled mean, Q
and K after RoPE). For each arm, the script checks:
    norms     every L2 norm over tokens of hook_rot_q, hook_rot_k and hook_v
              within NORM_TOLERANCE, relative. In a short prompt a dim may be
              almost 0 by cancellation; below FLOOR of its head's mean norm the
              error is relative to that
    top 1     the same id at each position where the oracle's margin between its
              first two logits is over MARGIN
    massive   the same count (lambda 5), but for entries within
              NORM_TOLERANCE of the threshold
    dims      the chosen dims, unless the oracle's decision is narrower than
              CHOICE_GAP, relative
    values    what is written there
    KL, logp  of the comparison with the clean arm
Values of disrupted arms are compared with an oracle that is forced to use the
server's dims, so that one narrow choice does not spoil everything after it.
A NaN fails every check. The exit status is 1 if anything failed.
"""

import argparse
import collections
import contextlib
import dataclasses
import importlib
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import grpc
import grpc_tools
import numpy as np
import torch
import transformers
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "goldens"))
import disruption_oracle  # noqa: E402
import hf_oracle  # noqa: E402
import statistics_oracle  # noqa: E402

NORM_TOLERANCE = 1e-3
FLOOR = 1e-2
# Relative to the root mean square of the replaced entry.
VALUE_TOLERANCE = 1e-3
KL_TOLERANCE = 2e-3  # Nats, and relative above 1.
LOGPROB_TOLERANCE = 5e-3  # Nats.
MARGIN = 1e-3
CHOICE_GAP = 1e-4
MASSIVE_OVER = 5.0
ARMS = {"clean": None, "top_k:1": "top_k", "bottom_k:1": "bottom_k"}
POINTS = ("hook_rot_q", "hook_rot_k", "hook_v")
DEADLINE_S = 600

TEXTS = {
    "english": (
        "The house stood at the end of a long road, and nobody in the village "
        "could say who had built it. In winter the windows were dark; in "
        "summer a lamp burned until late, and those who passed heard a piano. "
        "My grandmother told me that a sailor lived there once, that he had "
        "come back from the sea with a chest of letters and never opened it. "
    ),
    "code": (
        "#include <vector>\n\n// Sum of the even numbers of `v`.\n"
        "int SumEven(const std::vector<int>& v) {\n  int sum = 0;\n"
        "  for (int x : v) {\n    if (x % 2 == 0) sum += x;\n  }\n"
        "  return sum;\n}\n\ndef fib(n):\n    a, b = 0, 1\n"
        "    for _ in range(n):\n        a, b = b, a + b\n    return a\n\n"
    ),
    "german": (
        "Die Stadt liegt an einem breiten Fluss, über den drei Brücken "
        "führen. "
        "Früher fuhren hier Schiffe mit Kohle und Getreide; heute sitzen die "
        "Menschen abends am Ufer und essen Eis. "
    ),
    "french": (
        "Il était une fois, dans une forêt où personne n'allait plus, une "
        "petite maison couverte de lierre. L'été, ses volets étaient fermés. "
    ),
    "chinese": "今天天气很好，我们一起去公园散步，看到很多人在放风筝。",
    "russian": "Старый дом стоял на краю деревни, и никто не знал, кто в нём жил. ",
    "arabic": "كان يا ما كان في قديم الزمان رجل يعيش في مدينة كبيرة. ",
    "filler": (
        "The grass is green. The sky is blue. The sun is yellow. Here we go. "
        "There and back again. "
    ),
    "numbers": "3.14159, 2.71828; 1,024 + 4,096 = 5,120. 17 * 23 = 391\n",
    "markup": (
        '{"name": "qk", "dims": [1, 2, 3], "ok": true}\n'
        '<p class="x">&amp;</p>\n'
    ),
    "repeated": "a ",
}


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A text, or its tokens, repeated and cut to a length."""

    name: str
    text: str
    length: int | None = None  # None: the text itself, tokenised by the server.


PROMPTS = [
    Prompt("one token", "The"),
    Prompt("two words", "Hello world"),
    Prompt(
        "paris",
        "The city of Paris lies on the river Seine, and the tower that "
        "everybody knows was built there for a great world fair.",
    ),
    Prompt("emoji", "Grüße 👋🏽 from Zürich \u200d— naïve café №5 \t\n  end"),
    Prompt(
        "question",
        "Question: Is the city of Lyon in France?\nAnswer yes or no.\nAnswer:",
    ),
    *(Prompt(name, text) for name, text in TEXTS.items()),
    Prompt("english 63", TEXTS["english"], 63),
    Prompt("english 64", TEXTS["english"], 64),
    Prompt("code 65", TEXTS["code"], 65),
    Prompt("german 128", TEXTS["german"], 128),
    Prompt("filler 129", TEXTS["filler"], 129),
    Prompt("chinese 300", TEXTS["chinese"], 300),
    Prompt("repeated 513", TEXTS["repeated"], 513),
    Prompt("mixed 1000", "".join(TEXTS.values()), 1000),
    Prompt("filler 2000", TEXTS["filler"], 2000),
]


# ------------------------------------------------------------------ the server


def load_stubs(proto: pathlib.Path, out: str):
    """Generates spec_pb2, analysis_pb2 and analysis_pb2_grpc into `out`."""
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = ["qkscope/v1/spec.proto", "qkscope/v1/analysis.proto"]
    status = protoc.main(
        [
            "protoc",
            f"-I{proto}",
            f"-I{well_known}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            *files,
        ]
    )
    if status != 0:
        raise RuntimeError("protoc failed")
    sys.path.insert(0, out)
    return tuple(
        importlib.import_module(f"qkscope.v1.{name}")
        for name in ("spec_pb2", "analysis_pb2", "analysis_pb2_grpc")
    )


def _free_address() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


@contextlib.contextmanager
def serve(binary: str, gguf: pathlib.Path, model: str) -> Iterator[str]:
    """Runs qkscoped; yields its address."""
    address = _free_address()
    process = subprocess.Popen(
        [
            binary,
            "--listen",
            address,
            "--metrics-listen",
            _free_address(),
            "--model",
            f"{model}={gguf},compute=f32",
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_until_ready(stub, analysis_pb2, model: str) -> None:
    ready = analysis_pb2.ModelInfo.READY
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            request = analysis_pb2.GetModelRequest(model=model)
            info = stub.GetModel(request, timeout=10, wait_for_ready=True)
            if info.state == ready:
                return
            problem = f"{model} is in state {info.state} {info.failure}"
            if info.state == analysis_pb2.ModelInfo.FAILED:
                raise RuntimeError(problem)
        except grpc.RpcError as error:
            problem = str(error)
        if time.monotonic() > end:
            raise TimeoutError(problem)
        time.sleep(0.5)


@dataclasses.dataclass
class Answer:
    """What the server reported for one prompt."""

    ids: list[int] = dataclasses.field(default_factory=list)
    # (arm, layer, point) -> norms (heads, head_dim); -> massive count.
    norms: dict = dataclasses.field(default_factory=dict)
    massive: dict = dataclasses.field(default_factory=dict)
    # (arm, layer, tensor) -> {head: (dims, values)}
    applied: dict = dataclasses.field(default_factory=dict)
    comparisons: dict = dataclasses.field(default_factory=dict)
    finished: bool = False


def make_request(pb, model: str, text: str, ids: list[int] | None):
    """Returns an AnalyzeRequest with the three arms."""
    spec_pb2, analysis_pb2, _ = pb
    request = analysis_pb2.AnalyzeRequest(model=model)
    if ids is None:
        request.input.text = text.encode()
    else:
        request.input.token_ids.ids.extend(ids)
    for name, select in ARMS.items():
        arm = request.arms.add(name=name)
        if select:
            getattr(arm.disruptions.add(), select).k = 1
    request.compare.baseline = "clean"
    request.capture.phase = spec_pb2.PREFILL
    return request


def analyze(stub, pb, request) -> Answer:
    """Runs the request and collects its events."""
    spec_pb2 = pb[0]
    answer = Answer()
    payloads: dict[tuple, bytes] = collections.defaultdict(bytes)
    for event in stub.Analyze(request, timeout=DEADLINE_S):
        kind = event.WhichOneof("event")
        if kind == "started":
            answer.ids = list(event.started.token_ids)
        elif kind == "layer":
            frame = event.layer
            point = spec_pb2.HookPoint.Name(frame.point).lower()
            key = (frame.arm, frame.layer, point)
            assert frame.offset == len(payloads[key])
            assert frame.dtype == spec_pb2.F32
            payloads[key] += frame.data
            if len(payloads[key]) == frame.total_bytes:
                values = np.frombuffer(payloads[key], "<f4")
                answer.norms[key] = values.reshape(frame.shape)
                answer.massive[key] = frame.statistics.massive_count
        elif kind == "applied":
            applied = event.applied
            tensor = {spec_pb2.QKV_TENSOR_Q: "q", spec_pb2.QKV_TENSOR_K: "k"}
            key = (applied.arm, applied.layer, tensor[applied.tensor])
            answer.applied[key] = {
                c.index: (sorted(c.dims), list(c.values))
                for c in applied.chosen
            }
        elif kind == "comparison":
            answer.comparisons[event.comparison.arm] = event.comparison
        elif kind == "finished":
            answer.finished = True
    return answer


# --------------------------------------------------------------- the comparison


@dataclasses.dataclass
class Row:
    """The largest errors of one prompt and arm."""

    prompt: str
    tokens: int
    arm: str
    norm: float = 0.0
    value: float = 0.0
    kl: float = 0.0
    logprob: float = 0.0
    top1: int = 0  # Positions that differ and must not.
    massive: int = 0  # Matrices whose count differs and must not.
    dims: int = 0  # Heads whose choice differs and must not.
    narrow: int = 0  # Heads whose choice differs by a narrow decision.
    problems: list[str] = dataclasses.field(default_factory=list)

    def require(self, holds: bool, problem: str) -> None:
        """`holds` must be written so that a NaN makes it false."""
        if not holds:
            self.problems.append(problem)

    @staticmethod
    def heading() -> str:
        return (
            f"{'prompt':<14}{'tokens':>7} {'arm':<12}{'norm rel':>9}"
            f"{'value':>9}{'KL':>9}{'logp':>9}{'top1':>5}{'mass':>5}"
            f"{'dims':>5}{'narrow':>7}"
        )

    def __str__(self) -> str:
        verdict = "FAIL " + "; ".join(self.problems) if self.problems else "ok"
        return (
            f"{self.prompt:<14}{self.tokens:>7} {self.arm:<12}{self.norm:>9.1e}"
            f"{self.value:>9.1e}{self.kl:>9.1e}{self.logprob:>9.1e}"
            f"{self.top1:>5}{self.massive:>5}{self.dims:>5}{self.narrow:>7}"
            f"  {verdict}"
        )


def worst(errors: np.ndarray) -> float:
    """Returns the largest error; NaN if any is NaN."""
    return float(np.max(errors, initial=0.0))


def floored(norms: np.ndarray) -> np.ndarray:
    """Raises norms (..., head_dim) to FLOOR of their head's mean."""
    return np.maximum(norms, FLOOR * norms.mean(axis=-1, keepdims=True))


def forced_rules(answer: Answer, arm: str) -> list[dict]:
    """Returns rules that choose, layer by layer, what the server chose."""
    rules = []
    for (name, layer, tensor), chosen in answer.applied.items():
        if name == arm:
            entries = [
                {"head": head, "dim": dim}
                for head, (dims, _) in chosen.items()
                for dim in dims
            ]
            rules.append(
                {
                    "tensors": [tensor],
                    "layers": [layer],
                    "select": {"explicit": {"entries": entries}},
                }
            )
    return rules


def check_norms(
    row: Row, answer: Answer, oracle: disruption_oracle.ArmRun
) -> None:
    for (layer, point), want in oracle.norms.items():
        got = answer.norms.get((row.arm, layer, point))
        if got is None or got.shape != want.shape:
            row.problems.append(f"no {point} of layer {layer}")
            continue
        error = np.abs(got - want) / floored(want)
        row.norm = float(np.maximum(row.norm, worst(error)))
        limit = MASSIVE_OVER * want.mean(axis=1, keepdims=True)
        count = int((want > limit).sum())
        near = int((np.abs(want / limit - 1.0) < NORM_TOLERANCE).sum())
        if not abs(answer.massive[row.arm, layer, point] - count) <= near:
            row.massive += 1
    row.require(row.norm <= NORM_TOLERANCE, "norms")
    row.require(row.massive == 0, "massive counts")


def check_choices(
    row: Row, answer: Answer, oracle: disruption_oracle.ArmRun, layers: int
) -> None:
    """Compares the server's dims and values with an oracle forced to them."""
    largest = ARMS[row.arm] == "top_k"
    row.require(len(oracle.applied) == 2 * layers, "Applied events are missing")
    for entry in oracle.applied:
        server = answer.applied[row.arm, entry["layer"], entry["tensor"]]
        for head, chosen in entry["chosen"].items():
            dims, values = server.get(head, ([], []))
            if len(dims) != 1 or len(values) != 1:
                row.problems.append(f"head {head} has dims {dims}")
                continue
            own = int((chosen.norms if largest else -chosen.norms).argmax())
            if dims[0] != own:
                a, b = chosen.norms[own], chosen.norms[dims[0]]
                if abs(a - b) / max(a, b) < CHOICE_GAP:
                    row.narrow += 1
                else:
                    row.dims += 1
            scale = floored(chosen.norms)[dims[0]] / np.sqrt(row.tokens)
            error = abs(values[0] - chosen.values[0]) / scale
            row.value = float(np.maximum(row.value, error))
    row.require(row.dims == 0, "dims")
    row.require(row.value <= VALUE_TOLERANCE, "values")


def check_comparison(
    row: Row, answer: Answer, clean: np.ndarray, logits: np.ndarray
) -> None:
    """`clean` and `logits` are the oracle's (T, vocab)."""
    got = answer.comparisons.get(row.arm)
    if got is None or len(got.top1_id) != row.tokens:
        row.problems.append("no Comparison")
        return
    want = statistics_oracle.compare(clean, logits, answer.ids)
    best = np.partition(logits, -2, axis=-1)[:, -2:]
    clear = best[:, 1] - best[:, 0] > MARGIN
    differ = np.array(got.top1_id) != np.array(want["top1_id"])
    row.top1 = int((differ & clear).sum())
    kl = np.array(want["kl"])
    row.kl = worst(np.abs(np.array(got.kl) - kl) / np.maximum(kl, 1.0))
    row.logprob = worst(
        np.abs(np.array(got.token_logprob) - want["token_logprob"])
    )
    row.require(row.top1 == 0, "top 1")
    row.require(row.kl <= KL_TOLERANCE, "KL")
    row.require(row.logprob <= LOGPROB_TOLERANCE, "log-probabilities")


@dataclasses.dataclass
class CleanRun:
    """The part of disruption_oracle.ArmRun that check_norms reads."""

    norms: dict


class CleanOracle:
    """Runs any family's model undisrupted, with DisruptedLlama's interface."""

    def __init__(self, model: transformers.PreTrainedModel):
        self._recorder = hf_oracle.Recorder(model)

    def run(self, rules: list[dict], ids: list[int], _decode_ids: list[int]):
        assert not rules
        record = self._recorder.run(ids, transformers.DynamicCache())
        norms = {
            (layer, point): np.linalg.norm(hooks[point].numpy(), axis=0)
            for layer, hooks in enumerate(record.layers)
            for point in POINTS
            if hooks
        }
        return record.logits.numpy(), None, CleanRun(norms)


def make_oracle(gguf: pathlib.Path):
    """Returns the oracle of a file, and the arms that it can run."""
    config = transformers.AutoConfig.from_pretrained(
        gguf.parent, gguf_file=gguf.name
    )
    if config.model_type == "llama":
        model = hf_oracle.load_float64(str(gguf.parent), "eager", gguf.name)
        return disruption_oracle.DisruptedLlama(model), list(ARMS)
    model = hf_oracle.load_float64(
        str(gguf.parent), hf_oracle.RECORDING_ATTENTION, gguf.name
    )
    return CleanOracle(model), ["clean"]


def compare_prompt(
    prompt: Prompt,
    answer: Answer,
    oracle: disruption_oracle.DisruptedLlama | CleanOracle,
    arms: list[str],
) -> list[Row]:
    rows = []
    clean = None
    for arm in arms:
        row = Row(prompt.name, len(answer.ids), arm)
        rules = forced_rules(answer, arm)
        logits, _, run = oracle.run(rules, answer.ids, [])
        clean = logits if clean is None else clean
        row.require(answer.finished, "no Finished")
        check_norms(row, answer, run)
        if ARMS[arm]:
            check_choices(row, answer, run, len({n for n, _ in run.norms}))
        check_comparison(row, answer, clean, logits)
        rows.append(row)
        print(row, flush=True)
    return rows


def run(arguments: argparse.Namespace, address: str) -> bool:
    """Compares all prompts with the server at `address`; true if all match."""
    with tempfile.TemporaryDirectory() as stubs:
        pb = load_stubs(ROOT / "proto", stubs)
    stub = pb[2].AnalysisStub(grpc.insecure_channel(address))
    gguf: pathlib.Path = arguments.gguf
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name
    )
    oracle, arms = make_oracle(gguf)
    wait_until_ready(stub, pb[1], arguments.model)
    print(Row.heading())
    rows = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt.text)["input_ids"]
        if prompt.length:
            ids = (ids * (prompt.length // len(ids) + 1))[: prompt.length]
        if len(ids) > arguments.max_tokens or len(ids) < arguments.min_tokens:
            continue
        sent = ids if prompt.length else None
        request = make_request(pb, arguments.model, prompt.text, sent)
        answer = analyze(stub, pb, request)
        rows += compare_prompt(prompt, answer, oracle, arms)
        if answer.ids != ids:
            rows[-1].problems.append("token ids")
            print(f"{prompt.name}: tokenised to {answer.ids}, not {ids}")
    failed = [row for row in rows if row.problems]
    print(
        f"worst: norm {worst([r.norm for r in rows]):.1e}, "
        f"value {worst([r.value for r in rows]):.1e}, "
        f"KL {worst([r.kl for r in rows]):.1e}, "
        f"logp {worst([r.logprob for r in rows]):.1e}; "
        f"{len(failed)} of {len(rows)} failed"
    )
    return bool(rows) and not failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gguf", type=pathlib.Path, required=True)
    parser.add_argument("--model", default="compared")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", help="HOST:PORT of a running qkscoped")
    where.add_argument("--server-binary", help="qkscoped to start")
    parser.add_argument("--min-tokens", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.gguf = arguments.gguf.resolve()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.disable_progress_bar()
    if arguments.server:
        ok = run(arguments, arguments.server)
    else:
        with serve(
            arguments.server_binary, arguments.gguf, arguments.model
        ) as address:
            ok = run(arguments, address)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
