# escape=`
FROM base
RUN echo a `
# a comment
   b

COPY C:\x `
  d\
WORKDIR C:\dir
ENV P=`$X
