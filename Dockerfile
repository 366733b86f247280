# Two images from one file:
#   docker build --target controller -t edgeloop .              compresses, exports, measures, reports
#   docker build --target agent -t edgeloop-agent .             measures on a board; no torch, no prefect
# The base image is an argument, so that a mirror, a digest or another architecture can be named.
ARG BASE=python:3.11-slim

FROM ${BASE} AS source
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY device_bench device_bench
COPY pipeline pipeline
COPY exporters exporters
COPY flows flows
RUN python -m venv /opt/edgeloop

FROM source AS agent-build
RUN /opt/edgeloop/bin/pip install -q -c constraints.txt ".[agent,onnxruntime,litert]"

FROM source AS controller-build
RUN /opt/edgeloop/bin/pip install -q -c constraints.txt ".[pipeline]"

FROM ${BASE} AS runtime
ENV PATH=/opt/edgeloop/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 10001 edgeloop
USER edgeloop
WORKDIR /home/edgeloop

FROM runtime AS agent
COPY --from=agent-build /opt/edgeloop /opt/edgeloop
ENTRYPOINT ["device-bench"]
CMD ["--help"]

FROM runtime AS controller
COPY --from=controller-build /opt/edgeloop /opt/edgeloop
ENTRYPOINT ["edgeloop"]
CMD ["--help"]
