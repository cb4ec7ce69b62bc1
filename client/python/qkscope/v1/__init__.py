"""Generated messages and stubs of the API: proto/qkscope/v1."""
