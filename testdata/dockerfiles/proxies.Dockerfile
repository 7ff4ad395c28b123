#test arg=http_proxy=http://p arg=NO_PROXY=x
FROM base
RUN one
ARG NO_PROXY
RUN --network=none two
