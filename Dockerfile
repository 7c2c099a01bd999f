# Sluice itself: the control plane, the command line, and the load that `make demo` sends.
FROM python:3.13-slim AS wheel
LABEL sluice.made=image
WORKDIR /build
COPY requirements-build.lock ./
RUN python -m venv .venv && .venv/bin/pip install --quiet --require-hashes -r requirements-build.lock
COPY pyproject.toml LICENSE ./
COPY app app
COPY services services
COPY migrations migrations
COPY templates templates
RUN .venv/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

FROM python:3.13-slim
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /opt/sluice
COPY requirements.lock ./
RUN pip install --quiet --require-hashes -r requirements.lock
COPY --from=wheel /build/dist /tmp/dist
RUN pip install --quiet --no-deps /tmp/dist/*.whl
COPY bench bench
COPY samples/spring/deploy samples/spring/deploy
ENTRYPOINT ["sluice"]
CMD ["serve"]
