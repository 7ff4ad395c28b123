FROM triggers
RUN <<END
set -e
mkdir -p /h
echo inside > /h/f
chown 5:6 /h/f
END
COPY --chown=1000:1000 --chmod=640 <<a <<b /here/
one
a
two
b
RUN <<END /bin/sh -e
#!/bin/busybox sh
chown -R 3:3 /here
END
