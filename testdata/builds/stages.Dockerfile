ARG BASE=busybox
FROM ${BASE}:latest AS one
ARG BASE
ARG LEVEL=1
RUN mkdir /out && echo "$BASE $LEVEL" > /out/args && chmod 700 /out
WORKDIR /out/made
FROM one AS two
COPY --from=one /out/args /out/again
RUN echo two >> /out/args
FROM scratch AS three
COPY --from=two /out /from-two
COPY --from=two --chown=7:8 /out/args /owned
COPY --from=busybox /etc/passwd /etc/group /etc/
COPY --from=one /bin/sh /copied/link-to-busybox
COPY --from=0 /out/made /empty
