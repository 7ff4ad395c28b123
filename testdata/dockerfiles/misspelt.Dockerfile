FROM scratch
EXPOSE 80/tpc
STOPSIGNAL SIGTREM
ADD --checksum=sha256:12 https://example.com/x /
