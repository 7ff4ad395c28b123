FROM tools AS made
RUN cp /bin/busybox /bin/net && setcap cap_net_bind_service,cap_net_raw+ep /bin/net && cp /bin/net /bin/lost
RUN cp /bin/busybox /bin/owned && setcap cap_chown+ei /bin/owned && chown 5:5 /bin/owned && setcap cap_chown+ei /bin/owned
FROM tools
COPY --from=made /bin/net /bin/owned /bin/lost /caps/
COPY --from=made --chown=9:9 /bin/net /chowned/
RUN chmod 700 /caps/net
RUN chown 8 /caps/owned
RUN ln /caps/net /caps/again && mv /caps/lost /caps/renamed
