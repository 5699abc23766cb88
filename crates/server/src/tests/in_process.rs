//! A server with one thread in this process.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use ferrymq_amqp091::PropertyList;
use ferrymq_model::{Dialect, Dialects, Limits, Mechanism, ServerProperties};
use ferrymq_node::{Backend, Node, NodeSettings};
use ferrymq_storage::{Options, RealDisk};
use ferrymq_testkit::Folder;
use tokio::runtime::{Builder, Runtime};

use crate::{
    connection,
    process::Process,
    protocol::{self, NewSession, PROTOCOLS, Transport},
    tls::{Records, Tls},
};

/// A node, and a listener on a port of its own.
pub struct InProcess {
    address: SocketAddr,
    node: Arc<Node>,
    workers: Option<Runtime>,
    _folder: Folder,
}

impl InProcess {
    /// A server that speaks AMQP 0-9-1.
    pub fn of_amqp091(sabotage: impl FnOnce(&Process)) -> Self {
        let process = Process::new();
        sabotage(&process);
        Self::start(process, Limits::default(), None, |node| amqp091(node.limits()))
    }

    /// A server with these sessions, under TLS if there is a certificate.
    pub fn start(
        process: Process,
        limits: Limits,
        tls: Option<Arc<Tls>>,
        sessions: impl FnOnce(&Node) -> NewSession,
    ) -> Self {
        let folder = Folder::new();
        let workers = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let process = Arc::new(process);
        let settings = NodeSettings {
            directory: folder.0.clone(),
            limits,
            storage: Options { file_bytes: 1 << 20, ..Options::default() },
            fixed: Default::default(),
            dialects: Dialects::new([&PropertyList as &'static dyn Dialect]),
            backends: vec![Backend::Internal],
            events: false,
        };
        let node = Node::open(settings, Arc::new(RealDisk), process.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (served, handle, new_session) = (node.clone(), workers.handle().clone(), sessions(&node));
        // Ends with the process: a client may have connected after the test.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream: TcpStream = stream.unwrap();
                stream.set_nonblocking(true).unwrap();
                let records = tls.clone().map(|tls| Records::new(tls).unwrap());
                let (session, node, process) = (new_session(), served.clone(), process.clone());
                handle.spawn(async move {
                    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
                    connection::serve(stream, records, session, node, process).await;
                });
            }
        });
        Self { address, node, workers: Some(workers), _folder: folder }
    }

    /// The address of its listener.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

/// Begins the sessions of AMQP's port.
pub fn amqp091(limits: &Limits) -> NewSession {
    let Transport::Sessions(spoken) = PROTOCOLS[0].transport else { unreachable!("AMQP has sessions") };
    protocol::open(spoken, &ServerProperties::default(), limits, &[Mechanism::Plain])
}

impl Drop for InProcess {
    fn drop(&mut self) {
        // Connections end before the node.
        drop(self.workers.take());
        self.node.stop().expect("everything can be written");
    }
}
