FROM tools
ADD owners.tar /added/
ADD --chown=21:22 owners.tar /chowned/
COPY --from=tools / /whole/
RUN ln -s /added /link
ADD owners.tar /link/below/
