FROM base AS build
WORKDIR /src
RUN --mount=target=. --mount=type=bind,target=/c,source=../sub make
ARG KIND=cache ID=x
RUN --mount=type=$KIND,id=$ID,target=out,sharing=locked,mode=750,uid=1 make $ID
RUN --mount=type=cache,target=/go/pkg/ --mount=type=cache,from=tools,source=/seed/../s,target=/s make
RUN --mount=type=bind,source=a[1]/b,target=/b,rw make
RUN --mount=type=tmpfs,target=/t,size=1m --mount=type=tmpfs,dst=/u,ro make
RUN --mount=type=secret,id=dir/token --mount=type=secret,target=/etc/pw,required,mode=444 make
RUN --mount=type=secret,id=token,env=TOKEN echo $TOKEN
RUN --mount=type=ssh --mount=type=ssh,id=other,target=/agent,required make
ENV SSH_AUTH_SOCK=/mine
RUN --mount=type=ssh make
RUN --network=host --security=insecure --device=vendor.com/gpu=all,required make

FROM scratch
RUN --mount=from=0,source=/src,target=/src --mount=from=Build,target=/b --mount=from=scratch,target=/e \
    --mount=from=7,target=/7 make
