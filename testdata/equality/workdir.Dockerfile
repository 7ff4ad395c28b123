FROM tools
RUN mkdir -m 2775 /group && chown 5:6 /group && ln -s /group /group-link
WORKDIR /group/made/deep
USER 1000:1000
WORKDIR /by/user
WORKDIR /group-link/other
RUN pwd > /tmp/where
USER root
RUN ls -lnd /by /by/user /group/* | awk '{ print $1, $3, $4 }' > /owners
