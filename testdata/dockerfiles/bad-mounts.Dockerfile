#test target=early
FROM base AS early
ARG WHERE=/
RUN --mount=type=cach,target=/c x
RUN --mount=from=late,target=/l x
RUN --mount=target=$WHERE x
RUN --mount=type=secret x
RUN --mount=type=ssh,source=/key x
RUN --mount=type=cache x

FROM base AS late
