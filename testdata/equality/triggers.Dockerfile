FROM tools
ONBUILD COPY --chown=90:91 tree /on/
ONBUILD RUN chown -R 92 /on/deep && mkdir -m 3777 /on/made
ONBUILD WORKDIR /on/work
ONBUILD USER 1000
ONBUILD RUN touch /tmp/mine
ONBUILD USER root
