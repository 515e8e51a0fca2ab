# The course in a container. Building it takes the network, running it takes none.
#   docker build --tag lightcourse .
#   docker run --rm --publish 127.0.0.1:8888:8888 lightcourse
# The second prints an address with a token in it. docs/where-it-runs.md tells who else uses this.
FROM python:3.11-slim

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*

# Binder chooses the name and the number.
ARG NB_USER=learner
ARG NB_UID=1000
RUN useradd --create-home --uid "$NB_UID" "$NB_USER" \
    && install --directory --owner "$NB_USER" /srv/lightcourse /srv/assets
USER $NB_USER
WORKDIR /srv/lightcourse

ENV LIGHTCOURSE_CACHE=/srv/assets \
    PIP_NO_CACHE_DIR=1
COPY --chown=$NB_UID . .
RUN python3 -m venv .venv \
    && .venv/bin/pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu \
    && make .venv/course \
    && .venv/bin/python -m pip install --quiet -c constraints.txt --editable ".[practice,hub]"

ENV PATH=/srv/lightcourse/.venv/bin:$PATH
EXPOSE 8888
CMD ["lightcourse", "lab", "--", "--ip=0.0.0.0", "--no-browser"]
