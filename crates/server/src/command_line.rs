//! The command line of `ferrymq serve`: a flag for every option, and one for the configuration file.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::Error};

use crate::configuration::{Configuration, ConfigurationError, Definition, FILE_VARIABLE, Form, OPTIONS};

const CONFIG: &str = "config";

/// The arguments of `ferrymq serve`.
#[derive(Clone, Debug)]
pub struct ServeArgs {
    file: Option<PathBuf>,
    given: Vec<(&'static Definition, String)>,
}

impl ServeArgs {
    /// The configuration from the command line, the environment and the file.
    ///
    /// # Errors
    /// If one of them has a value that no option accepts.
    pub fn configuration(
        &self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Configuration, ConfigurationError> {
        Configuration::read(self.file.as_deref(), environment, self.given.iter().cloned())
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = OPTIONS.iter().filter_map(|option| {
            let values: Vec<&str> = matches.get_many::<String>(option.key)?.map(String::as_str).collect();
            Some((option, values.join(",")))
        });
        Ok(Self { file: matches.get_one(CONFIG).cloned(), given: given.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!("Read options from this file [variable: {FILE_VARIABLE}]"))
            .long_help(format!(
                "Read options from this TOML file. Flags and environment variables override it. docs/configuration.md \
                describes the options and their names in the file\n[variable: {FILE_VARIABLE}]"
            ));
        let defaults = Configuration::default();
        OPTIONS.iter().fold(command.arg(config), |command, option| command.arg(flag(option, &defaults)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(option: &'static Definition, defaults: &Configuration) -> Arg {
    let default = option.show(defaults);
    let allowed = match option.form.allowed() {
        allowed if allowed.is_empty() => String::new(),
        allowed => format!("; allowed: {allowed}"),
    };
    let details = format!("[default: {default}{allowed}; variable: {}]", option.variable());
    let arg = Arg::new(option.key)
        .long(option.flag().trim_start_matches('-').to_owned())
        .value_name(option.form.placeholder())
        .action(if option.is_list() { ArgAction::Append } else { ArgAction::Set })
        // "-1" is a wrong value and not another flag. The error should say that.
        .allow_hyphen_values(!matches!(option.form, Form::Switch))
        .help(format!("{} [default: {default}]", option.text))
        .long_help(format!("{}\n{details}", option.text));
    // A switch without a value means yes.
    let arg = if matches!(option.form, Form::Switch) { arg.num_args(0..=1).default_missing_value("yes") } else { arg };
    match option.table() {
        "" => arg,
        // These are rarely needed: `--help` shows them, `-h` stays on one screen.
        table => arg.hide_short_help(true).help_heading(heading(table)),
    }
}

fn heading(table: &'static str) -> &'static str {
    match table {
        "identity" => "Identity: how the server presents itself",
        "limits" => "Limits: how much clients may use",
        "tls" => "TLS: certificates and keys",
        "oauth2" => "OAuth 2: tokens in place of passwords",
        "storage" => "Storage: how messages are kept",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<ServeArgs, Error> {
        let command = ServeArgs::augment_args(Command::new("serve").no_binary_name(true));
        ServeArgs::from_arg_matches(&command.try_get_matches_from(line.split_whitespace())?)
    }

    #[test]
    fn flags_are_well_formed() {
        ServeArgs::augment_args(Command::new("serve")).debug_assert();
    }

    #[test]
    fn listeners_add_up() {
        let args = parse("--listen amqp=127.0.0.1:0 --listen http=127.0.0.1:0 --limits-channels-max 7").unwrap();
        let configuration = args.configuration([]).unwrap();
        assert_eq!(configuration.listen.len(), 2);
        assert_eq!(configuration.limits.channels_max, 7);
    }

    #[test]
    fn a_flag_is_given_once() {
        assert!(parse("--threads 1 --threads 2").is_err());
    }
}
