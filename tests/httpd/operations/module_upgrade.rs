//! `LoadModule` is changed to the file of another version of the module, and httpd restarted gracefully.

use crate::harness::wait::PATIENCE;
use crate::harness::{Client, Httpd, Mpm, Server, every_mpm, module_under_test, wait_until};
use std::fs;
use std::path::Path;

every_mpm!(a_new_version_gets_an_engine_of_its_own);

/// The module under test, as if its handoff protocol had another version.
fn another_version(module: &[u8]) -> Vec<u8> {
    let name = b"mod_websocket handoff ";
    let mut changed = module.to_vec();
    let found: Vec<usize> = (0..module.len() - name.len()).filter(|at| module[*at..].starts_with(name)).collect();
    assert!(!found.is_empty(), "the module names the version of its handoff protocol");
    for at in found {
        changed[at + name.len()] = b'X';
    }
    changed
}

const INCLUDED: &str = "conf/module.conf";

fn load(included: &Path, module: &Path) {
    let line = format!("LoadModule websocket_module \"{}\"\n", module.display());
    fs::write(included, line).expect("the included file");
}

/// One whose module [`upgrade`] can change.
pub(super) fn upgradable(httpd: Httpd) -> Httpd {
    let httpd = httpd.without_module();
    let included = httpd.root().join(INCLUDED);
    load(&included, &module_under_test());
    httpd.config(format!("Include \"{}\"", included.display()))
}

/// Loads another version of the module, gracefully; returns when its engine runs beside the old one.
pub(super) fn upgrade(server: &Server) {
    let module = fs::read(module_under_test()).expect("the module");
    let newer = server.path("newer.so");
    fs::write(&newer, another_version(&module)).expect("a changed copy of the module");
    load(&server.path(INCLUDED), &newer);
    server.graceful();
    wait_until("the new engine runs", PATIENCE, || server.engines().len() == 2);
}

fn a_new_version_gets_an_engine_of_its_own(mpm: Mpm) {
    let server = upgradable(Httpd::new(mpm)).echo().start();
    let old = server.engine();
    let mut before = Client::open(&server, "/echo");
    before.echo_text("before");

    upgrade(&server);
    assert!(server.error_log().contains("WS0205"), "{}", server.error_log());

    before.echo_text("the old engine goes on");
    let mut after = Client::open(&server, "/echo");
    after.echo_text("after");
    assert_eq!(old.network_sockets().len(), 1);

    // It ends with its last session, and nobody minds.
    drop(before);
    wait_until("the old engine has ended", PATIENCE, || !old.is_running());
    after.echo_text("still there");
    server.graceful();
    after.echo_text("through another restart");
    assert_eq!(server.engines().len(), 1);
    server.stop();
    assert_eq!(after.close_frame().map(|frame| u16::from(frame.code)), Some(1012));
    let left: Vec<_> = fs::read_dir(server.path("run")).expect("the runtime directory").flatten().collect();
    assert!(left.is_empty(), "left in the runtime directory: {left:?}");
}
