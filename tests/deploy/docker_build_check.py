#!/usr/bin/env python3
# row: Images from source, CUDA image on a stand-in base | run | full | 1800
"""Builds both images from source, which compiles everything again, and runs
them; the default network of an engine; docker-compose.yml by the other
generation of Compose."""

import os
import pathlib
import platform
import shutil
import subprocess
import sys

import own_engine
from docker_check import (BASE, IMAGE, NEW_COMPOSE, QKCTL, UID, build,
                          build_prebuilt, check_compose, import_base, timed)
from own_engine import ROOT, require, wait_until

TINY = ROOT / "tests" / "goldens" / "tiny_llama_gqa"
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt",
            "no-new-privileges", "--memory", "4g", "--pids-limit", "512",
            "--ulimit", "nofile=16384", "--volume", f"{TINY}:/models/tiny:ro")
SERVE = ("--model", "tiny=/models/tiny", "--listen", "0.0.0.0:7461",
         "--allow-anonymous-network")


def make_build_base(engine):
    """Debian with the authorities that this machine trusts: a registry may be
    behind a proxy with one of its own."""
    folder = engine.work / "build-base"
    folder.mkdir()
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    shutil.copy(certificates, folder / "ca.crt")
    (folder / "Dockerfile").write_text(
        f"FROM {BASE}\nCOPY ca.crt {certificates}\n"
        f"ENV PIP_CERT={certificates}\n")
    engine.docker("build", "--tag", "build-base", folder)


def build_from_source(engine):
    """Both targets, from one compilation: the CUDA image stands on Debian."""
    make_build_base(engine)
    settings = {"QK_CUDA": "ON", "DEBIAN_IMAGE": "build-base",
                "BASE_IMAGE": BASE, "JOBS": os.environ.get("JOBS", "2")}
    arguments = [word for key, value in settings.items()
                 for word in ("--build-arg", f"{key}={value}")]
    for target in ("cuda", "cpu"):
        timed(f"target {target}", build, engine, f"check-{target}",
              "--network", "host", "--target", target, *arguments, ROOT)


def health(engine, container):
    return engine.inspect(container)["State"]["Health"]["Status"]


def check_image(engine, image):
    """The image runs hardened, gets healthy, answers and stops."""
    engine.docker("run", "--detach", "--name", image, "--network", "none",
                  *HARDENED, image, *SERVE)
    wait_until(lambda: health(engine, image) == "healthy",
               lambda: engine.docker("logs", image))
    models = engine.docker("exec", image, "/usr/bin/qkctl", "models")
    require("tiny" in models, f"{image}: {models}")
    pid = engine.inspect(image)["State"]["Pid"]
    require(pathlib.Path(f"/proc/{pid}").stat().st_uid == UID,
            f"{image} runs as another user")
    engine.docker("stop", "--time", "60", image)
    require(engine.inspect(image)["State"]["ExitCode"] == 0,
            f"{image}: {engine.inspect(image)['State']}")
    engine.docker("rm", image)


def check_cuda(engine):
    """Without a GPU, the CUDA image says so."""
    result = engine.run("docker", "run", "--rm", "--network", "none",
                        *HARDENED, "check-cuda", *SERVE, "--backend", "cuda",
                        check=False)
    require(result.returncode != 0 and "NVIDIA" in result.stdout,
            f"--backend cuda: {result.returncode} {result.stdout}")
    require("opt/qkscope/lib" in engine.docker(
        "run", "--rm", "--network", "none", "--entrypoint", "ldd",
        "check-cuda", "/usr/bin/qkscoped"), "libraries of the base are used")


def check_layers(engine):
    """No layer holds what the build needed."""
    for image in ("check-cpu", "check-cuda"):
        tar = engine.work / "layers.tar"
        container = engine.docker("create", "--network", "none", image)
        engine.docker("export", "--output", tar, container)
        names = subprocess.run(["tar", "-tf", tar], check=True,
                               capture_output=True, encoding="utf-8").stdout
        for name in ("src/", "usr/bin/g++", "usr/bin/cmake", "nvcc"):
            require(f"\n{name}" not in names, f"{image} has {name}")
        engine.docker("rm", container)
        tar.unlink()
        print(f"{image}: {engine.inspect(image)['Size'] / 1e6:.0f} MB")


def check_source(engine):
    timed("base imported", import_base, engine)
    build_from_source(engine)
    for image in ("check-cpu", "check-cuda"):
        timed(image, check_image, engine, image)
    timed("without a GPU", check_cuda, engine)
    timed("layers", check_layers, engine)


def check_default_network(engine):
    """`docker run` with a published port, as docs/operating.md shows it."""
    build_prebuilt(engine)
    engine.docker("run", "--detach", "--name", "server", "--publish",
                  "127.0.0.1:7461:7461", *HARDENED, IMAGE, *SERVE)
    wait_until(lambda: engine.run(QKCTL, "models",
                                  check=False).returncode == 0,
               lambda: engine.docker("logs", "server"))
    wait_until(lambda: health(engine, "server") == "healthy",
               lambda: str(engine.inspect("server")["State"]))
    engine.docker("stop", "--time", "60", "server")
    require(engine.inspect("server")["State"]["ExitCode"] == 0,
            "docker stop")


def check_new_compose(engine):
    if platform.machine() != "x86_64":
        print("there is no Compose 5 for this machine")
        return
    check_compose(engine, NEW_COMPOSE)


if __name__ == "__main__":
    sys.exit(own_engine.main([
        own_engine.Check("default network", check_default_network),
        own_engine.Check("Compose 5", check_new_compose),
        own_engine.Check("source", check_source, network=False, small=False),
    ]))
