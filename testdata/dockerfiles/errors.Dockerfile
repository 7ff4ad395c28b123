FROM a
COPYY a b
RUN --netwrok=host x
COPY a
HEALTHCHECK --interval=1 CMD x
ENV =1
EXPOSE 80
FRM b
