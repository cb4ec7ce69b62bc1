"""The API's Python messages and gRPC stubs, generated from proto/."""

import importlib
import pathlib
import sys

import grpc_tools
import grpc_tools.protoc

from processes import ROOT, scratch_folder

_folder = scratch_folder()
_protos = sorted(str(path) for path in ROOT.glob("proto/qkscope/v1/*.proto"))
_googles = pathlib.Path(grpc_tools.__file__).parent / "_proto"
if grpc_tools.protoc.main(
        ["protoc", f"-I{ROOT / 'proto'}", f"-I{_googles}",
         f"--python_out={_folder.name}",
         f"--grpc_python_out={_folder.name}", *_protos]) != 0:
    raise RuntimeError("protoc cannot read proto/")
sys.path.insert(0, _folder.name)

analysis = importlib.import_module("qkscope.v1.analysis_pb2")
analysis_grpc = importlib.import_module("qkscope.v1.analysis_pb2_grpc")
error = importlib.import_module("qkscope.v1.error_pb2")
spec = importlib.import_module("qkscope.v1.spec_pb2")
admin = importlib.import_module("qkscope.v1.admin_pb2")
admin_grpc = importlib.import_module("qkscope.v1.admin_pb2_grpc")
