# docker build -t callbox .
# docker run --network host -v /etc/callbox:/etc/callbox:ro callbox --config /etc/callbox/callbox.toml
#
# Host networking: a relay takes any of 16,384 UDP ports and has to see its clients' own addresses.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --release -p callbox

# docker stop waits ten seconds unless told otherwise, and drain.grace is thirty: --stop-timeout 60.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/callbox /usr/bin/callbox
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/callbox"]
