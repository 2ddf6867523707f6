# The image of the yard: every program as one static binary, and nothing else. It runs as user 65532, needs
# no capability, and writes only where a volume or tmpfs is.
#
#     scripts/image                         builds the binary here, and the image from it ("local")
#     docker build -t portyard .            builds everything in a container with Rust ("built")
#
# The stage of the first line stands first: an engine without BuildKit builds all up to the one that is asked for.

FROM scratch AS local
COPY target/image/files/ /
# What volumes begin with: empty, and the user's own.
COPY --chown=65532:65532 target/image/empty/ /var/lib/kv-rpc/
COPY --chown=65532:65532 target/image/empty/ /run/fd-broker/
COPY --chown=65532:65532 target/image/empty/ /run/portyard/
USER 65532:65532
CMD ["portyard", "--help"]

FROM rust:1-bookworm AS builder
WORKDIR /src
COPY . .
RUN scripts/image --no-docker

FROM scratch AS built
COPY --from=builder /src/target/image/files/ /
COPY --chown=65532:65532 --from=builder /src/target/image/empty/ /var/lib/kv-rpc/
COPY --chown=65532:65532 --from=builder /src/target/image/empty/ /run/fd-broker/
COPY --chown=65532:65532 --from=builder /src/target/image/empty/ /run/portyard/
USER 65532:65532
CMD ["portyard", "--help"]
