FROM tools
COPY owners.tar /t/
WORKDIR /t
RUN /tools/bin/tar -xpf owners.tar --same-owner --xattrs --xattrs-include=user.* --xattrs-include=security.capability
RUN mkdir /busybox && cd /busybox && busybox tar -xpf /t/owners.tar
RUN mkdir /later && /tools/bin/tar -cf - --xattrs --xattrs-include=* -C /t d | /tools/bin/tar -xpf - --xattrs --xattrs-include=* -C /later
