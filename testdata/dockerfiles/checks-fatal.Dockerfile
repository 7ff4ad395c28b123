#test checks=target arg=BUILDKIT_DOCKERFILE_CHECK=error=true
FROM scratch AS unused
MAINTAINER me

FROM scratch AS other
ENTRYPOINT cat $nothing

FROM scratch
ONBUILD WORKDIR here
CMD cat
