FROM busybox
ADD archive.tar /copied/unpacked
ADD archive.tar plain.txt /copied/both/
ADD --chown=5:6 archive.tar /copied/owned/
ADD plain.txt /copied/renamed.txt
ADD tree /copied/tree
