# syntax=docker/dockerfile:1
FROM base
ENV NAME=me
RUN <<EOF
echo one
echo $NAME
EOF
RUN <<-'EOF'
	#!/usr/bin/env python3
	print("$NAME")
EOF
RUN python3 <<EOF > /log
print(1)
EOF
RUN cat <<A 3<<-B
a
A
	b
	B
COPY <<EOF <<'RAW' /etc/
hello $NAME "q" \$x
EOF
hello $NAME
RAW
