#test platform=linux/amd64,linux/arm/v7
# A stage for the build's own machine is lowered once, unless it looks at what it is for.
FROM --platform=$BUILDPLATFORM golang AS tools
RUN make tools
FROM tools AS cross
ARG TARGETARCH TARGETVARIANT
RUN make for-$TARGETARCH$TARGETVARIANT
FROM base AS run
COPY --from=cross /out /bin/out
COPY common /common
FROM scratch
ARG TARGETPLATFORM
LABEL platform=$TARGETPLATFORM
COPY common /common
COPY --from=run /bin/out /out
