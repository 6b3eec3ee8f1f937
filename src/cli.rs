//! The command line, made of the table of [`crate::settings`], so that help, flags and files
//! can't disagree.

use std::marker::PhantomData;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand, value_parser,
};

use crate::settings::{
    DEFAULT_FILE, DOWNLOAD, FOLLOW, Flags, Form, LOG, ONCE, PLACE, SETTINGS, Setting, TUNE,
};

const ABOUT: &str = "\
Publishes the monthly Discogs dumps record by record to a message broker. After any crash, \
run it again: it goes on from its last checkpoint, in the middle of a file.";

const NOTES: &str = "\
Examples:
  discogs-extractor run /data                        newest dumps in /data, into files in ./spool
  discogs-extractor run /data --broker amqp://rabbit --password-file /run/secrets/rabbit
  discogs-extractor run /data --kinds labels --broker null: --state-dir /tmp
  discogs-extractor download /data                   the newest version, from the public host
  discogs-extractor follow /data --broker amqp://rabbit --keep 2
  discogs-extractor status /data --json
  discogs-extractor tune /data --broker amqp://rabbit --failures-per-day 0.1 --svg tune.svg
  discogs-extractor check /data --sample 3           would a run succeed, and what would it publish

Configuration:
  A setting has the same name as a flag and in a TOML file (discogs-extractor.toml in the working
  directory, or --config FILE). Flags win over environment variables, those over the file.
  `discogs-extractor config` shows every setting, its value and where that came from.

Environment:
  Every flag names its variables. AMQP_CONNECTION is a broker's address; without it RABBITMQ_HOST,
  RABBITMQ_PORT, RABBITMQ_USERNAME and RABBITMQ_PASSWORD (or .._FILE, for secrets) describe one.
  An empty variable counts as not set.

Exit codes:
  0  complete
  1  an error; what was published is saved, run again to go on
  2  the command line or the configuration makes no sense; nothing was read
  3  stopped on request (SIGINT, SIGTERM); run again to go on. A second signal ends at once.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "discogs-extractor", version, about = ABOUT, after_long_help = NOTES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub task: Task,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Publish the dumps of a version, from where the last run ended
    #[command(after_long_help = NOTES)]
    Run(RunFlags),
    /// Download the newest version, or what is missing of it
    Download(DownloadFlags),
    /// Download and run, then look for a new version now and then, until stopped
    Follow(FollowFlags),
    /// Show how far a version is, also while it runs
    Status {
        /// Which version.
        #[command(flatten)]
        place: PlaceFlags,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Read the dumps to their end without publishing, and say what a run would do
    Check {
        /// The settings of the run.
        #[command(flatten)]
        flags: RunFlags,
        /// Print the first N messages of each dump; the report then goes to stderr
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        sample: u64,
        /// Print the report as JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Measure this machine and broker, and say how often to save
    Tune {
        /// The settings of the run, and how often it fails.
        #[command(flatten)]
        flags: TuneFlags,
        /// How long to measure
        #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = value_parser!(u64).range(1..=3_600))]
        seconds: u64,
        /// Draw what is lost against what is repeated, as SVG
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// See the records that were skipped, and publish them after all
    #[command(subcommand)]
    DeadLetters(LettersTask),
    /// Print the effective configuration as TOML, with the origin of every value
    Config(AllFlags),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command
    Man {
        /// Where to
        directory: PathBuf,
    },
}

/// What users do with dead letters.
#[derive(Debug, Subcommand)]
pub enum LettersTask {
    /// List them, with their place and what is wrong
    List {
        /// Which version and kinds.
        #[command(flatten)]
        chosen: KindFlags,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Print them whole, with their XML
    Show {
        /// Which version and kinds.
        #[command(flatten)]
        chosen: KindFlags,
        /// Only this record
        #[arg(long, value_name = "N")]
        record: Option<u64>,
    },
    /// Publish them again, as the dumps and this extractor have them now
    Retry {
        /// The settings of the run that they are from.
        #[command(flatten)]
        flags: RunFlags,
        /// Only this record
        #[arg(long, value_name = "N")]
        record: Option<u64>,
        /// A file with the repaired XML of the one record that is named by --kinds and --record
        #[arg(long, value_name = "FILE")]
        xml: Option<PathBuf>,
    },
}

/// The flags of the settings that `S` is about.
#[derive(Clone, Debug, Default)]
pub struct FlagsOf<S>(pub Flags, PhantomData<S>);

/// Which settings a command has flags for.
pub trait Subset {
    /// Whether the setting called `key` is one of them.
    fn has(key: &str) -> bool;
}

/// Every setting.
#[derive(Clone, Debug, Default)]
pub struct All;

/// What a run has.
#[derive(Clone, Debug, Default)]
pub struct OfRun;

/// What a download has.
#[derive(Clone, Debug, Default)]
pub struct OfDownload;

/// What has a meaning over many versions.
#[derive(Clone, Debug, Default)]
pub struct OfFollow;

/// What has an influence on how often to save.
#[derive(Clone, Debug, Default)]
pub struct OfTune;

/// What says where a state marker is.
#[derive(Clone, Debug, Default)]
pub struct OfPlace;

/// What says where a state marker is, and which kinds are meant.
#[derive(Clone, Debug, Default)]
pub struct OfKinds;

impl Subset for All {
    fn has(_: &str) -> bool {
        true
    }
}

impl Subset for OfRun {
    fn has(key: &str) -> bool {
        ![DOWNLOAD, FOLLOW, TUNE].concat().contains(&key)
    }
}

impl Subset for OfDownload {
    fn has(key: &str) -> bool {
        [PLACE, DOWNLOAD, LOG].concat().contains(&key)
    }
}

impl Subset for OfFollow {
    fn has(key: &str) -> bool {
        ![ONCE, TUNE].concat().contains(&key)
    }
}

impl Subset for OfTune {
    fn has(key: &str) -> bool {
        (OfRun::has(key) || TUNE.contains(&key)) && key != "reprocess"
    }
}

impl Subset for OfPlace {
    fn has(key: &str) -> bool {
        PLACE.contains(&key)
    }
}

impl Subset for OfKinds {
    fn has(key: &str) -> bool {
        PLACE.contains(&key) || key == "kinds"
    }
}

/// The flags of every setting.
pub type AllFlags = FlagsOf<All>;

/// The flags of a run.
pub type RunFlags = FlagsOf<OfRun>;

/// The flags of a download.
pub type DownloadFlags = FlagsOf<OfDownload>;

/// The flags of `follow`.
pub type FollowFlags = FlagsOf<OfFollow>;

/// The flags of `tune`.
pub type TuneFlags = FlagsOf<OfTune>;

/// The flags that say where a state marker is.
pub type PlaceFlags = FlagsOf<OfPlace>;

/// The flags that say where a state marker is, and which kinds are meant.
pub type KindFlags = FlagsOf<OfKinds>;

impl<S: Subset> Args for FlagsOf<S> {
    fn augment_args(command: Command) -> Command {
        augment(command, S::has)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<S: Subset> FromArgMatches for FlagsOf<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(flags(matches, S::has), PhantomData))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn augment(command: Command, is_wanted: fn(&str) -> bool) -> Command {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help(format!(
            "A TOML file with settings [default: {DEFAULT_FILE}, if it exists]"
        ));
    SETTINGS
        .iter()
        .filter(|setting| is_wanted(setting.key))
        .filter_map(argument)
        .fold(command.arg(file), Command::arg)
}

/// The argument of a setting, unless it has none. Values are checked with the other layers, so
/// that the same mistake has the same message everywhere; the choices are here for completions.
fn argument(setting: &'static Setting) -> Option<Arg> {
    let argument = Arg::new(setting.key)
        .help(help(setting))
        .help_heading(setting.heading);
    let flag = |argument: Arg| argument.long(setting.key).action(ArgAction::Set);
    Some(match setting.form {
        Form::Secret => return None,
        Form::Position => argument.value_name("PATH").help_heading(None::<&str>),
        Form::Value(name) => flag(argument).value_name(name),
        Form::List(name) => flag(argument).value_name(name).action(ArgAction::Append),
        Form::Choice(choices) => flag(argument)
            .value_name("CHOICE")
            .value_parser(PossibleValuesParser::new(choices)),
        Form::Switch => argument.long(setting.key).action(ArgAction::SetTrue),
    })
}

fn help(setting: &Setting) -> String {
    let mut help = setting.help.to_owned();
    if !setting.default.is_empty() && setting.form != Form::Switch {
        help += &format!(" [default: {}]", setting.default);
    }
    if !setting.variables.is_empty() {
        help += &format!(" [env: {}]", setting.variables.join(", "));
    }
    help
}

fn flags(matches: &ArgMatches, is_wanted: fn(&str) -> bool) -> Flags {
    let values = SETTINGS
        .iter()
        .filter(|setting| is_wanted(setting.key) && setting.form != Form::Secret)
        .filter_map(|setting| Some((setting.key, value(matches, setting)?)));
    Flags {
        file: matches.get_one::<PathBuf>("config").cloned(),
        values: values.collect(),
    }
}

fn value(matches: &ArgMatches, setting: &Setting) -> Option<String> {
    if setting.form == Form::Switch {
        return matches.get_flag(setting.key).then(|| "true".to_owned());
    }
    let values: Vec<_> = matches.get_many::<String>(setting.key)?.cloned().collect();
    Some(values.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_are_settings() {
        let check = |line: &str, expected: &[(&str, &str)]| {
            let arguments = line.split(' ');
            let cli = Cli::try_parse_from(arguments).unwrap();
            let flags = match cli.task {
                Task::Run(flags) => flags.0,
                Task::Config(flags) => flags.0,
                _ => panic!("{line} has all flags"),
            };
            let expected = expected
                .iter()
                .map(|(key, text)| (*key, (*text).to_owned()));
            assert_eq!(flags.values, expected.collect(), "{line}");
        };
        check("x run", &[]);
        check("x run data", &[("root", "data")]);
        check("x config --reprocess", &[("reprocess", "true")]);
        check(
            "x run --broker amqp://a --broker amqp://b --kinds labels",
            &[("broker", "amqp://a,amqp://b"), ("kinds", "labels")],
        );
    }

    #[test]
    fn secrets_have_no_flags() {
        for line in [
            "x run --password p",
            "x run --username u",
            "x status --broker a",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
