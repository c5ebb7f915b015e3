//! The engine process: what it is, and that it ends with its parent.

use crate::harness::wait::PATIENCE;
use crate::harness::{Client, Frame, Httpd, Mpm, Raw, every_mpm, wait_until};
use std::fs;

every_mpm!(runs_beside_the_children, ends_with_a_killed_parent);

fn runs_beside_the_children(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let engine = server.engine();
    assert_eq!(server.engines(), [engine]);
    assert!(engine.leads_a_session());
    // As httpd's User: as one of its children.
    let child = server.children()[0];
    assert_eq!(engine.uid(), child.uid());
    assert_eq!(engine.network_sockets(), Vec::<String>::new(), "httpd's listener is not the engine's");

    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::text("hello"));
    assert_eq!(engine.network_sockets().len(), 1);
    client.close();
    server.stop();
    let left: Vec<_> = fs::read_dir(server.path("run")).expect("the runtime directory").flatten().collect();
    assert!(left.is_empty(), "left in the runtime directory: {left:?}");
}

fn ends_with_a_killed_parent(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let engine = server.engine();
    let mut clients: Vec<Client> = (0..5).map(|_| Client::open(&server, "/echo")).collect();
    for client in &mut clients {
        client.echo_text("hello");
    }
    server.kill_parent();
    for mut client in clients {
        assert_eq!(client.close_frame().map(|frame| u16::from(frame.code)), Some(1012));
        client.expect_end();
    }
    wait_until("the engine has ended", PATIENCE, || !engine.is_running());
}
