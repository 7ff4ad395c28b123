FROM tools
RUN mkdir -p /o/dir && touch /o/a /o/b /o/c /o/setuid && chown 5:6 /o/a && chown -h 7:8 /o/b && chgrp 9 /o/dir && \
    chown 65534:65534 /o/c && chmod 4711 /o/setuid && chown 3 /o/setuid && chmod 6755 /o/b && chmod 1777 /o/dir && \
    ln -s a /o/link && chown -h 10:11 /o/link && mkfifo -m 620 /o/pipe && chown 12:13 /o/pipe
RUN chown -R 40000:50000 /etc/passwd /usr && chmod 0 /etc/group && chmod 4755 /bin/busybox
RUN touch /o/last && chown 65535:65535 /o/last /tmp
USER 1000:1001
RUN umask 027 && mkdir /tmp/mine && echo x > /tmp/mine/f && ln /tmp/mine/f /tmp/mine/g
USER daemon
RUN touch /tmp/daemons && id > /tmp/id
