FROM tools AS base
ADD devices.tar /d/
RUN rm /d/gone && chmod 640 /d/null && chown 5:6 /d/disk && mv /d/loop /d/moved
RUN ln /d/disk /d/again && mkdir /e && rm -r /d/sub
FROM tools
COPY --from=base /d /copied/
COPY --from=base --chown=7:8 /d/null /chowned
ADD devices.tar /again/
RUN rm -r /again/sub && mkdir /again/sub
