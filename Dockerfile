# Two stages: the first installs everything into a virtual environment, the second has that environment and nothing else.
# All dependencies have ready-made wheels for amd64 and arm64; on another architecture, give the first stage a compiler:
#   RUN apt-get update && apt-get install -y --no-install-recommends build-essential libffi-dev libssl-dev

FROM python:3.13-slim AS builder

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

WORKDIR /src

# The dependencies first, from setup.cfg alone: this layer is rebuilt only when setup.cfg changes, not with every edit.
COPY setup.cfg ./
RUN python -c "import configparser as c; s = c.RawConfigParser(); s.read('setup.cfg', 'utf-8'); print(s['options']['install_requires'])" > requirements.txt \
    && pip install -r requirements.txt

COPY setup.py README.md ./
COPY socket_server ./socket_server
RUN pip install --no-deps . \
    && pip check


FROM python:3.13-slim

# Logs reach `docker logs` at once, and nothing is written beside the code (the root file system may be read-only). The
# inbox is in the volume, unless INBOX_URL or REDIS_URL says otherwise.
ENV PATH=/opt/venv/bin:$PATH \
    STATE_DIRECTORY=/data \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

# A fixed number, so that file permissions and `runAsNonRoot` checks outside the image can rely on it.
RUN groupadd --gid 10001 app \
    && useradd --uid 10001 --gid app --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin app \
    && install -d -o 10001 -g 10001 -m 700 /data

WORKDIR /app
COPY --from=builder /opt/venv /opt/venv
COPY wsgi.py gunicorn.conf.py ./

USER 10001:10001

# A local disk, and no network file system. A new named volume takes over the owner and mode of this directory.
VOLUME /data

EXPOSE 3001

# Follows PORT, BASE_PATH and SSL_CERT, never an HTTP proxy from the environment; the certificate is not checked against 127.0.0.1.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, ssl, urllib.request as u; u.build_opener(u.ProxyHandler({}), u.HTTPSHandler(context=ssl._create_unverified_context())).open(('https' if os.environ.get('SSL_CERT') else 'http') + '://127.0.0.1:' + (os.environ.get('PORT') or '3001') + os.environ.get('BASE_PATH', '').strip().rstrip('/') + '/health/live', timeout=4)"]

# The exec form: gunicorn is process 1 and gets SIGTERM itself, so `docker stop` drains the connections.
CMD ["gunicorn", "wsgi:app"]
