# The image of the yard: every program as one static binary, and nothing else. It runs as user 65532, needs
# no capability, and writes only where a volume or tmpfs is.
#
#     scripts/image                         builds the binary here, and the image from it ("local")
#     docker build -t portyard .            builds everything in a container with Rust ("built")
#
# The stage of the first stands first: an engine without BuildKit stops there.

FROM scratch AS local
COPY target/image/ /
USER 65532:65532
CMD ["portyard", "--help"]

FROM rust:1-bookworm AS builder
WORKDIR /src
COPY . .
RUN scripts/image --no-docker

FROM scratch AS built
COPY --from=builder /src/target/image/ /
USER 65532:65532
CMD ["portyard", "--help"]
