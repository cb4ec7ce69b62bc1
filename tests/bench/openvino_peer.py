"""The model in OpenVINO GenAI, for compare_peers.py.

    python openvino_peer.py MODEL.gguf f32|bf16 THREADS

MODEL.gguf: what dense_gguf.py has made, because GenAI keeps quantised weights
quantised. Reads lines "plain TOKENS" and answers each with the seconds of a
prompt's pass and one token, a JSON number. "first TEXT" answers with the token
that follows the text. Needs openvino-genai.
"""

import json
import random
import sys
import time

import numpy
import openvino
import openvino_genai


def main() -> None:
    gguf, kind, threads = sys.argv[1:]
    pipeline = openvino_genai.LLMPipeline(
        gguf, "CPU", INFERENCE_PRECISION_HINT=kind, KV_CACHE_PRECISION=kind,
        DYNAMIC_QUANTIZATION_GROUP_SIZE=0, INFERENCE_NUM_THREADS=int(threads))
    # No template: the tokens are the prompt.
    options = {"max_new_tokens": 1, "do_sample": False,
               "apply_chat_template": False}
    for line in sys.stdin:
        command, argument = line.rstrip("\n").split(" ", 1)
        if command == "first":
            print(json.dumps(pipeline.generate(argument, **options)),
                  flush=True)
            continue
        ids = numpy.array([[random.randrange(1000, 40000)
                            for _ in range(int(argument))]], numpy.int64)
        start = time.perf_counter()
        pipeline.generate(openvino.Tensor(ids), **options)
        print(json.dumps(time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main()
