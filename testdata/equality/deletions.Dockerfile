FROM tools AS below
RUN mkdir -p /d/opaque/sub /d/plain /d/moved/in && echo 1 > /d/opaque/f && echo 2 > /d/plain/f && ln /d/plain/f /d/plain/g && \
    echo 3 > /d/file && ln -s file /d/link && chown -R 70:71 /d && chmod 2750 /d/opaque
FROM below
RUN rm -r /d/opaque && mkdir -m 750 /d/opaque && echo new > /d/opaque/n && chown 72:73 /d/opaque
RUN rm /d/plain/f && rm /d/link && mkdir /d/link && rm -r /d/file && ln -s link /d/file
RUN mv /d/moved/in /d/moved/out && rm -r /home && rm /bin/vi
RUN cp -a /d/opaque /d/again && rm -r /d/opaque && touch /d/opaque && rm /d/opaque
RUN chmod u+s /d/plain/g && chown 74 /d/plain/g && mkdir /home
