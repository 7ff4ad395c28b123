FROM tools
ARG SOURCE_DATE_EPOCH
RUN groupadd -g 3000 team && useradd -m -u 2000 -G team -s /bin/sh first
RUN groupadd -g 4000 four && useradd -m -u 4001 -g four -k /etc/none -G team second
USER second
RUN id > ~/id && mkdir ~/.cache
USER first:team
WORKDIR /home/first/work
RUN touch here
