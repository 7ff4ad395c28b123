FROM busybox AS tools
FROM scratch
COPY --from=tools /bin/busybox /busybox
RUN ["/busybox", "mkdir", "/made"]
RUN ["/busybox", "touch", "/made/file"]
ENV A=1
CMD ["/busybox", "true"]
