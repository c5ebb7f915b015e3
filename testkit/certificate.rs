//! Certificates, made with openssl(1).

use std::path::Path;
use std::process::Command;

/// Makes a certificate and its key in `folder`: what these words say to `openssl req`.
pub(crate) fn openssl(folder: &Path, arguments: &str) {
    let made = Command::new("openssl")
        .current_dir(folder)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(arguments.split_whitespace())
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Writes `certificate.pem` for 127.0.0.1 and localhost, signed by itself, and `key.pem`.
pub(crate) fn make_certificate(folder: &Path) {
    openssl(
        folder,
        "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1,DNS:localhost \
         -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out certificate.pem",
    );
}
