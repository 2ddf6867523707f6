//! A throw-away CA with a server and a client, and servers that use them.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use portyard_testkit::peer;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A CA; a server's certificate for `localhost`, and a client's, both by it; as files.
pub struct Pki {
    directory: tempfile::TempDir,
    config: Arc<ServerConfig>,
    /// The fingerprint of the server's certificate, as hexadecimal digits.
    pub fingerprint: String,
}

impl Pki {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a CA");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        write(&directory, "ca.pem", &ca.pem());
        let issue = |file: &str, name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new([name.into()]).unwrap();
            let certificate = params.signed_by(&key, &ca).unwrap();
            write(&directory, &format!("{file}.pem"), &certificate.pem());
            write(&directory, &format!("{file}.key"), &key.serialize_pem());
            (certificate, key)
        };
        issue("client", "somebody");
        let (certificate, key) = issue("server", "localhost");
        let fingerprint = portyard_core::tls::fingerprint(certificate.der());
        let fingerprint = fingerprint.map(|byte| format!("{byte:02x}")).concat();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = ServerConfig::builder_with_provider(provider.into())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Self {
            directory,
            config: config.into(),
            fingerprint,
        }
    }

    /// The path of `ca.pem`, `server.pem`, `server.key`, `client.pem` or `client.key`.
    pub fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// A file of our own beside them, readable by its owner alone.
    pub fn write(&self, name: &str, text: &str) -> String {
        write(&self.directory, name, text);
        self.file(name)
    }

    /// Serves one connection inside TLS, in a thread; returns the endpoint.
    pub fn serve(
        &self,
        work: impl FnOnce(StreamOwned<ServerConnection, TcpStream>) + Send + 'static,
    ) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::clone(&self.config);
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            work(StreamOwned::new(
                ServerConnection::new(config).unwrap(),
                stream,
            ));
        });
        format!("tcp://localhost:{port}")
    }

    /// `openssl s_server`, which answers each line reversed, with options of its own.
    pub fn openssl(&self, options: &[&str]) -> Server {
        let mut command = Command::new(peer("openssl"));
        command
            .args([
                "s_server",
                "-accept",
                "127.0.0.1:0",
                "-rev",
                "-naccept",
                "1",
            ])
            .args([
                "-cert",
                &self.file("server.pem"),
                "-key",
                &self.file("server.key"),
            ])
            .args(["-CAfile", &self.file("ca.pem")])
            .args(options);
        Server::start(command, "ACCEPT 127.0.0.1:")
    }

    /// A program in Python with the certificate, the key, the CA and `arguments`; it prints `PORT n`.
    pub fn python(&self, program: &str, arguments: &[&str]) -> Server {
        let mut command = Command::new(peer("python3"));
        command
            .args([
                "-c",
                program,
                &self.file("server.pem"),
                &self.file("server.key"),
            ])
            .arg(self.file("ca.pem"))
            .args(arguments);
        Server::start(command, "PORT ")
    }
}

/// A server that is a process; it ends with the test.
pub struct Server {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    pub endpoint: String,
}

impl Server {
    /// Waits until it says its port on a line with this beginning.
    pub fn start(mut command: Command, ready: &str) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self {
            child,
            output,
            endpoint: String::new(),
        };
        while server.endpoint.is_empty() {
            let mut line = String::new();
            assert!(
                server.output.read_line(&mut line).unwrap() > 0,
                "it ends unready"
            );
            if let Some(port) = line.trim().strip_prefix(ready) {
                server.endpoint = format!("tcp://localhost:{port}");
            }
        }
        server
    }

    /// All that it still prints, at its end.
    pub fn finish(mut self) -> String {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut rest).unwrap();
        super::wait(&mut self.child);
        rest
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(directory: &tempfile::TempDir, name: &str, text: &str) {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(directory.path().join(name))
        .unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}
