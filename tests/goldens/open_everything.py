"""Opens a tiny model of every causal language model class of transformers.

Needs torch, transformers, tokenizers, grpcio-tools (made with transformers
5.24.0), and the programs of a build:

    python open_everything.py build/release/bin proto [PART OF A NAME...]

Prints a line for each model type: `equal` with the largest difference of a
log-probability, `refused` with the reason, `not made` where transformers cannot
make a tiny one, or WRONG. It ends with 1 if there is a WRONG. docs/models.md
has the table.
"""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

os.environ["HF_HUB_OFFLINE"] = "1"
import grpc  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from transformers.models.auto import modeling_auto  # noqa: E402

VOCAB = 300
TOLERANCE = 1e-3
MAX_PARAMETERS = 20_000_000
IDS = [int(i) for i in np.random.RandomState(1).randint(3, 290, 40)]
TEXT = "The city of Paris is in France. It's 1234 people;\n\n  def f(x):\n"
# What makes a model small, under the names that configurations use.
SMALL = dict(
    hidden_size=32, d_model=32, n_embd=32, dim=32, embedding_size=32,
    word_embed_proj_dim=32, intermediate_size=48, ffn_dim=48, n_inner=48,
    d_ff=48, ffn_hidden_size=48, num_hidden_layers=2, n_layer=2, n_layers=2,
    num_layers=2, num_attention_heads=4, n_head=4, n_heads=4, num_heads=4,
    num_key_value_heads=2, head_dim=8, max_position_embeddings=256,
    n_positions=256, max_seq_len=256, vocab_size=VOCAB, pad_token_id=0,
    bos_token_id=1, eos_token_id=2, num_experts=4, num_local_experts=4,
    num_experts_per_tok=2, moe_intermediate_size=16, sliding_window=16,
    query_pre_attn_scalar=8, attn_layer_period=2, attn_layer_offset=1,
    attention_types=[[["global", "local"], 1]],
)  # fmt: skip


def stubs(proto, work):
    import grpc_tools
    from grpc_tools import protoc

    known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = [str(p.relative_to(proto)) for p in proto.rglob("*.proto")]
    status = protoc.main(["protoc", f"-I{proto}", f"-I{known}", f"--python_out={work}",
                          f"--grpc_python_out={work}", *files])  # fmt: skip
    assert status == 0
    sys.path.insert(0, str(work))
    names = ("analysis_pb2", "analysis_pb2_grpc")
    return [importlib.import_module(f"qkscope.v1.{n}") for n in names]


class Server:
    def __init__(self, binary, path, analysis, service):
        self.analysis = analysis
        self.process = subprocess.Popen(
            [binary, "--listen", "127.0.0.1:0", "--metrics-listen", "",
             "--threads", "1", "--model", f"m={path}"],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
        address = None
        for line in self.process.stderr:
            entry = json.loads(line)
            if entry.get("event") == "listening":
                address = entry["listen"]
            if entry.get("event") == "model_ready":
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.stub = service.AnalysisStub(grpc.insecure_channel(address))
        wanted = analysis.GetModelRequest(model="m")
        while self.stub.GetModel(wanted).state != analysis.ModelInfo.READY:
            time.sleep(0.01)

    def logprobs(self, ids):
        request = self.analysis.AnalyzeRequest(model="m")
        request.input.token_ids.ids.extend(ids)
        request.capture.off = True
        request.logits.top_n = VOCAB
        request.logits.positions.extend(range(len(ids)))
        out = np.full((len(ids), VOCAB), np.nan)
        for event in self.stub.Analyze(request, timeout=120):
            for position in event.logits.positions:
                out[position.position, list(position.ids)] = position.logprobs
        return out

    def tokens(self, text):
        request = self.analysis.TokenizeRequest(model="m")
        request.input.text = text.encode()
        return [t.id for t in self.stub.Tokenize(request).tokens]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)


def small_config(config_class):
    known = config_class().to_dict()
    fields = {k: v for k, v in SMALL.items() if k in known}
    if config_class.model_type == "openai-gpt":
        fields.pop("head_dim", None)
    return config_class(**fields)


def make(config_class, folder):
    """Saves a tiny model with a tokenizer; returns both."""
    torch.manual_seed(0)
    config = small_config(config_class)
    config.initializer_range = 0.25
    with torch.device("meta"):
        size = sum(p.numel() for p in transformers.AutoModelForCausalLM.from_config(
            config).parameters())  # fmt: skip
    assert size < MAX_PARAMETERS, f"{size} parameters"
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager")  # fmt: skip
    model.eval().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([TEXT] * 3, trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))  # fmt: skip
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.save_pretrained(folder)
    return model, fast


def reference(model):
    """Log-probabilities, in float64 where the model's kernels can."""
    ids = torch.tensor([IDS])
    with torch.no_grad():
        try:
            logits = model.double()(input_ids=ids).logits[0]
        except RuntimeError:
            logits = model.float()(input_ids=ids).logits[0]
    return torch.log_softmax(logits.double(), -1).numpy()


def first_line(text):
    lines = [line for line in str(text).strip().splitlines() if line]
    return lines[0][:160] if lines else type(text).__name__


def try_one(config_class, binaries, work, analysis, service):
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = pathlib.Path(name)
        try:
            model, tokenizer = make(config_class, folder)
            expected = reference(model)
            assert expected.shape == (len(IDS), VOCAB), expected.shape
        except Exception as error:  # any class may need what we do not know
            return "not made", f"{type(error).__name__}: {first_line(error)}"
        check = subprocess.run(
            [binaries / "qkscoped", "--check-config", "--model", f"m={folder}"],
            capture_output=True, text=True)  # fmt: skip
        if check.returncode != 0:
            text = (check.stdout + check.stderr).replace("qkscoped: model 'm': ", "")
            return "refused", first_line(text)
        with Server(binaries / "qkscoped", folder, analysis, service) as server:
            worst = float(np.abs(server.logprobs(IDS) - expected).max())
            same = server.tokens(TEXT) == tokenizer(TEXT)["input_ids"]
        if not worst < TOLERANCE or not same:
            return "WRONG", f"{worst:.1e}, tokens {'equal' if same else 'differ'}"
        return "equal", f"{worst:.1e}"


def main():
    binaries, proto = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    counts = {}
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        analysis, service = stubs(proto, work)
        types = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        for model_type in sorted(types):
            if sys.argv[3:] and not any(p in model_type for p in sys.argv[3:]):
                continue
            try:
                config_class = type(transformers.AutoConfig.for_model(model_type))
            except Exception as error:
                verdict, note = "not made", first_line(error)
            else:
                verdict, note = try_one(config_class, binaries, work, analysis, service)
            counts[verdict] = counts.get(verdict, 0) + 1
            print(f"{verdict:9} {model_type:28} {note}", flush=True)
    print(f"transformers {transformers.__version__}: {counts}")
    sys.exit("WRONG" in counts)


if __name__ == "__main__":
    main()
