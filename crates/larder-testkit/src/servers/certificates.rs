use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::process::Directory;

/// Certificates for servers on this machine and their clients, made with `openssl` and gone when they are dropped.
///
/// `ca` has signed `server` (for `localhost` and 127.0.0.1) and `client`; `stranger` has signed itself. Each is a file
/// `name.crt` with its key in `name.key`.
#[derive(Debug)]
pub struct Certificates {
    folder: Directory,
}

impl Certificates {
    /// Makes them.
    ///
    /// # Panics
    ///
    /// When `openssl` is not installed, or fails.
    #[expect(clippy::new_without_default, reason = "it runs programs")]
    pub fn new() -> Self {
        let made = Certificates { folder: Directory::new("certificates") };
        let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        for name in ["ca", "stranger"] {
            made.openssl(&format!(
                "req -x509 {new_key} -keyout {name}.key -out {name}.crt -subj /CN=larder-{name} -days 2"
            ));
        }
        let extensions = made.folder.path().join("ext");
        fs::write(extensions, "subjectAltName=IP:127.0.0.1,DNS:localhost").expect("a file");
        for name in ["server", "client"] {
            made.openssl(&format!(
                "req {new_key} -keyout {name}.key -out {name}.csr -subj /CN={name}"
            ));
            made.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.crt -days 2 -extfile ext"
            ));
        }
        made
    }

    /// Where one of the files is: `path("ca.crt")`.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// What is in one of them.
    ///
    /// # Panics
    ///
    /// When there is no such file.
    pub fn pem(&self, file: &str) -> Vec<u8> {
        fs::read(self.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let done = command.current_dir(self.folder.path()).args(arguments.split(' ')).output();
        let done = done.expect("`openssl` is installed (`apt-get install openssl`)");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}
