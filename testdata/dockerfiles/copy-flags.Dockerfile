FROM busybox AS made
ARG WHAT=*.tmp
COPY --exclude=$WHAT --exclude='!keep' --chmod=u=rwX,go=rX src /src
ADD --link --exclude=doc --chown=1000:33 . /app/
FROM scratch
COPY --parents --exclude=**/*.o ./a/*.c b/./c/d/ /out/
COPY --from=made --parents /src/./x /
COPY --link --chown=1000 <<EOF one.txt /etc/conf
text
EOF
COPY --link --chmod=0640 two.txt /etc/
ADD --unpack=false --chown=root one.tar /
ADD --unpack=true two.tar /
