# birder serve in a container, for computers without a GPU. docs/serving.md says how to build it, start it and guard it.

FROM python:3.13-slim-trixie AS base

FROM base AS build

# Options for pip. Without any, torch comes with the libraries of NVIDIA GPUs on x86-64: several GB for nothing.
# PyTorch's installation page names the index of its wheels for processors: --build-arg PIP_OPTIONS="--extra-index-url …"
ARG PIP_OPTIONS=""

WORKDIR /source
RUN python -m venv /opt/birder

# First what birder needs, which seldom changes: a build after a change of birder itself takes it from the cache.
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY birder/__init__.py birder/
RUN /opt/birder/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
    --constraint requirements.lock ${PIP_OPTIONS} ".[serve,fast,tables]"
COPY birder birder
RUN /opt/birder/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
    --no-deps --force-reinstall .

FROM base

# No line of Python is compiled where it runs, so that the root may be read-only; all that is written goes to the home.
ENV PATH="/opt/birder/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    BIRDER_HOME=/var/lib/birder \
    HF_HOME=/var/lib/birder/huggingface

RUN groupadd --gid 10001 birder \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/birder --no-create-home --shell /usr/sbin/nologin birder \
    && install --directory --owner birder --group birder --mode 0700 /var/lib/birder

COPY --from=build /opt/birder /opt/birder

USER 10001:10001
WORKDIR /var/lib/birder
VOLUME ["/var/lib/birder"]
EXPOSE 8000

# The first start with a model tries what computes it fastest, and says no until that is known.
HEALTHCHECK --interval=30s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]

# Without --token-file, a token is made at each start, and stands in the address in the log.
ENTRYPOINT ["birder", "serve"]
CMD ["--host", "0.0.0.0"]
