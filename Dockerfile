# The stages and commands of Rackmeter: locked packages, no build tool, no embedded broker or database, not root.
FROM python:3.11.16-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84 AS packages
WORKDIR /build
COPY pyproject.toml requirements.lock ./
COPY deploy/runtime_requirements.py deploy/
RUN python deploy/runtime_requirements.py > runtime.lock \
    && python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement runtime.lock

FROM python:3.11.16-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84
RUN groupadd --system --gid 10001 rackmeter \
    && useradd --system --uid 10001 --gid rackmeter --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin rackmeter \
    && install -d -o rackmeter -g rackmeter -m 750 /var/lib/rackmeter/archive /var/lib/rackmeter/documents \
        /var/lib/rackmeter/journal /var/lib/rackmeter/state
COPY --from=packages /opt/venv /opt/venv
COPY pipeline /opt/rackmeter/pipeline
COPY schemas /opt/rackmeter/schemas
COPY LICENSE /opt/rackmeter/LICENSE
RUN /opt/venv/bin/python -m compileall -q /opt/rackmeter/pipeline \
    && printf '#!/bin/sh\nexec /opt/venv/bin/python -m pipeline "$@"\n' > /usr/local/bin/rackmeter \
    && chmod 755 /usr/local/bin/rackmeter
ENV PYTHONPATH=/opt/rackmeter \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/rackmeter
USER 10001:10001
HEALTHCHECK NONE
ENTRYPOINT ["rackmeter"]
CMD ["--help"]
