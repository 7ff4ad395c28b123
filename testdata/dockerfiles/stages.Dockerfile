#test arg=VERSION=9
ARG VERSION=1
ARG UNUSED
FROM --platform=$BUILDPLATFORM gcc:$VERSION AS Build
ARG VERSION
ARG MODE=debug-$VERSION
ENV OUT=/out
WORKDIR src
COPY main.c lib/*.h ./
RUN make MODE=$MODE > $OUT
FROM alpine AS unused
RUN never
FROM scratch
COPY --from=build --chown=1:1 ["/out/app", "/bin/the app"]
COPY --from=0 /out/doc /doc/
ENTRYPOINT ["/bin/the app"]
