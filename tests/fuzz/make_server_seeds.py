"""Writes the seeds of the corpora of what the server reads: requests, its
configuration, kept results. Needs protoc.

    python make_server_seeds.py

Fuzzing may add inputs beside them in corpus/.
"""

import pathlib
import struct
import subprocess

from make_seeds import IMAGES, png, write

PROTO = pathlib.Path(__file__).parents[2] / "proto"

# The order is that of fuzz_request.cc.
KINDS = ["Analyze", "AnalyzeMany", "Score", "Generate", "Tokenize",
         "Detokenize"]

RULES = {
    "top": "top_k {k: 1}",
    "bottom": "bottom_k {k: 2} axis: PER_TOKEN replace: ZERO phase: BOTH",
    "random": "random_k {k: 1 seed: 7 exclude_top: 2} reselect: true "
              "point: PRE_ROPE kv_cache: ATTENTION_ONLY "
              "kv_grouping: QUERY_HEAD phase: DECODE",
    "threshold": "threshold {lambda: 2.5} replace: SCALE factor: 0.5 "
                 "tensors: QKV_TENSOR_V layers: 1",
    "explicit": "explicit {entries {head: 1 dim: 3} entries {head: 0 dim: 7}} "
                "heads: [0, 1] replace: PER_DIM_MEAN "
                "stat_span {begin: 1 end: 4} positions {begin: 2}"}

CAPTURES = {
    "norms": "layers: [1, 0] heads: [0, 3] positions: [2, 0] "
             "points: [HOOK_Q, HOOK_K, HOOK_Z] form: NORM_PER_TOKEN "
             "stage: BEFORE_AND_AFTER",
    "raw": "form: RAW raw_dtype: BF16 raw_sha256: true stage: AFTER "
           "points: [HOOK_V, HOOK_ROT_K]",
    "pattern": "form: RAW points: HOOK_PATTERN positions: [1, 3] "
               "raw_dtype: F16",
    "off": "off: true"}

PRESETS = ["llama", "llama/control", "mistral/control", "qwen2", "gemma2",
           "gemma2/control"]

CHAT = ("chat {format: 'chatml' add_generation_prompt: false "
        "messages {role: 'system' content: 'be brief'} "
        "messages {role: 'user' content: 'hello'}}")


def encode(message, text):
    return subprocess.run(
        ["protoc", f"-I{PROTO}", f"--encode=qkscope.v1.{message}",
         "qkscope/v1/analysis.proto", "qkscope/v1/spool.proto",
         "qkscope/v1/baseline.proto"],
        cwd=PROTO, input=text.encode(), capture_output=True, check=True).stdout


def request(kind, name, text):
    write("request", f"{kind.lower()}_{name}",
          bytes([KINDS.index(kind)]) + encode(f"{kind}Request", text))


def escaped(data):
    return "".join(f"\\x{byte:02x}" for byte in data)


def analyze(name, text, model="m", source="text: 'abcdef'"):
    request("Analyze", name, f"model: '{model}' input {{{source}}} {text}")


def make_analyze():
    analyze("plain", "")
    analyze("ids", "strict: true", "bare", "token_ids {ids: [0, 1, 96]}")
    analyze("special", "", source="text: '<s>a\\000b' parse_special: true "
                                  "add_special_tokens: true")
    analyze("chat", "priority: BATCH", source=CHAT)
    for name, rule in RULES.items():
        analyze(f"rule_{name}", "arms {name: 'a' disruptions {%s}} "
                                "generate {max_new_tokens: 3}" % rule)
    for name, capture in CAPTURES.items():
        analyze(f"capture_{name}", "capture {%s}" % capture)
    for name in PRESETS:
        preset = f"preset {{name: 'rope_with_llm/{name}' seed: 3}}"
        analyze(f"preset_{name.replace('/', '_')}",
                f"arms {{name: 'p' {preset}}}",
                "windows" if "gemma" in name else "m")
    analyze("compare", "arms {name: 'clean'} "
                       "arms {name: 'k=1' disruptions {top_k {k: 1}}} "
                       "arms {name: 'other' model: 'copy'} "
                       "compare {baseline: 'clean'} "
                       "logits {top_n: 3 positions: [5, 0]} "
                       "statistics {lambda: 3 top_n: 2} client_tag: 'tag'")
    analyze("generate", "generate {max_new_tokens: 9 stop_strings: 'x' "
                        "stop_token_ids: 4 ignore_eos: true sampling {"
                        "temperature: 0.7 top_p: 0.9 top_k: 5 seed: 1}} "
                        "capture {phase: BOTH form: RAW} "
                        "detach: true resumable: true")
    for model in ("jamba", "mamba", "windows"):
        analyze(model, "arms {name: 'a' disruptions {top_k {k: 1}}}", model)


def make_images():
    files = {"png": png(2, 8, 2, [bytes(range(6))] * 2),
             "jpeg": (IMAGES / "yuv420.jpg").read_bytes()}
    for name, file in files.items():
        analyze(f"image_{name}",
                "capture {vision_layers: [0, 1] layers: 0} "
                "arms {name: 'v' disruptions {tower: VISION top_k {k: 2}}}",
                "images", f"text: 'a^b' images {{encoded: '{escaped(file)}' "
                          "min_pixels: 64 max_pixels: 1024}")
    patches = struct.pack("<f", 0.5) * (2 * 2 * 3 * 2 * 4 * 4)
    analyze("image_patches", "", "images",
            "token_ids {ids: [1, 95, 2]} images {patches {frames: 1 rows: 2 "
            f"columns: 2 values: '{escaped(patches)}'}}}}")


def make_other_requests():
    request("AnalyzeMany", "spec",
            "spec {aggregate: true request {model: 'm' capture {layers: 1} "
            "arms {name: 'a' disruptions {top_k {k: 1}}}}}")
    request("AnalyzeMany", "prompt",
            "prompt {id: 'one' input {token_ids {ids: [3, 4]}}}")
    request("Score", "pairs",
            "model: 'm' pairs {context {text: 'ab'} continuation {text: 'c'}} "
            "pairs {context {token_ids {ids: 1}} continuation {text: 'de'} "
            "arm {disruptions {top_k {k: 1} positions {end: 1}}}}")
    for phase in ("PREFILL", "DECODE", "BOTH"):
        request("Score", f"arm_{phase.lower()}",
                "model: 'm' pairs {context {text: 'ab'} "
                "continuation {text: 'cd'}} arm {name: 'x' "
                f"disruptions {{bottom_k {{k: 1}} phase: {phase}}}}}")
    request("Generate", "arm",
            "model: 'm' input {text: 'ab'} generate {max_new_tokens: 4 "
            "sampling {temperature: 1}} priority: BATCH "
            "arm {disruptions {top_k {k: 1} phase: BOTH}}")
    request("Tokenize", "text", "model: 'm' input {text: 'abc'}")
    request("Tokenize", "chat", f"model: 'm' input {{{CHAT}}}")
    request("Detokenize", "ids",
            "model: 'm' token_ids: [1, 0, 256] keep_special: true")


USER = """users { alias: "ada" token_sha256: "%s" weight: 2.5 role: "operator"
  allowed_models: "m" budget { device_ms_per_window: 1000 bytes_per_window: 9
  window_s: 60 max_in_flight: 4 max_queued: 2 } }
users { alias: "bo" subject: "bo.example" }
""" % ("0f" * 32)

LIMITS = """limits { max_text_bytes: 1 max_arms: 2 max_rules_per_arm: 3
  max_list_entries: 4 max_new_tokens: 5 max_queued_requests: 6
  max_response_bytes: 7 max_deadline_ms: 8 max_score_pairs: 9
  max_rows_per_pass: 10 kv_cache_bytes: 11 max_buffered_bytes: 12
  write_stall_timeout_ms: 13 }
"""

SERVER_CONFIGS = {
    "empty": "",
    "model": """# A comment.
models { name: "gpt2" path: "/models/gpt2" compute: "bf16" sha256: "%s" }
models { name: "b", path: 'b.gguf' };
listen: "[::1]:0" metrics_listen: "" threads: 2 log_level: "debug"
""" % ("Ab" * 32),
    "limits": LIMITS,
    "users": USER + """tls { certificate_file: "a.pem" key_file: "b.pem"
  client_ca_file: "c.pem" }
listen: "0.0.0.0:7461" reflection: true
""",
    "admin": USER + """model_admin { enabled: true root: "/m" eviction: LRU
  allowed_sha256: "%s" max_models: 3 max_bytes: 4000 }
""" % ("00" * 32),
    "rest": """users_file: "users" allow_anonymous_network: true
behind_proxy: true
log_prompts: true shutdown_grace_s: 0 keepalive_s: 1 keepalive_timeout_s: 86400
spool { directory: "/var/spool/qkscope" max_bytes: 4294967296 ttl_s: 60 }
""",
    "unknown": 'lsiten: "a"',
    "not_a_number": "threads: four",
    "not_an_enum": "model_admin { eviction: SOMETIMES }",
    "cut": 'models { name: "a',
    "escapes": r'listen: "\x41\101\u00e9\n" "more"',
    "any": "[type.googleapis.com/qkscope.v1.ServerConfig] { threads: 1 }"}


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def record(kind, payload):
    return kind + struct.pack("<II", len(payload), crc32c(payload)) + payload


def make_spool():
    begin = record(b"H", encode(
        "SpoolHeader", "request_id: '0123456789abcdef' user: 'ada' method: "
                       "'Analyze' model: 'm' arms: 1 prompt_tokens: 3 "
                       "created_unix_ms: 1700000000000"))
    events = [record(b"E", encode("AnalyzeEvent", text)) for text in (
        "seq: 0 accepted {request_id: '0123456789abcdef'}",
        "seq: 1 started {token_ids: [1, 2, 3]}",
        "seq: 2 finished {events: 2}")]
    end = record(b"Z", encode(
        "SpoolEnd", "events: 3 finished_unix_ms: 1700000000001 code: 13 "
                    "message: 'why'"))
    none = record(b"Z", encode("SpoolEnd", ""))
    whole = begin + b"".join(events) + end
    write("spool_file", "whole", whole)
    write("spool_file", "no_events", begin + none)
    write("spool_file", "cut", whole[:-1])
    write("spool_file", "no_end", begin + events[0])
    write("spool_file", "after_the_end", whole + events[0])
    write("spool_file", "fewer_events", begin + events[0] + end)
    write("spool_file", "two_headers", begin + whole)
    write("spool_file", "other_id", whole.replace(b"cdef", b"cdee"))
    write("spool_file", "damaged_event", whole.replace(b"\x01\x02\x03", b"abc"))
    write("spool_file", "long", begin + b"E\xff\xff\xff\xff" + end)


def pattern(point, layer, shape, values, prompts=2):
    floats = escaped(struct.pack(f"<{len(values)}f", *values))
    return (f"patterns {{point: {point} layer: {layer} shape: {shape} "
            f"prompts: {prompts} values: '{floats}'}} ")


def make_baselines():
    """Of the model in fuzz_baseline.cc; the target adds the checksum."""
    head = ("model: 'm' weights_sha256: '0123' "
            "created_unix_ms: 1700000000000 ")
    four = [0.5, 1.5, 1.0, 1.0]
    whole = (pattern("HOOK_ROT_Q", 0, [2, 2], four)
             + pattern("HOOK_K", 0, [1, 2], four[:2])
             + pattern("HOOK_V", 2, [2, 2], four, prompts=7))
    cases = {
        "whole": head + whole,
        "empty": head,
        "other_weights": head.replace("0123", "4567") + whole,
        "other_point": head + pattern("HOOK_Z", 0, [2, 2], four),
        "no_attention": head + pattern("HOOK_V", 1, [2, 2], four),
        "no_layer": head + pattern("HOOK_V", 3, [2, 2], four),
        "negative_layer": head + pattern("HOOK_V", -1, [2, 2], four),
        "other_shape": head + pattern("HOOK_ROT_Q", 0, [1, 4], four),
        "too_few_values": head + pattern("HOOK_ROT_Q", 0, [2, 2], four[:3]),
        "not_finite": head + pattern("HOOK_V", 2, [2, 2],
                                     [1, float("nan"), 1, 1]),
        "negative": head + pattern("HOOK_V", 2, [2, 2], [1, -1, 1, 1]),
        "zero": head + pattern("HOOK_V", 2, [2, 2], [0] * 4),
        "no_prompts": head + pattern("HOOK_V", 2, [2, 2], four, prompts=0),
        "twice": head + whole + whole}
    for name, text in cases.items():
        write("baseline", name, encode("StoredBaseline", text))
    inner = encode("StoredBaseline", head + whole)
    for name, crc in (("file", crc32c(inner)), ("wrong_checksum", 1)):
        write("baseline", name, encode(
            "BaselineFile", f"crc32c: {crc} baseline: '{escaped(inner)}'"))


if __name__ == "__main__":
    make_analyze()
    make_images()
    make_other_requests()
    for config_name, config in SERVER_CONFIGS.items():
        write("server_config", config_name, config.encode())
    make_spool()
    make_baselines()
