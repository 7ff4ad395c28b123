FROM scratch AS a
COPY --chown=app x /
FROM busybox
COPY --from=a /x /
COPY --link --chown=1:app x /
COPY --chmod=u+q x /
COPY --chmod=0778 x /
ADD --checksum=sha256:00 x /
ADD --checksum=sha256:00 x y /
