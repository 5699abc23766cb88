//! The handshake (section 4.2.2 and the connection class). There is one struct for each expected frame, and the step
//! for that frame consumes the struct.

use ferrymq_model::{Ask, ClientFacts, Command, Login, Mechanism, Name, Table};
use ferrymq_wire::{Output, Step};

use super::{Fault, encoder::FrameEncoder, greeting::Greeting, mechanism, running::Running};
use crate::{
    codec::{
        frame::{FRAME_BYTES_MIN, put_method},
        methods::{
            ConnectionOpen, ConnectionSecure, ConnectionSecureOk, ConnectionStartOk, ConnectionTune, ConnectionTuneOk,
            WireMethod,
        },
        reply_code::ReplyCode,
        table::{RawTable, RawValue},
    },
    mapping::{self, Violation},
};

/// The protocol, for operators.
const PROTOCOL: &str = "AMQP 0-9-1";

/// The client's capabilities.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Capabilities {
    /// The client wants to know why its login failed.
    pub authentication_failure_close: bool,
    /// The client wants to know when the server ends its subscription.
    pub consumer_cancel_notify: bool,
    /// The client wants to know when it is blocked.
    pub connection_blocked: bool,
}

impl Capabilities {
    fn read(client_properties: RawTable<'_>) -> Self {
        let Some(RawValue::Table(capabilities)) = client_properties.get("capabilities") else { return Self::default() };
        let has = |name| matches!(capabilities.get(name), Some(RawValue::Bool(true)));
        Self {
            authentication_failure_close: has("authentication_failure_close"),
            consumer_cancel_notify: has("consumer_cancel_notify"),
            connection_blocked: has("connection.blocked"),
        }
    }
}

/// What is known of the client during the handshake.
#[derive(Debug)]
pub(super) struct KnownClient {
    pub mechanism: Mechanism,
    pub capabilities: Capabilities,
    /// What it says of itself, for operators.
    properties: Table,
}

/// The maximum length of a client's name in the log, in octets.
const CLIENT_NAME_BYTES_MAX: usize = 200;

/// The name of the client in the log: its name for this connection, its product and its version.
pub(super) fn client_name(client_properties: RawTable<'_>) -> String {
    let text = |key| match client_properties.get(key) {
        Some(RawValue::Text(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    };
    let parts = [text("connection_name"), text("product"), text("version")];
    let mut name = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    name.truncate(name.floor_char_boundary(CLIENT_NAME_BYTES_MAX));
    name
}

/// connection.start is sent. The client must send start-ok.
#[derive(Debug)]
pub(super) struct AwaitStartOk;

/// The node checks the login.
#[derive(Debug)]
pub(super) struct AwaitLogin {
    pub client: KnownClient,
    /// The method with the client's response.
    pub method: (u16, u16),
}

/// connection.secure is sent. The client must send secure-ok.
#[derive(Debug)]
pub(super) struct AwaitSecureOk {
    client: KnownClient,
}

/// connection.tune is sent. The client must send tune-ok.
#[derive(Debug)]
pub(super) struct AwaitTuneOk {
    client: KnownClient,
}

/// The client has logged in, and both sides agree on limits. The client must open a vhost.
#[derive(Debug)]
pub(super) struct AwaitOpen {
    client: KnownClient,
    channels_max: u16,
    pub frame_bytes_max: u32,
    pub heartbeat_ms: u64,
}

/// The node opens the vhost.
#[derive(Debug)]
pub(super) struct AwaitVhost {
    vhost: Name,
    channels_max: u16,
    frame_bytes_max: u32,
    wants_blocked: bool,
}

impl AwaitStartOk {
    pub fn start_ok(
        self,
        start_ok: &ConnectionStartOk<'_>,
        greeting: &Greeting,
        out: &mut Output,
    ) -> Result<AwaitLogin, Fault> {
        let refuse = |code, text: String| Fault::new(0, ConnectionStartOk::ID, Violation::new(code, text));
        let Some(mechanism) = mechanism::parse(start_ok.mechanism, &greeting.mechanisms) else {
            let text = format!("unknown authentication mechanism '{}'", start_ok.mechanism);
            return Err(refuse(ReplyCode::CommandInvalid, text));
        };
        let Some(login) = mechanism::login(mechanism, start_ok.response) else {
            let text = format!("the response is not one of mechanism {}", mechanism.name());
            return Err(refuse(ReplyCode::SyntaxError, text));
        };
        out.command(Command::Login(login));
        let capabilities = Capabilities::read(start_ok.client_properties);
        let properties = mapping::arguments(start_ok.client_properties);
        Ok(AwaitLogin { client: KnownClient { mechanism, capabilities, properties }, method: ConnectionStartOk::ID })
    }
}

impl AwaitLogin {
    pub fn logged_in(self, greeting: &Greeting, out: &mut Output) -> AwaitTuneOk {
        let tune = offer(greeting);
        out.send(|out| put_method(out, 0, &tune));
        AwaitTuneOk { client: self.client }
    }

    pub fn challenged(self, challenge: &[u8], out: &mut Output) -> AwaitSecureOk {
        out.send(|out| put_method(out, 0, &ConnectionSecure { challenge }));
        AwaitSecureOk { client: self.client }
    }
}

impl AwaitSecureOk {
    pub fn secure_ok(self, secure_ok: &ConnectionSecureOk<'_>, out: &mut Output) -> AwaitLogin {
        out.command(Command::Login(Login::Respond(secure_ok.response.to_vec())));
        AwaitLogin { client: self.client, method: ConnectionSecureOk::ID }
    }
}

fn offer(greeting: &Greeting) -> ConnectionTune {
    let limits = &greeting.limits;
    let heartbeat = u16::try_from(limits.heartbeat_ms / 1000).unwrap_or(u16::MAX);
    ConnectionTune { channel_max: limits.channels_max, frame_max: limits.frame_bytes_max, heartbeat }
}

impl AwaitTuneOk {
    pub fn tune_ok(self, chosen: ConnectionTuneOk, greeting: &Greeting, out: &mut Output) -> Result<AwaitOpen, Fault> {
        let offered = offer(greeting);
        negotiated("frame_max", chosen.frame_max, FRAME_BYTES_MIN, offered.frame_max)?;
        negotiated("channel_max", chosen.channel_max.into(), 1, offered.channel_max.into())?;
        let (frame_bytes_max, cancel_notify) = (chosen.frame_max, self.client.capabilities.consumer_cancel_notify);
        let encoder = FrameEncoder::new(frame_bytes_max, cancel_notify, greeting.dialects.clone());
        out.steps.push(Step::Encode(Box::new(encoder)));
        let heartbeat_ms = u64::from(chosen.heartbeat) * 1000;
        Ok(AwaitOpen { client: self.client, channels_max: chosen.channel_max, frame_bytes_max, heartbeat_ms })
    }
}

/// Checks a value that the client chose. It may be less than the offer, but not less than the minimum. 0 means no
/// limit, so it is more than any offer. (AMQP-6)
fn negotiated(what: &str, chosen: u32, min: u32, max: u32) -> Result<(), Fault> {
    let (comparison, bound, limit) = if chosen == 0 || chosen > max {
        ("higher", "maximum", max)
    } else if chosen < min {
        ("lower", "minimum", min)
    } else {
        return Ok(());
    };
    let detail = if chosen == 0 && what == "channel_max" { " (no limit)" } else { "" };
    let text = format!("negotiated {what} = {chosen}{detail} is {comparison} than the {bound} allowed value ({limit})");
    // RabbitMQ names the method that made the offer.
    Err(Fault::new(0, ConnectionTune::ID, Violation::new(ReplyCode::NotAllowed, text)))
}

impl AwaitOpen {
    pub fn open(self, open: &ConnectionOpen<'_>, out: &mut Output) -> AwaitVhost {
        let vhost = mapping::tag(open.virtual_host);
        let origin = mapping::origin(0, ConnectionOpen::ID);
        let properties_bytes_max = super::encoder::properties_bytes_max(self.frame_bytes_max);
        let Self { client, channels_max, frame_bytes_max, heartbeat_ms } = self;
        let wants_blocked = client.capabilities.connection_blocked;
        let client = Some(Box::new(ClientFacts {
            protocol: PROTOCOL,
            mechanism: client.mechanism.name(),
            properties: client.properties,
            channels_max,
            frame_bytes_max,
            heartbeat_ms,
        }));
        out.request(origin, Ask::OpenVhost { vhost: vhost.clone(), properties_bytes_max, client });
        AwaitVhost { vhost, channels_max, frame_bytes_max, wants_blocked }
    }
}

impl AwaitVhost {
    pub fn opened(self) -> Running {
        Running::new(self.vhost, self.channels_max, self.frame_bytes_max, self.wants_blocked)
    }
}
