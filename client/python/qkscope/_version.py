"""The package's version, which is the server's (CMakeLists.txt)."""

__version__ = "0.1.0"
