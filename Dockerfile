# syntax=docker/dockerfile:1
# Two stages: the first builds and has tools, the second runs and has none.

FROM python:3.13-slim-bookworm AS build
# What compiles the hot modules; Python's own headers are in the base image.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src

# Dependencies first: this layer stays as long as the locks do.
COPY requirements.lock ./
COPY deploy/requirements-build.lock deploy/
RUN python -m venv /opt/lockgate \
 && /opt/lockgate/bin/pip install --require-hashes --only-binary :all: -r requirements.lock \
 && python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --only-binary :all: \
      -r requirements.lock -r deploy/requirements-build.lock

COPY pyproject.toml README.md LICENSE ./
COPY .ci/compile_gateway.py .ci/wheel_hook.py .ci/
COPY gateway gateway
RUN COMPILE_GATEWAY=1 /opt/build/bin/python -m build --wheel --no-isolation --outdir /tmp/dist . \
 && /opt/lockgate/bin/pip install --no-deps --no-index /tmp/dist/*.whl \
 && /opt/lockgate/bin/pip check \
 && /opt/lockgate/bin/python -m compileall -q /opt/lockgate/lib \
 && /opt/lockgate/bin/pip uninstall --yes pip


FROM python:3.13-slim-bookworm AS run
LABEL org.opencontainers.image.title="Lockgate" \
      org.opencontainers.image.description="An API gateway that gives every call what robust integration needs" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build /opt/lockgate /opt/lockgate
COPY plugins /etc/lockgate/plugins
COPY deploy/gateway.yaml /etc/lockgate/gateway.yaml
# What the embedded store keeps. A volume that is mounted here takes over the owner.
RUN install -d -o 65532 -g 65532 -m 0700 /var/lib/lockgate

# The root file system may be read-only: nothing is written but the access log, if it goes to a file,
# the embedded store's data, and its socket in /tmp.
ENV PATH=/opt/lockgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_CONFIG=/etc/lockgate/gateway.yaml

# Numeric, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 65532:65532
WORKDIR /etc/lockgate
EXPOSE 8080 9901
VOLUME /var/lib/lockgate
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["lockgate", "healthcheck"]
ENTRYPOINT ["lockgate"]
CMD ["run"]
