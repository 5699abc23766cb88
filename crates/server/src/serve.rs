//! `ferrymq serve`: recovery, listeners, and an orderly end.

use std::{
    io::{self, IsTerminal as _, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use ferrymq_admin::Admin;
use ferrymq_node::{Host as _, Node, NodeSettings};
use ferrymq_storage::RealDisk;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    command_line::ServeArgs,
    configuration,
    listener::{Door, accept, open},
    panics,
    process::Process,
    progress::{Phase, Progress},
    protocol::{PROTOCOLS, Speech},
    settings::{ListenerSettings, Settings},
    tls::Tls,
    token_options,
};

/// Runs a server until it is told to stop.
#[must_use]
pub fn run(args: &ServeArgs) -> ExitCode {
    let configuration = match args.configuration(environment()) {
        Ok(configuration) => configuration,
        Err(error) => {
            eprintln!("ferrymq: {error}");
            return ExitCode::FAILURE;
        }
    };
    tracing_subscriber::fmt()
        .with_max_level(configuration.log_level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    panics::end_the_process();
    for name in configuration::unknown_variables(environment()) {
        tracing::warn!("environment variable {name} belongs to no option and is not used");
    }
    let settings = &Settings::resolve(configuration);
    let result = runtimes(settings.threads)
        .map_err(|error| format!("the server's threads cannot be started: {error}"))
        .and_then(|(front, workers)| front.block_on(serve(settings, workers.handle())));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            tracing::error!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

/// Tasks that a worker runs before it looks for what sockets and clocks have brought. Each may take about a millisecond.
const TASKS_BETWEEN_EVENTS: u32 = 8;

/// Two of them: this thread accepts, answers HTTP, hears signals and watches the clock, and so never waits for the workers,
/// which serve clients.
fn runtimes(threads: usize) -> io::Result<(Runtime, Runtime)> {
    let front = Builder::new_current_thread().enable_all().build()?;
    let workers = Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("ferrymq")
        .event_interval(TASKS_BETWEEN_EVENTS)
        .global_queue_interval(TASKS_BETWEEN_EVENTS)
        .enable_all()
        .build()?;
    Ok((front, workers))
}

/// Variables that are not Unicode belong to somebody else.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Serves HTTP first, so that a recovery that takes its time can be watched, and everything else once it is done.
async fn serve(settings: &Settings, workers: &Handle) -> Result<(), String> {
    let tls = open_tls(settings)?;
    let process = Arc::new(Process::new());
    let progress = Arc::new(Progress::new(process.faults()));
    let (stop, stopped) = watch::channel(false);
    let (mut announced, mut tasks) = (Vec::new(), JoinSet::new());
    let admin = Admin::new(progress.clone());
    for listener in
        settings.listeners.iter().filter(|listener| matches!(listener.service.protocol.speech, Speech::Http))
    {
        let door = Door::Http(admin.clone());
        announced.extend(open_listener(listener, &door, &stopped, &mut tasks).await?);
    }
    let node = opened(settings, process.clone()).await?;
    progress.opened(node.clone());
    progress.enter(Phase::Opening);
    for listener in &settings.listeners {
        let Speech::Sessions { open, .. } = listener.service.protocol.speech else { continue };
        let is_secure = listener.service.is_secure;
        let new_session = open(&settings.identity, node.limits(), is_secure && settings.tls.can_prove());
        let tls = tls.clone().filter(|_| is_secure);
        let (node, process, workers) = (node.clone(), process.clone(), workers.clone());
        let door = Door::Sessions { new_session, node, process, tls, workers };
        announced.extend(open_listener(listener, &door, &stopped, &mut tasks).await?);
    }
    let chores = [
        workers.spawn(ring_alarms(node.clone(), process.clone())),
        workers.spawn(deliver_the_rest(node.clone(), process.clone())),
    ];
    progress.enter(Phase::Serving);
    // Whoever has read "ready" may send a signal at once.
    let signals = Signals::new().map_err(|error| format!("signals cannot be received: {error}"))?;
    announce(&announced).map_err(|error| format!("standard output is closed: {error}"))?;
    wait_for_the_end(&process, signals).await?;
    tracing::info!("stopping: no new connections, flushing what is decided");
    progress.enter(Phase::Stopping);
    // Whoever listens for it stops; a listener that is gone already does not matter.
    let _ = stop.send(true);
    while tasks.join_next().await.is_some() {}
    for chore in chores {
        chore.abort();
        // It was ended, which is an error to those who wait for it.
        drop(chore.await);
    }
    let stopped = tokio::task::spawn_blocking(move || node.stop()).await.map_err(|error| error.to_string())?;
    stopped.map_err(|error| format!("the last acknowledgements are not on disk and may be undone: {error}"))
}

/// Opens a listener on all its addresses; gives the lines that announce them.
async fn open_listener(
    settings: &ListenerSettings,
    door: &Door,
    stopped: &watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Result<Vec<String>, String> {
    let mut announced = Vec::new();
    for listener in open(settings).await? {
        let bound = listener.local_addr().map_err(|error| error.to_string())?;
        announced.push(format!("listening {} {bound}", settings.service.name));
        tasks.spawn(accept(listener, door.clone(), stopped.clone()));
    }
    Ok(announced)
}

/// What the listeners that speak under TLS share. Files that are given are read even where nobody listens so, since a
/// mistake in them is better found now.
fn open_tls(settings: &Settings) -> Result<Option<Arc<Tls>>, String> {
    let secure = settings.listeners.iter().find(|listener| listener.service.is_secure);
    match secure {
        Some(listener) if !settings.tls.are_given() => {
            Err(format!("{} needs tls.certificate_file and tls.key_file", listener.service.name))
        }
        _ if settings.tls.are_given() => settings.tls.read().map(Some),
        _ => Ok(None),
    }
}

/// Opens the node and sets up what a file of definitions says, on a thread of its own: HTTP is answered meanwhile.
async fn opened(settings: &Settings, process: Arc<Process>) -> Result<Arc<Node>, String> {
    let (node_settings, definitions) = (node_settings(settings)?, settings.definitions.clone());
    let open = move || {
        let node = Node::open(node_settings, Arc::new(RealDisk), process).map_err(|error| error.to_string())?;
        definitions.map(|file| import(&node, &file)).transpose()?;
        Ok(node)
    };
    tokio::task::spawn_blocking(open).await.map_err(|error| error.to_string())?
}

fn node_settings(settings: &Settings) -> Result<NodeSettings, String> {
    let dialects = PROTOCOLS.iter().filter_map(|protocol| match protocol.speech {
        Speech::Sessions { dialect, .. } => Some(dialect),
        Speech::Http => None,
    });
    Ok(NodeSettings {
        directory: settings.data_directory.clone(),
        limits: settings.limits.clone(),
        storage: settings.storage.clone(),
        properties: dialects.collect(),
        events: settings.events,
        backends: token_options::backends(&settings.auth_backends, &settings.tokens)?,
    })
}

/// Sets up what a file of definitions says.
fn import(node: &Node, file: &Path) -> Result<(), String> {
    let name = file.display();
    let json = std::fs::read(file)
        .map_err(|error| format!("definitions {name}: {error}; name another file, or leave the option out"))?;
    let imported = node.import_definitions(&json).map_err(|error| format!("definitions {name}: {error}"))?;
    for what in &imported.passed_over {
        tracing::warn!("definitions {name}: {what}");
    }
    tracing::info!("definitions {name}: {} taken in", imported.taken);
    Ok(())
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

/// Goes on with deliveries that those who came upon them have left, a portion at a time.
async fn deliver_the_rest(node: Arc<Node>, process: Arc<Process>) {
    loop {
        process.deliveries_waiting().await;
        node.go_on_delivering();
        tokio::task::yield_now().await;
    }
}

/// The signals that ask the server to end in good order.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

/// Waits for SIGTERM or SIGINT, or for a fault after which the server must not go on: then with its reason.
async fn wait_for_the_end(process: &Process, mut signals: Signals) -> Result<(), String> {
    let mut faults = process.faults();
    tokio::select! {
        _ = signals.terminate.recv() => Ok(()),
        _ = signals.interrupt.recv() => Ok(()),
        fault = faults.wait_for(Option::is_some) => {
            Err(fault.ok().and_then(|reason| reason.clone()).unwrap_or_default())
        }
    }
}
