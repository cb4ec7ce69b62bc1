# Images of qkscoped and qkctl, for Docker with BuildKit or without it.
#
#   docker build -t qkscope:0.1.0 .             from source, for the CPU
#   docker build -t qkscope:0.1.0-cuda --target cuda --build-arg QK_CUDA=ON \
#       --build-arg BASE_IMAGE=IMAGE .          from source, for an NVIDIA GPU
#   bash deploy/image_root.sh --sbom build/release build/image \
#       build/release/bin/{qkscoped,qkctl}
#   docker build -t qkscope:0.1.0 -f Dockerfile --target prebuilt build/image
#                                               from programs that were built here
#
# An image runs as user 65532, needs no writable root and no capabilities, and
# holds no shell. The server keeps its results in /var/lib/qkscope, reads
# /etc/qkscope/qkscoped.conf unless it is given flags, and must be told who can
# reach it (--behind-proxy or --allow-anonymous-network): docker-compose.yml.

# What the build runs in, and where the CPU image's libraries come from.
ARG DEBIAN_IMAGE=debian:12-slim
# What the CUDA image stands on: any image with glibc 2.36 or newer. The driver
# comes from the NVIDIA container toolkit; CUDA's runtime is linked statically;
# cuBLASLt is used (--matmul cublaslt) if the base has it.
ARG BASE_IMAGE=debian:12-slim

FROM scratch AS base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="qkscope" \
      org.opencontainers.image.description="Massive values of Q and K of language models: a gRPC service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 65532:65532
EXPOSE 7461 9461
STOPSIGNAL SIGTERM
# Large models take long to load. A server with TLS of its own needs the flags of
# qkctl here, or QKSCOPE_SERVER.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 \
  CMD ["/usr/bin/qkctl", "health", "--timeout", "4"]
ENTRYPOINT ["/usr/bin/qkscoped"]
CMD ["--config", "/etc/qkscope/qkscoped.conf"]

# The build's context is a root that deploy/image_root.sh made.
FROM base AS prebuilt
COPY . /

FROM ${DEBIAN_IMAGE} AS build
WORKDIR /src
COPY deploy/install_deps.sh deploy/
RUN bash deploy/install_deps.sh
COPY tests tests
ARG QK_CUDA=OFF
RUN if [ "${QK_CUDA}" = ON ]; then bash tests/cuda/make_venv.sh; fi
COPY . .
# How many compilers run at a time; each takes up to 2 GiB.
ARG JOBS=2
RUN cmake --preset release -DQK_CUDA="${QK_CUDA}" -DQK_BUILD_TESTS=OFF \
      -DQK_BUILD_BENCH=OFF && \
    cmake --build --preset release --parallel "${JOBS}" \
      --target qkscoped qkctl && \
    bash deploy/image_root.sh --sbom build/release /image \
      build/release/bin/qkscoped build/release/bin/qkctl && \
    bash deploy/image_root.sh --over-base --sbom build/release \
      /image-over-base \
      build/release/bin/qkscoped build/release/bin/qkctl

FROM ${BASE_IMAGE} AS cuda
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="qkscope" \
      org.opencontainers.image.description="Massive values of Q and K of language models: a gRPC service, with CUDA" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image-over-base /
ENV LD_LIBRARY_PATH=/opt/qkscope/lib:/usr/local/nvidia/lib:/usr/local/nvidia/lib64 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# A base whose glibc is too old fails here.
RUN ["/usr/bin/qkscoped", "--version"]
USER 65532:65532
EXPOSE 7461 9461
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 \
  CMD ["/usr/bin/qkctl", "health", "--timeout", "4"]
ENTRYPOINT ["/usr/bin/qkscoped"]
CMD ["--config", "/etc/qkscope/qkscoped.conf"]

# The last stage is what a build without --target makes.
FROM base AS cpu
COPY --from=build /image /
