# Prometheus of Debian's package, as the official image runs it; the context is what
# deploy/image_root.sh --over-base collected. For docker_check.py.
FROM debian:12-slim
COPY . /
ENV LD_LIBRARY_PATH=/opt/qkscope/lib PATH=/usr/sbin:/usr/bin:/bin
RUN mkdir /prometheus && chown 65534:65534 /prometheus
WORKDIR /prometheus
USER 65534
ENTRYPOINT ["/bin/prometheus"]
