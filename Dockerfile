# Boxwright itself, as an image that holds the static binary alone.
#
#   boxwright build --build-context toolchain="$(rustc --print sysroot)" -t boxwright .
#
# Behind a proxy with a certificate of its own: --secret id=certificates,src=/etc/ssl/certs/ca-certificates.crt

FROM debian:bookworm-slim AS build
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -q && apt-get install -qy --no-install-recommends gcc libc6-dev ca-certificates
ENV PATH=/toolchain/bin:$PATH CARGO_HOME=/cargo CARGO_TARGET_DIR=/target
WORKDIR /src
RUN --mount=type=cache,target=/cargo \
    --mount=type=cache,target=/target \
    --mount=from=toolchain,source=bin,target=/toolchain/bin \
    --mount=from=toolchain,source=lib,target=/toolchain/lib \
    --mount=target=/src \
    --mount=type=secret,id=certificates,target=/etc/ssl/certs/ca-certificates.crt <<EOF
set -e
cargo build --release --locked -p boxwright-cli
cp /target/*/release/boxwright /boxwright
EOF

FROM scratch
COPY --from=build /boxwright /
ENTRYPOINT ["/boxwright"]
