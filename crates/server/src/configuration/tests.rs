//! Which source wins, and the texts of errors.

use ferrymq_model::Limits;

use super::*;

fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn option(key: &str) -> &'static Definition {
    OPTIONS.iter().find(|option| option.key == key).unwrap_or_else(|| panic!("no option {key}"))
}

fn with_file(text: &str) -> Result<Configuration, String> {
    let mut configuration = Configuration::default();
    for entry in file::parse("ferrymq.toml", text).map_err(|error| error.to_string())? {
        configuration.set(entry.option, &entry.value, || entry.place.clone()).map_err(|error| error.to_string())?;
    }
    Ok(configuration)
}

#[track_caller]
fn file_fails(text: &str, message: &str) {
    assert_eq!(with_file(text).map(drop).unwrap_err(), message);
}

#[test]
fn flag_over_variable_over_file_over_default() {
    let path = std::env::temp_dir().join(format!("ferrymq-configuration-{}.toml", std::process::id()));
    let file = "[limits]\nchannels_max = 1\nunacked_max = 1\nconnections_max = 1\n";
    std::fs::write(&path, file).unwrap();
    let read = Configuration::read(
        Some(&path),
        environment(&[("FERRYMQ_LIMITS_CHANNELS_MAX", "2"), ("FERRYMQ_LIMITS_UNACKED_MAX", "2"), ("HOME", "/")]),
        [(option("limits.channels_max"), "3".to_owned())],
    );
    std::fs::remove_file(&path).unwrap();
    let limits = read.unwrap().limits;
    assert_eq!((limits.channels_max, limits.unacked_max, limits.connections_max), (3, 2, 1));
    assert_eq!(limits.heartbeat_ms, Limits::default().heartbeat_ms);
}

#[test]
fn the_file_can_be_named_by_a_variable() {
    let read = Configuration::read(None, environment(&[("FERRYMQ_CONFIG", "/nowhere/ferrymq.toml")]), []);
    let error = read.unwrap_err().to_string();
    assert!(error.starts_with("configuration file /nowhere/ferrymq.toml: it cannot be read: "), "{error}");
}

#[test]
fn every_form_is_read_from_a_file() {
    let configuration = with_file(
        r#"
        data_dir = "/var/lib/ferrymq"
        listen = ["amqp=0.0.0.0:5672", "amqp=[::]:5673"]
        log_level = "debug"
        limits.frame_bytes_max = "64 KiB"
        limits.message_bytes_max = 1_000_000
        "#,
    )
    .unwrap();
    assert_eq!(configuration.data_dir, Path::new("/var/lib/ferrymq"));
    let listen: Vec<String> = configuration.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["amqp=0.0.0.0:5672", "amqp=[::]:5673"]);
    assert_eq!(configuration.log_level, tracing::Level::DEBUG);
    assert_eq!(configuration.limits.frame_bytes_max, 65_536);
    assert_eq!(configuration.limits.message_bytes_max, 1_000_000);
}

#[test]
fn errors_say_where_and_what_is_allowed() {
    file_fails(
        "threads = 2\n[limits]\nchannels_max = 70000\n",
        "ferrymq.toml line 3, limits.channels_max: 70000 is out of range; allowed: 1 to 65535",
    );
    file_fails(
        "limits.frame_bytes_max = \"64 KB\"",
        "ferrymq.toml line 1, limits.frame_bytes_max: '64 KB' is not a number of bytes, such as 65536 or 64 KiB; \
         allowed: 4 KiB to 16 MiB",
    );
    file_fails(
        "[limits]\nchannel_max = 1",
        "ferrymq.toml line 2, limits.channel_max: there is no such option; did you mean limits.channels_max?",
    );
    file_fails(
        "\n\ncolour = \"blue\"",
        "ferrymq.toml line 3, colour: there is no such option; docs/configuration.md has them all",
    );
    file_fails("threads = true", "ferrymq.toml line 1, threads: it takes NUMBER, not boolean");
    file_fails("data_dir = [\"a\", \"b\"]", "ferrymq.toml line 1, data_dir: it takes DIR, not array");
    file_fails(
        "log_level = \"loud\"",
        "ferrymq.toml line 1, log_level: 'loud' is not a level; allowed: error, warn, info, debug, trace",
    );
}

#[test]
fn errors_name_the_flag_or_the_variable() {
    let from_flag = Configuration::read(None, [], [(option("threads"), "-1".to_owned())]).unwrap_err();
    assert_eq!(from_flag.to_string(), "flag --threads: '-1' is not a whole number; allowed: 0 to 1024");
    let from_variable = Configuration::read(None, environment(&[("FERRYMQ_LISTEN", "gopher=localhost:70")]), []);
    let from_variable = from_variable.unwrap_err().to_string();
    assert!(
        from_variable.starts_with("environment variable FERRYMQ_LISTEN: there is no protocol 'gopher'; allowed: amqp"),
        "{from_variable}"
    );
}

#[test]
fn listeners_are_checked_before_anything_is_opened() {
    for wrong in ["amqp", "amqp=5672", "amqp=:5672", "amqp=::1:5672", "amqp=[::1:5672", "amqp=localhost:66000"] {
        assert!(value::listeners(wrong).is_err(), "{wrong}");
    }
    let both = value::listeners("amqp=localhost:0, amqp=[::1]:5672").unwrap();
    assert_eq!((both[0].host.as_str(), both[0].port), ("localhost", 0));
    assert_eq!((both[1].host.as_str(), both[1].port), ("::1", 5672));
}

#[test]
fn empty_variables_are_not_set_and_unknown_ones_are_noticed() {
    let variables = environment(&[("FERRYMQ_THREADS", ""), ("FERRYMQ_THREDS", "2"), ("FERRYMQ_CONFIG", "")]);
    assert!(Configuration::read(None, variables.clone(), []).is_ok());
    assert_eq!(unknown_variables(variables), ["FERRYMQ_THREDS"]);
}

#[test]
fn every_limit_can_be_set_and_every_default_is_allowed() {
    let limits = format!("{:#?}", Limits::default());
    for line in limits.lines().filter(|line| line.starts_with(' ')) {
        let field = line.trim().split(':').next().unwrap_or_default();
        option(&format!("limits.{field}"));
    }
    let defaults = Configuration::default();
    let fields = |shown: String| shown.lines().filter(|line| line.starts_with(' ')).count();
    let storage = OPTIONS.iter().filter(|option| option.table() == "storage").count();
    // Not options: storage takes the threshold for copying from the limits; repair is a command of its own; when
    // memory is given back is only changed by tests.
    assert_eq!(storage, fields(format!("{:#?}", defaults.storage)) - 3);
    for option in OPTIONS.iter().filter(|option| !option.is_list()) {
        let mut again = Configuration::default();
        let shown = option.show(&defaults);
        option.set(&mut again, &shown).unwrap_or_else(|problem| panic!("{}: {problem}", option.key));
        assert_eq!(option.show(&again), shown);
    }
}

#[test]
fn no_two_options_share_a_variable() {
    let mut variables: Vec<String> = OPTIONS.iter().map(Definition::variable).collect();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), OPTIONS.len());
}
