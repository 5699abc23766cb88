//! `ferrymq serve`: recovery, listeners, and an orderly end.

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use ferrymq_node::{Host as _, Node, NodeSettings};
use ferrymq_storage::RealDisk;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    command_line::ServeArgs,
    connection,
    process::Process,
    protocol::{NewSession, PROTOCOLS},
    settings::Settings,
};

/// Runs a server until it is told to stop.
#[must_use]
pub fn run(args: &ServeArgs) -> ExitCode {
    tracing_subscriber::fmt().with_max_level(args.log_level()).with_writer(io::stderr).init();
    let settings = &args.resolve();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads)
        .thread_name("ferrymq")
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(serve(settings)),
        Err(error) => Err(format!("the server's threads cannot be started: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            tracing::error!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: &Settings) -> Result<(), String> {
    let process = Arc::new(Process::new());
    let node = open_node(settings, process.clone())?;
    let (stop, stopped) = watch::channel(false);
    let (mut announced, mut listeners) = (Vec::new(), JoinSet::new());
    for (protocol, address) in &settings.listeners {
        let listener = listen(*address).await.map_err(|error| {
            format!("cannot listen on {address} for {}: {error}; choose another with --listen", protocol.name)
        })?;
        let bound = listener.local_addr().map_err(|error| error.to_string())?;
        announced.push(format!("listening {} {bound}", protocol.name));
        listeners.spawn(accept(
            listener,
            (protocol.open)(node.limits()),
            node.clone(),
            process.clone(),
            stopped.clone(),
        ));
    }
    let alarms = tokio::spawn(ring_alarms(node.clone(), process.clone()));
    announce(&announced).map_err(|error| format!("standard output is closed: {error}"))?;
    wait_for_the_end(&process).await?;
    tracing::info!("stopping: no new connections, flushing what is decided");
    // Whoever listens for it stops; a listener that is gone already does not matter.
    let _ = stop.send(true);
    while listeners.join_next().await.is_some() {}
    alarms.abort();
    tokio::task::spawn_blocking(move || node.stop()).await.map_err(|error| error.to_string())?;
    Ok(())
}

fn open_node(settings: &Settings, process: Arc<Process>) -> Result<Arc<Node>, String> {
    let node_settings = NodeSettings {
        directory: settings.data_directory.clone(),
        limits: settings.limits.clone(),
        storage: settings.storage.clone(),
        properties: PROTOCOLS.iter().map(|protocol| protocol.dialect).collect(),
    };
    Node::open(node_settings, Arc::new(RealDisk), process).map_err(|error| error.to_string())
}

async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Scripts and tests wait for these lines.
fn announce(lines: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "ready")?;
    out.flush()
}

async fn accept(
    listener: TcpListener,
    new_session: NewSession,
    node: Arc<Node>,
    process: Arc<Process>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted: io::Result<(TcpStream, SocketAddr)> = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection::serve(stream, new_session(), node.clone(), process.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most often: accepting again at once would only burn the processor.
                tracing::error!("cannot accept a connection: {error}; raise the limit of open files (ulimit -n)");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Expiry and everything else that happens at a time and not because somebody asked.
async fn ring_alarms(node: Arc<Node>, process: Arc<Process>) {
    let mut alarms = process.alarms();
    loop {
        let due = *alarms.borrow_and_update();
        let ring = async {
            match due {
                Some(due) => tokio::time::sleep(Duration::from_millis(due.since_ms(process.now()))).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ring => node.ring(),
            changed = alarms.changed() => if changed.is_err() { return },
        }
    }
}

/// Waits for SIGTERM or SIGINT, or for a fault after which the server must not go on: then with its reason.
async fn wait_for_the_end(process: &Process) -> Result<(), String> {
    let broken = |error: io::Error| format!("signals cannot be received: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
    let mut faults = process.faults();
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        fault = faults.wait_for(Option::is_some) => {
            Err(fault.ok().and_then(|reason| reason.clone()).unwrap_or_default())
        }
    }
}
