//! A TLS client that verifies its server, for tests that look at more than a foreign client shows.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::Pair;

/// A TLS session. Every wait has a deadline of 20 seconds.
pub struct TlsClient(StreamOwned<ClientConnection, TcpStream>);

impl TlsClient {
    /// Connects to the server `name` at `address`, which must show a certificate of the authority
    /// `ca`, and shows it `own`. Returns after the first byte could be read or written, so that a
    /// server that refuses us has had its say: an error is the handshake's, or the server's alert.
    pub fn connect(
        address: SocketAddr,
        name: &str,
        ca: &Path,
        own: Option<&Pair>,
    ) -> io::Result<Self> {
        let mut client = Self::begin(address, name, ca, own)?;
        // TLS 1.3 lets the client finish before the server has looked at its certificate.
        if client.echo(b"?")? != b"?" {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(client)
    }

    /// The same, without waiting for what the server has to say.
    pub fn begin(
        address: SocketAddr,
        name: &str,
        ca: &Path,
        own: Option<&Pair>,
    ) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).expect("the authority can be read") {
            let certificate = certificate.expect("the authority is PEM");
            roots.add(certificate).expect("the authority is one");
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .expect("the provider knows the versions")
        .with_root_certificates(roots);
        let config = match own {
            Some(pair) => {
                let chain = CertificateDer::pem_file_iter(&pair.chain)
                    .expect("the chain can be read")
                    .map(|certificate| certificate.expect("the chain is PEM"))
                    .collect();
                let key = PrivateKeyDer::from_pem_file(&pair.key).expect("the key can be read");
                builder
                    .with_client_auth_cert(chain, key)
                    .expect("the key is the certificate's")
            }
            None => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from(name.to_owned()).expect("a name of a server");
        let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self(stream))
    }

    /// Sends bytes and reads as many back.
    pub fn echo(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.0.write_all(bytes)?;
        let mut answer = vec![0; bytes.len()];
        self.0.read_exact(&mut answer)?;
        Ok(answer)
    }

    /// The server's certificate.
    pub fn certificate(&self) -> Vec<u8> {
        let shown = self.0.conn.peer_certificates().unwrap_or_default();
        shown.first().map(|own| own.to_vec()).unwrap_or_default()
    }

    /// The session's exporter as RFC 9266 has it, to bind a proof to.
    pub fn exporter(&self) -> [u8; 32] {
        let exporter =
            self.0
                .conn
                .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[]));
        exporter.expect("the handshake is over")
    }
}

impl Read for TlsClient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for TlsClient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
