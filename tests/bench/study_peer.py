"""The peer of study_rate.py: a study's prompts in transformers, as the published
code runs them.

    python study_peer.py MODEL.gguf --batch 1 < prompts.json > answers.json

Reads {"eos": [ids], "prompts": [{"ids", "arm", "limit"}]}. Arms: clean,
disrupted (the largest dim of each head becomes its mean), control (the
smallest). A hook takes the norms of Q and K after RoPE over the prompt's tokens
in every layer and changes what its arm changes, before K is cached. Greedy, f32.
Needs torch, transformers, accelerate and gguf.
"""

import argparse
import json
import pathlib
import sys
import time

import torch
import transformers
from transformers.models.llama import modeling_llama

from transformers_peer import load


class Disruption:
    """In the place of apply_rotary_pos_emb."""

    def __init__(self):
        self.rotate = modeling_llama.apply_rotary_pos_emb
        self.arm = "clean"
        self.mask = None  # (batch, tokens), 1 where there is a prompt
        self.norms = []
        modeling_llama.apply_rotary_pos_emb = self

    def __call__(self, q, k, *arguments, **options):
        q, k = self.rotate(q, k, *arguments, **options)
        if q.shape[2] > 1:  # a prompt, not one generated token
            q, k = self._changed(q), self._changed(k)
        return q, k

    def _changed(self, x):
        """x: (batch, heads, tokens, head_dim)."""
        mask = self.mask[:, None, :, None].to(x.dtype)
        norms = (x * mask).norm(dim=2)  # (batch, heads, head_dim)
        self.norms.append(norms)
        if self.arm == "clean":
            return x
        chosen = (norms.argmax(-1) if self.arm == "disrupted"
                  else norms.argmin(-1))[:, :, None, None]
        chosen = chosen.expand(-1, -1, x.shape[2], 1)
        mean = ((x.gather(3, chosen) * mask).sum(2, keepdim=True)
                / mask.sum(2, keepdim=True))
        return x.scatter(3, chosen, mean.expand_as(chosen))


def answers(model, disruption, prompts, eos, batch):
    """The generated token ids of each prompt, in order."""
    out = [None] * len(prompts)
    groups = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault((prompt["arm"], prompt["limit"]), []).append(i)
    for (arm, limit), members in groups.items():
        # Prompts of like length together, so that little is padding.
        members.sort(key=lambda i: len(prompts[i]["ids"]))
        for begin in range(0, len(members), batch):
            some = members[begin:begin + batch]
            longest = max(len(prompts[i]["ids"]) for i in some)
            ids = torch.full((len(some), longest), eos[0])
            mask = torch.zeros((len(some), longest), dtype=torch.long)
            for row, i in enumerate(some):
                own = torch.tensor(prompts[i]["ids"])
                ids[row, longest - len(own):] = own
                mask[row, longest - len(own):] = 1
            disruption.arm, disruption.mask = arm, mask
            disruption.norms.clear()
            with torch.inference_mode():
                made = model.generate(
                    ids, attention_mask=mask, max_new_tokens=limit,
                    do_sample=False, eos_token_id=eos, pad_token_id=eos[0])
            for row, i in enumerate(some):
                out[i] = made[row, longest:].tolist()
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work = json.load(sys.stdin)
    transformers.utils.logging.disable_progress_bar()
    model = load(arguments.model, torch.float32)
    disruption = Disruption()
    answers(model, disruption, work["prompts"][:1], work["eos"], 1)  # warm
    start = time.perf_counter()
    found = answers(model, disruption, work["prompts"], work["eos"],
                    arguments.batch)
    seconds = time.perf_counter() - start
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(arguments.model.parent), gguf_file=arguments.model.name)
    json.dump({"seconds": seconds, "texts": tokenizer.batch_decode(
        found, skip_special_tokens=True)}, sys.stdout)


if __name__ == "__main__":
    main()
