#test target=buidl platform=linux/arm64
FROM Base AS build
FROM --platform=$TARGETPLATFROM x
FROM $NOTHING
COPY --from=$X a b
COPY --from=9 a b
