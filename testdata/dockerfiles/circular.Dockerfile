FROM base AS a
COPY --from=c /x /x
FROM base AS b
COPY --from=a /x /x
FROM base AS c
COPY --from=b /x /x
