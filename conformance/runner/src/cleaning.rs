//! Deletes everything that a script has declared, so that the server is as it was before.

use crate::amqp::Fields;
use crate::notation::{Arguments, Captures};
use crate::peers::{Peers, text};
use crate::target::Target;
use crate::value::Value;

/// The queues whose names the server chose and the script captured.
pub fn server_named(captures: &Captures) -> impl Iterator<Item = (&'static str, &'static str, String)> {
    captures.values().filter_map(|value| {
        let Value::Text(name) = value else { return None };
        name.starts_with(b"amq.gen").then(|| ("queue.delete", "queue", String::from_utf8_lossy(name).into_owned()))
    })
}

/// Deletes each of `(method, field, name)`. It need not exist.
pub fn delete(target: &mut dyn Target, declared: &[(&'static str, &'static str, String)]) -> Result<(), String> {
    if declared.is_empty() {
        return Ok(());
    }
    let mut peers = Peers::new(target);
    peers.connect(0, Arguments::default(), &Captures::new()).map_err(|why| format!("cleaning: {why}"))?;
    for (method, field, name) in declared {
        peers.send_method(0, 1, method, &vec![((*field).to_owned(), text(name))])?;
        peers.wait(0, 1).map_err(|why| format!("cleaning {name}: {why}"))?;
        let reply = peers.inbox(0)?.pop(1).expect("the wait has ended with a message");
        if reply.name == "channel.close" {
            // It does not exist, or it belongs to a connection that has just ended and is deleted with it.
            peers.send_method(0, 1, "channel.close-ok", &Fields::new())?;
            peers.send_method(0, 1, "channel.open", &Fields::new())?;
            peers.expect(0, 1, "channel.open-ok")?;
        }
    }
    peers.close(0)
}
