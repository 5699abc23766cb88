//! `ferrymq serve`: recovery, listeners, and an orderly stop.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use ferrymq_admin::Admin;
use ferrymq_model::{BodyBuffer, ListenerReport};
use ferrymq_node::{Found, Host as _, Node, NodeSettings};
use ferrymq_storage::RealDisk;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    command_line::ServeArgs,
    configuration, definitions_file,
    descriptors::{self, Shares},
    listener::{Endpoint, accept, open},
    logs::LogLevel,
    panics,
    process::Process,
    progress::{Phase, Progress},
    protocol::{self, Service, Transport},
    reload::{self, Reload},
    settings::{ListenerSettings, Settings},
    tls::TlsSource,
    token_options,
};

/// How often the log says how many lines it suppressed. Unused memory for long bodies is returned at the same times.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// How often the node checks whether the disk answers.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs a server until it is told to stop. The exit code is 0 after an orderly stop, and 1 if the server cannot
/// start or must not continue.
#[must_use]
pub fn run(args: &ServeArgs) -> ExitCode {
    let read = reload::reader(args.clone(), environment);
    let configuration = match read() {
        Ok(configuration) => configuration,
        Err(error) => {
            eprintln!("ferrymq: {error}");
            return ExitCode::FAILURE;
        }
    };
    let log_level = Arc::new(LogLevel::start(configuration.log_level));
    panics::end_the_process();
    for name in configuration::unknown_variables(environment()) {
        tracing::warn!("environment variable {name} belongs to no option and is not used");
    }
    let settings = &Settings::resolve(configuration.clone());
    let reload = |tls, node| Reload { read, current: configuration, log_level, tls, node };
    let result = runtimes(settings.threads)
        .map_err(|error| format!("the server's threads cannot be started: {error}"))
        .and_then(|(front, workers)| front.block_on(serve(settings, workers.handle(), reload)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            tracing::error!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

/// How many tasks a worker runs before it checks sockets and timers again. Each task may take about a millisecond.
const TASKS_BETWEEN_EVENTS: u32 = 8;

/// Two runtimes: this thread accepts connections, answers HTTP, receives signals and fires timers, so it never
/// waits for the workers, which serve clients.
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

/// Variables that are not Unicode are not FerryMQ's.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Serves HTTP first, so that a long recovery can be watched, and everything else after the recovery.
async fn serve(
    settings: &Settings,
    workers: &Handle,
    reload: impl FnOnce(Option<Arc<TlsSource>>, Arc<Node>) -> Reload,
) -> Result<(), String> {
    let began = Instant::now();
    // A closed terminal or a log rotation sends these signals. Without a handler they would end the process.
    let harmless = Harmless::new().map_err(|error| format!("signals cannot be received: {error}"))?;
    let (version, directory) = (env!("CARGO_PKG_VERSION"), settings.data_directory.display());
    tracing::info!("FerryMQ {version} starts, with data directory {directory}");
    say_the_budget(settings.limits.memory_bytes_max);
    warn_of_strangers(&settings.data_directory);
    let tls = open_tls(settings)?;
    let process = Arc::new(Process::new());
    let progress = Arc::new(Progress::new(process.faults()));
    let (stop, stopped) = watch::channel(false);
    let (mut announced, mut tasks) = (Vec::new(), JoinSet::new());
    let shares = descriptors::shares();
    let admin = open_admin(settings, &progress, shares);
    let places = places(shares, settings.limits.connections_max);
    for listener in
        settings.listeners.iter().filter(|listener| matches!(listener.service.protocol.transport, Transport::Http))
    {
        let endpoint = Endpoint::Http(admin.clone());
        announced.extend(open_listener(listener, &endpoint, &progress, &stopped, &mut tasks).await?);
    }
    let node = opened(settings, process.clone()).await?;
    progress.opened(node.clone());
    progress.enter(Phase::Opening);
    for listener in &settings.listeners {
        let Transport::Sessions(spoken) = listener.service.protocol.transport else { continue };
        let is_secure = listener.service.is_secure;
        let mechanisms = settings.mechanisms(&listener.service)?;
        let new_session = protocol::open(spoken, &settings.identity, node.limits(), &mechanisms);
        let tls = tls.clone().filter(|_| is_secure);
        let (node, process, workers, places) = (node.clone(), process.clone(), workers.clone(), places.clone());
        let endpoint = Endpoint::Sessions { new_session, node, process, tls, workers, places };
        announced.extend(open_listener(listener, &endpoint, &progress, &stopped, &mut tasks).await?);
    }
    let chores = [
        workers.spawn(run_timers(node.clone(), process.clone())),
        workers.spawn(deliver_the_rest(node.clone(), process.clone())),
        workers.spawn(tidy_up(process.clone())),
        workers.spawn(look_at_disk(node.clone())),
        workers.spawn(reload(tls, node.clone()).on(harmless.hangup)),
    ];
    progress.enter(Phase::Serving);
    // A program that has read "ready" may send a signal at once.
    let signals = Signals::new().map_err(|error| format!("signals cannot be received: {error}"))?;
    tracing::info!("ready after {}: {}", seconds(began), announced.join(", "));
    say_what_is_closed(settings);
    announce(&announced).map_err(|error| format!("standard output is closed: {error}"))?;
    let end = wait_for_the_end(&process, signals).await?;
    tracing::warn!("{end}: the server stops; {} connections are closed, no new ones are taken", node.connections());
    progress.enter(Phase::Stopping);
    // All tasks that listen for it stop; it does not matter if one has ended already.
    let _ = stop.send(true);
    while tasks.join_next().await.is_some() {}
    for chore in chores {
        chore.abort();
        // The task was aborted, which is an error for those who await it.
        drop(chore.await);
    }
    let stopped = tokio::task::spawn_blocking(move || node.stop()).await.map_err(|error| error.to_string())?;
    stopped.map_err(|error| format!("the last acknowledgements are not on disk and may be lost: {error}"))?;
    process.log_limits().report();
    tracing::info!("stopped: everything is on disk");
    Ok(())
}

/// Opens a listener on all its addresses; returns `amqp 127.0.0.1:5672` for each.
async fn open_listener(
    settings: &ListenerSettings,
    endpoint: &Endpoint,
    progress: &Progress,
    stopped: &watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Result<Vec<String>, String> {
    let mut announced = Vec::new();
    for listener in open(settings).await? {
        let bound = listener.local_addr().map_err(|error| error.to_string())?;
        announced.push(format!("{} {bound}", settings.service.name));
        progress.listens(ListenerReport {
            protocol: settings.service.name,
            ip: bound.ip().to_string(),
            port: bound.port(),
        });
        tasks.spawn(accept(listener, endpoint.clone(), stopped.clone()));
    }
    Ok(announced)
}

/// The HTTP interface.
fn open_admin(settings: &Settings, progress: &Arc<Progress>, shares: Option<Shares>) -> Admin {
    let connections_max = shares.map_or(usize::MAX, |shares| shares.http);
    Admin::new(progress.clone()).with_hosts(http_hosts(settings)).with_connections_max(connections_max)
}

/// The names by which clients on this machine may call the HTTP API: those of the configuration, and the machine's own.
fn http_hosts(settings: &Settings) -> Vec<String> {
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    settings.http_hosts.iter().cloned().chain([own.trim().to_owned()]).filter(|name| !name.is_empty()).collect()
}

/// Logs the memory budget. Above it, connections that hold much memory are closed.
fn say_the_budget(bytes: u64) {
    match bytes {
        0 => tracing::warn!(
            "the machine's memory cannot be read, so there is no memory budget (limits.memory_bytes_max)"
        ),
        bytes => tracing::info!("the memory budget is {} MiB", bytes >> 20),
    }
}

/// One permit for each client connection, so that descriptors are left for storage, health checks and operators.
fn places(shares: Option<Shares>, connections_max: u32) -> Arc<Semaphore> {
    let Some(Shares { limit, sessions, .. }) = shares else { return Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)) };
    if sessions < connections_max as usize {
        tracing::info!(
            "the limit of open files ({limit}) allows {sessions} connections, fewer than limits.connections_max \
             ({connections_max}); raise it with ulimit -n"
        );
    }
    Arc::new(Semaphore::new(sessions.min(Semaphore::MAX_PERMITS)))
}

/// A given `listen` closes the default listeners. Logs which ones, and how to open them.
fn say_what_is_closed(settings: &Settings) {
    let is_open = |service: &Service| settings.listeners.iter().any(|open| open.service.name == service.name);
    let closed = Service::all().filter(|service| !service.is_secure && !is_open(service));
    let closed: Vec<String> = closed
        .map(|Service { name, port, .. }| format!("{name} (--listen {name}=127.0.0.1:{port} opens it)"))
        .collect();
    if !closed.is_empty() {
        tracing::info!("closed, because listen is given and does not name it: {}", closed.join(", "));
    }
}

/// What the TLS listeners share.
fn open_tls(settings: &Settings) -> Result<Option<Arc<TlsSource>>, String> {
    let secure = settings.listeners.iter().find(|listener| listener.service.is_secure);
    match secure {
        Some(listener) if !settings.tls.are_given() => {
            Err(format!("{} needs tls.certificate_file and tls.key_file", listener.service.name))
        }
        Some(_) => TlsSource::new(&settings.tls).map(Some),
        None => Ok(None),
    }
}

/// Opens the node and imports the definitions file, on its own thread, so that HTTP is answered meanwhile.
async fn opened(settings: &Settings, process: Arc<Process>) -> Result<Arc<Node>, String> {
    let (node_settings, definitions) = (node_settings(settings)?, settings.definitions.clone());
    let open = move || {
        let began = Instant::now();
        let directory = node_settings.directory.display().to_string();
        let node = Node::open(node_settings, Arc::new(RealDisk), process).map_err(|error| error.to_string())?;
        match node.found() {
            Found { is_new: true, .. } => {
                tracing::info!("created a new data directory {directory} in {}", seconds(began));
            }
            Found { queues, messages, .. } => tracing::info!(
                "recovered {queues} queues with {messages} messages from {directory} in {}",
                seconds(began)
            ),
        }
        definitions.map(|file| definitions_file::import(&node, &file)).transpose()?;
        Ok(node)
    };
    tokio::task::spawn_blocking(open).await.map_err(|error| error.to_string())?
}

fn node_settings(settings: &Settings) -> Result<NodeSettings, String> {
    Ok(NodeSettings {
        directory: settings.data_directory.clone(),
        limits: settings.limits.clone(),
        storage: settings.storage.clone(),
        fixed: settings.fixed,
        dialects: protocol::dialects(),
        events: settings.events,
        backends: token_options::backends(&settings.auth_backends, &settings.tokens)?,
    })
}

/// A new data directory in a folder that has other files may be the wrong folder.
fn warn_of_strangers(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    let is_ours = |name: &String| OURS.contains(&name.as_str());
    if let Some(strange) = names.iter().find(|name| !is_ours(name))
        && !names.iter().any(is_ours)
    {
        let directory = directory.display();
        tracing::warn!("the new data directory {directory} has other files in it, such as {strange}; they stay there");
    }
}

/// What a data directory contains.
const OURS: [&str; 7] = ["manifest", "lock", "checkpoint.redb", "journal", "bodies", "runs", "transient"];

fn seconds(began: Instant) -> String {
    format!("{:.2} s", began.elapsed().as_secs_f64())
}

/// Scripts and tests wait for these lines.
fn announce(listeners: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for listener in listeners {
        writeln!(out, "listening {listener}")?;
    }
    writeln!(out, "ready")?;
    out.flush()
}

/// Expiry and everything else that a timer starts, and not a client.
async fn run_timers(node: Arc<Node>, process: Arc<Process>) {
    let mut timers = process.timers();
    loop {
        let due = *timers.borrow_and_update();
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep(Duration::from_millis(due.since_ms(process.now()))).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => node.on_timer(),
            changed = timers.changed() => if changed.is_err() { return },
        }
    }
}

/// Sends the deliveries that other threads left, a portion at a time.
async fn deliver_the_rest(node: Arc<Node>, process: Arc<Process>) {
    loop {
        process.deliveries_waiting().await;
        node.go_on_delivering();
        tokio::task::yield_now().await;
    }
}

/// Logs the number of suppressed lines from time to time, and returns unused memory.
async fn tidy_up(process: Arc<Process>) {
    let mut times = tokio::time::interval(REPORT_EVERY);
    loop {
        times.tick().await;
        process.log_limits().report();
        BodyBuffer::give_back_unused();
    }
}

/// Checks the disk from time to time.
async fn look_at_disk(node: Arc<Node>) {
    let mut times = tokio::time::interval(LOOK_EVERY);
    loop {
        times.tick().await;
        node.look_at_disk();
    }
}

/// Signals that must not end the server. The server receives them; only one of them has a meaning.
struct Harmless {
    hangup: Signal,
    /// Received and ignored.
    _others: [Signal; 2],
}

impl Harmless {
    fn new() -> io::Result<Self> {
        let others = [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?];
        Ok(Self { hangup: signal(SignalKind::hangup())?, _others: others })
    }
}

/// The signals that ask the server to stop in an orderly way.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

/// Waits for SIGTERM or SIGINT, and returns which one; or for a fault after which the server must not continue, and
/// returns the reason.
async fn wait_for_the_end(process: &Process, mut signals: Signals) -> Result<&'static str, String> {
    let mut faults = process.faults();
    tokio::select! {
        _ = signals.terminate.recv() => Ok("SIGTERM"),
        _ = signals.interrupt.recv() => Ok("SIGINT"),
        fault = faults.wait_for(Option::is_some) => {
            Err(fault.ok().and_then(|reason| reason.clone()).unwrap_or_default())
        }
    }
}
