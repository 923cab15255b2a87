# What deploy/loadtest/job.yaml runs: the load test, which is in the service's image, and ghz.
#
#   docker build -f deploy/Dockerfile -t ratelimit-svc:0.1.0 .
#   docker build -t ratelimit-svc-ghz:0.120.0 deploy/loadtest
#   docker build -f deploy/loadtest/job.Dockerfile -t ratelimit-svc-loadtest:0.1.0 deploy/loadtest
ARG GHZ_IMAGE=ratelimit-svc-ghz:0.120.0
ARG SERVICE_IMAGE=ratelimit-svc:0.1.0

FROM ${GHZ_IMAGE} AS ghz

FROM ${SERVICE_IMAGE}
COPY --from=ghz /ghz /usr/local/bin/ghz
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "ratelimit_svc.loadtest"]
