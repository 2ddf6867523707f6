//! nginx, as the server behind us and to compare with.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use portyard_testkit::{eventually, peer};

/// An nginx with a directory of its own.
pub struct Nginx {
    child: Child,
    pub port: u16,
    pub place: tempfile::TempDir,
}

impl Nginx {
    /// Serves the directory `files` in its place.
    #[track_caller]
    pub fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let chosen = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = chosen.local_addr().unwrap().port();
        drop(chosen);
        let dir = place.path().display();
        let mut config = String::new();
        let _ = write!(
            config,
            "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error;\nevents {{}}\n\
             http {{ client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f;\n\
             uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s; default_type text/plain; keepalive_requests 100;\n\
             log_format short '$connection $connection_requests $request_method $uri'; access_log {dir}/log short;\n\
             server {{ listen 127.0.0.1:{port}; root {dir}/files; }} }}\n"
        );
        fs::create_dir(place.path().join("files")).unwrap();
        fs::write(place.path().join("files/big"), vec![b'x'; 3_000_000]).unwrap();
        fs::write(place.path().join("files/small"), "small").unwrap();
        let path = place.path().join("nginx.conf");
        fs::write(&path, config).unwrap();
        let child = Command::new(peer("nginx"))
            .arg("-c")
            .arg(&path)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("nginx is there", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { child, port, place }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
