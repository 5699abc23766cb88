//! The requests of a line that need nothing but the line.

use ferrymq_model::{
    Arguments, Ask, Attach, BindCommand, BindingSpec, ChannelOptions, Credit, CreditOf, DeclareQueue, Deliveries,
    DeliveryIds, Destination, GetCommand, Name, OnRefusal, Outcome, SetCredit, Settlement, Subscribe, Table,
    TransactionId, Value,
};

/// A request that cannot be read.
#[derive(Debug)]
pub struct Unreadable;

fn number<T: std::str::FromStr>(word: &str) -> Result<T, Unreadable> {
    word.parse().map_err(|_| Unreadable)
}

/// A word that should be a name.
pub fn name(word: &str) -> Result<Name, Unreadable> {
    Name::parse(word.as_bytes()).map_err(|_| Unreadable)
}

/// A channel's number.
pub fn channel(word: &str) -> Result<u16, Unreadable> {
    number(word)
}

/// The request of these words, and its channel.
pub fn ask(words: &[&str]) -> Result<(u16, Ask), Unreadable> {
    let ask = match words {
        ["declare", queue] => return Ok((1, Ask::DeclareQueue(declaration(queue, &[])?))),
        ["subscribe", number, queue] => {
            return Ok((channel(number)?, Ask::Subscribe(subscription(queue, "", true, Credit::Window(0))?)));
        }
        ["decide", "commit", name] => return Ok((0, Ask::CommitPrepared(name.as_bytes().to_vec()))),
        ["decide", "rollback", name] => return Ok((0, Ask::RollBackPrepared(name.as_bytes().to_vec()))),
        ["prepared"] => return Ok((0, Ask::ListPrepared)),
        ["keep", ms] => return Ok((0, Ask::KeepSession { ms: number(ms)? })),
        ["bye"] => return Ok((0, Ask::CloseConnection)),
        ["attach", session, how, ms] => {
            let is_fresh = match *how {
                "fresh" => true,
                "kept" => false,
                _ => return Err(Unreadable),
            };
            return Ok((0, Ask::Attach(Attach { session: name(session)?, is_fresh, keep_ms: number(ms)? })));
        }
        ["open", _, options @ ..] => Ask::OpenChannel(channel_options(options)?),
        ["close", _] => Ask::CloseChannel,
        ["queue", _, queue, flags @ ..] => Ask::DeclareQueue(declaration(queue, flags)?),
        ["bind", _, queue, key] => Ask::Bind(binding(queue, key, None)?),
        ["bind", _, queue, key, number] => Ask::Bind(binding(queue, key, Some(self::number(number)?))?),
        ["confirms", _] => Ask::SelectConfirms(ferrymq_model::ConfirmMode::Each),
        ["get", _, queue] => Ask::Get(GetCommand { queue: name(queue)?, no_ack: false }),
        ["take", _, queue, tag, credit @ ..] => Ask::Subscribe(subscription(queue, tag, false, self::credit(credit)?)?),
        ["credit", _, tag, credit @ ..] => {
            Ask::SetCredit(SetCredit { of: CreditOf::Subscription(name(tag)?), credit: self::credit(credit)? })
        }
        ["begin", _, id] => Ask::Begin(transaction(id)?),
        ["commit", _, id] => Ask::Commit(transaction(id)?),
        ["rollback", _, id] => Ask::RollBack(transaction(id)?),
        ["prepare", _, id, name] => Ask::Prepare { transaction: transaction(id)?, name: name.as_bytes().to_vec() },
        _ => return Err(Unreadable),
    };
    Ok((channel(words[1])?, ask))
}

fn channel_options(words: &[&str]) -> Result<ChannelOptions, Unreadable> {
    let mut options = ChannelOptions { on_refusal: OnRefusal::GoOn, ..ChannelOptions::default() };
    for word in words {
        match *word {
            "u16" => options.delivery_ids = DeliveryIds::U16,
            "u32" => options.delivery_ids = DeliveryIds::U32,
            "ends" => options.on_refusal = OnRefusal::CloseChannel,
            _ => return Err(Unreadable),
        }
    }
    Ok(options)
}

fn declaration(queue: &str, flags: &[&str]) -> Result<DeclareQueue, Unreadable> {
    let dead_letters = flags.iter().find_map(|flag| flag.strip_prefix("dead:"));
    let text = |name: &str, value: &str| (name.to_owned(), Value::Text(value.to_owned()));
    let dead = |queue| [text("x-dead-letter-exchange", ""), text("x-dead-letter-routing-key", queue)];
    let arguments = Table(dead_letters.map(dead).into_iter().flatten().collect());
    Ok(DeclareQueue {
        queue: name(if queue == "-" { "" } else { queue })?,
        passive: false,
        durable: flags.contains(&"durable"),
        exclusive: flags.contains(&"own"),
        auto_delete: false,
        arguments,
    })
}

fn binding(queue: &str, key: &str, number: Option<i64>) -> Result<BindCommand, Unreadable> {
    let named = number.map(|number| (BindingSpec::NUMBER.to_owned(), Value::Int(number)));
    Ok(BindCommand {
        destination: Destination::Queue(name(queue)?),
        exchange: Name::from("amq.topic"),
        key: key.as_bytes().to_vec(),
        arguments: Table(named.into_iter().collect()),
    })
}

/// A subscription to a queue.
pub fn subscription(queue: &str, tag: &str, no_ack: bool, credit: Credit) -> Result<Subscribe, Unreadable> {
    let (queue, tag, credit) = (name(queue)?, name(tag)?, Some(credit));
    Ok(Subscribe { queue, tag, no_ack, exclusive: false, credit, arguments: Arguments::default() })
}

fn credit(words: &[&str]) -> Result<Credit, Unreadable> {
    Ok(match words {
        ["window", messages] => Credit::Window(number(messages)?),
        ["grant", messages] => Credit::Grant(number(messages)?),
        ["pull", messages, ms] => Credit::Pull { messages: number(messages)?, wait_ms: number(ms)? },
        _ => return Err(Unreadable),
    })
}

fn transaction(word: &str) -> Result<TransactionId, Unreadable> {
    number(word).map(TransactionId)
}

/// The transaction that the last words of a request name, and the other words.
pub fn in_transaction<'a>(words: &'a [&'a str]) -> Result<(&'a [&'a str], Option<TransactionId>), Unreadable> {
    match words {
        [others @ .., "tx", id] => Ok((others, Some(transaction(id)?))),
        others => Ok((others, None)),
    }
}

/// Which deliveries a word names.
pub fn deliveries(word: &str) -> Result<Deliveries, Unreadable> {
    Ok(match word.split_once('-') {
        _ if word == "all" => Deliveries::All,
        None => Deliveries::One(number(word)?),
        Some(("", last)) => Deliveries::UpTo(number(last)?),
        Some((first, last)) => Deliveries::Range { first: number(first)?, last: number(last)? },
    })
}

/// What becomes of deliveries.
pub fn outcome(words: &[&str]) -> Result<Outcome, Unreadable> {
    Ok(match words {
        ["accept"] => Outcome::Settled(Settlement::Accept),
        ["reject"] => Outcome::Settled(Settlement::Reject),
        ["release", ms] => Outcome::Settled(Settlement::Release { delay_ms: number(ms)? }),
        ["fail", ms] => Outcome::Settled(Settlement::Fail { delay_ms: number(ms)? }),
        ["keep"] => Outcome::AcceptedIdKept,
        ["extend", ms] => Outcome::Extended { ms: number(ms)? },
        _ => return Err(Unreadable),
    })
}
