//! Exchanges.

use axum::response::Response;
use ferrymq_model::{Ask as Request, Change, DeclareExchange, DeleteExchange, ExchangeReport, Name, Which};
use serde_json::{Value, json};

use super::{
    Ask, body, json,
    list::List,
    problem::Problem,
    respond,
    routes::{To, Verb},
};

pub async fn answer(to: To, ask: &Ask) -> Result<Response, Problem> {
    if to == To::Exchanges {
        return list(ask);
    }
    let (vhost, exchange) = (ask.vhost()?, name(ask, "name")?);
    match ask.verb {
        Verb::Get => {
            let found = find(ask, &vhost, &exchange).ok_or_else(Problem::not_found)?;
            Ok(respond::json(&shown(&found)))
        }
        Verb::Delete => {
            find(ask, &vhost, &exchange).ok_or_else(Problem::not_found)?;
            let if_unused = ask.parameters.is_true("if-unused");
            let request = Request::DeleteExchange(DeleteExchange { exchange, if_unused });
            ask.change(Change::Request { vhost, ask: request }).await.map(|_| respond::nothing())
        }
        Verb::Put | Verb::Post => {
            let is_new = find(ask, &vhost, &exchange).is_none();
            let fields = ask.fields()?;
            let declare = DeclareExchange {
                exchange,
                kind: body::name(fields.text("type")?.unwrap_or("direct"), "type")?,
                passive: false,
                durable: fields.flag("durable")?.unwrap_or(false),
                auto_delete: fields.flag("auto_delete")?.unwrap_or(false),
                internal: fields.flag("internal")?.unwrap_or(false),
                arguments: fields.table("arguments")?,
            };
            let request = Request::DeclareExchange(declare);
            ask.change(Change::Request { vhost, ask: request }).await.map(|_| respond::made(is_new))
        }
    }
}

/// The name of an exchange in the path: `amq.default` is the default exchange.
pub fn name(ask: &Ask, part: &str) -> Result<Name, Problem> {
    if ask.part(part) == "amq.default" { Ok(Name::default()) } else { body::name(ask.part(part), "exchange") }
}

/// The exchange of this name.
pub fn find(ask: &Ask, vhost: &Name, exchange: &Name) -> Option<ExchangeReport> {
    let mut found = None;
    ask.management.exchanges(&Which::Named(vhost.clone(), exchange.clone()), &mut |report| found = Some(report));
    found
}

/// The objects that are asked for: of a vhost, or of all.
pub fn which(ask: &Ask) -> Result<Which, Problem> {
    Ok(match ask.part_if_any("vhost") {
        Some(_) => Which::InVhost(ask.check_vhost()?),
        // The header stands for the vhost in the path.
        None => match ask.headers.get("x-vhost").and_then(|vhost| vhost.to_str().ok()) {
            Some(vhost) => Which::InVhost(body::name(vhost, "vhost")?),
            None => Which::All,
        },
    })
}

fn list(ask: &Ask) -> Result<Response, Problem> {
    let (query, mut list) = (ask.list_query()?, List::new());
    ask.management.exchanges(&which(ask)?, &mut |report| {
        if ask.sees(&report.vhost) {
            list.add(&query, &report.name, shown(&report));
        }
    });
    list.answer(&query)
}

fn shown(report: &ExchangeReport) -> Value {
    let mut object = declaration(report);
    object["internal"] = json!(report.spec.internal);
    object["user_who_performed_action"] = json!("rmq-internal");
    if let Some(policy) = &report.policies.user {
        object["policy"] = json!(&**policy);
    }
    object
}

/// What definitions say of an exchange.
pub fn declaration(report: &ExchangeReport) -> Value {
    let ExchangeReport { vhost, name, spec, .. } = report;
    json!({
        "name": &**name,
        "vhost": &**vhost,
        "type": spec.kind.as_str(),
        "durable": spec.durable,
        "auto_delete": spec.auto_delete,
        "internal": spec.internal,
        "arguments": json::of_table(&spec.arguments),
    })
}
