# Two images from one file, for amd64 and arm64:
#   docker build --target controller -t edgeloop .              compresses, exports, measures, reports
#   docker build --target agent -t edgeloop-agent .             measures on a board; no torch, no prefect
# Both run as user 10001. docs/guides/containers.md: other bases, digests, several architectures, no network.
ARG BASE=python:3.11.14-slim-bookworm

# Wheels that pip prefers to an index's, from --build-context wheels=FOLDER; without that, none.
FROM scratch AS wheels
COPY constraints.txt /

FROM ${BASE} AS source
# An index beside the usual one, such as PyTorch's for CPU builds; PIP_NO_INDEX=1: wheels of the folder alone.
ARG PIP_EXTRA_INDEX_URL=
ARG PIP_NO_INDEX=
# As variables, because not every builder hands arguments on to the stages that start from this one.
ENV PIP_EXTRA_INDEX_URL=$PIP_EXTRA_INDEX_URL PIP_NO_INDEX=$PIP_NO_INDEX PIP_CONSTRAINT=/src/constraints.txt \
    PIP_FIND_LINKS=/wheels PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Without pip: what runs needs none, and the base's own installs into it.
RUN python3 -m venv --without-pip /opt/edgeloop
COPY pyproject.toml constraints.txt README.md LICENSE ./

# Our own code, apart from what it needs: a change to it leaves the large layers as they are.
FROM source AS own
COPY device_bench device_bench
COPY pipeline pipeline
COPY exporters exporters
COPY flows flows
RUN --mount=type=bind,from=wheels,source=/,target=/wheels \
    python3 -m pip wheel -q --no-deps --wheel-dir /own .

# Here the project has no code yet, so that pip brings what its extras name and nothing of ours.
FROM source AS agent-needs
RUN --mount=type=bind,from=wheels,source=/,target=/wheels \
    python3 -m pip --python /opt/edgeloop/bin/python install -q ".[agent,onnxruntime,litert]" \
    && python3 -m pip --python /opt/edgeloop/bin/python uninstall -q -y edgeloop

FROM source AS controller-needs
RUN --mount=type=bind,from=wheels,source=/,target=/wheels \
    python3 -m pip --python /opt/edgeloop/bin/python install -q ".[pipeline,postgres,s3,dask]" \
    && python3 -m pip --python /opt/edgeloop/bin/python uninstall -q -y edgeloop

FROM ${BASE} AS runtime
ENV PYTHONUNBUFFERED=1
# A number, because Kubernetes cannot tell by a name that it is not root.
RUN useradd --create-home --uid 10001 edgeloop
WORKDIR /home/edgeloop

FROM runtime AS agent
COPY --from=agent-needs /opt/edgeloop /opt/edgeloop
RUN --mount=type=bind,from=own,source=/own,target=/own \
    python3 -m pip --python /opt/edgeloop/bin/python install -q --no-index --no-deps --no-cache-dir /own/*.whl
ENV PATH=/opt/edgeloop/bin:$PATH
USER 10001:10001
EXPOSE 8443
ENTRYPOINT ["device-bench"]
CMD ["--help"]

FROM runtime AS controller
COPY --from=controller-needs /opt/edgeloop /opt/edgeloop
RUN --mount=type=bind,from=own,source=/own,target=/own \
    python3 -m pip --python /opt/edgeloop/bin/python install -q --no-index --no-deps --no-cache-dir /own/*.whl
ENV PATH=/opt/edgeloop/bin:$PATH
# Lists of tasks for training, and what `prefect deploy --all` reads; a volume over the home starts as a copy.
WORKDIR /home/edgeloop/work
COPY --chown=10001:10001 policies policies
COPY --chown=10001:10001 prefect.yaml .
RUN chown 10001:10001 .
# Prefect writes its pages where they were installed, unless told where it may.
ENV PREFECT_UI_STATIC_DIRECTORY=/tmp/prefect-pages
USER 10001:10001
ENTRYPOINT ["edgeloop"]
CMD ["--help"]
