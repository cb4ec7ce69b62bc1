"""Writes the seeds of the corpora of the format fuzzers: small valid files.

    python make_seeds.py

Fuzzing may add inputs beside them in corpus/.
"""

import json
import pathlib
import struct
import zlib

CORPUS = pathlib.Path(__file__).parent / "corpus"
GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
IMAGES = GOLDENS / "images"


def write(target, name, content):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed_{name}").write_bytes(content)


def safetensors(header, data_bytes, zeros=0):
    text = json.dumps(header).encode()
    data = bytes(range(data_bytes)) + bytes(zeros)
    return struct.pack("<Q", len(text)) + text + data


def string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def key(name, kind, fmt, *values):
    return string(name) + struct.pack("<I" + fmt, kind, *values)


def gguf(version, keys, tensors, data=b"", alignment=32):
    file = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(keys))
    file += b"".join(keys) + b"".join(tensors)
    if data:
        file += bytes(-len(file) % alignment)
    return file + data


def tensor(name, sizes, kind, offset):
    return (string(name) + struct.pack("<I", len(sizes)) +
            struct.pack(f"<{len(sizes)}q", *sizes) +
            struct.pack("<IQ", kind, offset))


def make_safetensors():
    def entry(dtype, shape, begin, end):
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    write("safetensors", "empty", safetensors({}, 0))
    write("safetensors", "one", safetensors({"a": entry("F32", [2], 0, 8)}, 8))
    write("safetensors", "many", safetensors({
        "__metadata__": {"format": "pt"},
        "b": entry("BF16", [2, 2], 8, 16),
        "a": entry("F16", [4], 0, 8),
        "mask": entry("BOOL", [], 16, 17),
        "none": entry("I64", [0, 3], 17, 17)}, 17))
    # These are packed layers, (8, 32) and (8, 16), in groups of 16.
    write("safetensors", "awq", safetensors({
        "m.qweight": entry("I32", [32, 1], 0, 128),
        "m.qzeros": entry("I32", [2, 1], 128, 136),
        "m.scales": entry("F16", [2, 8], 136, 168)}, 168))
    write("safetensors", "gptq", safetensors({
        "m.qweight": entry("I32", [2, 8], 0, 64),
        "m.qzeros": entry("I32", [1, 1], 64, 68),
        "m.scales": entry("F16", [1, 8], 68, 84),
        "m.g_idx": entry("I32", [16], 84, 148)}, 84, zeros=64))


def make_index():
    write("shard_index", "two", json.dumps({
        "metadata": {"total_size": 12},
        "weight_map": {"a": "model-00001-of-00002.safetensors",
                       "b": "model-00002-of-00002.safetensors",
                       "c": "model-00001-of-00002.safetensors"}}).encode())


def make_json():
    write("json", "config", json.dumps({
        "architectures": ["LlamaForCausalLM"], "rope_theta": 1e5,
        "num_attention_heads": 9, "rope_scaling": None, "tie": True,
        "vocab": {"\u0120the": 1, "a": -2}, "merges": [["a", "b"], "c d"],
        "big": 18446744073709551615, "emoji": "\U0001f600"}).encode())
    # Python's json writes these.
    write("json", "python", b'{"model_max_length":1000000000000000019884624838656,'
          b'"a":NaN,"b":[Infinity,-Infinity],"c":-1e999,"d":1E-400}')
    write("json", "nested", b'{"a":[[[[{"b":[1,2,{"c":"\\n\\u0041"}]}]]]]}')


def make_gguf():
    keys = [
        key("general.alignment", 4, "I", 32), key("u8", 0, "B", 1),
        key("i8", 1, "b", -1), key("u16", 2, "H", 2), key("i16", 3, "h", -2),
        key("i32", 5, "i", -3), key("f32", 6, "f", 0.5), key("yes", 7, "B", 1),
        key("u64", 10, "Q", 2**63), key("i64", 11, "q", -4),
        key("f64", 12, "d", 0.1), key("name", 8, "") + string("llama"),
        key("tokens", 9, "IQ", 8, 2) + string("a") + string("bc"),
        key("scores", 9, "IQ2f", 6, 2, 0.5, -1),
        key("types", 9, "IQ2i", 5, 2, 1, 3)]
    data = bytes(range(256)) * 2
    for version in (2, 3):
        write("gguf", f"keys_v{version}", gguf(version, keys, []))
        write("gguf", f"tensors_v{version}", gguf(
            version, keys[:2],
            [tensor("w", [32, 2], 8, 0), tensor("b", [3], 0, 96),
             tensor("h", [2, 2, 1, 1], 1, 128)], data[:136]))
    # Each type has one block: ggml's number, elements, bytes.
    for kind, elements, size in [(0, 1, 4), (1, 1, 2), (2, 32, 18), (3, 32, 20),
                                 (6, 32, 22), (7, 32, 24), (8, 32, 34),
                                 (10, 256, 84), (11, 256, 110), (12, 256, 144),
                                 (13, 256, 176), (14, 256, 210), (20, 32, 18),
                                 (23, 256, 136), (30, 1, 2), (39, 32, 17)]:
        write("gguf", f"type_{kind}",
              gguf(3, [], [tensor("t", [elements], kind, 0)], data[:size]))


def png(height, bits, colour, rows, interlaced=False):
    """Makes an image 2 pixels wide; `rows` are the passes', if interlaced."""
    def chunk(kind, data):
        return (struct.pack(">I", len(data)) + kind + data
                + struct.pack(">I", zlib.crc32(kind + data)))
    header = struct.pack(">IIBBBBB", 2, height, bits, colour, 0, 0, interlaced)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def make_image():
    for name in ("bits.png", "grey.jpg", "palette.png", "progressive.jpg",
                 "yuv420.jpg"):
        write("image", name, (IMAGES / name).read_bytes())
    # Each case has a sample's bits, PNG's number of the colours, a row's bytes.
    for name, bits, colour, size in [("rgb", 8, 2, 6), ("rgb16", 16, 2, 12),
                                     ("rgba", 8, 6, 8), ("grey16", 16, 0, 4),
                                     ("grey_alpha", 8, 4, 4)]:
        write("image", name, png(2, bits, colour, [bytes(range(size))] * 2))
    write("image", "interlaced", png(2, 8, 0, [b"a", b"b", b"cd"], True))


# These have what the published configurations lack.
CONFIGS = [
    "awq_g32", "gemma3_layer_types", "gemma3_vl", "gptq_g32_sym_desc",
    "jamba_dense", "llama3_rope", "llama_dynamic", "llama_linear",
    "llama_yarn_mscale", "opt_post_norm", "phi3_partial", "qwen2_window"]
PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor", "do_resize": True,
    "resample": 3, "rescale_factor": 1 / 255, "patch_size": 4,
    "merge_size": 2, "min_pixels": 64, "max_pixels": 4096,
    "size": {"shortest_edge": 64, "longest_edge": 4096},
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}

# transformers 4 writes these fields, whatever the model is.
DUMP = {
    "_name_or_path": "", "add_cross_attention": False, "pruned_heads": {},
    "tie_encoder_decoder": False, "chunk_size_feed_forward": 0,
    "architectures": ["GPT2LMHeadModel"], "bad_words_ids": None,
    "decoder_start_token_id": None, "finetuning_task": None,
    "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "max_length": 20,
    "no_repeat_ngram_size": 0, "pad_token_id": -1, "prefix": None,
    "problem_type": None, "return_dict": True, "task_specific_params": {
        "text-generation": {"do_sample": True, "max_length": 50}},
    "temperature": 1.0, "torch_dtype": None, "torchscript": False,
    "typical_p": 1.0, "use_bfloat16": False, "suppress_tokens": None}


def make_config():
    small = json.loads((GOLDENS / "tiny_gpt2" / "config.json").read_bytes())
    write("config_json", "dump", json.dumps({**small, **DUMP}).encode())
    for path in (GOLDENS / "published").glob("*.json"):
        write("config_json", path.stem, path.read_bytes())
    for name in CONFIGS:
        write("config_json", name,
              (GOLDENS / f"tiny_{name}" / "config.json").read_bytes())
    images = GOLDENS / "tiny_qwen2_vl_image" / "config.json"
    write("config_json", "processor",
          images.read_bytes() + b"\0" + json.dumps(PROCESSOR).encode())


if __name__ == "__main__":
    make_config()
    make_safetensors()
    make_index()
    make_json()
    make_gguf()
    make_image()
