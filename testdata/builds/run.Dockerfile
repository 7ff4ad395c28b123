FROM busybox
RUN mkdir -p /a/b/c && echo 1 > /a/b/c/f && chmod 2755 /a/b && chown 10:20 /a/b/c/f
RUN rm -r /home && rm /etc/passwd-nothing 2>/dev/null; touch /etc/new
RUN rm -rf /a/b && mkdir /a/b && echo 2 > /a/b/g
RUN ln /etc/new /hard && ln -s ../etc /soft && mkfifo /pipe && mknod /null c 1 3
RUN cp /bin/busybox /setuid && chmod 4755 /setuid && chown 0:10 /setuid && chmod 4755 /setuid
RUN mv /a/b/g /a/moved && ln /a/moved /a/linked && rm /hard
RUN umask 027 && touch /tmp/masked && mkdir /tmp/masked.d
RUN rm -rf /tmp && mkdir -m 1777 /tmp && rmdir /lib && rm /lib64
RUN rm -rf /usr && ln -s bin /usr
