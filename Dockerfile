# The worker:  docker build -t optly-celery .
# Flower:      docker build -t optly-celery:flower --target flower .
# The demo:    docker build -t optly-celery:demo --target demo .
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

# Nothing is compiled, and pip stays here: only the virtual environment goes on.
FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/venv
COPY setup.cfg pyproject.toml README.md pytest_optly_celery.py ./
COPY optly_celery ./optly_celery
# Celery 5.7: before it, Flower hears of some tasks only in part (celery/celery#10434).
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir . 'celery>=5.7'

FROM build AS build-flower
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir '.[flower]' 'flower>=2.2'

FROM build AS build-demo
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir \
    '.[flask,testing]' 'optimizely-sdk>=5' 'gunicorn>=25.1'

FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A directory for outbox files: a named volume mounted there starts with its owner.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent optly \
    && install -d -o optly -g optly -m 700 /var/lib/optly_celery
ENV OPTLY_OUTBOX_DIR=/var/lib/optly_celery
# The official image leaves the standard library's bytecode out, and on a read-only root nobody
# writes it: without this, each start, and so each health check, compiles 180 modules anew.
RUN python -m compileall -q -x '/(ensurepip|idlelib|site-packages|tkinter|turtledemo)/' \
    "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# A celeryconfig.py here is read over the package's own.
WORKDIR /etc/optly_celery
USER 10001:10001

FROM runtime AS flower
COPY --from=build-flower /opt/venv /opt/venv
EXPOSE 5555
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:5555/healthcheck', timeout=5)"]
ENTRYPOINT ["celery", "-A", "optly_celery"]
CMD ["flower", "--address=0.0.0.0", "--port=5555"]

FROM runtime AS demo
COPY --from=build-demo /opt/venv /opt/venv
COPY examples/flask /srv/shop
WORKDIR /srv/shop
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/arrived', timeout=5)"]
# gunicorn notes in files that its workers live: in memory, since the root may be read-only.
CMD ["gunicorn", "--bind=0.0.0.0:8000", "--workers=2", "--threads=8", "--preload", \
    "--worker-tmp-dir=/dev/shm", "--no-control-socket", "wsgi:app"]

FROM runtime AS worker
COPY --from=build /opt/venv /opt/venv
# Asks this worker, through the broker: a process that runs but does not consume is not healthy.
HEALTHCHECK --interval=30s --timeout=15s --start-period=20s \
    CMD ["optly-celery", "status", "--worker", "celery@%h", "--timeout", "5"]
# Celery is PID 1. SIGTERM: it takes nothing more, finishes the POSTs that it has begun (13 s at
# most for each attempt), and hands the rest back to Redis. So give it longer than the 10 s of
# `docker stop`: `docker stop --time 30`.
ENTRYPOINT ["celery", "-A", "optly_celery"]
CMD ["worker", "--loglevel=info"]
