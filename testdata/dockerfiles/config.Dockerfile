FROM base
LABEL a=1 "b c"="d $BASE"
LABEL old style value
ENV X=1 Y=$X
ENV Z old $X
USER app:grp
WORKDIR /w/
WORKDIR sub
EXPOSE 80 53/udp 8000-8001
VOLUME /data ["/x"]
VOLUME ["/y", "/z z"]
STOPSIGNAL SIGQUIT
SHELL ["/bin/bash", "-c"]
CMD echo "$X"
ENTRYPOINT run
HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f http://x || exit 1
MAINTAINER me <me@x>
ONBUILD RUN echo hi
