"""The model in transformers, for compare_peers.py.

    python transformers_peer.py MODEL.gguf f32|bf16 THREADS

Reads commands, a line each, and answers each with a JSON number:
  plain TOKENS         seconds of a prompt's pass, the last row's logits only
  hooks TOKENS         the same with hooks that take the L2 norm over tokens of
                       q, k and v in every layer
  decode SEQUENCES N   tokens a second over all sequences
The weights are dense: GGUF types are dequantised when the file is loaded.
"""

import json
import pathlib
import sys
import time

import torch
import transformers


def load(gguf: pathlib.Path, dtype: torch.dtype):
    options = {}
    # Since 5.24 the weights stay packed unless a configuration says otherwise.
    if hasattr(transformers, "GgufConfig"):
        options["quantization_config"] = transformers.GgufConfig(
            dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=dtype, **options)
    for layer in model.model.layers:
        weight = layer.mlp.down_proj.weight
        if (type(layer.mlp.down_proj) is not torch.nn.Linear
                or weight.dtype != dtype):
            sys.exit(f"{gguf}: transformers did not make dense {dtype} weights "
                     f"but {type(layer.mlp.down_proj)}, {weight.dtype}")
    return model.eval()


class Peer:
    def __init__(self, model) -> None:
        self.model = model
        self.norms: list[torch.Tensor] = []

    def _hooks(self) -> list:
        def norm(_module, _args, output):
            heads = output.view(*output.shape[:2], -1,
                                self.model.config.hidden_size //
                                self.model.config.num_attention_heads)
            self.norms.append(heads[0].float().norm(dim=0))
        return [getattr(layer.self_attn, name).register_forward_hook(norm)
                for layer in self.model.model.layers
                for name in ("q_proj", "k_proj", "v_proj")]

    def prefill(self, tokens: int, hooks: bool) -> float:
        ids = torch.randint(0, self.model.config.vocab_size, (1, tokens))
        handles = self._hooks() if hooks else []
        self.norms.clear()
        start = time.perf_counter()
        self.model(ids, logits_to_keep=1)
        seconds = time.perf_counter() - start
        for handle in handles:
            handle.remove()
        return seconds

    def decode(self, sequences: int, new_tokens: int) -> float:
        ids = torch.randint(0, self.model.config.vocab_size, (sequences, 16))

        def seconds(count: int) -> float:
            start = time.perf_counter()
            self.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False,
                min_new_tokens=count, max_new_tokens=count, pad_token_id=0)
            return time.perf_counter() - start

        return sequences * new_tokens / (seconds(new_tokens + 1) - seconds(1))


def main() -> None:
    gguf, kind, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.set_grad_enabled(False)
    peer = Peer(load(pathlib.Path(gguf),
                     {"f32": torch.float32, "bf16": torch.bfloat16}[kind]))
    for line in sys.stdin:
        command, *numbers = line.split()
        values = [int(number) for number in numbers]
        print(json.dumps(peer.decode(*values) if command == "decode"
                         else peer.prefill(*values, command == "hooks")),
              flush=True)


if __name__ == "__main__":
    main()
