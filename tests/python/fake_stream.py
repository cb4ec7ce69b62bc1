"""A synthetic but valid Analyze stream, which tests send unchanged or break:
tests/client/cpp/fake_stream.cc in Python. Its checksums are those of the
package crc32c."""

import hashlib

import crc32c
import numpy as np
import support  # pylint: disable=unused-import

from qkscope.v1 import analysis_pb2 as v1
from qkscope.v1 import spec_pb2 as spec

POINTS = (spec.HOOK_ROT_Q, spec.HOOK_ROT_K, spec.HOOK_V)
TOKENS = 3


class _Builder:

    def __init__(self, arms, layers, images, shape, chunk_bytes, form):
        self.arms, self.layers, self.images = arms, layers, images
        self.shape, self.chunk_bytes, self.form = shape, chunk_bytes, form
        self.events, self.bytes = [], 0
        self.manifest = v1.Manifest(model="fake", backend="fake",
                                    kernel_ids=["fake-kernel"],
                                    token_ids=range(10, 10 + TOKENS))

    def expanded(self):
        request = v1.AnalyzeRequest(model="fake")
        for name in self.arms:
            arm = request.arms.add(name=name)
            if name != "clean":
                arm.disruptions.add().top_k.k = 1
        request.capture.points.extend(POINTS)
        request.capture.form = self.form
        for _ in range(self.images):
            request.input.images.add(sha256="00")
        request.compare.baseline = self.arms[0]
        return request

    def next(self):
        self.events.append(v1.AnalyzeEvent(
            seq=len(self.events) - 1))  # Accepted has none
        return self.events[-1]

    def build(self):
        self.events.append(v1.AnalyzeEvent(
            accepted=v1.Accepted(request_id="fake-1")))
        started = self.next().started
        started.token_ids.extend(range(10, 10 + TOKENS))
        started.expanded.CopyFrom(self.expanded())
        for arm in self.arms:
            for point in POINTS:
                for image in range(self.images):
                    self.add_tensor(arm, 0, point, image)
        for layer in range(self.layers):  # arms interleave
            for arm in self.arms:
                for point in POINTS:
                    self.add_tensor(arm, layer, point)
                if arm != "clean":
                    self.next().applied.CopyFrom(v1.Applied(
                        arm=arm, layer=layer, replaced=TOKENS))
        for arm in self.arms:
            base = arm == self.arms[0]
            self.next().comparison.CopyFrom(v1.Comparison(
                arm=arm, baseline=self.arms[0],
                kl=[0 if base else 0.5] * TOKENS,
                top1_flip=[not base] * TOKENS,
                token_logprob=[0, -2, -2], mean_kl=0 if base else 0.5,
                top1_flips=0 if base else TOKENS,
                mean_logprob=-2 if base else -3))
        event = self.next()
        self.manifest.expanded.CopyFrom(self.expanded())
        event.finished.CopyFrom(v1.Finished(
            events=event.seq, streamed_bytes=self.bytes, prompt_tokens=TOKENS,
            manifest=self.manifest))
        return self.events

    def add_tensor(self, arm, layer, point, image=None):
        heads, dim = self.shape
        values = np.ones((heads, dim), "<f4")
        if point == spec.HOOK_ROT_Q:
            values[0, 3] = 40
        data = values.tobytes()
        header = v1.Layer(
            arm=arm, layer=layer, point=point, stage=spec.BEFORE,
            phase=spec.PREFILL, dtype=spec.F32, form=self.form, image=image,
            shape=([1] if self.form == spec.RAW else []) + [heads, dim],
            total_bytes=len(data), group_size=1)
        if self.form == spec.NORM_OVER_TOKENS:
            massive = int(point == spec.HOOK_ROT_Q)
            header.statistics.CopyFrom(v1.Statistics(
                massive_count=massive, ratio=3.7 if massive else 1,
                largest=v1.MassiveEntry(dim=3 if massive else 0)))
        for offset in range(0, len(data), self.chunk_bytes):
            chunk = self.next().layer
            chunk.CopyFrom(header)
            chunk.data = data[offset:offset + self.chunk_bytes]
            chunk.offset = offset
            chunk.crc32c = crc32c.crc32c(chunk.data)
        self.manifest.digests.add(
            arm=arm, image=image, phase=spec.PREFILL, layer=layer, point=point,
            stage=spec.BEFORE, crc32c=crc32c.crc32c(data), bytes=len(data),
            sha256="" if self.form == spec.RAW
            else hashlib.sha256(data).hexdigest())
        self.bytes += len(data)


def fake_stream(arms=("clean", "top_k:1"), layers=2, images=0, shape=(2, 4),
                chunk_bytes=1 << 20, form=spec.NORM_OVER_TOKENS):
    """Returns Accepted, Started, layers of hook_rot_q, hook_rot_k and hook_v
    per arm, Applied, Comparisons, and Finished with a manifest. In head 0 of Q,
    dim 3 is massive."""
    return _Builder(arms, layers, images, shape, chunk_bytes, form).build()


def index_of(events, kind):
    """The index of the first event of this kind."""
    return [event.WhichOneof("event") for event in events].index(kind)
