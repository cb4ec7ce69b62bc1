"""Makes tests/goldens/generation: what generate() does where RoPE's scaling
depends on the sequence's length, in float64 by transformers.

    python tests/goldens/make_generation_goldens.py --goldens tests/goldens

Reads the tiny models that make_goldens.py wrote. Writes GOLDENS/generation/:

cases.json
    a list of
        name    unique; the key into outputs.safetensors
        model   a folder of GOLDENS
        ids     the prompt
        tokens  what greedy generate() of the model's own class gives
        frozen  what it would give if cached K always kept the frequencies that
                they were rotated with. It differs from `tokens` where the case
                grows past LongRoPE's original context: Phi3ForCausalLM then
                drops its cache.

outputs.safetensors
    F32, rounded once from float64.
    NAME/logits  (len(tokens), vocab), from which each token was chosen

Every token is chosen by at least MIN_GAP, so a float32 engine must choose the
same.
"""

import argparse
import json
import pathlib

import safetensors.torch
import torch
import transformers

import hf_oracle

MIN_GAP = 1e-3  # Between the two largest logits.
NEW_TOKENS = 12
# Original contexts are 32. The prompts stay within, end at, and lie beyond it.
LENGTHS = (8, 26, 31, 32, 33, 40)
MODELS = ("tiny_phi3_longrope", "tiny_phi3_partial", "tiny_llama_dynamic")


def _prompt(vocab: int, length: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, vocab, (length - 1,), generator=generator)
    return [1] + ids.tolist()


def _generate(model, ids: list[int]) -> tuple[list[int], torch.Tensor]:
    with torch.no_grad(), hf_oracle.float64_everywhere():
        out = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
            use_cache=True,
            eos_token_id=None,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    tokens = out.sequences[0, len(ids) :].tolist()
    return tokens, torch.cat(out.logits)


def _frozen(model, ids: list[int]) -> list[int]:
    """Decodes by hand, without generate()'s changes to the cache."""
    cache = transformers.DynamicCache(config=model.config)
    tokens: list[int] = []
    rows = ids
    for _ in range(NEW_TOKENS):
        with torch.no_grad(), hf_oracle.float64_everywhere():
            logits = model(
                torch.tensor([rows]), past_key_values=cache, use_cache=True
            ).logits[0, -1]
        tokens.append(int(logits.argmax()))
        rows = tokens[-1:]
    return tokens


def _case(goldens: pathlib.Path, name: str, length: int):
    """Returns the first random prompt whose tokens are all chosen clearly.

    A case that grows past LongRoPE's original context must also show that the
    cache was dropped.
    """
    crosses = "phi3" in name and length <= 32 < length + NEW_TOKENS - 1
    for seed in range(1000):
        # Dynamic RoPE has a state, so each run has a model of its own.
        model = hf_oracle.load_float64(goldens / name, "eager")
        ids = _prompt(model.config.vocab_size, length, seed)
        tokens, logits = _generate(model, ids)
        assert logits.dtype == torch.float64
        top = logits.topk(2).values
        if (top[:, 0] - top[:, 1]).min() < MIN_GAP:
            continue
        model = hf_oracle.load_float64(goldens / name, "eager")
        frozen = _frozen(model, ids)
        if (frozen == tokens) != crosses:
            break
    else:
        raise AssertionError(f"no prompt for {name}, {length}")
    case = {
        "name": f"{name}/{length}",
        "model": name,
        "ids": ids,
        "tokens": tokens,
        "frozen": frozen,
    }
    return case, logits.float().contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--goldens", type=pathlib.Path, required=True)
    goldens = parser.parse_args().goldens
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    cases, outputs = [], {}
    for name in MODELS:
        for length in LENGTHS:
            case, logits = _case(goldens, name, length)
            print(case["name"], case["tokens"], case["frozen"])
            cases.append(case)
            outputs[f"{case['name']}/logits"] = logits
    out = goldens / "generation"
    out.mkdir(exist_ok=True)
    (out / "cases.json").write_text(json.dumps({"cases": cases}) + "\n")
    safetensors.torch.save_file(
        outputs, out / "outputs.safetensors", {"format": "pt"}
    )


if __name__ == "__main__":
    main()
