FROM busybox
COPY plain.txt program /copied/
COPY tree /copied/tree
COPY tree/ /copied/tree-slash/
COPY tree/*.txt other/o?e.txt /copied/globbed/
COPY --chown=33:44 --chmod=0711 plain.txt /copied/owned/deep/plain.txt
COPY --chown=nobody:daemon tree/deep /copied/by-name
COPY --chown=1 program /copied/renamed
WORKDIR /copied/relative/here
COPY plain.txt .
COPY plain.txt sub/dir/
COPY ["plain.txt", "/copied/with space"]
RUN ln -s /copied/renamed-dir /copied/link && mkdir /copied/renamed-dir
COPY plain.txt /copied/link/
COPY . /copied/everything
