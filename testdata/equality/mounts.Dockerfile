FROM tools
RUN --mount=type=cache,target=/c,uid=1000,gid=1000,mode=0750 touch /c/f && ls -ldn /c | awk '{ print $1, $3, $4 }' > /seen && cp -a /c /kept
RUN --mount=type=cache,target=/c,uid=1000,gid=1000,mode=0750 chown 5:6 /c/f && cp -a /c/f /cached
RUN --mount=type=tmpfs,target=/t touch /t/f && chown 7:8 /t/f && cp -a /t/f /from-tmpfs
RUN --mount=type=bind,source=tree,target=/b ls -ln /b | awk '{ print $1, $3, $4, $9 }' > /bound && cp -a /b /copied
RUN --mount=type=bind,from=tools,target=/b,rw touch /b/new && chown 5 /b/bin && cp -a /b/new /discarded
RUN --mount=type=secret,id=s,uid=1000,gid=1001,mode=0440 ls -ln /run/secrets/s | awk '{ print $1, $3, $4 }' > /secret
