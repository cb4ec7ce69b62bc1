# Alertmanager of Debian's package, as the official image runs it; the context is what
# deploy/image_root.sh --over-base collected. For docker_check.py.
FROM debian:12-slim
COPY . /
ENV LD_LIBRARY_PATH=/opt/qkscope/lib PATH=/usr/sbin:/usr/bin:/bin
RUN ln -s prometheus-alertmanager /usr/bin/alertmanager && \
    mkdir /alertmanager && chown 65534:65534 /alertmanager
WORKDIR /alertmanager
USER 65534
ENTRYPOINT ["/bin/alertmanager"]
