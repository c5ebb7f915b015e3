//! `LoadModule` is changed to the file of another version of the module, and httpd restarted gracefully.

use crate::harness::wait::PATIENCE;
use crate::harness::{Client, Httpd, Mpm, every_mpm, wait_until};
use std::fs;

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

fn a_new_version_gets_an_engine_of_its_own(mpm: Mpm) {
    let httpd = Httpd::new(mpm).without_module();
    let include = httpd.root().join("conf/module.conf");
    let load = |library: &str| {
        fs::write(&include, format!("LoadModule websocket_module \"{library}\"\n")).expect("the included file");
    };
    let module = crate::harness::module_under_test();
    load(&module.display().to_string());
    let server = httpd.config(format!("Include \"{}\"", include.display())).echo().start();
    let old = server.engine();
    let mut before = Client::open(&server, "/echo");
    before.echo_text("before");

    let newer = server.path("newer.so");
    fs::write(&newer, another_version(&fs::read(module).expect("the module"))).expect("a changed copy of the module");
    load(&newer.display().to_string());
    server.graceful();
    wait_until("the new engine runs", PATIENCE, || server.engines().len() == 2);
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
