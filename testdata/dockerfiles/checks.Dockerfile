#test checks=all platform=linux/amd64 arg=BUILDKIT_DOCKERFILE_CHECK=skip=StageNameCasing;experimental=all arg=VERSION=3

# the version
ARG VERSION
ARG TAG=1
From alpine:$VERSION as Build
workdir src
RUN --network=none make \

    install
COPY --chown=$owner \
    a$VERSION \
    /b
ENV API_TOKEN x
CMD ./serve
CMD ./serve --all

FROM --platform=linux/amd64 alpine:${TAGG:-2} AS build
# check=skip=UndefinedVar,LegacyKeyValueFormat // both are meant
LABEL version $version
EXPOSE 127.0.0.1:80:80 53/UDP
MAINTAINER me

FROM --platform=$TARGETPLATFORM build AS scratch
WORKDIR sub
