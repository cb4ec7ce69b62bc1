#!/usr/bin/env python3
# row: Envoy: three replicas, drain, kill -9, resume | run | quick | 20
"""Runs three replicas behind Envoy with deploy/envoy/envoy.yaml."""

import pathlib
import platform
import re
import subprocess
import sys

import replicas


def filled_in(three):
    """Returns the configuration with this test's addresses and files."""
    text = (replicas.ROOT / "deploy" / "envoy" / "envoy.yaml").read_text()
    host, port = three.address.rsplit(":", 1)
    changes = {
        "address: 0.0.0.0, port_value: 8443":
            f"address: {host}, port_value: {port}",
        "/etc/envoy/proxy.crt": str(three.proxy_pair.cert),
        "/etc/envoy/proxy.key": str(three.proxy_pair.key),
        "/etc/envoy/client-ca.crt": str(three.authority.cert)}
    for name, server in three.servers.items():
        host, port = server.address.rsplit(":", 1)
        changes[f"address: qkscope-{name}.example, port_value: 7461"] = (
            f"address: {host}, port_value: {port}")
    for old, new in changes.items():
        replicas.check(text.count(old) == 1, f"{old} in envoy.yaml")
        text = text.replace(old, new)
    return text


def start_envoy(three, stack):
    import envoy  # pylint: disable=import-outside-toplevel
    config = three.folder / "envoy.yaml"
    config.write_text(filled_in(three))
    binary = pathlib.Path(envoy.__file__).parent / "_bin" / "envoy"
    log = stack.enter_context(open(three.folder / "envoy.log", "wb"))
    proxy = subprocess.Popen(
        [binary, "--config-path", config, "--disable-hot-restart",
         "--concurrency", "1", "--log-level", "warning"],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    stack.callback(
        lambda: print(re.sub(r"(?m)^", "envoy: ", pathlib.Path(
            log.name).read_text()[-4000:])))
    stack.callback(proxy.wait)
    stack.callback(proxy.kill)
    return proxy


if __name__ == "__main__":
    if platform.machine() != "x86_64":
        print("there is no Envoy for this machine on PyPI")
        sys.exit(77)
    # Envoy itself takes a refused call to another replica.
    replicas.run(start_envoy, retries_while_draining=0)
