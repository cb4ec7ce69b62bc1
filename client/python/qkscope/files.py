"""Saved analyses: the .safetensors files of `qkctl analyze --out`.

Tensors have names like "clean/layer.3.hook_rot_q". The file's __metadata__
holds "format": "qkscope" and, as JSON text:
  manifest     the Manifest, in protobuf's JSON mapping
  axes         {tensor name: [axis names]}
  layers       {tensor name: Layer without data}
  comparisons  [Comparison]
"""

from __future__ import annotations

import json
from typing import Any, Optional

from google.protobuf import json_format

from qkscope.atomic import PathLike, file_error, write_atomically
from qkscope.errors import BadFile
from qkscope.run import Run, RunParts
from qkscope.tensor import LayerResult, shape_bytes, tensor_axes
from qkscope.v1 import analysis_pb2, spec_pb2

_DTYPES = {spec_pb2.F16: "F16", spec_pb2.BF16: "BF16"}
_LENGTH_BYTES = 8


def _to_dict(message: Any) -> dict[str, Any]:
    fields: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True)
    return fields


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def write_safetensors(run: Run, path: PathLike) -> None:
    """Writes the run, completely or not at all. BadFile: why not."""
    tensors = run.tensors
    header: dict[str, Any] = {"__metadata__": {
        "format": "qkscope",
        "manifest": _compact(_to_dict(run.manifest)),
        "axes": _compact({t.name: tensor_axes(t.header) for t in tensors}),
        "layers": _compact({t.name: _to_dict(t.header) for t in tensors}),
        "comparisons": _compact([_to_dict(comparison) for comparison
                                 in run.parts.comparisons]),
    }}
    offset = 0
    for tensor in tensors:
        end = offset + len(tensor.data)
        header[tensor.name] = {
            "dtype": _DTYPES.get(tensor.header.dtype, "F32"),
            "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = _compact(header).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    write_atomically(path, [len(text).to_bytes(_LENGTH_BYTES, "little"), text,
                            *(tensor.data for tensor in tensors)])


def write_manifest(run: Run, path: PathLike) -> None:
    """Writes the manifest alone, as JSON. BadFile: why not."""
    text = json.dumps(_to_dict(run.manifest), indent=1, ensure_ascii=False)
    write_atomically(path, [text.encode(), b"\n"])


def _parse(path: PathLike, what: str, value: Any, message: Any) -> Any:
    try:
        json_format.ParseDict(value, message, ignore_unknown_fields=True)
    except (json_format.ParseError, TypeError, ValueError,
            AttributeError) as error:
        raise BadFile(f"{path}: {what} cannot be read: {error}") from None
    return message


def _json(path: PathLike, what: str, text: Any, kind: Any = dict) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadFile(f"{path}: {what} is not JSON: {error}") from None
    if not isinstance(value, kind):
        raise BadFile(f"{path}: {what} is not JSON of the right kind")
    return value


def _tensor(path: PathLike, name: str, entry: Any, layer: Optional[Any],
            data: memoryview) -> tuple[int, LayerResult]:
    """The tensor's offset, and the tensor."""
    if layer is None:
        raise BadFile(f"{path}: its metadata do not describe {name}")
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if (not isinstance(offsets, list) or len(offsets) != 2
            or not all(isinstance(offset, int) for offset in offsets)):
        raise BadFile(f"{path}: {name} has no data_offsets")
    begin, end = offsets
    if not 0 <= begin <= end <= len(data):
        raise BadFile(f"{path}: {name} lies outside the file")
    header = _parse(path, f"metadata of {name}", layer, analysis_pb2.Layer())
    if shape_bytes(header) != end - begin:
        raise BadFile(f"{path}: the shape of {name} does not match its "
                      f"{end - begin} bytes")
    return begin, LayerResult(header, data[begin:end])


def _read_parts(path: PathLike, content: memoryview) -> RunParts:
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if length > len(content) - _LENGTH_BYTES:
        raise BadFile(f"{path}: its header of {length} bytes is truncated")
    data = content[_LENGTH_BYTES + length:]
    header = _json(path, "its header",
                   bytes(content[_LENGTH_BYTES:_LENGTH_BYTES + length]))
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not {
            "manifest", "layers"} <= metadata.keys():
        raise BadFile(f"{path}: its metadata have no qkscope manifest")
    parts = RunParts()
    _parse(path, "its manifest",
           _json(path, "its manifest", metadata["manifest"]),
           parts.finished.manifest)
    layers = _json(path, "its layers", metadata["layers"])
    placed = [_tensor(path, name, entry, layers.get(name), data)
              for name, entry in header.items()]
    parts.tensors = [tensor for _, tensor in
                     sorted(placed, key=lambda item: item[0])]
    for value in _json(path, "its comparisons",
                       metadata.get("comparisons") or "[]", list):
        parts.comparisons.append(_parse(path, "a comparison", value,
                                        analysis_pb2.Comparison()))
    return parts


def read_safetensors(path: PathLike) -> Run:
    """Reads a saved analysis, or a manifest, which has no tensors. BadFile:
    what is wrong with it."""
    try:
        with open(path, "rb") as file:
            content = memoryview(file.read())
    except OSError as error:
        raise file_error("read", path, error) from None
    # In a .safetensors file, "{" follows the header's length; JSON begins
    # with it.
    if len(content) > _LENGTH_BYTES and content[_LENGTH_BYTES] == ord("{") and (
            content[_LENGTH_BYTES - 1] == 0):
        return Run(_read_parts(path, content))
    parts = RunParts()
    try:
        json_format.Parse(bytes(content), parts.finished.manifest,
                          ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError):
        parts.finished.manifest.Clear()
    if not parts.finished.manifest.model:
        raise BadFile(f"{path}: neither a manifest nor a .safetensors file "
                      "from qkscope")
    return Run(parts)
