# syntax=docker/dockerfile:1
# An image with the service's static binary.
#
#   docker build --build-arg VERSION="$(git describe --tags --always)" -t <registry>/binder-deploy-kubernetes .
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
# A separate layer, so that a code change does not download the modules again.
COPY go.mod go.sum ./
RUN go mod download
COPY *.go ./
COPY internal internal
ARG VERSION=dev
ARG TARGETOS TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /binder-deploy-kubernetes .

FROM scratch
COPY --from=build /binder-deploy-kubernetes /binder-deploy-kubernetes
# Root certificates, for a template registry with an https URL.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Numeric, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
# API, proxy, and metrics with the health probes.
EXPOSE 8084 8000 9090
ENTRYPOINT ["/binder-deploy-kubernetes"]
