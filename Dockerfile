# The image of every Airflow service of docker-compose.yaml. First form, as that file.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    AIRFLOW_HOME=/opt/risk/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/risk/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/risk/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    PYTHONPATH=/opt/risk/include

WORKDIR /opt/risk
RUN useradd --create-home --uid 50000 risk \
    && mkdir -p /opt/risk/airflow/logs /state \
    && chown -R risk:risk /opt/risk /state

COPY requirements.txt requirements-celery.txt ./
RUN pip install -r requirements-celery.txt && pip check

COPY --chown=risk:risk pyproject.toml README.md LICENSE ./
COPY --chown=risk:risk include include
COPY --chown=risk:risk plugins plugins
COPY --chown=risk:risk dags dags
RUN pip install --no-deps --no-build-isolation -e .

USER risk
