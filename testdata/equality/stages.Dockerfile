FROM tools AS a
RUN mkdir /s && for n in 1 2 3; do echo $n > /s/$n; chown $n:$n /s/$n; done && mkdir /s/root && chown 44:44 /s
FROM scratch AS bare
COPY --from=a /s /
COPY --from=a --chown=55:66 /s/root /s
FROM a AS b
RUN chown 45 /s && rm /s/1 && cp -p /s/2 /s/4
FROM tools
COPY --from=bare / /bare/
COPY --from=b /s /s/
COPY --from=b /s/. /tmp/
