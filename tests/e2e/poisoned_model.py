"""Models with a weight that is NaN."""

import json
import struct


def poison(folder, tensor):
    """Puts a NaN into the first value of a tensor of folder/model.safetensors,
    which is F32."""
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    (length,) = struct.unpack_from("<Q", content)
    entry = json.loads(content[8:8 + length])[tensor]
    assert entry["dtype"] == "F32", entry
    struct.pack_into("<f", content, 8 + length + entry["data_offsets"][0],
                     float("nan"))
    file.write_bytes(content)
