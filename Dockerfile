# Builds `docker build --target cpu .` and `docker build --target gpu .`, with Evidently (--build-arg EXTRAS=drift) or for
# CUDA 12 (--build-arg CUDA=12) if you ask for that; see docs/deployment.md.
# To use your own package index or CA: --secret id=pip_conf,src=pip.conf --secret id=ca,src=ca.pem
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm
ARG CUDA_IMAGE=docker.io/nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04
ARG CUDA12_IMAGE=docker.io/nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04
# 13 or 12.
ARG CUDA=13

# -- cpu: build stage, which has pip -------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS cpu-build
WORKDIR /src
COPY deploy/venv.sh deploy/hashed_requirements.py deploy/prune.py pyproject.toml ./
COPY constraints.txt constraints-hashed.txt constraints-cuda12.txt ./
# Further extras of pyproject.toml, separated by spaces, such as EXTRAS="drift optimize".
ARG EXTRAS=""
RUN --mount=type=cache,target=/var/cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/run/secrets/ca \
    PIP_CACHE_DIR=/var/cache/pip sh venv.sh dependencies cpu codes jwt otel ${EXTRAS}
COPY README.md LICENSE ./
COPY inference inference
COPY streamer streamer
COPY static static
COPY models models
COPY data data
RUN sh venv.sh project

# -- cpu: final image -----------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS cpu
# Nothing is installed at run time, so remove pip and related tools.
RUN rm -rf /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip* \
        /usr/local/bin/wheel \
    && install -d -o 65532 -g 65532 /data
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    HOST=0.0.0.0 \
    PORT=8000 \
    PYTHONDONTWRITEBYTECODE=1 \
    SAMPLES_DIR=/data/samples
WORKDIR /data
VOLUME /data
EXPOSE 8000
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=60s --retries=3 CMD ["python3", "-m", "streamer.supervisor.healthcheck"]
ENTRYPOINT ["streamer"]
CMD ["serve"]
ARG VERSION=0.1.0
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="real-time-vision-api" \
      org.opencontainers.image.description="Streaming object detection over HTTP, WebSocket and WebRTC, on the CPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
# The large layer comes last, so that changing a label does not rebuild it.
COPY --from=cpu-build /opt/venv /opt/venv

# -- gpu: CUDA and cuDNN 9 come from the base -----------------------------------------------------------
FROM ${CUDA_IMAGE} AS cuda13
FROM ${CUDA12_IMAGE} AS cuda12
# hadolint ignore=DL3006
FROM cuda${CUDA} AS gpu-base
# Further packages of the base distribution, such as GPU_PACKAGES="libnvinfer10 libnvonnxparsers10" for DEVICE=tensorrt.
ARG GPU_PACKAGES=""
# The base decides which Python 3 this is. Both stages must have the same version, so none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 ${GPU_PACKAGES} \
    && rm -rf /var/lib/apt/lists/*

FROM gpu-base AS gpu-build
WORKDIR /src
ARG CUDA
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/venv.sh deploy/hashed_requirements.py deploy/prune.py pyproject.toml ./
COPY constraints.txt constraints-hashed.txt constraints-cuda12.txt ./
ARG EXTRAS=""
RUN --mount=type=cache,target=/var/cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/run/secrets/ca \
    PIP_CACHE_DIR=/var/cache/pip sh venv.sh dependencies "gpu-cuda${CUDA}" codes drift jwt otel ${EXTRAS}
COPY README.md LICENSE ./
COPY inference inference
COPY streamer streamer
COPY static static
COPY models models
COPY data data
RUN sh venv.sh project

FROM gpu-base AS gpu
RUN install -d -o 65532 -g 65532 /data /cache
# DEVICE=cuda: without a GPU the service ends with a message instead of serving a fraction of the planned load.
ENV PATH=/opt/venv/bin:$PATH \
    DEVICE=cuda \
    ENGINE_CACHE_DIR=/cache/engines \
    HOME=/tmp \
    HOST=0.0.0.0 \
    PORT=8000 \
    PYTHONDONTWRITEBYTECODE=1 \
    SAMPLES_DIR=/data/samples
WORKDIR /data
VOLUME ["/data", "/cache"]
EXPOSE 8000
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=600s --retries=3 CMD ["python3", "-m", "streamer.supervisor.healthcheck"]
ENTRYPOINT ["streamer"]
CMD ["serve"]
ARG VERSION=0.1.0
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="real-time-vision-api" \
      org.opencontainers.image.description="Streaming object detection over HTTP, WebSocket and WebRTC, on CUDA" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
# The large layer comes last, so that changing a label does not rebuild it.
COPY --from=gpu-build /opt/venv /opt/venv
