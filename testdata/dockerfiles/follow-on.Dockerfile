# What copies from a stage that is wrong, or starts from it, is not wrong for that.
FROM scratch AS wrong
EXPOSE 99999
FROM wrong AS heir
STOPSIGNAL NOPE
FROM scratch
COPY --from=wrong /a /
COPY --from=heir /b /
USER ${A:?also told}
