# syntax=docker/dockerfile:1
# An image with the service's static binary, as a release's is (make release):
#
#   docker build --build-arg VERSION="$(git describe --tags --always)" \
#     --build-arg REVISION="$(git rev-parse HEAD)" \
#     --build-arg CREATED="$(TZ=UTC git log -1 --date=iso-strict-local --format=%cd)" \
#     -t <registry>/binder-deploy-kubernetes .
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
# A separate layer, so that a code change does not download the modules again.
COPY go.mod go.sum ./
RUN go mod download
COPY *.go ./
COPY internal internal
COPY docs/openapi.json docs/openapi.json
ARG VERSION=dev
ARG TARGETOS TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /binder-deploy-kubernetes .

FROM scratch
COPY --from=build /binder-deploy-kubernetes /binder-deploy-kubernetes
# Root certificates, for a template registry with an https URL.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Numeric, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
# API, proxy, and metrics with the health probes.
EXPOSE 8084 8000 9090
ENTRYPOINT ["/binder-deploy-kubernetes"]
ARG VERSION=dev REVISION CREATED
LABEL org.opencontainers.image.title="binder-deploy-kubernetes"
LABEL org.opencontainers.image.description="Binder's deploy service for Kubernetes"
LABEL org.opencontainers.image.source="https://github.com/binder-project/binder-deploy-kubernetes"
LABEL org.opencontainers.image.documentation="https://github.com/binder-project/binder-deploy-kubernetes/blob/main/README.md"
LABEL org.opencontainers.image.licenses="Apache-2.0"
LABEL org.opencontainers.image.version="$VERSION"
LABEL org.opencontainers.image.revision="$REVISION"
LABEL org.opencontainers.image.created="$CREATED"
