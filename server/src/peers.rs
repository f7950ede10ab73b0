//! The peers' thread: where replication will run. Until it does, it answers that nobody is there.

use std::io;
use std::sync::Arc;
use std::thread;

use crate::config::Config;
use crate::port::{Answer, FromPeers, PeerRequest, Port, ToPeers};

/// Starts the thread.
pub fn start(_config: &Config, port: Arc<Port>) -> io::Result<()> {
    let theirs = Arc::clone(&port);
    let handle = thread::Builder::new().name("peers".into()).spawn(move || run(&theirs))?;
    let thread = handle.thread().clone();
    port.listen(Box::new(move || thread.unpark()));
    Ok(())
}

fn run(port: &Port) {
    loop {
        while port.next_sealed().is_some() {}
        while let Some(event) = port.next_event() {
            let ToPeers::Asked { client, request } = event else { continue };
            let answer = match request {
                PeerRequest::List => Answer::Array(Vec::new()),
                _ => Answer::Error("ERR this server has no peers".into()),
            };
            let mut message = FromPeers::Answer { client, answer };
            while let Err(returned) = port.submit(message) {
                message = returned;
                thread::yield_now();
            }
        }
        thread::park();
    }
}
