FROM busybox
MAINTAINER someone
ARG WITH=default
ARG WITHOUT
ENV A=1 B="two words" C=$WITH
ENV D ${A:-x}${NOTHING:-y}${A:+z}
LABEL one=1 "two words"="2 2" three='$A' four="$A"
EXPOSE 80 443/udp 8000-8002/tcp
VOLUME /v1 /v2
VOLUME ["/v3"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --timeout=3s --start-period=2s --retries=4 CMD true || false
SHELL ["/bin/sh", "-ec"]
USER nobody:daemon
WORKDIR /app
WORKDIR relative
ENTRYPOINT exec echo $A
CMD ["a", "b"]
ONBUILD RUN echo onbuild
ONBUILD COPY . /src
RUN id -u > /tmp/id; pwd > /tmp/pwd; env | grep -E '^(A|B|C|D|HOME)=' | sort > /tmp/env
