//! An open connection: its channels, and the meaning of a frame on each of them.

use ferrymq_model::{Ask, ChannelOptions, Command, Limits, Name, Origin};
use ferrymq_wire::{LogLine, Moment, Output, Step};

use super::{
    Fault,
    channel::{Channel, Channels},
    content::{self, Assembly, Gathered, Terms},
};
use crate::{
    codec::{
        content::publish,
        frame::{Frame, FrameKind, put_method},
        methods::{
            AccessRequestOk, BasicPublish, ChannelClose, ChannelCloseOk, ChannelOpen, ConnectionBlocked,
            ConnectionClose, ConnectionUnblocked, Method, QueueDeclareOk, WireMethod,
        },
        reply_code::ReplyCode,
    },
    mapping::{self, Violation},
};

/// A connection whose vhost is open.
#[derive(Debug)]
pub(super) struct Running {
    vhost: Name,
    channels_max: u16,
    frame_bytes_max: u32,
    /// The client wants to know when it is blocked.
    wants_blocked: bool,
    blocking: Blocking,
    channels: Channels,
}

/// For how many milliseconds there must be no space before the client gets `connection.blocked`. When the journal is
/// full only for a moment, publishers just become slower, because the server reads less from their sockets.
const BLOCKED_MS_MIN: u64 = 1_000;

/// Whether the client is blocked.
#[derive(Debug)]
enum Blocking {
    /// There is space for its publishes.
    No,
    /// There is no space. If there is none until this moment, the client gets `connection.blocked`.
    Since { told_at: Moment, reason: String },
    /// There is no space, and the client has got `connection.blocked`.
    Notified,
}

/// The next step after a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Read on at this position of the input.
    Read(usize),
    /// Carry out the steps, then read on at this position.
    Pause(usize),
    /// The client closes the connection.
    Close,
}

impl Running {
    pub fn new(vhost: Name, channels_max: u16, frame_bytes_max: u32, wants_blocked: bool) -> Self {
        let channels = Channels::default();
        Self { vhost, channels_max, frame_bytes_max, wants_blocked, blocking: Blocking::No, channels }
    }

    /// Notes that the node has no space for the publishes of this connection.
    pub fn blocked(&mut self, reason: String, now: Moment) {
        if self.wants_blocked && matches!(self.blocking, Blocking::No) {
            self.blocking = Blocking::Since { told_at: now.after_ms(BLOCKED_MS_MIN), reason };
        } else if let Blocking::Since { reason: kept, .. } = &mut self.blocking {
            // The client gets the reason that is the latest when it is told.
            *kept = reason;
        }
    }

    /// Notes that there is space again. (AMQP-9)
    pub fn unblocked(&mut self, out: &mut Output) {
        if matches!(std::mem::replace(&mut self.blocking, Blocking::No), Blocking::Notified) {
            out.send(|out| put_method(out, 0, &ConnectionUnblocked));
        }
    }

    /// The number of bytes of publishes of which only a part has arrived.
    pub fn gathered_bytes(&self) -> usize {
        self.channels.gathered_bytes()
    }

    /// The channels with a publish of which a part has arrived, and the length of this part in bytes.
    pub fn gathered(&self) -> impl Iterator<Item = (u16, usize)> {
        self.channels.gathered()
    }

    /// When `connection.blocked` is due.
    pub fn deadline(&self) -> Option<Moment> {
        match &self.blocking {
            Blocking::Since { told_at, .. } => Some(*told_at),
            Blocking::No | Blocking::Notified => None,
        }
    }

    /// Sends `connection.blocked`, if it is due. (AMQP-9)
    pub fn timeout(&mut self, now: Moment, out: &mut Output) {
        if let Blocking::Since { told_at, reason } = &self.blocking
            && now >= *told_at
        {
            let reason = mapping::short(reason);
            out.send(|out| put_method(out, 0, &ConnectionBlocked { reason }));
            self.blocking = Blocking::Notified;
        }
    }

    /// Takes the frame that ends at `end` of `input`.
    #[inline]
    pub fn frame(
        &mut self,
        frame: &Frame<'_>,
        input: &[u8],
        end: usize,
        limits: &Limits,
        out: &mut Output,
    ) -> Result<Next, Fault> {
        if frame.channel == 0 {
            return connection_frame(frame, end, out);
        }
        let terms = Terms { limits, frame_bytes_max: self.frame_bytes_max, vhost: &self.vhost };
        let Some(channel) = self.channels.get(frame.channel) else { return self.unopened(frame, end, out) };
        if channel.closing {
            return self.closing(frame, end, out);
        }
        let done = match (channel.assembly.take(), frame.kind) {
            (Some(assembly), _) => gather(channel, *assembly, frame, terms, out).map(|()| Next::Read(end)),
            (None, FrameKind::Method) => match publish(frame.payload) {
                Some(Ok(publish)) => begin(channel, &publish, input, end, terms, out).map(Next::Read),
                Some(Err(malformed)) => Err(Fault::unreadable(frame.channel, frame.payload, malformed)),
                None => self.method(frame, end, out),
            },
            // AMQP-5
            (None, _) => Err(unexpected(frame, "expected method frame, got non method frame instead".into())),
        };
        match done {
            Err(fault) if !fault.violation.code.is_hard() => {
                self.refuse(&fault, out);
                Ok(Next::Read(end))
            }
            done => done,
        }
    }

    /// Whether a body frame with this length of payload can be taken in parts on this channel.
    pub fn takes_part_of(&mut self, channel: u16, payload_bytes: u32) -> bool {
        let assembly = self.channels.get(channel).and_then(|channel| channel.assembly.as_ref());
        assembly.is_some_and(|assembly| assembly.takes_part_of(payload_bytes))
    }

    /// Takes part of a frame's payload. If the channel has been closed in the meantime, the part is ignored.
    pub fn take_part(&mut self, channel: u16, part: &[u8]) {
        if let Some(assembly) = self.channels.get(channel).and_then(|channel| channel.assembly.as_mut()) {
            assembly.take_part(part);
        }
    }

    /// Ends the frame that was taken in parts.
    pub fn end_frame(&mut self, channel: u16, limits: &Limits, out: &mut Output) {
        let terms = Terms { limits, frame_bytes_max: self.frame_bytes_max, vhost: &self.vhost };
        let Some(channel) = self.channels.get(channel) else { return };
        let Some(assembly) = channel.assembly.take() else { return };
        match assembly.end_frame(terms) {
            Gathered::Partly(rest) => channel.assembly = Some(Box::new(rest)),
            Gathered::Whole(publish) => out.command(Command::Publish(publish)),
        }
    }

    /// Closes a channel because of a client's mistake. First the node must end the channel, so that no effect follows
    /// the close.
    fn refuse(&mut self, fault: &Fault, out: &mut Output) {
        let (channel, text) = (fault.origin.channel, fault.violation.log_text());
        out.steps.push(Step::Log(LogLine::ChannelError { channel, text }));
        out.request(fault.origin.unanswered(true), Ask::CloseChannel);
        out.send(|out| {
            mapping::put_close(out, fault.origin, &fault.violation);
        });
        self.now_closing(fault.origin.channel);
    }

    /// Marks a channel as closed: the node has refused a request on it, and the close is sent as an effect.
    pub fn refused(&mut self, origin: Origin, out: &mut Output) {
        if self.channels.get(origin.channel).is_some_and(|channel| !channel.closing) {
            out.request(origin.unanswered(true), Ask::CloseChannel);
            self.now_closing(origin.channel);
        }
    }

    fn now_closing(&mut self, number: u16) {
        if let Some(channel) = self.channels.get(number) {
            channel.closing = true;
            channel.assembly = None;
        }
    }

    fn method(&mut self, frame: &Frame<'_>, end: usize, out: &mut Output) -> Result<Next, Fault> {
        let channel = frame.channel;
        let method = match Method::read(frame.payload) {
            Ok(method) => method,
            Err(malformed) => return Err(Fault::unreadable(channel, frame.payload, malformed)),
        };
        match &method {
            // AMQP-7
            Method::ChannelOpen(_) => {
                let violation = Violation::new(ReplyCode::ChannelError, "second 'channel.open' seen");
                return Err(Fault::new(channel, method.id(), violation));
            }
            Method::ChannelClose(_) => {
                // The node's remaining replies for this channel come before the client can open it again.
                out.request(mapping::origin(channel, ChannelClose::ID), Ask::CloseChannel);
                self.channels.close(channel);
                return Ok(Next::Pause(end));
            }
            Method::AccessRequest(_) => out.send(|out| put_method(out, channel, &AccessRequestOk { ticket: 1 })),
            Method::QueueDeclare(declare) if mapping::names_replies(declare.queue) => {
                // This queue always exists, for each client and with all arguments.
                if !declare.no_wait {
                    let (queue, message_count, consumer_count) = (mapping::REPLIES, 0, 1);
                    let declared = QueueDeclareOk { queue, message_count, consumer_count };
                    out.send(|out| put_method(out, channel, &declared));
                }
            }
            // Replies to methods that the server never sends, or replies after which nothing is left to do.
            Method::BasicCancelOk(_) | Method::ChannelFlowOk(_) | Method::ChannelCloseOk(_) => {}
            method => match mapping::command(channel, method) {
                Ok(command) => out.command(command),
                Err(violation) => return Err(Fault::new(channel, method.id(), violation)),
            },
        }
        Ok(Next::Read(end))
    }

    /// Takes a frame on a channel that is not open. (AMQP-7)
    fn unopened(&mut self, frame: &Frame<'_>, end: usize, out: &mut Output) -> Result<Next, Fault> {
        let number = frame.channel;
        // AMQP-5
        if frame.kind != FrameKind::Method {
            return Err(unexpected(frame, "expected method frame, got non method frame instead".into()));
        }
        let method =
            Method::read(frame.payload).map_err(|malformed| Fault::unreadable(number, frame.payload, malformed))?;
        match method {
            Method::ChannelOpen(_) if self.channels.len() >= usize::from(self.channels_max) => {
                let (count, max) = (self.channels.len(), self.channels_max);
                let text =
                    format!("number of channels opened ({count}) has reached the negotiated channel_max ({max})");
                // RabbitMQ names no method here.
                Err(Fault::new(number, (0, 0), Violation::new(ReplyCode::NotAllowed, text)))
            }
            Method::ChannelOpen(_) => {
                out.request(mapping::origin(number, ChannelOpen::ID), Ask::OpenChannel(ChannelOptions::default()));
                self.channels.open(number);
                Ok(Next::Read(end))
            }
            Method::ChannelCloseOk(_) => Ok(Next::Read(end)),
            // Several clients settle in another thread. That thread may not know yet that the channel is closed.
            Method::BasicAck(_) | Method::BasicNack(_) | Method::BasicReject(_)
                if self.channels.was_closed_lately(number) =>
            {
                Ok(Next::Read(end))
            }
            _ => {
                let violation = Violation::new(ReplyCode::ChannelError, "expected 'channel.open'");
                Err(Fault::new(number, method.id(), violation))
            }
        }
    }

    /// Takes a frame on a channel that the server has closed. Only close and close-ok count. (AMQP-7)
    fn closing(&mut self, frame: &Frame<'_>, end: usize, out: &mut Output) -> Result<Next, Fault> {
        if frame.kind == FrameKind::Method {
            match Method::read(frame.payload) {
                Ok(Method::ChannelCloseOk(_)) => self.channels.close(frame.channel),
                Ok(Method::ChannelClose(_)) => out.send(|out| put_method(out, frame.channel, &ChannelCloseOk)),
                Ok(method @ Method::ChannelOpen(_)) => {
                    // The client has not acknowledged our close, so the number is not free.
                    let violation = Violation::new(ReplyCode::ChannelError, "second 'channel.open' seen");
                    return Err(Fault::new(frame.channel, method.id(), violation));
                }
                _ => {}
            }
        }
        Ok(Next::Read(end))
    }
}

/// Takes a publish and the complete publishes that follow it. Returns the position of the next frame.
#[inline]
fn begin(
    channel: &mut Channel,
    method: &BasicPublish<'_>,
    input: &[u8],
    end: usize,
    terms: Terms<'_>,
    out: &mut Output,
) -> Result<usize, Fault> {
    let origin = mapping::origin(channel.number, BasicPublish::ID);
    let whole = content::contiguous(origin, method, input, end, terms, out);
    match whole.map_err(|violation| Fault { origin, violation })? {
        Some(mut end) => {
            while !out.is_full()
                && let Some(after) = content::following(channel.number, input, end, terms, out)
            {
                end = after;
            }
            Ok(end)
        }
        None => {
            let assembly = Assembly::begin(origin, method, terms).map_err(|violation| Fault { origin, violation })?;
            channel.assembly = Some(Box::new(assembly));
            Ok(end)
        }
    }
}

/// Takes the next frame of a publish that arrives in parts.
fn gather(
    channel: &mut Channel,
    assembly: Assembly,
    frame: &Frame<'_>,
    terms: Terms<'_>,
    out: &mut Output,
) -> Result<(), Fault> {
    let origin = assembly.origin();
    match assembly.take(frame, terms).map_err(|violation| Fault { origin, violation })? {
        Gathered::Partly(rest) => channel.assembly = Some(Box::new(rest)),
        Gathered::Whole(publish) => out.command(Command::Publish(publish)),
    }
    Ok(())
}

/// Takes a frame on channel 0, which is for the connection itself.
fn connection_frame(frame: &Frame<'_>, end: usize, out: &mut Output) -> Result<Next, Fault> {
    match frame.kind {
        FrameKind::Heartbeat => return Ok(Next::Read(end)),
        FrameKind::Method => {}
        FrameKind::Header | FrameKind::Body => {
            return Err(unexpected(frame, "content belongs to a channel, not to the connection".into()));
        }
    }
    let method = Method::read(frame.payload).map_err(|malformed| Fault::unreadable(0, frame.payload, malformed))?;
    match method {
        Method::ConnectionClose(close) => {
            out.steps.push(super::closed_by_client(&close));
            out.request(mapping::origin(0, ConnectionClose::ID), Ask::CloseConnection);
            Ok(Next::Close)
        }
        Method::ConnectionUpdateSecret(update) => {
            let origin = mapping::origin(0, method.id());
            out.request(origin, Ask::RenewLogin(update.new_secret.to_vec()));
            Ok(Next::Read(end))
        }
        _ => {
            let violation = Violation::new(ReplyCode::ChannelError, "unexpected method in connection state running");
            Err(Fault::new(0, method.id(), violation))
        }
    }
}

/// The fault for a frame of a type that is not allowed at this point.
pub(super) fn unexpected(frame: &Frame<'_>, text: String) -> Fault {
    Fault::new(frame.channel, (0, 0), Violation::new(ReplyCode::UnexpectedFrame, text))
}
