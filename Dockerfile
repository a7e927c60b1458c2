# docker build -t rllib-ezm .
# docker run --rm -it --shm-size=2g -v "$PWD/results_here:/root/ray_results" rllib-ezm
#
# With a GPU (NVIDIA Container Toolkit; the base must have Python 3.10 to 3.12):
# docker build -t rllib-ezm --build-arg BASE=nvidia/cuda:12.6.3-runtime-ubuntu24.04 --build-arg TORCH_INDEX= .
# docker run --rm -it --gpus all --shm-size=2g rllib-ezm
ARG BASE=python:3.12-slim
FROM ${BASE}

# Empty: the build with CUDA, which pip takes by default.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libosmesa6 libegl1 \
    && if ! command -v python3 >/dev/null; then \
         apt-get install --yes --no-install-recommends python3 python3-venv; fi \
    && rm -rf /var/lib/apt/lists/*

RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 MUJOCO_GL=osmesa

WORKDIR /opt/rllib_ezm
COPY pyproject.toml README.md LICENSE ./
COPY rllib_ezm ./rllib_ezm
COPY tuned_examples ./tuned_examples
# The versions are those of pyproject.toml.
# hadolint ignore=DL3013
RUN if [ -n "${TORCH_INDEX}" ]; then pip install "torch>=2.6,<2.14" --index-url "${TORCH_INDEX}"; fi \
    && pip install ".[report,export]"

CMD ["rllib", "train", "file", "tuned_examples/ezm_dmc.py"]
