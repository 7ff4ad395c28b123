FROM tools AS made
RUN --mount=type=bind,target=/x mkdir -p /m/d /m/e && echo a > /m/d/a && ln /m/d/a /m/e/hard && ln -s ../d/a /m/e/soft && chown -R 100:200 /m && \
    chown 300:400 /m/d/a && chmod 4750 /m/d/a && chmod 2775 /m/e && \
    /tools/bin/tar -C /m --xattrs --xattrs-include=* -xpf /x/owners.tar
FROM tools
COPY --from=made /m /copied/
COPY --from=made --chown=daemon:users /m /by-name/
COPY --from=made --chown=65536:65536 --chmod=u=rwX,go=rX /m /symbolic/
COPY --link --from=made --chown=1:2 /m/d /linked/
COPY --chmod=4755 --chown=nobody tree/script /bin/script
COPY --parents --exclude=*.skip tree/./deep /parents/
COPY tree /tree
COPY tree/ /usr/bin/
RUN ln -s /parents /way && mkdir -p /parents/x
COPY tree/script /way/x/
