//! A worker of fd-broker: each connection gets a greeting and its own words back.
//!
//! Start it with the broker's socket, `worker /run/fd-broker/native.sock`, as often as you
//! like. SIGINT ends it at once; a worker that should finish what it has calls `Worker::drain`.

use portyard_core::worker::{Terms, Work, Worker};
use tokio::io::{AsyncWriteExt, copy, split};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::args().nth(1).ok_or("name the broker's socket")?;
    let mut worker = Worker::join(Terms::new(socket)).await?;
    while let Some(work) = worker.next().await {
        let Work::Connection(offered) = work else {
            continue;
        };
        tokio::spawn(async move {
            let (mut read, mut write) = split(offered.take()?);
            write.write_all(b"hello\r\n").await?;
            copy(&mut read, &mut write).await
        });
    }
    Ok(())
}
