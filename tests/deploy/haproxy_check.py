#!/usr/bin/env python3
# row: HAProxy: three replicas, drain, kill -9, resume | run | quick | 20
"""Runs three replicas behind HAProxy with
deploy/haproxy/haproxy-replicas.cfg."""

import os
import pathlib
import shutil
import subprocess

import replicas

CONFIG = replicas.ROOT / "deploy" / "haproxy" / "haproxy-replicas.cfg"


def start_haproxy(three, stack):
    chain = pathlib.Path(three.folder) / "proxy.pem"
    chain.write_text(three.proxy_pair.cert.read_text()
                     + three.proxy_pair.key.read_text())
    proxy = subprocess.Popen(
        [shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin"),
         "-db", "-f", CONFIG], stdin=subprocess.DEVNULL,
        env={**os.environ, "QKSCOPE_PROXY_LISTEN": three.address,
             "QKSCOPE_PROXY_CERT": str(chain),
             "QKSCOPE_PROXY_CLIENT_CA": str(three.authority.cert),
             **{f"QKSCOPE_REPLICA_{name.upper()}": server.address
                for name, server in three.servers.items()}})
    stack.callback(proxy.wait)
    stack.callback(proxy.kill)
    return proxy


if __name__ == "__main__":
    # HAProxy cannot see that a replica has refused a call until its next health
    # checks.
    replicas.run(start_haproxy, retries_while_draining=5)
