FROM triggers:1 AS first
ONBUILD ENV FROM_FIRST=$BASE
ONBUILD COPY --from=deps /d /d
FROM busybox AS deps
RUN prepare
FROM first
RUN last
