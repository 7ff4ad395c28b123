FROM scratch
ARG VERSION=1.2
ADD https://user:secret@example.com/a/b-$VERSION.tar.gz?x=y /opt/
ADD --unpack=true --chown=1:2 https://example.com/ local.txt /all/
ADD --keep-git-dir=true https://user:secret@example.com/repo.git#v$VERSION /src
ADD --checksum=0123abc git@example.com:team/repo?subdir=docs&submodules=0 docs/
COPY --chmod=0600 ["a*", "b", "/c/"]
