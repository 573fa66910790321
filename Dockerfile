# All images of Latchkey, one target each: `plugin` (the filter, in the form that Istio and Envoy Gateway load),
# `control-plane`, `upstream`, `envoy`, and the unchanged `postgres` for the profile of this name in compose.yaml.
#
# The programs come from dist/ if `make build` left some there that run on the build image; otherwise this build
# compiles them from source. If no registry can be reached, scripts/docker-bases makes stand-ins for the base images.
ARG BUILD_IMAGE=rust:1.95-bookworm
ARG BASE_IMAGE=debian:bookworm-slim
ARG ENVOY_IMAGE=envoyproxy/envoy:v1.40-latest
ARG POSTGRES_IMAGE=postgres:15-bookworm

FROM ${BUILD_IMAGE} AS build
# `make compose-down` finds the images that the build left behind by this label.
LABEL latchkey.stage=build
WORKDIR /src
COPY . .
RUN docker/dist
RUN set -- --insecure-http --control-plane http://control-plane:8080 --edge compose --upstream upstream:8081 \
        --route /healthz=public --route /v1/reviews=reviews --route /v1/webhooks=webhooks \
        --route '/v1/workspaces/{workspace}/{*rest}=workspaces' && \
    dist/latchkey envoy-config "$@" > docker/envoy.yaml && \
    dist/latchkey envoy-config "$@" --print token-secret > docker/edge-token.yaml

# One layer with one file of this name: what the meshes expect in an image of a filter.
FROM scratch AS plugin
LABEL latchkey.stage=plugin
COPY --from=build /src/dist/latchkey_filter.wasm /plugin.wasm

FROM ${BASE_IMAGE} AS control-plane
COPY --from=build /src/dist/latchkey /src/docker/healthy /usr/local/bin/
# New volumes get these owners and modes.
RUN install -d -m 0700 -o 10001 -g 10001 /var/lib/latchkey /run/latchkey
USER 10001:10001
WORKDIR /var/lib/latchkey
ENTRYPOINT ["latchkey"]
CMD ["serve", "--help"]

FROM ${BASE_IMAGE} AS upstream
COPY --from=build /src/dist/latchkey-echo /src/docker/healthy /usr/local/bin/
USER 10001:10001
ENTRYPOINT ["latchkey-echo"]

FROM ${ENVOY_IMAGE} AS envoy
COPY --from=build /src/docker/healthy /usr/local/bin/
COPY --from=build /src/docker/envoy.yaml /src/docker/edge-token.yaml /src/dist/latchkey_filter.wasm /src/envoy/run /src/envoy/leave /etc/latchkey/
# The volume gets its owner from the container that is created first, which may be this one.
USER 0:0
RUN install -d -m 0700 -o 10001 -g 10001 /run/latchkey
USER 10001:10001
ENTRYPOINT ["/etc/latchkey/run"]
CMD ["--config-path", "/etc/latchkey/envoy.yaml", "--concurrency", "2", "--log-level", "warning"]

# Last, so that no other image waits for it. It gets a name of this stack, so that `make compose-down` keeps its base
# image.
FROM ${POSTGRES_IMAGE} AS postgres
