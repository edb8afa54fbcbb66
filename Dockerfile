# syntax=docker/dockerfile:1
# The service in an image of its own: one static binary and next to nothing else.
#
#   docker build --build-arg VERSION="$(git describe --tags --always)" -t <where you push>/binder-deploy-kubernetes .
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
# Apart from the code, so that a change of code downloads nothing again.
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
# For a registry of templates that is reached by https.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
# API, proxy, metrics and probes.
EXPOSE 8084 8000 9090
ENTRYPOINT ["/binder-deploy-kubernetes"]
