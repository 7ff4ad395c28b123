#test arg=http_proxy=http://p
FROM base AS one
COPY --from=two /a /b
COPY --chmod=999 a b
COPY https://example.com/x /x
RUN --mount=type=cache,target=/ x
STOPSIGNAL SIGNOPE
EXPOSE 99999
ENV A=${B:?needed}
FROM base AS two
RUN x
FROM one
